"""The notebooks for upload, from the first cell to the last, in what Colab has; rehearsal.py says how.

The LoRA lesson gets its model and data from the Hub's stand-in, as in Colab; the others, which would take minutes each
with the knobs of a larger model, from the folder of the bundled one. UNSLOTH_COURSE_REHEARSAL=full takes all knobs as
they are.
"""

import json
import os
import subprocess
import sys

import nbformat
import pytest
from hub_server import HubServer
from shortened import SHORTER

from unsloth_course.commands.colab import address, upload
from unsloth_course.core import lessons
from unsloth_course.core.places import REPOSITORY
from unsloth_course.lesson.profile import HUB_MODEL

from . import rehearsal

FULL = os.environ.get("UNSLOTH_COURSE_REHEARSAL") == "full"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Colab runs on Linux, and so does its rehearsal.")


def fresh(folder):
    try:
        return rehearsal.environment(folder)
    except rehearsal.Unreachable as error:
        pytest.skip(f"Colab's versions are not here and cannot be fetched: {error}")


@pytest.fixture
def session(tmp_path):
    """A fresh session of Colab."""
    return fresh(tmp_path)


@pytest.fixture(scope="module")
def one_session(tmp_path_factory):
    """A session in which one lesson is opened after the other: the first one installs, the others find all there."""
    return fresh(tmp_path_factory.mktemp("session"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with HubServer() as running:
        rehearsal.serve(running, tmp_path_factory.mktemp("sets"))
        yield running


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    upload.write(folder)
    return folder


def lesson_of(uploads, lesson, model=str(rehearsal.POCKET), **settings):
    notebook = nbformat.read(uploads / lessons.LESSONS[lesson], as_version=4)
    return rehearsal.prepared(notebook, FULL, MODEL=model, shorter=SHORTER[lesson], **settings)


def assert_ran(notebook, session, lesson):
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in code)
    results = json.loads((session.content / "results" / f"{lesson}.json").read_text())
    assert results["lesson"] == lesson and results["versions"]["transformers"] == rehearsal.COLAB["transformers"]


@pytest.mark.parametrize("lesson", [name for name in lessons.LESSONS if name != "lora"])
def test_an_uploaded_lesson_runs_from_the_first_cell_to_the_last(lesson, one_session, uploads):
    done = rehearsal.run(lesson_of(uploads, lesson), one_session, {})
    assert_ran(done, one_session, lesson)


def test_a_session_that_is_lost_goes_on_from_the_drive(session, hub, uploads, tmp_path):
    """Also the first look at the install cell: what it finds, what it does, and that it says so."""
    drive = tmp_path / "drive"
    kept = drive / "MyDrive" / "unsloth-course" / "lora-checkpoints"
    hub_here = hub.environment(tmp_path / "cache")

    def lost():
        return bool(list(kept.glob("checkpoint-*/manifest.json")))

    first = lesson_of(uploads, "lora", HUB_MODEL, drive=drive)
    with pytest.raises(rehearsal.Lost):
        rehearsal.run(first, session, hub_here, lost)
    said = rehearsal.texts(first)
    assert "Done in" in said and "No restart is needed" in said and "no weights" in said
    lines = {line.split()[0]: line.split() for line in said.splitlines() if len(line.split()) > 3}
    assert lines["datasets"][1:4] == ["4.0.0", "4.8.5", "replaced"]
    assert lines["trl"][1] == "-" and lines["trl"][3] == "installed"
    assert lines["ipywidgets"][1] == "7.7.1" and lines["ipywidgets"][3] == "kept"

    second = rehearsal.run(lesson_of(uploads, "lora", HUB_MODEL, drive=drive), session, hub_here)
    said = rehearsal.texts(second)
    assert "nothing is installed" in said and "going on from checkpoint-" in said
    assert_ran(second, session, "lora")


def test_the_cell_of_a_notebook_from_the_repository_brings_the_course_with_weights(session, tmp_path):
    """The badge's way, with a copy of this checkout in the place of GitHub."""
    copy = tmp_path / "copy"
    copy.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("This is no checkout, so there is nothing to clone.")
    files = [name for name in listed.stdout.splitlines() if name.startswith(("unsloth_course/", "req", "pyproject"))]
    subprocess.run(["cp", "--parents", *files, str(copy)], cwd=REPOSITORY, check=True)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "copy"]):
        subprocess.run([*git, *command], cwd=copy, check=True)
    away = f"https://github.com/{address.address()}"
    instead = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{copy.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": away,
    }
    notebook = nbformat.read(lessons.notebook_path("lora"), as_version=4)
    (cell,) = [cell for cell in notebook.cells if lessons.has_tag(cell, "install")]
    look = "from unsloth_course import models\nimport pathlib\nassert pathlib.Path(models.folder('pocket')).is_dir()"
    cells = [nbformat.v4.new_code_cell(source) for source in (cell.source, cell.source, look)]
    done = rehearsal.run(nbformat.v4.new_notebook(cells=cells), session, instead)
    said = rehearsal.texts(done)
    assert "Done in" in said and "nothing is installed" in said


def test_without_an_index_and_a_cache_it_is_skipped_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(rehearsal.Unreachable, match="No matching distribution"):
        rehearsal.front()
    assert not list(tmp_path.glob("unsloth-course/*"))
