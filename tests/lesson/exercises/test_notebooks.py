"""The exercises in the lessons: a task and a cell for each, cells that run untouched, and names that do not clash."""

import ast

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from lesson.exercises.sources import ALL
from unsloth_course import exercises
from unsloth_course.core import lessons

written = pytest.mark.parametrize("lesson", lessons.written_lessons())


def cells_of(lesson, kind):
    return [cell.source for cell in nbformat.read(lessons.notebook_path(lesson), 4).cells if cell.cell_type == kind]


def exercises_of(lesson):
    return [one for one in ALL if one.lesson == lesson]


@written
def test_a_lesson_holds_its_three_exercises(lesson):
    prose, code = cells_of(lesson, "markdown"), cells_of(lesson, "code")
    for one in exercises_of(lesson):
        assert sum(cell.count(f"**{one.id} · {one.title}**\n\n") for cell in prose) == 1
        (cell,) = [cell for cell in code if cell.endswith(f'\n\n\nexercises.check("{one.id}", {one.function})')]
        (signature,) = [line for line in cell.splitlines() if line.startswith("def ")]
        assert signature in one.solution.splitlines()
    assert sum(cell.count("exercises.check(") for cell in code) == 3


@written
def test_the_cells_run_untouched_and_count_nothing(lesson, file):
    names = {}
    for cell in cells_of(lesson, "code"):
        if "exercises.check(" in cell or "import exercises" in cell:
            head, _, call = cell.rpartition("\n")
            exec(head, names)
            verdict = eval(call, names)  # noqa: S307 -- the lesson's own cell
            assert verdict.state == "not tried"
    assert not file.exists()


@written
def test_no_other_cell_uses_the_names_of_the_functions(lesson):
    functions = {one.function for one in exercises_of(lesson)} | {"exercises"}
    for cell in cells_of(lesson, "code"):
        tree = ast.parse(TransformerManager().transform_cell(cell))
        bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        bound |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert "exercises.check(" in cell or not bound & functions


def test_the_lessons_are_those_of_the_runner():
    assert set(exercises.LESSONS) == set(lessons.LESSONS)
