"""Recording a walkthrough of a lesson: script, chapters, captions, recording copy, slides, teleprompter, checklist."""

import json
from dataclasses import dataclass
from pathlib import Path

import nbformat

from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.core.writing import write_text
from unsloth_course.studio import captions, clock, deck, executed, recording_copy, script, teleprompter
from unsloth_course.studio.clock import PACE, Board

NOTHING_SHOWN = "no outputs and no replays: name a run of the {0.profile} profile with --run"


@dataclass(frozen=True)
class Storyboard:
    """What `storyboard` made of a lesson: its times and the files."""

    board: Board
    files: tuple[Path, ...]
    shown: str = ""  # the run whose outputs are shown and replayed; empty where there is none

    def to_dict(self) -> dict:
        """Lesson, minutes, the segments with their first moment, the files, and what is out of range."""
        segments = [
            {"name": stretch.name, "minutes": round(stretch.minutes, 2), "chapter": clock.stamp(stretch.start)}
            for stretch in self.board.segments
        ]
        return {
            "lesson": self.board.lesson,
            "minutes": round(self.board.minutes, 2),
            "segments": segments,
            "files": [str(path) for path in self.files],
            "shown": self.shown,
            "faults": self.board.faults(),
        }

    def __str__(self) -> str:
        lines = [f"{self.board.lesson} lesson: {self.board.minutes:.1f} minutes at {self.board.pace:g} words a minute"]
        for stretch in self.board.segments:
            start, length = clock.stamp(stretch.start), f"{stretch.minutes:5.1f} min"
            lines.append(f"  {start}  {stretch.name:<17}{length}  (wanted {stretch.wanted})")
        lines.append(f"  shown {self.shown or NOTHING_SHOWN.format(self.board)}")
        lines += [f"  file  {path}" for path in self.files]
        return "\n".join(lines)


def write(
    lesson: str,
    out: Path = Path("results/storyboards"),
    profile: str | None = None,
    pace: float = PACE,
    run: Path | None = None,
    marks: Path | None = None,
) -> Storyboard:
    """Writes all that a recording of a lesson needs into `out/LESSON/`.

    run: folder of a finished run, whose outputs and times are shown; without it those of the stored notebook, which are
    of the cpu profile. profile: whose measured running times count; that of the run, or cpu. marks: the chapters of
    a recording, which the captions then follow. Raises CourseError for an unknown lesson, a pace that is none, a folder
    without that run, a run of another profile, marks that do not fit.
    """
    notebook = nbformat.read(lessons.notebook_path(lesson), 4)
    shown = executed.read(lesson, run) if run else executed.stored(lesson, profile or "cpu")
    if profile not in (None, shown.profile):
        raise CourseError(f"{run} holds a run of the {shown.profile} profile; leave --profile {profile} out.")
    times = {"device": shown.label, "cells": shown.seconds} if run else None
    board = clock.board(lesson, notebook, shown.profile, pace, times)
    texts = {
        "script.md": script.markdown(board, shown),
        "script.html": script.page(board, shown),
        "chapters.txt": script.chapters(board),
        "captions.vtt": captions.webvtt(board, captions.read_marks(marks, board) if marks else None),
        "transcript.txt": captions.transcript(board),
        "checklist.md": script.checklist(board),
        "slides.html": deck.page(board, shown),
        "teleprompter.html": teleprompter.page(board, shown),
        lessons.LESSONS[lesson]: nbformat.writes(recording_copy.notebook(board, shown)) + "\n",
        recording_copy.TAKE: recording_copy.take(board, shown),
    }
    files = [out / lesson / name for name in texts]
    for path, text in zip(files, texts.values(), strict=True):
        write_text(path, text)
    return Storyboard(board, tuple(files), shown.label)


def to_json(boards: list[Storyboard]) -> str:
    """One object for one lesson, a list for several."""
    found = [board.to_dict() for board in boards]
    return json.dumps(found[0] if len(found) == 1 else found, indent=2)
