"""A progress file of its own for every test, so that none touches that of the person who runs them."""

import pytest

from unsloth_course.lesson.exercises import record


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv(record.VARIABLE, str(path))
    monkeypatch.setattr(record.Record, "_unwritten", {})
    return path
