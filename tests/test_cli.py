"""The command line: quick help, one-sentence errors, honest exit statuses."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import unsloth_course.commands
from unsloth_course import cli
from unsloth_course.commands import runner
from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY


def outcome(lesson, verdict):
    results = {"receipt": {"verdict": verdict, "findings": []}, "wall_seconds": 1.0}
    return runner.Outcome(lesson, results, ["a.json", "a.html", "a.ipynb"], None)


def test_help_is_quick():
    def seconds():
        """Of the processor, as other jobs may hold the machine."""
        before = os.times()
        listing = subprocess.run([sys.executable, "-m", "unsloth_course", "--help"], capture_output=True, text=True)
        assert listing.returncode == 0 and "run" in listing.stdout and "doctor" in listing.stdout
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.5


def test_help_has_four_groups_and_a_version(command):
    status, out, _ = command("-h")
    assert status == 0 and out.startswith("Usage: unsloth-course ")
    groups = [f"{panel}:" for panel in cli.PANELS]
    assert [line for line in out.splitlines() if line in groups] == groups
    assert all(f"  {name} " in out for name in ("run", "finetune", "storyboard", "doctor"))
    assert command("--version") == (0, f"unsloth-course {unsloth_course.__version__}\n", "")


def test_help_names_every_lesson(command):
    status, out, _ = command("run", "--help")
    assert status == 0
    assert all(lesson in out for lesson in [*lessons.LESSONS, "all", "--profile", "--seed", "--out"])
    assert "--store" not in out


def test_an_unknown_lesson_is_one_sentence(command):
    status, out, err = command("run", "qlora")
    assert (status, out) == (1, "")
    assert err == "There is no lesson named 'qlora'; the lessons are lora, full, cpt, dpo, grpo, or all of them.\n"


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "lora", "--profile", "tpu"], ["run", "lora", "--seed", "-1"], ["dance"]]
)
def test_wrong_usage_is_exit_status_2(command, arguments):
    status, _, err = command(*arguments)
    assert status == 2
    assert "Traceback" not in err


def test_options_reach_the_runner(command, monkeypatch, tmp_path):
    calls = []

    def run(lesson, **options):
        calls.append((lesson, options))
        return outcome(lesson, "trained")

    monkeypatch.setattr(runner, "run", run)
    options = ["--profile", "gpu", "--seed", "5", "--model", "pocket", "--out", str(tmp_path)]
    status, out, err = command("run", "dpo", *options)
    assert (status, err) == (0, "") and "dpo lesson" in out and "trained" in out
    ((lesson, options),) = calls
    assert abs(options.pop("started") - time.perf_counter()) < 60
    assert lesson == "dpo"
    assert options == {"profile": "gpu", "seed": 5, "out": tmp_path, "model": "pocket", "data": None}


def test_store_is_an_option(command, monkeypatch):
    monkeypatch.setattr(runner, "store", lambda lesson, **_: outcome(lesson, "trained"))
    assert command("run", "lora", "--store")[0] == 0


def test_all_goes_on_after_a_failure(command, monkeypatch):
    def run(lesson, **_):
        if lesson == "full":
            raise CourseError("The disk is full [b]today[/b].")
        return outcome(lesson, "trained")

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(lessons, "written_lessons", lambda: ["full", "lora"])
    status, out, err = command("run", "all")
    assert status == 1
    assert "lora lesson" in out
    assert err.splitlines() == ["The disk is full [b]today[/b].", "1 of 2 lessons failed: full."]


@pytest.mark.parametrize(
    ("said", "name"),
    [(("--seed", "0"), "seed"), (("--weight-decay", "0"), "weight_decay"), (("--warm-up", "0"), "warm_up")],
)
def test_a_zero_beside_a_chain_is_not_ignored(command, tmp_path, said, name):
    path = tmp_path / "chain.toml"
    path.write_text('[[stage]]\nmethod = "lora"\ndata = "pocket"\n')
    status, _, err = command("finetune", "--config", str(path), *said)
    assert status == 1 and f"holds stages; write {name} into it" in err


def test_a_bug_keeps_its_traceback(monkeypatch):
    def run(lesson, **_):
        raise ZeroDivisionError

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(sys, "argv", ["unsloth-course", "run", "lora"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_doctor(command, monkeypatch, ok, status):
    report = SimpleNamespace(ok=ok, to_json=lambda: '{"profile": "cpu"}')
    fake = SimpleNamespace(examine=lambda: report, show=lambda given: print("shown", given is report))
    monkeypatch.setitem(sys.modules, "unsloth_course.commands.doctor", fake)
    monkeypatch.setattr(unsloth_course.commands, "doctor", fake, raising=False)
    assert command("doctor") == (status, "shown True\n", "")
    assert command("doctor", "--json") == (status, '{"profile": "cpu"}\n', "")


@pytest.mark.slow
def test_scoreboard_of_recorded_runs(command, tmp_path):
    recorded = sorted((REPOSITORY / "benchmarks" / "recorded").glob("lora-cpu-*.json"))
    (tmp_path / "lora.json").write_bytes(recorded[0].read_bytes())
    status, out, err = command("scoreboard", "--out", str(tmp_path))
    assert (status, err) == (0, "")
    assert "lora" in out and "exact match" in out and "Not run yet: base, full, dpo, grpo, cpt." in out
    files = {"lora.json", "scoreboard.json", "scoreboard.html", "scoreboard.png"}
    assert {path.name for path in tmp_path.iterdir()} == files
    status, out, err = command("scoreboard", "--out", str(tmp_path), "--json")
    (row,) = json.loads(out)["rows"]
    assert (status, err, row["lesson"]) == (0, "", "lora")
    assert out == (tmp_path / "scoreboard.json").read_text()


def test_scoreboard_of_nothing_fails_in_a_sentence(command, tmp_path):
    status, out, err = command("scoreboard", "--out", str(tmp_path), "--json")
    assert status == 1 and json.loads(out)["rows"] == []
    assert err.startswith("No run left results in ") and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    assert command("scoreboard", "--out", str(tmp_path))[0] == 1
    status, out, err = command("scoreboard", "--out", str(tmp_path / "nowhere"))
    assert (status, out) == (1, "") and err.startswith("There is no results folder ")
