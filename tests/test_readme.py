"""The documents: their links lead somewhere, and their figures and pictures are those of recorded runs."""

import importlib.util
import re

import nbformat
import pytest

from unsloth_course import runner
from unsloth_course.cleaning import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "benchmarks").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_into_the_repository_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_the_table_of_runs_is_that_of_the_recorded_files():
    spec = importlib.util.spec_from_file_location("table", REPOSITORY / "benchmarks" / "table.py")
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    rows = table.rows()
    assert len(rows) >= 3, "three seeds at least are recorded"
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [row for row in rows if row not in readme] == []


@pytest.mark.parametrize("lesson", runner.written_lessons())
def test_the_pictures_are_the_stored_outputs_of_the_lesson(lesson):
    stored = runner.pictures(nbformat.read(runner.notebook_path(lesson), as_version=4))
    assert stored, "a lesson names the pictures that the README shows of it"
    for name, picture in stored.items():
        assert (runner.PICTURES / f"{name}.png").read_bytes() == picture


def test_the_readme_names_every_written_lesson():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for lesson in runner.written_lessons():
        assert f"](notebooks/{runner.LESSONS[lesson]})" in readme
