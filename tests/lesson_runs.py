"""Whole lessons in processes of their own: what nbmake's have to have learned, and others with other knobs."""

import json
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from conftest import ENVIRONMENT
from shortened import COMMAND

from unsloth_course.commands import runner
from unsloth_course.core import lessons
from unsloth_course.core.places import REPOSITORY

# The untouched model's scores, as a lesson measured and kept them; with other versions a lesson measures them anew.
BASE = REPOSITORY / "benchmarks" / "recorded" / "base-cpu.json"


def with_base(folder):
    """Makes a folder for results in which the untouched model's scores lie already."""
    folder.mkdir()
    shutil.copy2(BASE, folder / "base.json")


def require_learned(lesson, results, since):
    """What nbmake cannot see: the lesson wrote its results, and the untouched model scores as recorded.

    So other runs may find these scores measured already. A few steps of DPO and of continued pretraining have to be
    enough; those of the others are too few to tell, and test_documented_commands.py, test_sick_runs.py and
    test_sick_grpo.py show that they train.
    """
    assert (results / f"{lesson}.json").stat().st_mtime >= since
    receipt = json.loads((results / f"{lesson}.json").read_text())["receipt"]
    assert receipt["verdict"] in ("trained", "trained" if lesson in ("dpo", "cpt") else "suspicious"), receipt
    measured = json.loads((results / "base.json").read_text())["battery"]
    for name, score in json.loads(BASE.read_text())["battery"].items():
        assert measured[name]["questions"] == score["questions"]
        assert measured[name]["value"] == pytest.approx(score["value"], rel=1e-3, abs=0.03), name


def with_knobs(lesson, knobs, **parameters):
    """The lesson with other values in its knobs cell, and the first cell's variables injected as the runner does."""
    notebook = runner.parameters.with_parameters(nbformat.read(lessons.notebook_path(lesson), as_version=4), parameters)
    for name, value in knobs.items():
        setting = re.compile(rf"^{name} = .*$", re.MULTILINE)
        (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and setting.search(cell.source)]
        cell.source = setting.sub(f"{name} = {value}", cell.source)
    return notebook


class Finished:
    """A finished run of a lesson: exit status, what it said, and what it left behind."""

    def __init__(self, lesson, folder, notebook, environment=None):
        notebooks, self.out = folder / "notebooks", folder / "out"
        notebooks.mkdir()
        with_base(self.out)
        nbformat.write(notebook, notebooks / lessons.LESSONS[lesson])
        command = [sys.executable, "-c", COMMAND, str(notebooks), "run", lesson, "--out", str(self.out)]
        environment = ENVIRONMENT | (environment or {})
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200, check=False)
        self.status, self.said, self.complained = done.returncode, done.stdout, done.stderr
        cells = nbformat.read(self.out / lessons.LESSONS[lesson], as_version=4).cells
        self.outputs = [(cell, output) for cell in cells for output in cell.get("outputs", [])]

    @property
    def errors(self):
        """(cell, output) of the cells that raised."""
        return [(cell, output) for cell, output in self.outputs if output.output_type == "error"]
