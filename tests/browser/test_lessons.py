"""The LoRA lesson in JupyterLab, in a real browser: run all cells, turn the dial, answer an exercise.

It runs with few steps and a learning rate of 0, and has to say that it did not train; with the variable FULL_LESSONS
all five run, as a reader has them. The dials of the others are turned in test_dials.py, and their exercises answered
here, in a notebook that trains nothing.
"""

import json
import os

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from shortened import shorten

from browser import lab
from unsloth_course import exercises
from unsloth_course.commands import runner
from unsloth_course.commands.runner import cleaning
from unsloth_course.core import lessons

FULL = bool(os.environ.get("FULL_LESSONS"))


def copy_of(lesson):
    """The lesson in the cpu profile, as short as it can be."""
    notebook = runner.parameters.with_parameters(
        nbformat.read(lessons.notebook_path(lesson), as_version=4), {"PROFILE": "cpu"}
    )
    return notebook if FULL else shorten(notebook, LEARNING_RATE=0)


@pytest.fixture(params=list(exercises.LESSONS) if FULL else ["lora"])
def lesson(request, browser, server, pictures):
    """A lesson that has run to its end, with its name."""
    name = request.param
    nbformat.write(copy_of(name), server.folder / lessons.LESSONS[name])
    opened = lab.Notebook(browser, server, lessons.LESSONS[name], pictures)
    opened.run_all()
    yield name, opened
    opened.close()


def test_a_lesson_in_the_browser(lesson, server):
    name, notebook = lesson
    assert notebook.errors() == []
    assert all(cell["execution_count"] for cell in notebook.cells if cell["cell_type"] == "code" and cell["source"])
    notebook.picture(f"{name}-end")
    if not FULL:
        it_says_that_it_did_not_learn(notebook, json.loads((server.folder / "results" / "lora.json").read_text()))

    dial = notebook.dial(notebook.find(".show()"))
    before = notebook.drawn(dial)
    notebook.turn(dial)
    assert notebook.drawn(dial) != before
    notebook.picture(f"{name}-dial", dial)

    answer_first(notebook, name)
    assert notebook.complaints == []


def it_says_that_it_did_not_learn(notebook, found):
    said = json.dumps([cell["outputs"] for cell in notebook.cells])
    for words in ("NOT TRAINED: This run did not train.", "Not trained.", "lora.json written: This run did not train."):
        assert words in said
    assert found["receipt"]["verdict"] == "not trained"
    assert {"learning rate 0", "weights unchanged"} <= {finding["name"] for finding in found["receipt"]["findings"]}
    assert (found["training"]["steps"], found["training"]["examples"]) == (16, 256)
    score = found["evaluation"]
    assert (score["n"], score["before"], score["after"]) == (16, 0.0, 0.0)
    low, high = score["interval"]
    assert low < 0 < high  # 0 of 16 is not known to be 0
    judge = score["measures"][0]
    assert (judge["name"], judge["judges"], judge["n"], judge["likelier"]) == ("answer_perplexity", True, 16, 0)
    assert judge["before"] == judge["after"] and judge["interval"] == [0.0, 0.0]
    assert score["retention"]["before"] == score["retention"]["after"]


def answer_first(notebook, lesson):
    """Answers the lesson's first exercise wrongly, and then right."""
    one = next(one for one in exercises.ALL.values() if one.lesson == lesson)
    number = notebook.find(f'exercises.check("{one.id}"')
    imports, _, cell = notebook.source(number).rpartition("def ")
    _, stub, check = cell.partition("return ...")
    said = notebook.answer(number, f"{imports}def {cell}".replace(stub, "return 0"))
    assert f"{one.title}: wrong." in said and "Hint 1" in said
    notebook.picture(f"{lesson}-wrong")
    said = notebook.answer(number, f"{imports}{one.solution}{check[check.index(chr(10)) :]}")
    assert f"{one.title}: right." in said and "1 of 3 solved" in said
    notebook.picture(f"{lesson}-right")


def test_the_exercises_of_the_other_lessons_are_answered(browser, server, pictures):
    cells = [new_code_cell("from unsloth_course import exercises")]
    for name in exercises.LESSONS:
        source = nbformat.read(lessons.notebook_path(name), as_version=4)
        one = next(one for one in exercises.ALL.values() if one.lesson == name)
        (cell,) = [cell for cell in source.cells if f'exercises.check("{one.id}"' in cell.source]
        cells.append(new_code_cell(cell.source))
    nbformat.write(cleaning.with_clean_metadata(new_notebook(cells=cells)), server.folder / "exercises.ipynb")
    notebook = lab.Notebook(browser, server, "exercises.ipynb", pictures)
    notebook.run_all()
    for name in exercises.LESSONS:
        if name != "lora":
            answer_first(notebook, name)
    assert notebook.errors() == notebook.complaints == []
    notebook.close()
