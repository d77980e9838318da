"""Captions and transcript: the words of the notes, at their moments, as a player reads them."""

import itertools
import re

import pytest

from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.studio import captions, clock

from .made import board_of


@pytest.fixture(scope="module", params=lessons.LESSONS)
def board(request):
    return board_of(request.param)


def cues(text):
    head, *blocks = text.strip().split("\n\n")
    assert head == "WEBVTT"
    found = []
    for block in blocks:
        times, *lines = block.split("\n")
        start, end = ([float(part) for part in time.split(":")] for time in times.split(" --> "))
        found.append((*(3600 * h + 60 * m + s for h, m, s in (start, end)), lines))
    return found


def test_captions_and_transcript_are_what_is_said_in_order_and_can_be_read_in_time(board):
    said = [part.text for scene in board.scenes for part in scene.parts if part.kind == "say"]
    shown = cues(captions.webvtt(board))
    words = [word for _, _, lines in shown for line in lines for word in line.split()]
    assert words == [word.replace("&", "&amp;").replace("<", "&lt;") for text in said for word in text.split()]
    assert all(len(lines) <= 2 and max(map(len, lines)) <= 42 for _, _, lines in shown)
    assert all(start < end <= after for (start, end, _), (after, _, _) in itertools.pairwise(shown))
    assert shown[-1][1] <= board.seconds
    text = captions.transcript(board)
    assert set(" ".join(said).split()) <= set(text.split()) and all(section.name in text for section in board.sections)


def test_captions_follow_the_marks_of_a_recording(board, tmp_path):
    path = tmp_path / "chapters.txt"
    later = [(20 + 2 * start, title) for start, title in board.chapters]  # a slow speaker, after a jingle
    path.write_text("".join(f"{clock.stamp(start)} {title}\n" for start, title in later))
    planned, moved = cues(captions.webvtt(board)), cues(captions.webvtt(board, captions.read_marks(path, board)))
    last = board.chapters[-1][0]
    for (start, _, lines), (now, _, same) in zip(planned, moved, strict=True):
        assert lines == same
        assert now == pytest.approx(20 + 2 * start if start <= last else 20 + last + start, abs=1.1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: re.sub(r"^\d\d:\d\d", "soon", text, flags=re.M), "line 1: write a time"),
        (lambda text: text.replace("\n", "\n00:00 Again\n", 1), "line 2: write a time later"),
        (lambda text: text.split("\n", 1)[0], "has 1 chapters"),
        (lambda text: "", "has 0 chapters"),
        (None, r"Give the chapters\.txt"),  # there is no file
    ],
)
def test_marks_that_do_not_fit_are_a_sentence(board, tmp_path, change, sentence):
    path = tmp_path / "chapters.txt"
    if change:
        path.write_text(change("".join(f"{clock.stamp(start)} {title}\n" for start, title in board.chapters)))
    with pytest.raises(CourseError, match=sentence):
        captions.read_marks(path, board)
