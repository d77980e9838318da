"""The held-out prompts of a round trip: where they come from, their forms, and what is no such file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course.commands.export import held_out
from unsloth_course.core.errors import CourseError

ASK = {"role": "user", "content": "What is 1 plus 2?"}
CALL = [
    {"role": "system", "content": "You may call functions."},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": '<functioncall> {"name": "weather"}'},
    {"role": "tool", "content": '{"sky": "blue"}'},
]


def written(folder, *rows) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / held_out.FILE).write_text("".join(json.dumps(row) + "\n\n" for row in rows))


def test_the_file_beside_the_model_is_read_with_system_and_tool_turns(tmp_path):
    written(tmp_path, {"messages": [ASK], "answer": "3"}, {"messages": CALL, "answer": "It is blue.", "id": 7})
    rows = held_out.read(tmp_path / "adapter")
    assert rows == [{"messages": [ASK], "answer": "3"}, {"messages": CALL, "answer": "It is blue."}]
    assert held_out.roles(rows) == {"system", "user", "assistant", "tool"}
    assert held_out.system_prompt(rows) == ""
    assert held_out.system_prompt(rows[1:]) == "You may call functions."


def test_of_a_long_file_200_rows_are_taken(tmp_path):
    written(tmp_path, *({"messages": [ASK], "answer": str(n)} for n in range(250)))
    assert [row["answer"] for row in held_out.read(tmp_path / "model")] == [str(n) for n in range(200)]


def test_a_named_file_goes_before_the_one_beside_the_model(tmp_path):
    written(tmp_path, {"messages": [ASK], "answer": "3"})
    written(tmp_path / "other", {"text": "Once upon a time"})
    named = str(tmp_path / "other" / held_out.FILE)
    assert held_out.read(tmp_path / "adapter", named) == [{"prompt": "Once", "answer": " upon a time"}]


def test_without_the_file_the_options_say_what_it_was_trained_on(tmp_path):
    with pytest.raises(CourseError, match="--data"):
        held_out.read(tmp_path / "adapter")
    (tmp_path / "finetune.toml").write_text('data = "pocket"\nseed = 1\nmethod = "qlora"\n')
    assert held_out.options(tmp_path / "adapter")["method"] == "qlora"
    rows = held_out.read(tmp_path / "adapter")
    assert len(rows) == 200 and held_out.short(rows)
    assert rows[0]["messages"][0]["role"] == "user"


def test_instruction_rows_can_be_named(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"instruction": f"Say {n}", "output": str(n)}) + "\n" for n in range(8)))
    rows = held_out.read(tmp_path / "adapter", str(file))
    assert all(row["messages"][0]["content"] == f"Say {row['answer']}" for row in rows) and len(rows) == 4


@pytest.mark.parametrize(
    ("answer", "short"), [("3", True), ("x" * 24, True), ("x" * 25, False), ("a\nb", False), (" upon", True)]
)
def test_short_answers(answer, short):
    assert held_out.short([{"messages": [ASK], "answer": answer}]) is short
    assert not held_out.short([{"prompt": "Once", "answer": answer}])


@given(st.text(min_size=0, max_size=900))
def test_a_text_is_cut_into_a_beginning_and_what_follows(text):
    try:
        row = held_out._continued(text, "here")
    except CourseError:
        assert len(text.strip()) < 2
        return
    assert row["prompt"] and row["answer"]
    assert text.strip().startswith(row["prompt"] + row["answer"])
    assert len(row["prompt"] + row["answer"]) <= held_out.TEXT_CHARACTERS


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"text": "x"}',
        '{"messages": [], "answer": "x"}',
        '{"messages": [{"role": "user"}], "answer": "x"}',
        '{"messages": [{"role": ["user"], "content": "x"}], "answer": "x"}',
        '{"messages": [{"role": "robot", "content": "x"}], "answer": "x"}',
        '{"messages": [{"role": "user", "content": "x"}], "answer": " "}',
        '{"messages": [{"role": "user", "content": "\\ud800"}], "answer": "x"}',
    ],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path, line):
    file = tmp_path / held_out.FILE
    file.write_text(json.dumps({"messages": [ASK], "answer": "3"}) + "\n" + line + "\n")
    with pytest.raises(CourseError, match=r"held-out\.jsonl, line 2"):
        held_out.read(tmp_path / "adapter")


@given(st.binary(max_size=300))
def test_any_file_is_prompts_or_a_sentence(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / held_out.FILE
    file.write_bytes(content)
    try:
        assert held_out.read_file(file)
    except CourseError as error:
        assert str(file) in str(error)
