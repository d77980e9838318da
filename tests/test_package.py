"""The package as a newcomer imports it: light, lazy, and with a sentence where a name is wrong."""

import ast
import importlib
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import nbformat
import pytest

import unsloth_course
from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import NOTEBOOKS, PACKAGE, REPOSITORY

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "unsloth", "trl", "peft", "pandas", "numpy", "IPython")
HEAVY += ("nbclient",)


def loaded_after(code: str) -> list[str]:
    """The heavy packages that a fresh Python has loaded after running this."""
    script = f"{code}\nimport json, sys\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "code", ["import unsloth_course as u\ndir(u)\nu.profile\nu.data", "import unsloth_course.cli"], ids=["rooms", "cli"]
)
def test_the_import_is_light(code):
    assert loaded_after(code) == []


def test_a_lesson_reaches_the_profile_before_the_libraries_that_it_prepares():
    """`profile.detect` sets what Unsloth, transformers and the Hub client read once, when they are imported."""
    lesson = (
        "from unsloth_course import data, diagnosis, dials, evaluation, memory, models, plots, profile, results, xray"
    )
    assert not {"unsloth", "trl", "peft", "transformers", "datasets"} & set(loaded_after(lesson))


def test_what_the_import_cell_of_a_lesson_loads_of_the_course_stays_small():
    """So that a learner who looks behind a name is soon there, and the cell is quick."""
    notebook = nbformat.read(lessons.notebook_path("lora"), as_version=4)
    (cell,) = [cell.source for cell in notebook.cells if "profile.detect(" in cell.source and cell.cell_type == "code"]
    script = (
        f"PROFILE, MODEL, DATA = 'cpu', None, None\n{cell}\nimport json, sys\n"
        "own = {m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'unsloth_course'}\n"
        "print(json.dumps(sorted(own)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    files = json.loads(done.stdout.splitlines()[-1])
    assert len(files) <= 40, files
    assert sum(len(Path(file).read_text().splitlines()) for file in files) <= 8000


def test_what_is_said_to_be_taught_in_a_lesson_stands_in_its_notebook():
    for path in PACKAGE.rglob("*.py"):
        for one in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(one, ast.FunctionDef | ast.ClassDef):
                continue
            said = re.search(r"Taught in (all five )?[^.]*", " ".join((ast.get_docstring(one) or "").split()))
            if not said:
                continue
            numbers = "12345" if said[1] else re.findall(r"colab(\d)", said[0])
            if " to " in said[0]:
                numbers = range(int(numbers[0]), int(numbers[1]) + 1)
            assert numbers, f"{path.name} {one.name}: {said[0]} names no notebook"
            for number in numbers:
                assert re.search(rf"\b{one.name}\b", code_of(f"colab{number}_")), f"{path.name} {one.name}: {said[0]}"


@cache
def code_of(beginning):
    (name,) = [name for name in lessons.LESSONS.values() if name.startswith(beginning)]
    cells = nbformat.read(NOTEBOOKS / name, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize(
    "package",
    sorted({*unsloth_course.ROOMS} - {"colab", "known_warnings", "lowrank", "profile", "results", "training"}),
)
def test_every_name_of_a_lazy_package_is_there(package):
    room = getattr(unsloth_course, package)
    assert room.__all__ == dir(room)
    assert all(getattr(room, name) is not None for name in room.__all__)
    with pytest.raises(AttributeError, match=f"{package}' has no attribute 'cellar'"):
        _ = room.cellar


@pytest.mark.parametrize("room", unsloth_course.ROOMS)
def test_every_room_opens(room):
    assert getattr(unsloth_course, room) is importlib.import_module(f"unsloth_course.lesson.{room}")
    assert room in dir(unsloth_course)


def test_a_room_that_is_not_there_is_a_sentence():
    with pytest.raises(AttributeError, match=r"no room 'cellar'; its rooms are colab, data, .*xray"):
        _ = unsloth_course.cellar
    assert not hasattr(unsloth_course, "cellar")


def test_an_import_of_an_unknown_room_fails_as_usual():
    with pytest.raises(ImportError):
        exec("from unsloth_course import cellar")


def test_a_notebook_shows_the_sentence_alone():
    code = "from unsloth_course.core.errors import CourseError\nraise CourseError('Row 3 is empty. Mend it.')"
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shown = []
    shell._showtraceback = lambda kind, value, lines: shown.append((kind, lines))
    shell.run_cell(code)
    assert shown == [(CourseError, ["CourseError: Row 3 is empty. Mend it."])]
