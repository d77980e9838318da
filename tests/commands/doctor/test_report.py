"""The doctor's report: keys, profile, what is printed, and the guide's table of it."""

import io
import json

from unsloth_course.commands import doctor
from unsloth_course.commands.doctor import Check, Report
from unsloth_course.setup.pins import ROOT

from .made import HEALTHY, TESTED


def test_the_report_has_the_profile_and_its_json_the_agreed_keys(monkeypatch):
    monkeypatch.setattr(doctor, "_detected", lambda: ("cpu", "no accelerator"))
    report = doctor.examine(HEALTHY)
    found = json.loads(report.to_json())
    assert list(found) == ["profile", "reason", "checks"]
    assert (found["profile"], found["reason"]) == ("cpu", "no accelerator")
    assert all(list(check) == ["name", "tested", "found", "ok", "advice"] for check in found["checks"])
    assert all(isinstance(check["ok"], bool) for check in found["checks"])
    assert report.ok


def test_a_profile_that_cannot_be_found_out_is_a_failed_check(monkeypatch):
    def broken():
        raise OSError("libtorch.so: cannot open shared object file\nmore")

    monkeypatch.setattr(doctor, "_detected", broken)
    report = doctor.examine(HEALTHY)
    assert not report.ok
    assert report.checks[0].name == "profile"
    assert "libtorch.so" in report.checks[0].found


def shown(report: Report) -> str:
    from rich.console import Console

    out = io.StringIO()
    doctor.show(report, Console(file=out, width=60))
    return out.getvalue()


def test_the_printed_report_has_a_line_per_check_and_the_advice():
    checks = [Check("good", "1", "1", True), Check("bad", "1", "[red]2[/red]", False, "pip install 'x[y]'")]
    text = shown(Report("cpu", "no accelerator", checks))
    assert "[OK]   good  1" in text
    assert "[FAIL] bad   [red]2[/red]  (tested: 1)" in text
    assert "pip install 'x[y]'" in text
    assert "1 of 2 checks failed" in text


def test_a_command_is_not_broken_over_lines():
    sentence, command = "a sentence of many words " * 5, "    python -m pip install --no-deps " + "x" * 80
    lines = shown(Report("cpu", "", [Check("bad", "1", "2", False, f"{sentence}:\n{command}")])).splitlines()
    assert f"       {command}" in lines
    assert all(len(line) <= 60 for line in lines if "sentence" in line)


def test_the_guide_lists_every_check():
    guide = (ROOT / "VENV_SETUP.md").read_text(encoding="utf-8")
    table = guide[guide.index("## What doctor finds") :]
    listed = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")}
    checks = {check.name for check in doctor.run_checks(HEALTHY, "cpu")} - TESTED.keys()
    assert checks <= listed
    assert listed - checks == {"line of the report", "a package's name", "profile"}
