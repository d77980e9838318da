"""Captions and transcript: what is said, with its moments. Follows the W3C's WebVTT."""

import html
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

from unsloth_course.core.errors import CourseError
from unsloth_course.studio.clock import Board

LINE, LINES = 42, 2  # characters of a line and lines of a cue, as broadcasters have them
MARK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d\d)\s+\S")


def webvtt(board: Board, marks: list[float] | None = None) -> str:
    """The captions of a take.

    marks: the second at which each chapter of `chapters.txt` begins in the recording; without them as planned. Between
    two marks captions are stretched evenly.
    """
    moment = _moments(board, marks) if marks else float
    cues = (f"{_stamp(moment(start))} --> {_stamp(moment(end))}\n{text}" for start, end, text in _cues(board))
    return "\n\n".join(["WEBVTT", *cues, ""])


def transcript(board: Board) -> str:
    """All that is said, in paragraphs under the titles of the sections."""
    lines, section = [board.title], board.title
    for scene in board.scenes:
        if scene.section != section:
            lines.append(section := scene.section)
        if said := " ".join(part.text for part in scene.parts if part.kind == "say"):
            lines.append(textwrap.fill(" ".join(said.split()), 100, break_on_hyphens=False))
    return "\n\n".join(lines) + "\n"


def read_marks(path: Path, board: Board) -> list[float]:
    """The seconds that stand before the titles of a `chapters.txt`, moved to where a recording has them.

    Raises CourseError where a line has no time, where one is no later than the line before, and where they are not as
    many as the chapters.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise CourseError(f"{path} cannot be read ({type(error).__name__}). Give the chapters.txt of a take.") from None
    marks: list[float] = []
    for number, line in enumerate(lines, 1):
        found = MARK.match(line.strip())
        seconds = (
            sum(int(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True))
            if found
            else -1
        )
        if seconds <= (marks[-1] if marks else -1):
            raise CourseError(
                f"{path}, line {number}: write a time later than the line before and a title, as 04:09 Data."
            )
        marks.append(seconds)
    if len(marks) != len(board.chapters):
        raise CourseError(
            f"{path} has {len(marks)} chapters, and this lesson has {len(board.chapters)}. Keep a line for each."
        )
    return marks


def _cues(board: Board) -> Iterator[tuple[float, float, str]]:
    """(from, to, text) of each caption, in seconds of the take as it is planned."""
    for scene in board.scenes:
        now = scene.start
        for part in scene.parts:
            if part.kind == "say":
                lines = textwrap.wrap(" ".join(part.text.split()), LINE, break_on_hyphens=False)
                for first in range(0, len(lines), LINES):
                    shown = lines[first : first + LINES]
                    end = now + sum(len(line.split()) for line in shown) * 60 / board.pace
                    yield now, end, html.escape("\n".join(shown), quote=False)
                    now = end
            now += part.seconds


def _moments(board: Board, marks: list[float]) -> Callable[[float], float]:
    """From the planned second to that of the recording. After the last mark time runs as planned."""
    import numpy

    planned = [start for start, _ in board.chapters]
    last = board.seconds - planned[-1]
    return lambda second: float(numpy.interp(second, [*planned, board.seconds], [*marks, marks[-1] + last]))


def _stamp(seconds: float) -> str:
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
