"""The five lessons in JupyterLab, in a real browser: run all cells, turn the dial, answer an exercise.

They run with few steps; with the variable FULL_LESSONS as a reader has them.
"""

import os

import nbformat
import pytest
from shortened import SHORTER, shorten

from browser import lab
from unsloth_course import exercises
from unsloth_course.commands import runner
from unsloth_course.core import lessons

FULL = bool(os.environ.get("FULL_LESSONS"))


def copy_of(lesson):
    """The lesson in the cpu profile, as short as it can be."""
    notebook = runner.with_parameters(nbformat.read(lessons.notebook_path(lesson), as_version=4), {"PROFILE": "cpu"})
    return notebook if FULL else shorten(notebook, **SHORTER[lesson])


@pytest.fixture(params=list(exercises.LESSONS))
def lesson(request, browser, server, pictures):
    """A lesson that has run to its end, with its name."""
    name = request.param
    nbformat.write(copy_of(name), server.folder / lessons.LESSONS[name])
    opened = lab.Notebook(browser, server, lessons.LESSONS[name], pictures)
    opened.run_all()
    yield name, opened
    opened.close()


def test_a_lesson_in_the_browser(lesson):
    name, notebook = lesson
    assert notebook.errors() == []
    assert all(cell["execution_count"] for cell in notebook.cells if cell["cell_type"] == "code" and cell["source"])
    notebook.picture(f"{name}-end")

    dial = notebook.dial(notebook.find(".show()"))
    before = notebook.drawn(dial)
    notebook.turn(dial)
    assert notebook.drawn(dial) != before
    notebook.picture(f"{name}-dial", dial)

    one = next(one for one in exercises.ALL.values() if one.lesson == name)
    number = notebook.find(f'exercises.check("{one.id}"')
    source = notebook.source(number)
    assert one.stub in source
    said = notebook.answer(number, source.replace(one.stub, next(iter(one.wrong.values()))))
    assert f"{one.title}: wrong." in said and "Hint 1" in said
    notebook.picture(f"{name}-wrong")
    said = notebook.answer(number, source.replace(one.stub, one.solution))
    assert f"{one.title}: right." in said and "1 of 3 solved" in said
    notebook.picture(f"{name}-right")
    assert notebook.complaints == []
