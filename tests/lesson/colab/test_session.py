"""The install cell's work: looking at a session, saying what will be done, doing it, and not doing it twice."""

import importlib
import sys
import types

import pytest

from unsloth_course import colab
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.colab.decisions import Decision, Row

session = importlib.import_module("unsloth_course.lesson.colab.session")
NOTHING = Decision((Row("trl", "1.15.0", "1.15.0", "kept"),))
SOME = Decision(
    (Row("trl", "", "1.15.0", "installed"), Row("datasets", "4.0.0", "4.8.5", "replaced", "unsloth asks for !=4.0.*")),
    ("trl==1.15.0", "datasets==4.8.5"),
)


@pytest.fixture
def in_colab(monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")


@pytest.fixture
def pip(monkeypatch):
    """Records the pips that would have run: `calls`. `decisions` are what is decided, one after the other."""
    found = types.SimpleNamespace(calls=[], decisions=[], status=0, said="")

    def run(command, **_):
        found.calls.append(command)
        return type("Done", (), {"returncode": found.status, "stdout": "", "stderr": found.said})

    monkeypatch.setattr(session.subprocess, "run", run)
    monkeypatch.setattr(session, "decide_here", lambda: found.decisions.pop(0))
    return found


def test_locally_it_does_nothing(monkeypatch, capsys, pip):
    for name in session.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    colab.install()
    assert pip.calls == [] and capsys.readouterr().out == ""


def test_colab_is_known_by_its_package_or_its_variables(monkeypatch):
    for name in session.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not colab.present()
    monkeypatch.setitem(sys.modules, "google.colab", object())
    assert colab.present()
    monkeypatch.delitem(sys.modules, "google.colab")
    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
    assert colab.present()


def test_it_installs_what_is_missing_without_dependencies(in_colab, pip, capsys):
    pip.decisions = [SOME, NOTHING]
    colab.install()
    (command,) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "install"] and "--no-deps" in command
    assert command[-2:] == ["trl==1.15.0", "datasets==4.8.5"]
    said = capsys.readouterr().out
    assert "found" in said and "tested" in said and "verdict" in said
    assert "No restart is needed" in said and "Done in" in said


def test_when_all_is_there_it_installs_nothing(in_colab, pip, capsys):
    pip.decisions = [NOTHING]
    colab.install()
    assert pip.calls == [] and "nothing is installed" in capsys.readouterr().out


def test_a_restart_is_announced_before_pip_runs_and_asked_for_after(in_colab, pip, capsys, monkeypatch):
    pip.decisions = [Decision(SOME.rows, SOME.pins, ("datasets",)), NOTHING]
    said = []
    run = session.subprocess.run
    monkeypatch.setattr(
        session.subprocess, "run", lambda *a, **k: (said.append(capsys.readouterr().out), run(*a, **k))[1]
    )
    with pytest.raises(CourseError, match=r"Restart this session now.*datasets"):
        colab.install()
    assert "A RESTART IS NEEDED" in said[0] and "Nothing was downloaded yet" in said[0]
    assert len(pip.calls) == 1


def test_a_conflict_stops_before_anything_is_downloaded(in_colab, pip):
    pip.decisions = [
        Decision((Row("torch", "2.99", "2.13.0", "conflict", "unsloth asks for <2.15.0"),), ("trl==1.15.0",))
    ]
    with pytest.raises(CourseError, match=r"torch 2.99: unsloth asks for <2.15.0.*Nothing was downloaded"):
        colab.install()
    assert pip.calls == []


def test_another_python_is_refused(in_colab, pip, monkeypatch):
    pip.decisions = [SOME]
    monkeypatch.setattr(session, "NEWEST_PYTHON", (3, 10))
    with pytest.raises(CourseError, match="This session runs Python"):
        colab.install()
    assert pip.calls == []


def test_pips_own_reason_is_passed_on(in_colab, pip):
    pip.decisions, pip.status = [SOME], 1
    pip.said = "WARNING: x\nERROR: No matching distribution found for trl==1.15.0\n"
    with pytest.raises(CourseError, match=r"No matching distribution found for trl==1\.15\.0"):
        colab.install()


def test_a_pip_that_lied_is_told(in_colab, pip):
    pip.decisions = [SOME, SOME]
    with pytest.raises(CourseError, match=r"not in place: trl==1\.15\.0"):
        colab.install()


def test_looking_at_this_very_environment_finds_nothing_to_do():
    found = session.decide_here()
    assert found.pins == () and not found.conflicts
    assert {row.verdict for row in found.rows} == {"kept"}


def test_what_is_loaded_is_found_by_its_package():
    assert session.loaded(["pyyaml", "trl"], {"yaml": 1, "sys": 1}) == {"pyyaml"}
    assert session.loaded(["protobuf"], {"google": 1}) == set()
