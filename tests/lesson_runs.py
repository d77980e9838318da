"""Whole lessons in processes of their own, with other knobs: for the tests of each lesson."""

import json
import re
import shutil
import subprocess
import sys

import nbformat
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

    def __init__(self, lesson, folder, notebook, environment=None, base=True):
        """base: the untouched model's scores lie there already; without it the lesson measures them."""
        self.lesson, notebooks, self.out = lesson, folder / "notebooks", folder / "out"
        notebooks.mkdir()
        if base:
            with_base(self.out)
        nbformat.write(notebook, notebooks / lessons.LESSONS[lesson])
        command = [sys.executable, "-c", COMMAND, str(notebooks), "run", lesson, "--out", str(self.out)]
        environment = ENVIRONMENT | (environment or {})
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200, check=False)
        self.status, self.said, self.complained = done.returncode, done.stdout, done.stderr

    @property
    def results(self):
        return json.loads((self.out / f"{self.lesson}.json").read_text())

    @property
    def page(self):
        return (self.out / f"{self.lesson}.html").read_text()

    @property
    def code(self):
        """The code cells of the executed notebook."""
        cells = nbformat.read(self.out / lessons.LESSONS[self.lesson], as_version=4).cells
        return [cell for cell in cells if cell.cell_type == "code"]

    @property
    def outputs(self):
        """All text that the executed notebook shows."""
        outputs = [output for cell in self.code for output in cell.outputs]
        return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)

    @property
    def errors(self):
        """(cell, output) of the cells that raised."""
        return [(cell, o) for cell in self.code for o in cell.outputs if o.output_type == "error"]
