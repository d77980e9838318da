"""Replays in the kernel of a recording copy."""

import json

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook, new_output

from unsloth_course.commands import runner
from unsloth_course.core.errors import CourseError
from unsloth_course.studio import take

CELLS = {
    "train": {"source": "x = train()", "seconds": 60.0, "outputs": [new_output("stream", text="loss 1")]},
    "dial": {"source": "dials.strength(x)", "seconds": 1.0, "outputs": []},
    "slow": {"source": "dials.sweep(x)", "seconds": 90.0, "outputs": []},
}
RECORDED = {"lesson": "lora", "device": "a made machine", "date": "2026-11-21", "cells": CELLS}


@pytest.fixture
def now():
    made = take.Take(RECORDED)
    made.replaying = True
    return made


def test_a_known_cell_is_not_executed_and_a_changed_one_is(now):
    assert "play('train')" in now.transform(["x = train()\n"])[0]
    assert now.transform(["x = train(2)\n"]) == ["x = train(2)\n"]


def test_switched_off_everything_is_executed(now):
    now.replaying = False
    assert now.transform(["x = train()\n"]) == ["x = train()\n"]


def test_dials_are_live_once_the_whole_lesson_has_run_here(now):
    assert not now.is_live("dial")
    now.replaying = False
    for cell in CELLS.values():
        now.transform([cell["source"]])
    now.replaying = True
    assert now.transform(["dials.strength(x)"]) == ["dials.strength(x)"]
    assert not now.is_live("slow") and not now.is_live("train")


def test_outside_a_notebook_it_is_one_sentence(monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    with pytest.raises(CourseError, match="JupyterLab"):
        take.begin(True)


def test_in_a_real_kernel(tmp_path):
    (tmp_path / "take.json").write_text(json.dumps(RECORDED), encoding="utf-8")
    cells = [
        "from unsloth_course.studio import take\ntake.REPLAY_SECONDS = 0.05\ntake.begin(True)",
        "x = train()",
        "x = 5; print('for real', x)",
        "take.begin(False)",
        "x = train()",
        "take.begin(True, 'missing.json')",
    ]
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
    manager = runner.kernel.AsyncKernelManager(kernel_spec_manager=runner.kernel.ThisPython(), log=runner.kernel.SILENT)
    client = NotebookClient(notebook, km=manager, allow_errors=True, timeout=120, log=runner.kernel.SILENT)
    client.execute(cwd=str(tmp_path), env=runner.kernel.environment())
    shown = [
        "".join(output.get("text", output.get("data", {}).get("text/plain", "")) for output in cell.outputs)
        for cell in notebook.cells
    ]
    label = "[Replay of the recorded run · a made machine · 2026-11-21 · this cell took 60 s, shown after 0.05]"
    assert shown[1] == f"{label}loss 1"
    assert "background" in notebook.cells[1].outputs[0].data["text/html"]
    assert shown[2] == "for real 5\n"
    assert notebook.cells[4].outputs[0].ename == "NameError"
    assert notebook.cells[5].outputs[0].ename == "CourseError"
    assert "missing.json is not beside this notebook" in notebook.cells[5].outputs[0].evalue
