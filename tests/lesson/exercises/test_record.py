"""The progress file: where it is, whole or not at all, and what happens when it is damaged or cannot be written."""

import json
import sys
from pathlib import Path

import platformdirs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lesson.exercises.sources import solution
from unsloth_course import exercises
from unsloth_course.lesson.exercises import record
from unsloth_course.lesson.exercises.record import Record, Tries, location


def test_it_is_readable_json_and_survives_the_session(file):
    exercises.check("lora.2", lambda *_: 0)
    exercises.check("lora.1", solution("lora.1"))
    assert json.loads(file.read_text()) == {
        "lora.1": {"failed": 0, "solved": 1},
        "lora.2": {"failed": 1, "solved": None},
    }
    assert [path.name for path in file.parent.iterdir()] == ["progress.json"]
    assert Record().tries("lora.2") == Tries(1)


def test_entries_of_exercises_that_this_version_does_not_know_are_kept(file):
    file.write_text('{"vision.1": {"failed": 2, "solved": 3, "more": "x"}}')
    exercises.check("lora.1", solution("lora.1"))
    assert json.loads(file.read_text())["vision.1"] == {"failed": 2, "solved": 3}
    assert exercises.progress().solved == 1 and exercises.progress().note == ""


DAMAGED = [b"", b"[]", b"\xff\xfe\x00", b'{"lora.1": {"failed": -1, "solved": null}}', b"[" * 100_000]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:40]))
def test_a_damaged_file_is_set_aside_and_said_so(file, content):
    file.write_bytes(content)
    verdict = exercises.check("lora.1", solution("lora.1"))
    assert verdict
    assert verdict.note.endswith("was damaged; it is now called progress-damaged.json, and progress begins anew.")
    assert verdict.note in str(verdict) and "damaged" in verdict._repr_html_()
    assert (file.parent / "progress-damaged.json").read_bytes() == content
    assert exercises.progress().solved == 1 and exercises.progress().note == ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60))
def test_no_file_content_is_an_error(file, content):
    file.write_bytes(content)
    assert exercises.progress().solved == 0
    assert exercises.check("lora.1", solution("lora.1"))
    file.unlink()


def test_a_damaged_file_that_cannot_be_moved_is_left_as_it_is(file, monkeypatch):
    file.write_text("{")

    def refuse(self, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    for failed in (1, 2):
        verdict = exercises.check("lora.1", lambda *_: 0)
        assert "is damaged and cannot be moved aside (Permission denied)" in verdict.note
        assert verdict.tries == Tries(failed), "hints go on within the session"
    assert file.read_text() == "{"


@pytest.fixture(params=["a folder that is a file", "a read-only folder"])
def nowhere(request, tmp_path, monkeypatch):
    """A progress file that cannot be written."""
    if request.param == "a folder that is a file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "progress.json"
    else:
        (tmp_path / "folder").mkdir()
        path = tmp_path / "folder" / "progress.json"
        real = Path.write_text

        def refuse(self, *arguments, **keywords):
            if self.parent == path.parent:
                raise PermissionError(13, "Permission denied")
            return real(self, *arguments, **keywords)

        monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setenv(record.VARIABLE, str(path))
    return path


def test_without_a_place_to_write_everything_works_and_a_sentence_says_so(nowhere):
    states = [exercises.check("lora.1", lambda *_: 0) for _ in range(3)]
    assert all("Progress is not kept beyond this session" in one.note for one in states)
    assert all(record.VARIABLE in str(one) for one in states)
    assert exercises.check("lora.2", solution("lora.2"))
    found = exercises.progress()
    assert found.solved == 1 and "not kept" in found.note and "not kept" in str(found)
    assert not nowhere.exists()


def test_an_untouched_cell_says_nothing_about_the_file(nowhere):
    assert exercises.check("lora.1").note == ""


def test_what_could_not_be_written_is_written_when_it_can_be(tmp_path, monkeypatch):
    blocked = tmp_path / "folder"
    blocked.write_text("in the way")
    monkeypatch.setenv(record.VARIABLE, str(blocked / "progress.json"))
    exercises.check("lora.1", solution("lora.1"))
    blocked.unlink()
    assert exercises.check("lora.2", solution("lora.2")).note == ""
    assert set(json.loads((blocked / "progress.json").read_text())) == {"lora.1", "lora.2"}


def test_a_file_that_cannot_be_read_is_never_replaced(file, monkeypatch):
    file.write_text('{"lora.1": {"failed": 0, "solved": 1}}')
    real = Path.read_text

    def refuse(self, *arguments, **keywords):
        if self == file:
            raise PermissionError(13, "Permission denied")
        return real(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        for _ in range(2):
            assert "cannot be read (Permission denied)" in exercises.check("lora.2", solution("lora.2")).note
    assert json.loads(file.read_text()) == {"lora.1": {"failed": 0, "solved": 1}}


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in (record.VARIABLE, "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def test_it_lies_where_programs_keep_their_data(home, monkeypatch):
    assert location() == Path(platformdirs.user_data_dir("unsloth-course", False), "progress.json")
    if sys.platform == "linux":
        assert location() == home / ".local/share/unsloth-course/progress.json"
        monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
        assert location() == home / "data/unsloth-course/progress.json"


def test_a_file_or_a_folder_may_be_named(home, monkeypatch):
    monkeypatch.setenv(record.VARIABLE, str(home / "mine.json"))
    assert location() == home / "mine.json"
    monkeypatch.setenv(record.VARIABLE, str(home))
    assert location() == home / "progress.json"
    monkeypatch.setenv(record.VARIABLE, "~/mine.json")
    assert location() == home / "mine.json"


def test_folders_are_made_on_the_first_attempt_and_not_before(home):
    exercises.progress()
    exercises.check("lora.1")
    assert list(home.iterdir()) == []
    exercises.check("lora.1", solution("lora.1"))
    assert location().is_file()


def test_without_a_home_folder_it_works_too(monkeypatch, home):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(record.tempfile, "gettempdir", lambda: home)
    assert exercises.check("lora.1", solution("lora.1"))
    assert exercises.progress().solved == 1 and exercises.progress().note == ""


def test_sentences_do_not_name_somebodys_home(home):
    path = location()
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert exercises.progress().note.startswith("~/") and str(home) not in exercises.progress().note
