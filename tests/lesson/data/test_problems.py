"""The problem shape: the number that a solution ends in, what is kept and set aside, and what the trainer is given."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from unsloth_course.core import hub
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import problems, sources
from unsloth_course.lesson.data.problems import final
from unsloth_course.pocket import datasets

from .test_files import any_file, json_values, written

ROW = {"question": "What is 3 times 4?", "answer": "3 * 4 = 12\n#### 12"}
SAMPLE = Path(__file__).parents[4] / "shared" / "data" / "gsm8k_problems.jsonl"


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


def refusal(source, **options):
    with pytest.raises(CourseError) as caught:
        problems.load(source, **options)
    message = str(caught.value)
    message.encode()
    return message


def test_two_text_columns_come_out(tmp_path):
    rows = [{**ROW, "id": 7}, {"question": "Q", "answer": "#### 1,000"}]
    jsonl = written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    for source in (jsonl, written(tmp_path, "a.json", json.dumps(rows)), rows):
        checked = problems.load(source)
        assert checked.dataset.to_list() == [ROW, rows[1]]
        assert checked.set_aside == [] and checked.unused_columns == ["id"]
    assert problems.load(Dataset.from_list([ROW])).dataset.to_list() == [ROW]


@pytest.mark.parametrize("answer", ["12", "#### ", "#### twelve", "#### 11 or 12", "3 * 4 = 12"])
def test_a_row_without_a_final_number_is_set_aside(answer):
    checked = problems.load([ROW, {**ROW, "answer": answer}, ROW], name="mine")
    assert len(checked.dataset) == 2
    assert [str(row) for row in checked.set_aside] == ["mine, row 2: column 'answer' ends in no number behind ####"]


@pytest.mark.parametrize("column", problems.COLUMNS)
@pytest.mark.parametrize("nothing", ["", " \n", None, float("nan")])
def test_empty_rows_are_set_aside(column, nothing):
    [row] = problems.load([ROW, {**ROW, column: nothing}]).set_aside
    assert (row.row, row.reason) == (2, f"column '{column}' is empty")


@pytest.mark.parametrize("column", problems.COLUMNS)
def test_control_tokens_and_half_characters_are_set_aside(column):
    spoilt = [{**ROW, column: f"a<|im_end|> {ROW[column]}"}, {**ROW, column: f"\ud800 {ROW[column]}"}]
    reasons = [row.reason for row in problems.load([ROW, *spoilt]).set_aside]
    assert "contains the control token <|im_end|>" in reasons[0] and "surrogate" in reasons[1]
    assert len(problems.load([ROW, spoilt[0]], control_tokens=["</s>"]).dataset) == 2


def test_what_cannot_be_used_is_a_sentence(tmp_path):
    path = written(tmp_path, "a.jsonl", f"{json.dumps(ROW)}\n{json.dumps({'question': 'Q'})}")
    assert f"{path}, row 2 (line 2), column 'answer': this column is missing. It has 'question'." in refusal(path)
    assert "Did you mean 'answer' by 'answers'?" in refusal([{"question": "Q", "answers": "#### 1"}])
    assert "column 'answer': found a number, expected text" in refusal([{"question": "Q", "answer": 12}])
    assert "nothing is left to train on. Rows set aside: 2" in refusal([{"question": "Q", "answer": "12"}] * 2)


rows_like_these = st.lists(
    st.fixed_dictionaries(
        {"question": st.text() | json_values, "answer": st.text("#0123456789 ,.\n") | st.text() | json_values},
        optional={"id": json_values},
    )
    | st.dictionaries(st.text(), json_values, max_size=3),
    max_size=4,
)


@settings(any_file, max_examples=200)
@given(values=rows_like_these)
def test_any_json_is_kept_set_aside_or_refused(tmp_path, values):
    path = written(tmp_path, "a.json", json.dumps(values))
    try:
        checked = problems.load(path)
    except CourseError as error:
        str(error).encode()
    else:
        assert len(checked.dataset) + len(checked.set_aside) == len(values)
        assert all(final(answer) is not None for answer in checked.dataset["answer"])


@any_file
@given(content=st.binary())
def test_any_bytes_never_give_a_traceback(tmp_path, content):
    with pytest.raises(CourseError):
        problems.load(written(tmp_path, "a.jsonl", content))


@pytest.mark.skipif(not SAMPLE.exists(), reason="the sample lies beside the repository on the author's machine only")
def test_real_rows_all_end_in_a_number():
    checked = problems.load(SAMPLE)
    assert len(checked.dataset) == 300 and checked.set_aside == []
    shown = [row["answer"].rpartition("####")[2].strip().replace(",", "") for row in checked.dataset]
    assert [final(row["answer"]) for row in checked.dataset] == shown


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


def test_generated_problems_are_of_the_hard_kind_and_the_test_is_always_the_same():
    train, held_out, checked = sources.problems("pocket", train=60, held_out=30, seed=1)
    other, again, _ = sources.problems("pocket", train=60, held_out=30, seed=2)
    assert (len(train), len(held_out), checked.set_aside) == (60, 30, [])
    assert held_out.to_dict() == again.to_dict() and train.to_dict() != other.to_dict()
    assert not set(train["question"]) & set(held_out["question"])
    assert all(" bags with " in question for question in [*train["question"], *held_out["question"]])
    kinds = datasets.problems(40, False, seed=1, kinds=(1, 2))["question"]
    assert not any(" bags with " in question for question in kinds)


def test_a_file_is_split_by_question(tmp_path):
    rows = [{"question": f"What is {n}?", "answer": f"#### {n}"} for n in range(40)]
    rows += [{"question": f"WHAT IS  {n}?", "answer": f"#### {n}"} for n in range(40)]
    path = str(written(tmp_path, "a.json", json.dumps([*rows, {"question": "Q", "answer": "none"}])))
    train, held_out, checked = sources.problems(path, train=30, held_out=20, seed=1)
    assert (len(held_out), len(checked.set_aside)) == (20, 1) and 0 < len(train) <= 30
    assert not set(problems.keys(train)) & set(problems.keys(held_out))
    assert held_out.to_dict() == sources.problems(path, train=30, held_out=20, seed=2)[1].to_dict()
    with pytest.raises(CourseError, match="ask what the test asks"):
        sources.problems(str(written(tmp_path, "b.json", json.dumps(rows[:1]))), train=5, held_out=5, seed=1)


def test_a_set_of_the_hub_is_fetched(monkeypatch):
    asked = []

    def fetch(name):
        asked.append(name)
        return Dataset.from_list([{"question": f"What is {n}?", "answer": f"#### {n}"} for n in range(40)])

    monkeypatch.setattr(hub, "fetch_dataset", fetch)
    train, held_out, _ = sources.problems("openai/gsm8k", train=25, held_out=10, seed=1)
    assert asked == ["openai/gsm8k"] and (len(train), len(held_out)) == (25, 10)
