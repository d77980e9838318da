"""The documents: their links lead somewhere, and their figures and pictures are those of recorded runs."""

import re

import nbformat
import pytest
from conftest import script
from PIL import Image

from unsloth_course.commands import runner
from unsloth_course.core import lessons
from unsloth_course.core.places import REPOSITORY

table = script("table")
PAGES = sorted(path for folder in (".", "benchmarks", "docs", "upkeep") for path in (REPOSITORY / folder).glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_into_the_repository_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_the_tables_are_those_of_the_recorded_files():
    pages = [page.read_text(encoding="utf-8") for page in table.PAGES]
    assert set(re.findall(r"<!-- table: (\w+) -->", "".join(pages))) == set(table.TABLES)
    for page in pages:
        assert table.filled(page, table.recorded()) == page, "run python upkeep/table.py --write"


@pytest.mark.parametrize("lesson", lessons.LESSONS)
def test_a_lesson_begins_with_what_it_did_to_the_real_model(lesson):
    cells = nbformat.read(lessons.notebook_path(lesson), as_version=4).cells
    assert cells[1].source == script("first").result(lesson), "run python upkeep/first.py --write"
    assert lesson == "cpt" or ("newly right" in cells[1].source and "still wrong" in cells[1].source)


def test_the_readme_is_read_in_a_minute():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 100 and len(readme.split()) <= 700
    assert max(line.count("|") for line in readme.splitlines()) <= 4, "no table is wider than three columns"


def test_what_the_pages_say_in_words_is_what_their_tables_say():
    readme, results = (" ".join(page.read_text(encoding="utf-8").split()) for page in table.PAGES)
    runs = [run for run in table.recorded() if run["model"] == "pocket"]
    taken = [run["wall_seconds"] for run in runs if run["lesson"] != "base"]
    assert f"in {min(taken):.0f} to {max(taken):.0f} seconds on two cores" in readme
    preferred = {run["lesson"]: run["battery"]["preference"]["value"] for run in runs if run.get("battery")}
    assert preferred["lora"] == preferred["full"] == 0
    assert f"(preference {100 * preferred['base']:.1f} % → 0.0 %)" in results


def test_recorded_runs_trained_with_three_seeds_or_the_page_says_so():
    seeds = {}
    for run in table.recorded():
        if run["lesson"] != "base":
            assert run["receipt"]["verdict"] == "trained"
            if "stands_for" not in run:  # as near to a T4, one seed
                seeds.setdefault((run["lesson"], run["device"], run["model"]), set()).add(run["seed"])
    few = {lesson: model for (lesson, _, model), found in seeds.items() if len(found) < 3}
    assert seeds and "pocket" not in few.values()
    unproven = table.PAGES[1].read_text(encoding="utf-8").partition("## What is not proven yet")[2]
    assert not few or "A band wants three" in unproven, f"{few}: fewer than three seeds, and the page does not say so"


@pytest.mark.parametrize("lesson", lessons.written_lessons())
def test_the_pictures_are_the_stored_outputs_of_the_lesson(lesson):
    stored = runner.pictures(nbformat.read(lessons.notebook_path(lesson), as_version=4))
    assert stored, "a lesson names the pictures that the pages show of it"
    for name, picture in stored.items():
        assert (runner.PICTURES / f"{name}.png").read_bytes() == picture


@pytest.mark.parametrize("name", ["before-after.png", "lora-xray.png"])
def test_a_drawn_picture_shows_what_is_stored(name):
    made = script("pictures")
    shown, *_ = made.PICTURES[name]
    with Image.open(runner.PICTURES / name) as picture:
        assert picture.text["source"] == made.fingerprint(shown()), "run python upkeep/pictures.py"


def test_the_readme_names_every_written_lesson():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for lesson in lessons.written_lessons():
        assert f"](notebooks/{lessons.LESSONS[lesson]})" in readme


COMMAND = re.compile(r"(?:(?:/|`|=\d |^\s{4,})unsloth-course|-m unsloth_course) (?P<words>[^`\n|#]+)", re.MULTILINE)


def commands(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [found["words"].split() for found in COMMAND.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_page_exists_with_its_options(page):
    import typer

    from unsloth_course import cli

    known = typer.main.get_command(cli.app).commands
    for name, *words in commands(page):
        if not name.isalpha() or name.isupper():
            continue  # a placeholder
        assert name in known, f"{page.name}: {name}"
        options = {option for parameter in known[name].params for option in parameter.opts}
        for word in words:
            assert not word.startswith("--") or word.rstrip(",.:;)") in options, f"{page.name}: {name} {word}"
