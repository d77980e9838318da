"""The `storyboard` command, and the scripts that keep its figures."""

import json
from pathlib import Path

import nbformat
import pytest
from conftest import script
from typer.testing import CliRunner

from unsloth_course import cli, studio
from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.studio import clock

from . import made


def call(*arguments):
    return CliRunner().invoke(cli.app, ["storyboard", *map(str, arguments)])


def test_json_has_what_was_promised(tmp_path):
    ended = call("lora", "--out", tmp_path, "--json")
    found = json.loads(ended.stdout)
    assert ended.exit_code == 0 and found["lesson"] == "lora" and found["faults"] == []
    assert found["minutes"] == pytest.approx(sum(segment["minutes"] for segment in found["segments"]), abs=0.05)
    assert {segment["name"] for segment in found["segments"]} == set(clock.SEGMENTS)
    assert found["segments"][0]["chapter"] == "00:00" and len(found["files"]) == 10
    assert all(Path(path).parent == tmp_path / "lora" and Path(path).is_file() for path in found["files"])


def test_a_take_that_is_too_long_fails(monkeypatch):
    def short(lesson, out, profile, pace, run, marks):
        return studio.Storyboard(made.board_of(lesson, profile, pace), ())

    monkeypatch.setattr(studio, "write", short)
    ended = call("lora", "--pace", 80)
    assert isinstance(ended.exception, CourseError) and "minutes in all, not 25 to 40" in str(ended.exception)
    assert call("all").exit_code == 0


@pytest.mark.parametrize("wrong", [("qlora",), ("lora", "--pace", "3")])
def test_what_cannot_be_is_one_sentence(tmp_path, wrong):
    ended = call(*wrong, "--out", tmp_path)
    assert isinstance(ended.exception, CourseError) and not list(tmp_path.iterdir())


def executed(folder, timed=True):
    notebook = made.lesson()
    for cell in notebook.cells:
        if timed and cell.cell_type == "code":
            stamps = {"iopub.execute_input": "2026-11-20T23:59:59.5Z", "shell.execute_reply": "2026-11-21T00:00:01Z"}
            cell.metadata["execution"] = stamps
    (folder / lessons.LESSONS["lora"]).write_text(nbformat.writes(notebook), encoding="utf-8")


def test_cell_seconds_come_from_executed_copies(tmp_path, monkeypatch):
    scripts = script("cell_seconds")
    monkeypatch.setattr(clock, "RECORDED", tmp_path / "cell_seconds.json")
    (tmp_path / "cell_seconds.json").write_text('{"dpo": {"cpu": {"device": "kept"}}}', encoding="utf-8")
    executed(tmp_path)
    scripts.main([str(tmp_path), "--profile", "gpu", "--device", "a made GPU", "--remark", "shared"])
    found = json.loads((tmp_path / "cell_seconds.json").read_text(encoding="utf-8"))
    assert found["dpo"]["cpu"]["device"] == "kept" and list(found["lora"]) == ["gpu"]
    assert found["lora"]["gpu"]["device"] == "a made GPU" and found["lora"]["gpu"]["remark"] == "shared"
    assert found["lora"]["gpu"]["cells"] == {"quick": 1.5, "install": 1.5, "long": 1.5}


def test_cell_seconds_want_timings_and_a_device(tmp_path):
    scripts = script("cell_seconds")
    executed(tmp_path)
    with pytest.raises(CourseError, match="--device"):
        scripts.record(tmp_path, "lora", None)
    executed(tmp_path, timed=False)
    with pytest.raises(CourseError, match="no timings"):
        scripts.record(tmp_path, "lora", "a made GPU")


def test_minutes_are_written_once(tmp_path, monkeypatch, capsys):
    scripts = script("minutes")
    path = tmp_path / "made.ipynb"
    path.write_text(nbformat.writes(made.lesson()), encoding="utf-8")
    monkeypatch.setattr(lessons, "LESSONS", {"lora": path.name})
    monkeypatch.setattr(lessons, "NOTEBOOKS", tmp_path)
    before = path.read_text(encoding="utf-8")
    scripts.main([])
    assert path.read_text(encoding="utf-8") == before and "None -> 1" in capsys.readouterr().out
    scripts.main(["--write"])
    scripts.main(["--write"])
    assert "->" not in capsys.readouterr().out.split("lora cpu")[-1]
    assert nbformat.read(path, 4).cells[0].metadata.course.minutes == 1
