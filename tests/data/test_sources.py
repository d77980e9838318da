"""Where instruction rows come from, and that the test never asks what the training answered."""

import json

import pytest

from unsloth_course import hub
from unsloth_course.data import instruction, sources
from unsloth_course.errors import CourseError


def row(number, output=None, **changes):
    return {
        "instruction": f"What is {number}?",
        "input": "",
        "output": str(number) if output is None else output,
    } | changes


def questions(rows):
    return [instruction.question(*pair).casefold() for pair in zip(rows["instruction"], rows["input"], strict=True)]


@pytest.fixture
def file_of(tmp_path):
    def write(rows, name="rows.json"):
        path = tmp_path / name
        text = "\n".join(map(json.dumps, rows)) if name.lower().endswith("l") else json.dumps(rows)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


# The pocket model's rows


def test_generated_rows_have_the_columns_of_the_hub_set():
    train, held_out, checked = sources.instructions("pocket", train=100, held_out=40, seed=1)
    assert train.column_names == held_out.column_names == list(instruction.COLUMNS)
    assert (len(train), len(held_out)) == (100, 40)
    assert checked.set_aside == [] and len(checked.dataset) == 100


def test_the_held_out_rows_are_the_same_for_every_seed():
    first = sources.instructions("pocket", train=50, held_out=40, seed=1)
    second = sources.instructions("pocket", train=50, held_out=40, seed=2)
    again = sources.instructions("pocket", train=50, held_out=40, seed=1)
    assert first[1].to_dict() == second[1].to_dict()
    assert first[0].to_dict() == again[0].to_dict() != second[0].to_dict()


def test_no_held_out_question_is_asked_in_training():
    train, held_out, _ = sources.instructions("pocket", train=3200, held_out=200, seed=3407)
    assert not set(questions(train)) & set(questions(held_out))


# Files


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "ROWS.JSON"])
def test_a_file_is_checked_and_split(file_of, name):
    path = file_of([row(n) for n in range(50)] + [row(99, "")], name)
    train, held_out, checked = sources.instructions(path, train=1000, held_out=10, seed=1)
    assert (len(train), len(held_out)) == (40, 10)
    assert sorted([*train["output"], *held_out["output"]], key=int) == [str(n) for n in range(50)]
    assert [str(aside) for aside in checked.set_aside] == [f"{path}, row 51: column 'output' is empty"]


def test_as_many_rows_as_asked_for_and_no_more(file_of):
    path = file_of([row(n) for n in range(50)])
    train, held_out, _ = sources.instructions(path, train=7, held_out=10, seed=1)
    assert (len(train), len(held_out)) == (7, 10)


def test_the_seed_draws_the_training_rows_and_leaves_the_test_alone(file_of):
    path = file_of([row(n) for n in range(200)])
    found = [sources.instructions(path, train=20, held_out=30, seed=seed) for seed in (1, 2, 1)]
    assert found[0][1].to_dict() == found[1][1].to_dict()
    assert found[0][0].to_dict() == found[2][0].to_dict() != found[1][0].to_dict()


def test_rows_with_the_same_question_stay_on_one_side(file_of):
    """Also where only capitals and white space differ, as in `instruction.split`."""
    spellings = ["What is {}?", "what is  {}?", " WHAT IS {}? ", "What is\n{}?"]
    rows = [row(n, instruction=text.format(n)) for n in range(30) for text in spellings]
    train, held_out, _ = sources.instructions(file_of(rows), train=1000, held_out=20, seed=1)
    plain = [{" ".join(text.split()) for text in questions(side)} for side in (train, held_out)]
    assert plain[0] and plain[1] and not plain[0] & plain[1]


def test_the_input_belongs_to_the_question(file_of):
    rows = [row(n, instruction="Count one further.", input=str(n)) for n in range(40)]
    train, held_out, _ = sources.instructions(file_of(rows), train=1000, held_out=10, seed=1)
    assert (len(train), len(held_out)) == (30, 10)


def test_only_short_answers_are_tested_and_long_ones_are_learned(file_of):
    essays = [row(n, f"An essay about {n}. " * 5) for n in range(40)]
    lines = [row(n, f"{n}\n{n}") for n in range(40, 50)]
    short = [row(n) for n in range(50, 70)]
    train, held_out, _ = sources.instructions(file_of(essays + lines + short), train=1000, held_out=200, seed=1)
    assert len(held_out) == 10 and all(50 <= int(text) < 70 for text in held_out["output"])
    assert len(train) == 60


def test_an_answer_at_the_limit_is_short(file_of):
    rows = [row(1, "a" * sources.SHORT_ANSWER), row(2, "a" * (sources.SHORT_ANSWER + 1)), row(3, "b" * 99)]
    _, held_out, _ = sources.instructions(file_of(rows), train=10, held_out=10, seed=1)
    assert held_out["output"] == ["a" * sources.SHORT_ANSWER]


def test_a_file_without_a_short_answer_is_a_sentence(file_of):
    path = file_of([row(n, "A long answer that goes on and on.") for n in range(9)])
    with pytest.raises(CourseError, match=r"rows\.json: no row has an answer of at most 24 characters.*Add some"):
        sources.instructions(path, train=10, held_out=5, seed=1)


@pytest.mark.parametrize("rows", [[row(1)], [row(1), row(1), row(1, "one")]], ids=["one row", "one question"])
def test_a_file_with_one_question_is_a_sentence(file_of, rows):
    with pytest.raises(CourseError, match=r"rows\.json: all \d rows ask what the test asks.*Add rows"):
        sources.instructions(file_of(rows), train=10, held_out=5, seed=1)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere.json", "There is no file nowhere.json"),
        ("nowhere.jsonl.gz", "There is no file nowhere.jsonl.gz"),
        (".", "is a folder. Name one file in it"),
    ],
)
def test_a_file_that_is_not_there_is_a_sentence(name, sentence):
    with pytest.raises(CourseError, match=sentence):
        sources.instructions(name, train=10, held_out=5, seed=1)


def test_a_file_of_another_kind_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "fetch_dataset", pytest.fail)
    path = tmp_path / "rows.csv"
    path.write_text("instruction,output\n")
    with pytest.raises(CourseError, match=r"rows\.csv has none of the endings"):
        sources.instructions(str(path), train=10, held_out=5, seed=1)


# The Hub


def test_a_hub_set_is_fetched_with_its_columns_checked(monkeypatch):
    from datasets import Dataset

    asked = []

    def fetch(name, columns):
        asked.append((name, columns))
        return Dataset.from_list([row(n) for n in range(80)] + [row(80, "")])

    monkeypatch.setattr(hub, "fetch_dataset", fetch)
    train, held_out, checked = sources.instructions("yahma/alpaca-cleaned", train=25, held_out=10, seed=1)
    assert asked == [("yahma/alpaca-cleaned", instruction.COLUMNS)]
    assert (len(train), len(held_out)) == (25, 10)
    assert str(checked.set_aside[0]).startswith("yahma/alpaca-cleaned, row 81")


def test_what_the_scoreboard_asks_is_never_trained_on_however_few_a_run_tests(monkeypatch):
    """The battery asks the first 120 held-out rows of the Hub's set of every model."""
    rows = [row(n) for n in range(1000)]
    monkeypatch.setattr(hub, "fetch_dataset", lambda name, columns: rows)
    asked = set(sources.instructions("yahma/alpaca-cleaned", train=1, held_out=120, seed=1)[1]["output"])
    for held_out in (5, 300):
        train, test, _ = sources.instructions("yahma/alpaca-cleaned", train=10_000, held_out=held_out, seed=2)
        assert len(test) == held_out and len(train) == 1000 - max(200, held_out)
        assert len(asked) == 120 and not asked & set(train["output"])
    train, _, _ = sources.instructions("somebody/else", train=10_000, held_out=5, seed=2)
    assert len(train) == 995
