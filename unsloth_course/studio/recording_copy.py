"""The copy of a lesson that is opened for a take: headings and code, no outputs, large letters, replays."""

import copy
import json
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from unsloth_course.core import lessons
from unsloth_course.studio.clock import REPLAY_SECONDS, Board
from unsloth_course.studio.executed import ExecutedCopy

TAKE = "take.json"  # what the copy replays, beside it


def notebook(board: Board, run: ExecutedCopy) -> NotebookNode:
    """The recording copy: the lesson's code cells, its headings, and a notice before every cell that is replayed."""
    made = copy.deepcopy(board.notebook)
    cells = _opening(board, run)
    for scene in board.scenes:
        cell = copy.deepcopy(scene.cell)
        cell.metadata = NotebookNode({key: value for key, value in cell.metadata.items() if key == "tags"})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if scene.replayed and run:
                ran = f"the next cell took {scene.measured or 0.0:.0f} s on {board.device}"
                cells.append(new_markdown_cell(f"> **Replay** of the recorded run: {ran}."))
            cells.append(cell)
        elif titles := lessons.cell_headings(cell):
            cell.source = "\n\n".join(f"{'#' * level} {text}" for level, text in titles)
            cells.append(cell)
    made.cells = cells
    return made


def take(board: Board, run: ExecutedCopy) -> str:
    """What the copy replays, as JSON: by the cell's id its source, outputs and seconds."""
    cells: dict[str, dict[str, Any]] = {}
    for scene in board.scenes:
        shown = run.outputs.get(scene.cell.id)
        # A cell that was written anew since the run shows what it now does, not what another did.
        if shown is not None and run.sources.get(scene.cell.id) == scene.cell.source:
            seconds = run.seconds.get(scene.cell.id, scene.measured or 0.0)
            cells[scene.cell.id] = {"source": scene.cell.source, "seconds": seconds, "outputs": shown}
    return json.dumps({"lesson": board.lesson, "device": run.device, "date": run.date, "cells": cells}) + "\n"


def _opening(board: Board, run: ExecutedCopy) -> list[NotebookNode]:
    said = "**Recording copy.** Headings and code only, letters enlarged."
    if run:
        text = (
            f"{said} With `REPLAY = True` no cell computes: each shows what it showed in the recorded run "
            f"({run.label}), under a label that says so, and none takes longer than {REPLAY_SECONDS:g} seconds. With "
            "`REPLAY = False` everything runs for real. A cell that you change always does."
        )
    else:
        text = (
            f"{said} There is no recorded run of the {board.profile} profile to replay, so everything runs for real. "
            f"For replays: `python -m unsloth_course run {board.lesson} --out results`, then `storyboard "
            f"{board.lesson} --profile {board.profile} --run results`."
        )
    code = f"from unsloth_course.studio import take\n\nREPLAY = {bool(run)}\ntake.begin(REPLAY)"
    return [new_markdown_cell(text), new_code_cell(code)]
