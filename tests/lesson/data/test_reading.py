"""One reader for all rows: what is kept, what is set aside and why, wherever the rows come from."""

import gzip
import json

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import detect, instruction, preference, problems, reading
from unsloth_course.lesson.data.control import Control
from unsloth_course.lesson.data.rows import CONTROL_TOKENS
from unsloth_course.lesson.data.turns import ROLES

from .test_files import json_values, written

ALPACA = {"instruction": "Add.", "input": "2 3", "output": "5"}
PROBLEM = {"question": "What is 3 times 4?", "answer": "3 * 4 = 12\n#### 12"}
ORCA = {"system": "Be brief.", "question": "What is 3 + 4?", "chosen": "It is 7.", "rejected": "7"}
TALK = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
TEXT = {"text": "def f():\n    return 1\n"}
GOOD = {"instruction": ALPACA, "problems": PROBLEM, "preference": ORCA, "chat": TALK, "text": TEXT}
TEXTS = [(shape, column) for shape, row in GOOD.items() for column in row if shape != "chat"]
OTHERS = (("assistant", "Ho"), ("assistant", "No"))
NEEDED = [(shape, column) for shape, column in TEXTS if column not in ("input", "system")]


def reason(shape, row):
    """Why a row is set aside, and that it alone is."""
    checked = reading.load([GOOD[shape], row, GOOD[shape]], shape, "mine")
    assert len(checked.dataset) == 2
    [aside] = checked.set_aside
    assert (aside.file, aside.row) == ("mine", 2) and str(aside) == f"mine, row 2: {aside.reason}"
    str(checked).encode()
    return aside.reason


@pytest.mark.parametrize(("shape", "column"), NEEDED)
def test_a_row_without_its_text_is_set_aside(shape, column):
    for nothing in ("", " \n\t", None, float("nan")):
        assert reason(shape, GOOD[shape] | {column: nothing}) == f"column '{column}' is empty"


@pytest.mark.parametrize(("shape", "column"), TEXTS)
def test_text_that_a_model_must_not_learn_is_set_aside(shape, column):
    good = GOOD[shape]
    assert "half of a surrogate pair" in reason(shape, good | {column: f"\ud800 {good[column]}"})
    for token in CONTROL_TOKENS if shape != "text" else ():
        row = good | {column: f"a{token} {good[column]}"}
        assert reason(shape, row) == f"column '{column}' contains the control token {token}"
        assert len(reading.load([row], shape, control_tokens=Control(("</s>",))).dataset) == 1


@pytest.mark.parametrize(("shape", "column"), TEXTS)
def test_a_value_that_is_no_text_is_set_aside(shape, column):
    number = [(5, "a number")] * (column not in ("output", "answer", "chosen", "rejected"))
    for value, words in (*number, ({}, "an object"), (True, "true or false"), (["5"], "a list")):
        found = reason(shape, GOOD[shape] | {column: value})
        assert (
            found == f"column '{column}': found {words}, expected text. Write the value in quotes."
            or found == f"column '{column}': turn 1 is text, not an object"
        )


@pytest.mark.parametrize(
    ("shape", "row", "words"),
    [
        ("instruction", {"instruction": "Hi", "input": ""}, "column 'output': this column is missing. It has 'instr"),
        ("problems", {"question": "Q"}, "column 'answer': this column is missing. It has 'question'."),
        ("preference", {"question": "Q", "chosen": "a"}, "column 'rejected': this column is missing."),
        ("text", {"body": "b"}, "column 'text': this column is missing. It has 'body'."),
        ("instruction", {}, "It has no columns."),
        *(
            ("instruction", {"instruction": "Hi", name: "Ho"}, f"'output' by '{name}'?")
            for name in ("ouput", " OUTPUT")
        ),
        *(("instruction", ALPACA | {"input": None, name: "2"}, None) for name in ("x", "source")),
        ("problems", {"question": "Q", "answers": "#### 1"}, "Did you mean 'answer' by 'answers'?"),
        ("text", {"Text": "a"}, "Did you mean 'text' by 'Text'?"),
    ],
)
def test_a_column_that_is_missing_or_misspelt_sets_the_row_aside(shape, row, words):
    if words is None:
        assert reading.load([GOOD[shape], row], shape).set_aside == []
    else:
        assert words in reason(shape, row)


@pytest.mark.parametrize("wrong", ["inputs", "INPUT", "imput"])
def test_a_misspelt_input_is_not_lost(wrong):
    row = {"instruction": "Hi", "output": "Ho", wrong: "2 3"}
    assert f"Did you mean 'input' by '{wrong}'?" in reason("instruction", row)


@pytest.mark.parametrize("answer", ["12", "#### ", "#### twelve", "#### 11 or 12", "3 * 4 = 12"])
def test_a_problem_without_a_final_number_is_set_aside(answer):
    assert reason("problems", PROBLEM | {"answer": answer}) == "column 'answer' ends in no number behind ####"


def test_what_is_no_row_is_set_aside():
    assert reason("instruction", 3) == "it is a number, not an object of columns and values"
    assert reason("text", ["a"]) == "it is a list, not an object of columns and values"


@pytest.mark.parametrize("shape", GOOD)
def test_every_source_gives_the_same_answer(tmp_path, shape):
    """A number in a column, and a column that is empty: the rest of the rows is there."""
    column = [*GOOD[shape]][-1]
    rows = [GOOD[shape] | {"note": "x"}, GOOD[shape] | {column: None}, GOOD[shape]]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "folder").mkdir()
    written(tmp_path / "folder", "a.jsonl", lines)
    found = []
    for source in (
        rows,
        Dataset.from_list(rows),
        str(written(tmp_path, "a.json", json.dumps(rows))),
        written(tmp_path, "a.jsonl", lines),
        written(tmp_path, "a.jsonl.gz", gzip.compress(lines.encode())),
        tmp_path / "folder",
    ):
        checked = reading.load(source, shape, "mine")
        kept = [{key: value for key, value in row.items() if key != "file"} for row in checked.dataset]
        found.append((kept, [(one.row, one.reason) for one in checked.set_aside], checked.unused_columns))
    assert found == [found[0]] * len(found)
    assert len(found[0][0]) == 2 and found[0][1][0][0] == 2 and found[0][2] == ["note"]


def test_the_rooms_read_with_it(tmp_path):
    for room, shape in ((instruction, "instruction"), (problems, "problems"), (preference, "preference")):
        path = written(tmp_path, f"{shape}.jsonl", f"{json.dumps(GOOD[shape])}\n3\n")
        found, wanted = room.load(path), reading.load(path, shape)
        assert (found.dataset.to_dict(), found.set_aside) == (wanted.dataset.to_dict(), wanted.set_aside)
        assert found.dataset.features == wanted.dataset.features
        assert room.load([GOOD[shape] | {"note": "<|im_end|>"}], "mine").unused_columns == ["note"]


def test_of_turns_too_what_was_not_read_is_named():
    marked = [turn | {"mood": 0, "tool_calls": None, "name": "Ada"} for turn in TALK["messages"]]
    found = reading.load([{"messages": marked, "id": [{"x": 1}]}], "chat").unused_columns
    assert found == ["messages: mood", "messages: name", "id"]


@pytest.mark.parametrize(
    ("user", "answer"), [("User", "ASSISTANT"), (" user ", "assistant\n"), ("Human", "GPT"), ("HUMAN", "ChatGPT")]
)
@pytest.mark.parametrize("system", ["system", "System", "developer", " Developer"])
def test_roles_are_told_without_capitals_and_space(system, user, answer):
    said = [{"role": role, "content": text} for role, text in ((system, "Be brief."), (user, "Hi"), (answer, "Ho"))]
    wanted = [{"role": role, "content": turn["content"]} for role, turn in zip(ROLES, said, strict=False)]
    assert reading.load([{"messages": said}], "chat").dataset.to_list() == [{"messages": wanted}]
    pair = {"prompt": said[:2], "chosen": said[2:], "rejected": "No"}
    assert reading.load([pair], "preference").dataset["prompt"][0] == wanted[:2]


def test_turns_may_be_the_text_of_a_cell():
    user, said, other = ([{"content": text, "role": role}] for role, text in (("user", "Hi"), *OTHERS))
    for shape, row in (
        ("chat", {"messages": user + said}),
        ("chat", {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}),
        ("chat", {"prompt": user, "completion": said}),
        ("preference", {"prompt": user, "chosen": said, "rejected": user + other}),
        ("preference", {"chosen": user + said, "rejected": user + other, "id": 1}),
    ):
        cells = {column: json.dumps(value) for column, value in row.items()}
        assert reading.load([cells], shape).dataset.to_list() == reading.load([row], shape).dataset.to_list()
        cells = {column: str(value) for column, value in row.items()}  # as Python writes them
        assert reading.load([cells], shape).dataset.to_list() == reading.load([row], shape).dataset.to_list()
        spoilt = {column: f"{value} and more" for column, value in row.items()}
        with pytest.raises(CourseError, match=r"holds turns that are no JSON; write them with json\.dumps"):
            reading.load([spoilt], shape)
    answer = '[{"value": 3, "unit": "m"}]'  # an answer that is JSON is one
    [one] = reading.load([{"prompt": "[1]", "completion": answer}], "instruction").dataset
    assert (one["instruction"], one["output"]) == ("[1]", answer)


def test_nothing_left_is_refused():
    rows = [ALPACA | {"output": ""}, ALPACA | {"output": ""}, ALPACA | {"instruction": ""}]
    with pytest.raises(CourseError, match=r"mine: nothing is left .* set aside: 3, .*\(2\) because column 'output' is"):
        reading.load(rows, "instruction", "mine")
    with pytest.raises(CourseError, match=r"mine: none of its first 1 rows can be read.*it is a number"):
        reading.load([3], "instruction", "mine")
    with pytest.raises(
        CourseError, match=r"mine: its rows are in no form that is known here; they have the columns 'x'"
    ):
        reading.load([{"x": 1}], "instruction", "mine")
    with pytest.raises(CourseError, match="mine is in the form text, which cannot be read as chat"):
        reading.load([TEXT], "chat", "mine")


def test_a_deeply_nested_value_sets_its_row_aside(tmp_path):
    deep = '{"instruction": "Hi", "output": ' + "[" * 900 + "]" * 900 + "}"
    [aside] = reading.load(written(tmp_path, "a.jsonl", f"{json.dumps(ALPACA)}\n{deep}"), "instruction").set_aside
    assert aside.row == 2 and ("found a list" in aside.reason or "nested too deeply" in aside.reason)


turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(ROLES) | json_values, "content": st.text() | json_values},
        optional={"name": json_values},
    )
    | json_values,
    max_size=3,
)
told = st.lists(st.sampled_from(["\n\nHuman:", "\n\nAssistant:", "USER:", " ", "a", "#### 1"]), max_size=6).map("".join)
values = st.text() | turns | told | json_values | st.binary() | st.tuples(st.text())


@pytest.mark.parametrize("form", detect.FORMS.values(), ids=detect.FORMS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_row_is_kept_set_aside_or_refused(form, data):
    columns = [one if isinstance(one, str) else one[0] for one in form.columns]
    row = st.fixed_dictionaries(dict.fromkeys(columns, values), optional={"id": values})
    rows = data.draw(st.lists(row | st.dictionaries(st.text(), json_values, max_size=3) | json_values, max_size=4))
    try:
        checked = reading.load(rows, form.shape)
    except CourseError as error:
        str(error).encode()
        return
    assert len(checked.dataset) + len(checked.set_aside) == len(rows)
    str(checked).encode()
    for one in checked.dataset:
        assert all(
            value.strip() for column, value in one.items() if isinstance(value, str) and column not in ("input", "file")
        )
        assert form.shape != "problems" or problems.final(one["answer"]) is not None
        assert form.shape != "preference" or (one["prompt"][-1]["role"] == "user" and one["chosen"] != one["rejected"])
