"""The storyboards of all lessons, written once for the tests that look at the files."""

import functools

import pytest
from bs4 import BeautifulSoup

from unsloth_course import studio
from unsloth_course.core import lessons


@pytest.fixture(scope="session")
def storyboard(tmp_path_factory):
    """Writes the storyboard of a lesson when first asked for it: `storyboard("lora")` is what `write` gives."""
    out, made = tmp_path_factory.mktemp("storyboards"), {}

    def of(lesson):
        if lesson not in made:
            made[lesson] = studio.write(lesson, out)
        return made[lesson]

    return of


@pytest.fixture(scope="session")
def soup():
    """A page of a storyboard as BeautifulSoup reads it, once."""
    return functools.cache(lambda path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser"))


@pytest.fixture(params=list(lessons.LESSONS))
def written(request, storyboard):
    """The folder of a lesson's storyboard."""
    return storyboard(request.param).files[0].parent
