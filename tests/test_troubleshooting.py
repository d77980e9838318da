"""TROUBLESHOOTING.md beside the notebook that raises its errors: what it says is raised there was, and was mended.

nbmake runs the notebook, whose cells fail where an error no longer comes or a fix no longer works. To store its outputs
anew: `venv/bin/python tests/test_troubleshooting.py`.
"""

import re

import nbformat
import pytest

from unsloth_course import diagnosis
from unsloth_course.commands.runner import cleaning
from unsloth_course.core.places import PACKAGE, REPOSITORY

PAGE = (REPOSITORY / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
PATH = REPOSITORY / "notebooks" / "extras" / "troubleshooting.ipynb"
NOTEBOOK = nbformat.read(PATH, as_version=4)
RAISED, ELSEWHERE = PAGE.split("\n## Not raised in the notebook\n")
OUTPUTS = [
    "".join(output.get("text", "") for output in cell.outputs) for cell in NOTEBOOK.cells if cell.cell_type == "code"
]
FIXED = re.compile(r"^fixed: \S", re.MULTILINE)


def entries(part):
    """Heading and text of each entry."""
    found = re.split(r"^### ", part, flags=re.MULTILINE)[1:]
    return [(heading.strip("` "), text) for heading, text in (entry.split("\n", 1) for entry in found)]


def cell_of(message):
    """The number of the first code cell that printed it, or None."""
    return next((number for number, text in enumerate(OUTPUTS) if message in text), None)


@pytest.mark.parametrize("heading", [heading for heading, _ in entries(RAISED)])
def test_a_heading_is_what_the_notebook_printed_and_its_fix_follows(heading):
    cell = cell_of(heading)
    assert cell is not None, f"no cell of the notebook prints {heading!r}"
    after = "".join([OUTPUTS[cell].split(heading, 1)[1], *OUTPUTS[cell + 1 : cell + 3]])
    assert FIXED.search(after), "no fix after it, nor in the next two cells"


def test_every_error_of_the_notebook_has_an_entry():
    lines = [line for text in OUTPUTS for line in text.splitlines() if re.match(r"\w+Error: ", line)]
    assert len(lines) >= 20
    named = [heading for heading, _ in entries(RAISED)]
    named += [name for _, text in entries(RAISED) for name in re.findall(r"`([^`]+)`", text) if len(name) > 3]
    named = set(named) - {"unsloth", "transformers", "peft", "datasets", "text"}
    assert [line for line in lines if not any(name in line for name in named)] == []


def test_entries_are_short_and_no_message_stands_twice():
    headings = [heading for heading, _ in entries(PAGE)]
    assert len(headings) == len(set(headings)) >= 25
    assert all("**Fix:**" in text and len(text.split()) <= 130 for _, text in entries(PAGE))


def test_the_ladder_has_the_words_of_the_receipt():
    ladder = PAGE.split("## What to do when the receipt says suspicious\n")[1].split("\n## ")[0]
    quoted = [" ".join(words.split()) for words in re.findall(r"(?<!\*)\*(\w[^*]+)\*(?!\*)", ladder)]
    rooms = sorted((PACKAGE / "lesson" / "diagnosis").glob("*.py"))
    source = "".join(path.read_text(encoding="utf-8") for path in rooms)
    assert len(re.findall(r"^\d\. ", ladder, re.MULTILINE)) == 8 and len(quoted) >= 8
    assert [words for words in quoted if words not in source] == []
    assert "What to do when the receipt says suspicious" in diagnosis.WHAT_NOW


def test_what_is_not_raised_says_where_it_was_seen():
    assert len(entries(ELSEWHERE)) >= 2
    assert all("Seen " in text for _, text in entries(ELSEWHERE))


def test_set_up_and_run_time_know_of_each_other():
    setup = (REPOSITORY / "VENV_SETUP.md").read_text(encoding="utf-8")
    assert "](TROUBLESHOOTING.md)" in setup and "](VENV_SETUP.md#what-can-go-wrong)" in PAGE
    assert "](TROUBLESHOOTING.md)" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_nothing_is_fetched_or_trusted_on_advice():
    code = "\n".join(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code")
    assert 'HF_HUB_OFFLINE="1"' in code
    for risky in ("trust_remote_code", "pip install", "verify=False", "pickle"):
        assert risky not in code and f"{risky}=True" not in PAGE


def store():
    from nbclient import NotebookClient

    NotebookClient(NOTEBOOK, timeout=300, resources={"metadata": {"path": str(PATH.parent)}}).execute()
    PATH.write_text(nbformat.writes(cleaning.clean(NOTEBOOK)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    store()
