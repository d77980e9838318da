"""The problem shape: the number that a solution ends in, and what the trainer is given. Its faults: `test_reading`."""

import re
from decimal import Decimal

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import problems, sources
from unsloth_course.lesson.data.problems import final
from unsloth_course.pocket import datasets

ROW = {"question": "What is 3 times 4?", "answer": "3 * 4 = 12\n#### 12"}


# The final number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 * 4 = 12\n#### 12", "12"),
        ("####12", "12"),
        ("#### 12 \n", "12"),
        ("####\n12", "12"),
        ("#### 0012", "12"),
        ("#### +12", "12"),
        ("#### -12", "-12"),
        ("#### −12", "-12"),  # the minus sign of typesetters
        ("#### $12", "12"),
        ("#### -$12", "-12"),
        ("#### $-12", "-12"),
        ("#### 1,234,567", "1234567"),
        ("#### $1,234.50", "1234.5"),
        ("#### 12.00", "12"),
        ("#### .5", "0.5"),
        ("#### -0", "0"),
        ("#### -0.0", "0"),
        ("#### 12.", "12"),
        ("#### 12 apples", "12"),
        ("#### 12%", "12"),
        ("#### 11\n#### 12", "12"),
        ("##### 12", "12"),
        ("#### " + "9" * 5000, "9" * 5000),
    ],
)
def test_the_number_behind_the_last_mark(text, number):
    assert final(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "12",
        "",
        "####",
        "#### twelve",
        "### 12",
        "# # # # 12",
        "#### 12 ####",
        "#### 11 or 12",
        "#### 12 + 3 = 15",
        "#### 3/4",
        "#### 1e5",
        "#### 1,2",
        "#### 1,,234",
        "#### ,5",
        "#### 1.2.3",
        "#### --5",
        "#### -$-5",
        "#### .",
        "#### -",
        "#### ١٢",  # digits, and none of the ten that a reward compares
        "#### 12\n\nProblem: 3",
        None,
        12,
    ],
)
def test_what_names_no_single_number_has_no_final_number(text):
    assert final(text) is None


@given(
    st.one_of(st.none(), st.text(st.characters(exclude_categories=())), st.text("#0123456789,.$+-− \n", max_size=40))
)
def test_any_text_has_a_plain_final_number_or_none(text):
    number = final(text)
    assert number is None or re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", number)
    assert number != "-0"
    assert number is None or final(f"#### {number}") == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9), st.text())
def test_every_number_comes_back_in_whatever_way_it_is_written(number, before):
    for spelling in (f"{number:,}", f"{number:+f}", f"${number}", f" {number}000 "):
        assert Decimal(final(f"{before}#### {spelling}")) == number


@pytest.mark.parametrize("text", ["#" * 10**6, "#### " + "1," * 10**6, "#### " + " " * 10**6, "#### 5" + "." * 10**6])
def test_a_huge_text_is_read_at_once(text):
    assert final(text) in (None, "5")


# Loading


def test_two_text_columns_come_out():
    rows = [{**ROW, "id": 7}, {"question": "Q", "answer": "#### 1,000"}]
    checked = problems.load(rows)
    assert checked.dataset.to_list() == [ROW, rows[1]]
    assert checked.set_aside == [] and checked.unused_columns == ["id"]


# For the trainer


def test_the_trainer_gets_the_question_as_a_chat_and_the_bare_number():
    rows = Dataset.from_list([ROW, {"question": "Q", "answer": "so\n#### $1,000"}])
    made = rows.map(problems.to_grpo, batched=True, remove_columns=rows.column_names)
    assert made.to_list() == [
        {"prompt": [{"role": "user", "content": ROW["question"]}], "answer": "12"},
        {"prompt": [{"role": "user", "content": "Q"}], "answer": "1000"},
    ]


@pytest.mark.parametrize(("worked", "shown"), [(0.0, 0), (0.25, 10), (0.3, 12), (1.0, 40)])
def test_a_warm_up_shows_the_steps_of_a_share_of_the_rows(worked, shown):
    rows = datasets.problems(40, False, seed=1)
    made = problems.warm_up(rows, worked)
    assert made.column_names == ["prompt", "completion"]
    texts = [turns[0]["content"] for turns in made["completion"]]
    assert sum("=" in text for text in texts) == shown
    assert all(
        text == row["answer"] or text == f"#### {final(row['answer'])}" for text, row in zip(texts, rows, strict=True)
    )
    assert made["prompt"][0] == [{"role": "user", "content": rows[0]["question"]}]


def test_rows_without_the_columns_are_a_sentence():
    for convert in (problems.to_grpo, lambda batch: problems.warm_up(Dataset.from_dict(batch), 0.5)):
        with pytest.raises(CourseError, match=r"no column '(question|answer)'; it has 'instruction'"):
            convert({"instruction": ["Q"]})


def test_the_longest_prompt_is_counted_with_its_template(load):
    _, tokenizer = load()
    rows = Dataset.from_list([{"question": text, "answer": "#### 1"} for text in ("Hi", "What is 3 times 4?", "No")])
    turns = [{"role": "user", "content": "What is 3 times 4?"}]
    expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert problems.longest_prompt(rows, tokenizer) == len(expected) > 10


# Where they come from


def test_generated_problems_are_of_the_hard_kind():
    train, held_out, _ = sources.problems("pocket", train=60, held_out=30, seed=1)
    assert all(" bags with " in question for question in [*train["question"], *held_out["question"]])
    kinds = datasets.problems(40, False, seed=1, kinds=(1, 2))["question"]
    assert not any(" bags with " in question for question in kinds)
