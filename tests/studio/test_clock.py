"""The running clock: cells, sections, segments, chapters."""

import itertools

import pytest
from conftest import script
from nbformat.v4 import new_markdown_cell, new_notebook

from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.studio import clock

from . import made


@pytest.fixture
def board():
    return clock.board("lora", made.lesson(), seconds=made.SECONDS)


def test_a_cell_takes_its_words_its_pauses_and_its_running_time(board):
    scenes = {scene.cell.id: scene for scene in board.scenes}
    assert scenes["title"].seconds == 60
    assert scenes["quick"].seconds == pytest.approx(2 * 60 / 140 + 5 + 2)
    assert scenes["first"].start == 60 and scenes["second"].start == scenes["install"].start


def test_of_a_long_cell_only_the_replay_counts(board):
    long = board.scenes[-1]
    assert long.replayed and long.running == clock.REPLAY_SECONDS and long.measured == 60
    assert not board.scenes[2].replayed


def test_pace_changes_speech_and_nothing_else(board):
    slow = clock.board("lora", made.lesson(), pace=70, seconds=made.SECONDS)
    rest = sum(scene.pausing + scene.running for scene in board.scenes)
    assert slow.seconds - rest == pytest.approx(2 * (board.seconds - rest))


@pytest.mark.parametrize("pace", [0, -140, 5, 1000, float("nan")])
def test_a_pace_that_nobody_speaks_is_refused(pace):
    with pytest.raises(CourseError, match="words a minute"):
        clock.board("lora", made.lesson(), pace=pace)


def test_segments_and_sections_cover_the_take(board):
    for stretches in (board.segments, board.sections):
        assert sum(stretch.seconds for stretch in stretches) == pytest.approx(board.seconds)
        assert [stretch.start for stretch in stretches] == sorted(stretch.start for stretch in stretches)
    assert [stretch.name for stretch in board.sections] == ["A made lesson", "1 · First", "2 · Second"]


def test_a_heading_in_a_code_block_is_no_section():
    cell = new_markdown_cell("# Real\n\n```\n## not one\n```\n\n## Two")
    assert lessons.cell_headings(cell) == [(1, "Real"), (2, "Two")]


def test_an_install_cell_and_prose_take_no_running_time(board):
    assert all(scene.measured is None for scene in board.scenes if scene.cell.id not in made.SECONDS["cells"])
    assert board.unmeasured == []
    assert clock.board("lora", made.lesson(), seconds={}).unmeasured == ["quick", "long"]


def with_sections(*words):
    cells = [new_markdown_cell(f"## {i}", metadata=made.course("results", "word " * n)) for i, n in enumerate(words)]
    return clock.board("lora", new_notebook(cells=cells), seconds={})


def test_a_section_too_short_for_a_chapter_belongs_to_the_one_before():
    chapters = with_sections(140, 5, 140, 140, 3).chapters
    assert [title for _, title in chapters] == ["0", "1", "3"]
    starts = [start for start, _ in chapters]
    assert starts[0] == 0 and all(b - a >= clock.SHORTEST_CHAPTER >= 10 for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (69.9, "01:09"), (3599, "59:59"), (3723, "1:02:03")])
def test_stamp(seconds, text):
    assert clock.stamp(seconds) == text


@pytest.mark.parametrize(("seconds", "minutes"), [(0, 0.5), (44, 0.5), (46, 1), (75, 1.5), (100, 1.5), (110, 2)])
def test_minutes_are_rounded_to_halves(seconds, minutes):
    assert script("minutes").half_minutes(seconds) == minutes


def test_minutes_stand_on_the_first_cell_of_each_section_and_nowhere_else(board):
    notebook = made.lesson()
    notebook.cells[2].metadata.course["minutes"] = 9
    changed = script("minutes").with_minutes(notebook, board)
    minutes = [cell.metadata.get("course", {}).get("minutes") for cell in notebook.cells]
    assert minutes == [1, 0.5, None, None, 0.5, None] and len(changed) == 4
    assert script("minutes").with_minutes(notebook, board) == []


def test_faults_name_what_is_out_of_range_and_slips_in_notes():
    faults = " ".join(clock.board("lora", made.lesson("[pauze 3 s]"), seconds=made.SECONDS).faults())
    assert "minutes in all, not 25 to 40" in faults and "deep dive takes 0.0 minutes" in faults
    assert "first: [pauze 3 s]" in faults
    wrong = new_notebook(cells=[new_markdown_cell("x", metadata=made.course("intro", "word"))])
    assert "no segment is called 'intro'" in " ".join(clock.board("lora", wrong, seconds={}).faults())
