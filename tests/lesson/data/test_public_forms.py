"""The forms of public data sets at their true size: each row is converted, or set aside for the fault planted in it."""

import gzip
import json

import pytest

from unsloth_course.commands.convert import convert
from unsloth_course.lesson.data import sources

from . import public_forms

READ = {
    "anthropic": sources.preferences,
    "orca": sources.preferences,
    "alpaca": sources.instructions,
    "glaive": sources.conversations,
}


@pytest.fixture(scope="module", params=public_forms.SETS)
def public(request, tmp_path_factory):
    """One set in a file: (form, what was made, path)."""
    made = public_forms.SETS[request.param]()
    path = tmp_path_factory.mktemp(request.param) / "train.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as stream:
        stream.writelines(json.dumps(row) + "\n" for row in made.rows)
    return request.param, made, path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_every_row_is_converted_or_set_aside_for_its_fault(public, tmp_path):
    form, made, path = public
    out = tmp_path / "out.jsonl"
    report = convert.run(str(path), out=out)
    assert report.format == form and len(made.rows) >= 2000 and made.aside
    assert report.rows == len(made.rows) == report.converted + len(report.set_aside)
    assert {row.row for row in report.set_aside} == set(made.aside)
    assert all(made.aside[row.row] in row.reason for row in report.set_aside)
    assert lines(out) == made.become
    assert [row["row"] for row in lines(convert.side_file(out))] == sorted(made.aside)


def test_the_rows_to_train_on_are_the_same(public):
    form, made, path = public
    train, held_out, checked = READ[form](str(path), train=10**9, held_out=50, seed=1)
    assert {row.row for row in checked.set_aside} == set(made.aside)
    assert len(checked.dataset) == len(made.become) and len(held_out) == 50 and len(train) > 1500
    if form == "glaive":
        wanted = [turn["content"] for row in made.become for turn in row["messages"] if turn["role"] == "assistant"]
        kept_back = {row["prompt"][1]["content"] for row in held_out}
        left_out = [row for row in made.become if row["messages"][1]["content"] in kept_back]
        answers = sum(turn["role"] == "assistant" for row in left_out for turn in row["messages"])
        assert len(train) == len(wanted) - answers
