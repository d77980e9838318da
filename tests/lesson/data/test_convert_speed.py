"""The script that measures conversion, and what it recorded."""

import json

import pytest
from conftest import script

from unsloth_course.core.places import REPOSITORY
from unsloth_course.lesson.data import detect, sources

RECORDED = REPOSITORY / "benchmarks" / "recorded" / "convert-cpu.json"


@pytest.fixture(scope="module")
def speed():
    return script("convert")


def test_every_form_is_measured_and_is_what_it_is_called(speed, tmp_path):
    assert set(speed.FORMS) == set(detect.FORMS)
    for form in speed.FORMS:
        speed.write(speed.made(form, 3), tmp_path / "rows.jsonl")
        assert sources.kind(str(tmp_path / "rows.jsonl")) == detect.FORMS[form].target


@pytest.mark.parametrize("ending", [".json", ".jsonl.gz", ".csv", ".parquet"])
def test_a_run_says_how_fast_and_how_large(speed, tmp_path, ending):
    found = speed.measured("alpaca", ending, 300, tmp_path)
    assert (found["format"], found["file"], found["converted"]) == ("alpaca", ending, 300)
    assert found["rows_per_second"] == pytest.approx(300 / found["seconds"], rel=0.01)
    assert 20e6 < found["peak_bytes"] < 500e6


def test_what_was_recorded_meets_the_bars():
    """No form takes three times what plain text takes, and memory does not grow from 50,000 to 500,000 rows."""
    runs = json.loads(RECORDED.read_text(encoding="utf-8"))["runs"]
    assert {run["form"] for run in runs} == set(detect.FORMS)
    assert all(run["converted"] == run["rows"] >= 50_000 for run in runs)
    speeds = {run["form"]: run["rows_per_second"] for run in runs if run["file"] == ".jsonl"}
    assert all(speed >= speeds["text"] / 3 for speed in speeds.values())
    peaks = {(run["form"], run["file"], run["rows"]): run["peak_bytes"] for run in runs}
    large = [key for key in peaks if key[2] == 500_000]
    assert large and all(peaks[key] < peaks[*key[:2], 50_000] + 40e6 for key in large)
