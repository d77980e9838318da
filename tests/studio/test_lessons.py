"""The five lessons: long enough, in their segments, and saying of themselves what the clock says."""

import nbformat
import pytest
from conftest import script

from unsloth_course.core import lessons
from unsloth_course.studio import clock

from . import made

LESSONS = list(lessons.LESSONS)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("lesson", LESSONS)
def test_the_take_keeps_to_its_length_and_segments_and_nearly_every_cell_has_been_timed(lesson, profile):
    board = made.board_of(lesson, profile)
    assert board.faults() == []
    known = {scene.cell.id for scene in board.scenes}
    at_most = {"cpu": 3, "gpu": 4}[profile]  # short cells that came after the recording
    assert len(board.unmeasured) <= at_most, "python upkeep/cell_seconds.py"
    assert set(clock.recorded_seconds(lesson, profile)["cells"]) <= known


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_minutes_in_the_notebook_are_those_of_the_clock(lesson):
    notebook = nbformat.read(lessons.notebook_path(lesson), 4)
    changed = script("minutes").with_minutes(notebook, clock.board(lesson, notebook))
    assert changed == [], "python upkeep/minutes.py --write"


@pytest.mark.parametrize("lesson", LESSONS)
def test_at_every_picture_the_presenter_points_and_pauses(lesson):
    for scene in made.board_of(lesson).scenes:
        if any("image/png" in output.get("data", {}) for output in scene.cell.get("outputs", [])):
            assert {"point", "pause"} <= {part.kind for part in scene.parts}, scene.cell.id
