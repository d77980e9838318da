"""One address, in pyproject.toml; badges and install cells follow from it, and one command changes all of them."""

import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from unsloth_course.commands.colab import address
from unsloth_course.core.errors import CourseError
from unsloth_course.core.lessons import LESSONS, has_tag
from unsloth_course.core.places import REPOSITORY

# A session that sees no course.
ALONE = "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]"


@pytest.fixture
def copy(tmp_path):
    """What of the checkout may name the address."""
    for path in address.pages():
        target = tmp_path / path.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def lessons(root):
    return {name: nbformat.read(root / "notebooks" / name, as_version=4) for name in LESSONS.values()}


def install_cell(root):
    """The first code cell of a notebook that is opened from the repository: the same in all lessons."""
    (source,) = {c.source for notebook in lessons(root).values() for c in notebook.cells if has_tag(c, "install")}
    return source


def assert_all_name(root, repository):
    for name, notebook in lessons(root).items():
        assert address.badge(name, repository) in notebook.cells[0].source
        assert len([cell for cell in notebook.cells if has_tag(cell, "install")]) == 1
    assert f'REPOSITORY = "https://github.com/{repository}"\n' in install_cell(root)


def test_badges_and_install_cells_name_the_address():
    assert_all_name(REPOSITORY, address.address())


def test_an_address_that_cannot_be_cloned_is_two_lines_and_no_traceback(tmp_path):
    """As with the placeholder, in a notebook that somebody uploaded by itself. Here git is out of reach."""
    cell = install_cell(REPOSITORY)
    script = f"import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')\n{ALONE}\n"
    script += f"get_ipython().run_cell({cell!r})"
    (tmp_path / "cell.ipy").write_text(script, encoding="utf-8")
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "cell.ipy"]
    environment = os.environ | {"PATH": "/usr/bin/nothing", "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert f"SystemExit: https://github.com/{address.address()} could not be cloned" in said
    assert "notebook that brings the course along: see docs/colab.md" in said
    assert "Traceback (most recent call last)" not in said


def test_one_command_changes_it_everywhere(copy):
    old = address.address(copy)
    changed = address.change("ada-l/My.Course_2", copy)
    assert address.address(copy) == "ada-l/My.Course_2"
    assert_all_name(copy, "ada-l/My.Course_2")
    assert len(changed) >= 6
    links = (f"github.com/{old}", f"/github/{old}")
    texts = [path.read_text(encoding="utf-8") for path in address.pages(copy)]
    assert not [link for link in links for text in texts if link in text]


def test_a_change_that_broke_off_goes_on(copy, monkeypatch):
    written = []

    def full(path, text):
        if len(written) == 3:
            raise CourseError("The disk is full.")
        written.append(path)
        path.write_text(text, encoding="utf-8")

    with monkeypatch.context() as patched:
        patched.setattr(address, "write_text", full)
        with pytest.raises(CourseError):
            address.change("ada-l/My.Course_2", copy)
    address.change("ada-l/My.Course_2", copy)
    assert_all_name(copy, "ada-l/My.Course_2")


def test_there_and_back_is_as_it_was(copy):
    before = {path: path.read_bytes() for path in address.pages(copy)}
    old = address.address(copy)
    address.change("ada/course", copy)
    address.change(old, copy)
    assert {path: path.read_bytes() for path in address.pages(copy)} == before


def test_the_same_address_changes_nothing(copy):
    assert address.change(address.address(copy), copy) == []


@pytest.mark.parametrize("name", ["", "course", "https://github.com/a/b", "a/b/c", "a b/c", "-a/b", 'a/b"', "a/b; rm"])
def test_what_is_no_repository_is_refused(copy, name):
    with pytest.raises(CourseError, match="OWNER/NAME"):
        address.change(name, copy)


def test_without_a_checkout_it_says_so(tmp_path):
    with pytest.raises(CourseError, match="checkout"):
        address.address(tmp_path)
