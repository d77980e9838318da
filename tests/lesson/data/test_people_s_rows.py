"""Rows as people have them: each kind of fault with the value that is right, in inputs of a few lines."""

import json
import os

import pyarrow
import pytest
from pyarrow import parquet

from unsloth_course.commands.convert import convert
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import reading, sources, templates
from unsloth_course.lesson.data.rows import UNREADABLE
from unsloth_course.lesson.data.splits import Part


def said(role, content, **more):
    return {"role": role, "content": content} | more


USER, ANSWER, TOOL = said("user", "Weather in Rome?"), said("assistant", "20 degrees."), said("tool", '{"deg": 20}')
ASKED = {"name": "get_weather", "arguments": {"city": "Rome"}}
CALL = {"type": "function", "function": ASKED}
SHOWN = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
CALLED = [USER, said("assistant", "", tool_calls=[CALL]), TOOL, ANSWER]


def made(row, shape="chat"):
    """What a row becomes, as `data` writes it."""
    form, rows, _ = reading.opened([row], "chat" if shape == "function-calling" else shape)
    return convert.conversion(form, shape)(reading.read(next(rows), form)[0])


def turns(row):
    return made(row)["messages"]


def reason(row, shape="chat"):
    checked = reading.load([*GOOD[shape], row], shape)
    [aside] = checked.set_aside
    return aside.reason


GOOD = {
    "chat": [{"messages": [USER, ANSWER]}] * 2,
    "preference": [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2,
    "instruction": [{"instruction": "a", "output": "b"}] * 2,
}


# Turns


def test_a_turn_of_weight_0_is_context_and_neither_learned_nor_tested_on(tmp_path):
    rows = [
        {
            "messages": [
                said("user", f"Colour of {n}?"),
                said("assistant", f"WRONG {n}", weight=0),
                said("user", "Look again."),
                said("assistant", f"Blue {n}.", weight=1),
            ]
        }
        for n in range(8)
    ]
    assert [turn.get("weight") for turn in turns(rows[0])] == [None, 0, None, None]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    train, held_out, _ = sources.conversations(str(path), 99, 4, 1)
    assert (len(train), len(held_out)) == (4, 4)
    for row in [*train, *held_out]:
        assert row["completion"][0]["content"].startswith("Blue") and "WRONG" in row["prompt"][1]["content"]
    assert "weight 0, so there is nothing" in reason({"messages": [USER, ANSWER | {"weight": 0}]})
    assert "has the weight '0.5'" in reason({"messages": [USER, ANSWER | {"weight": 0.5}]})


@pytest.mark.parametrize("key", ["reasoning_content", "thinking"])
def test_reasoning_is_kept_and_a_template_without_it_leaves_it_out(key):
    row = {"messages": [USER, ANSWER | {key: "It is warm."}]}
    assert turns(row)[1] == ANSWER | {"reasoning_content": "It is warm."}
    assert templates.as_shown(turns(row), None, templates.NOTHING) == ([USER, ANSWER], None)
    pair = {"prompt": "q", "chosen": [ANSWER | {key: "x"}], "rejected": [said("assistant", "n", **{key: "y"})]}
    assert made(pair, "preference")["chosen"] == [ANSWER | {"reasoning_content": "x"}]
    assert reading.load([pair], "preference").said == {templates.TOLD["reasoning"]: 1}


@pytest.mark.parametrize("content", ["", None])
@pytest.mark.parametrize(
    "call",
    [
        {"tool_calls": [CALL]},
        {"tool_calls": json.dumps([CALL])},
        {"tool_calls": str([CALL])},
        {"tool_calls": [{"function": ASKED | {"arguments": '{"city": "Rome"}'}}]},
        {"tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Rome", "limit": None}}}]},
        {"function_call": ASKED | {"arguments": '{"city": "Rome"}'}},
    ],
    ids=["calls", "as JSON", "as Python", "arguments as text", "padded with null", "legacy"],
)
def test_a_call_is_a_call_however_it_is_written(call, content):
    row = {"messages": [USER, said("assistant", content) | call, TOOL | {"role": "function"}, ANSWER]}
    assert turns(row) == CALLED
    assert made(row, "function-calling")["messages"][1]["content"] == f"<functioncall> {json.dumps(ASKED)}"


def test_a_call_in_the_words_of_sharegpt():
    told = [("human", USER["content"]), ("function_call", json.dumps(ASKED)), ("observation", TOOL["content"])]
    row = {"conversations": [{"from": who, "value": text} for who, text in (*told, ("gpt", ANSWER["content"]))]}
    assert turns(row) == CALLED and "tools" not in made(row)
    assert made(row | {"tools": json.dumps([SHOWN["function"]])}) == {"messages": CALLED, "tools": [SHOWN]}
    assert "tool call without a name" in reason({"messages": [USER, said("tool_call", "look!"), ANSWER]})


def test_null_that_was_written_into_arguments_stays():
    call = {"function": {"name": "f", "arguments": '{"a": null}'}}
    assert turns({"messages": [USER, said("assistant", "", tool_calls=[call]), ANSWER]})[1]["tool_calls"][0][
        "function"
    ] == {"name": "f", "arguments": {"a": None}}


def test_a_table_of_calls_keeps_each_with_its_own_arguments(tmp_path):
    other = {"type": "function", "function": {"name": "search", "arguments": {"query": "book", "limit": 1}}}
    rows = [{"messages": CALLED}, {"messages": [USER, said("assistant", "", tool_calls=[other]), TOOL, ANSWER]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    loaded = reading.load(tmp_path / "a.parquet", "chat")
    assert loaded.dataset.to_list() == rows == reading.load(rows, "chat").dataset.to_list()
    convert.run(str(tmp_path / "a.parquet"), out=tmp_path / "b.parquet")
    many = [{"messages": [USER, ANSWER]}] * 1500 + rows
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, many)))
    with pytest.raises(CourseError, match=r"a table cannot hold them .* Write them as \.jsonl"):
        convert.run(str(tmp_path / "many.jsonl"), out=tmp_path / "many.parquet")
    assert reading.load(tmp_path / "b.parquet", "chat").dataset.to_list() == rows


def test_text_parts_are_joined_and_other_parts_set_the_row_aside():
    parts = [{"type": "text", "text": "Weather "}, {"type": "text", "text": "in Rome?", "image_url": None}]
    assert turns({"messages": [said("user", parts), ANSWER]}) == [USER, ANSWER]
    picture = {"type": "image_url", "image_url": {"url": "x"}}
    assert "part of the kind 'image_url'" in reason({"messages": [said("user", [*parts, picture]), ANSWER]})
    assert "<image>" in reason({"messages": [said("user", "<image>Who?"), ANSWER]})
    assert "column 'images' holds what is no text" in reason({"messages": [USER, ANSWER], "images": ["a.png"]})
    assert "<image>" in reason({"instruction": "<image> Who?", "output": "Ann"}, "instruction")


def test_what_nobody_asked_or_answered_is_left_out_and_said():
    begun, ended = [ANSWER, USER, ANSWER], [USER, ANSWER, said("user", "Thanks.")]
    checked = reading.load([{"messages": begun}, {"messages": ended}], "chat")
    assert checked.dataset["messages"][:] == [[USER, ANSWER]] * 2
    assert [*checked.said.values()] == [1, 1] and "a last turn that nobody answers is left out" in str(checked)


# What stands beside


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "And?", "input": "", "output": "Paris", "history": [["Name a town.", "Rome"]]},
        {"prompt": "And?", "response": "Paris", "history": json.dumps([["Name a town.", "Rome"]])},
        {"question": "And?", "response": "Paris", "history": [said("user", "Name a town."), said("assistant", "Rome")]},
        {"conversations": [{"from": "human", "value": "Name a town."}, {"from": "gpt", "value": "Rome"},
                           {"from": "human", "value": "And?"}, {"from": "gpt", "value": "Paris"}]},
    ],
    ids=["alpaca", "prompt-completion", "question-answer", "sharegpt"],
)  # fmt: skip
@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_system_and_history_belong_to_the_conversation_in_every_form(row, column):
    wanted = [said("user", "Name a town."), said("assistant", "Rome"), said("user", "And?"), said("assistant", "Paris")]
    assert turns(row | {column: "One word."}) == [said("system", "One word."), *wanted]
    form = reading.opened([row | {column: "One word."}]).form
    assert (form.shape, form.target) == ("chat", "chat")


def test_two_system_texts_that_differ_are_not_chosen_between():
    row = {"messages": [said("system", "Be kind."), USER, ANSWER], "system": "Be brief."}
    assert "two system texts" in reason(row)
    assert turns(row | {"system": "Be kind."}) == row["messages"]


def test_a_row_with_a_system_text_among_plain_instructions_is_set_aside():
    rows = [{"instruction": "a", "output": "b"}] * 250 + [{"instruction": "a", "output": "b", "system": "Be brief."}]
    [aside] = reading.load(rows, "instruction").set_aside
    assert aside.row == 251 and "--to chat" in aside.reason


# Columns


@pytest.mark.parametrize(
    "row",
    [
        {"Instruction": "0+1?", "Input": None, "Output": "1"},
        {"Query": "0+1?", "Answer": "1"},
        {"Question": "0+1?", "Answer": "1"},
        {"input": "0+1?", "output": "1"},
        {"instruction": "0+1?", "output": 1},
        {" query ": "0+1?", "response": 1},
    ],
)
def test_plain_names_of_a_question_and_its_answer_are_read(row):
    assert reading.load([row], "instruction").dataset.to_list() == [{"instruction": "0+1?", "input": "", "output": "1"}]
    assert reading.opened([row]).form.target == "instruction"


def test_an_answer_that_is_no_number_and_no_text_is_set_aside():
    assert "found true or false" in reason({"instruction": "0+1?", "output": True}, "instruction")


# Preferences


PAIR = {
    "prompt": [said("user", "Name a town.")],
    "chosen": [said("assistant", "Paris")],
    "rejected": [said("assistant", "No")],
}
LONG = [said("user", "Name a town."), said("assistant", "Rome"), said("user", "Another?")]
OF = {"chosen": PAIR["chosen"], "rejected": PAIR["rejected"]}


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Name a town.", "chosen": PAIR["chosen"][0], "rejected": PAIR["rejected"][0]}, PAIR["prompt"]),
        ({"prompt": "Name a town."} | {key: LONG + value for key, value in OF.items()}, LONG),
        ({"prompt": "Another?"} | {key: LONG + value for key, value in OF.items()}, LONG),
        ({key: LONG + value for key, value in OF.items()}, LONG),
        (
            {"prompt": "Name a town."} | {k: [said("system", "Be kind."), *PAIR["prompt"], *v] for k, v in OF.items()},
            [said("system", "Be kind."), *PAIR["prompt"]],
        ),
        ({"messages": LONG} | OF, LONG),
        ({"conversations": [{"from": "human", "value": "Name a town."}], "chosen": {"from": "gpt", "value": "Paris"},
          "rejected": {"from": "gpt", "value": "No"}}, PAIR["prompt"]),
        ({"instruction": "Name", "input": "a town.", "output": "Oslo", "chosen": "Paris", "rejected": "No"},
         [said("user", "Name\n\na town.")]),
        ({f"{key}_messages": PAIR["prompt"] + value for key, value in OF.items()}, PAIR["prompt"]),
        ({"input": {"messages": PAIR["prompt"], "tools": []}, "preferred_output": OF["chosen"],
          "non_preferred_output": OF["rejected"]}, PAIR["prompt"]),
        ({"prompt": str(PAIR["prompt"]), "chosen": str(OF["chosen"]), "rejected": json.dumps(OF["rejected"])},
         PAIR["prompt"]),
    ],
    ids=["one turn", "prompt before", "prompt behind", "whole", "system", "messages", "sharegpt", "instruction",
         "_messages", "openai", "cells"],
)  # fmt: skip
def test_preferences_in_every_public_shape(row, prompt):
    assert made(row, "preference") == {"prompt": prompt, **OF}
    [loaded] = reading.load([row], "preference").dataset
    assert loaded == {"prompt": prompt, "chosen": "Paris", "rejected": "No"}


@pytest.mark.parametrize("bad", [False, "False", 0])
def test_an_answer_that_is_labelled_as_bad_is_never_learned(bad):
    rows = [{"prompt": f"Q{n}", "completion": f"A{n}", "label": bad if n % 2 else True} for n in range(4)]
    checked = reading.load(rows, "chat")
    assert [row["messages"][1]["content"] for row in checked.dataset] == ["A0", "A2"] and not checked.unused_columns
    assert {aside.reason for aside in checked.set_aside} == {
        "column 'label': it is labelled as a bad answer, which must not be learned"
    }
    kept = reading.load([row | {"label": "sport"} for row in rows], "chat")
    assert len(kept.dataset) == 4 and kept.unused_columns == ["label"]


# Tools and templates

SHOWS = (
    "{% if tools %}{% for t in tools %}{{ t.function.name }};{% endfor %}{% endif %}{% for m in messages %}"
    "{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] %}CALL {{ c.function.name }}{% endfor %}{% endfor %}"
)
PLAIN = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"


def rendering(text):
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(reason):
        raise TemplateError(reason)

    template = ImmutableSandboxedEnvironment().from_string(text)
    return lambda turns, tools: template.render(messages=turns, tools=tools, raise_exception=refuse)


class Tokenizer:
    def __init__(self, text):
        self.render, self.chat_template = rendering(text), text

    def apply_chat_template(self, turns, tools=None, tokenize=False):
        return self.render(turns, tools)


def test_tools_reach_a_template_that_shows_them_and_else_the_system_turn_when_asked(tmp_path):
    assert templates.shown_by(rendering(SHOWS)) == (True, True, False, True)
    assert templates.shown_by(rendering(PLAIN)) == templates.NOTHING
    rows = [{"messages": [said("user", f"Rome {n}?"), *CALLED[1:]], "tools": [SHOWN]} for n in range(6)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train, _, _ = sources.conversations(str(tmp_path / "a.jsonl"), 99, 2, 1)
    native, told = reading.fitted(train, Tokenizer(SHOWS))
    assert native["tools"][0] == [SHOWN] and told == []
    with pytest.raises(CourseError, match=r"cannot show them: .* Add --tools-in-system"):
        reading.fitted(train, Tokenizer(PLAIN))
    words, told = reading.fitted(train, Tokenizer(PLAIN), in_system=True)
    assert words.column_names == ["prompt", "completion"] and len(told) == 2
    for row in words:
        assert row["prompt"][0]["role"] == "system" and '"name": "get_weather"' in row["prompt"][0]["content"]
        assert all(set(turn) == {"role", "content"} for turn in row["prompt"] + row["completion"])


def test_a_function_that_is_not_among_the_tools_sets_the_row_aside():
    other = SHOWN | {"function": {"name": "search"}}
    assert "'get_weather' is called, which is not among" in reason({"messages": CALLED, "tools": [other]})
    assert "no list of functions" in reason({"messages": CALLED, "tools": "get_weather"})


# Files


def converted(path, **how):
    report = convert.run(str(path), out=path.parent / "out.jsonl", **how)
    return report, [json.loads(line) for line in (path.parent / "out.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("text", "rows", "reasons"),
    [
        ("instruction,input,output,,\na,,b,,\nc,,d,,\n", ["b", "d"], []),
        ('instruction,output\n"5"" is less,a\nb,c\nd,e\nSay "x",y\n', ["c", "e", "y"], ["line 2: the CSV is broken"]),
        ('instruction,output\n"Say \\"hi\\" twice","hi, hi"\na,b\n', ["hi, hi", "b"], []),
        ("instruction,output\na,b,,\nc,d,e\n", ["b"], ["it has 3 fields"]),
    ],
    ids=["trailing commas", "a quote never closed", "backslashes", "trailing in a row"],
)
def test_tables_as_programs_write_them(tmp_path, text, rows, reasons):
    (tmp_path / "a.csv").write_text(text)
    report, made = converted(tmp_path / "a.csv")
    assert [row["output"] for row in made] == rows
    assert len(report.set_aside) == len(reasons)
    assert all(one.reason.startswith(words) for one, words in zip(report.set_aside, reasons, strict=True))


def test_a_pointer_of_git_lfs_is_named_as_such(tmp_path):
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CourseError, match=r"a Git LFS pointer in place of the file.*git lfs pull"):
        convert.run(str(tmp_path / "a.parquet"))


def test_what_save_to_disk_wrote_is_read(tmp_path):
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([{"instruction": f"Say {n}.", "output": str(n)} for n in range(5)])
    rows.save_to_disk(tmp_path / "one")
    DatasetDict(train=rows, test=rows.select([0])).save_to_disk(tmp_path / "two")
    for name in ("one", "two"):
        assert converted(tmp_path / name)[0].converted == 5
    assert converted(tmp_path / "two", part=Part("test"))[0].converted == 1


def test_a_column_that_cannot_be_read_costs_nothing(tmp_path):
    rows = [{"instruction": f"Say {n}.", "output": str(n)} for n in range(3)]
    table = pyarrow.Table.from_pylist(rows)
    far = pyarrow.array([2**53] * 3, pyarrow.timestamp("ms"))  # no date of Python's
    parquet.write_table(table.append_column("when", far), tmp_path / "a.parquet")
    report, made = converted(tmp_path / "a.parquet")
    assert [row["output"] for row in made] == ["0", "1", "2"] and list(report.unused) == ["when"]
    parquet.write_table(pyarrow.Table.from_arrays([table[0], far], ["instruction", "output"]), tmp_path / "b.parquet")
    with pytest.raises(CourseError, match=r"nothing is left|a column that cannot be read"):
        reading.load(tmp_path / "b.parquet", "instruction")
    assert repr(UNREADABLE) == "cannot be read"
    parquet.write_table(pyarrow.Table.from_arrays([table[0], table[0]], ["output", "output"]), tmp_path / "c.parquet")
    with pytest.raises(CourseError, match="has the columns 'output' more than once"):
        convert.run(str(tmp_path / "c.parquet"))


def in_files(folder, **files):
    for name, rows in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def coded(*numbers):
    return [{"instruction": f"Code {n}?", "output": f"A{n}"} for n in numbers]


def test_a_folder_with_train_and_test_files_is_taken_as_such(tmp_path):
    folder = in_files(tmp_path / "set", data__train=coded(*range(9)), data__test=coded(8, 20, 21), notes=coded(30))
    train, held_out, checked = sources.instructions(folder, 99, 99, 1)
    assert sorted(held_out["output"]) == ["A20", "A21", "A8"]
    assert sorted(train["output"]) == [f"A{n}" for n in range(8)], "what the test asks is not learned"
    assert "to test on: 3, left out: 1" in str(checked) and "the split 'train' is read" in checked.note
    report = convert.run(folder)
    assert {os.path.basename(file): count for file, count in report.per_file.items()} == {
        "train.jsonl": 9,
        "notes.jsonl": 1,
    }
    assert [aside.reason for aside in report.set_aside] == [
        "it belongs to none of the splits that the names of the files tell"
    ]


def test_splits_and_configurations_are_chosen_well_and_by_name(tmp_path):
    answers = [{"question": f"{n}?", "answer": f"#### {n}"} for n in range(6)]
    pairs = [{"prompt": f"q{n}", "chosen": "a", "rejected": "b"} for n in range(4)]
    sums = {
        f"{c}__{s}": answers[: 6 - 2 * (s == "test") - (c == "main")]
        for c in ("socratic", "main")
        for s in ("train", "test")
    }
    folder = in_files(tmp_path / "math", **sums)
    assert convert.run(folder).rows == 5
    assert convert.run(folder, part=Part("test", "socratic")).rows == 4
    for part, words in (
        (Part("dev"), "no split 'dev'; --split takes 'test', 'train'"),
        (Part(None, "x"), "--config-name takes"),
    ):
        with pytest.raises(CourseError, match=words):
            convert.run(folder, part=part)
    folder = in_files(tmp_path / "prefs", train_sft=pairs[:1], train_prefs=pairs, test_prefs=pairs[:2])
    assert convert.run(folder).rows == 4
    assert len(sources.preferences(folder, 99, 99, 1)[1]) == 2
    with pytest.raises(CourseError, match="has no splits"):
        convert.run(in_files(tmp_path / "plain", rows=pairs), part=Part("train"))


@pytest.mark.parametrize("read", [sources.instructions, sources.conversations])
def test_a_file_of_ones_own_to_test_on(tmp_path, read):
    folder = in_files(tmp_path, mine=coded(*range(9)), asked=coded(8, 20))
    where = sources.Where(test_data=f"{folder}/asked.jsonl")
    train, held_out, checked = read(f"{folder}/mine.jsonl", 99, 99, 1, where)
    assert (len(train), len(held_out)) == (8, 2) and "left out: 1" in checked.split


# The split


def greeted(*numbers):
    hello = [said("user", "Hello"), said("assistant", "Hi, how can I help?")]
    return [{"messages": [*hello, said("user", f"Parcel {n}?"), said("assistant", f"On shelf {n}.")]} for n in numbers]


def test_conversations_that_begin_alike_are_learned_from(tmp_path):
    folder = in_files(tmp_path, rows=greeted(*range(40)))
    train, held_out, checked = sources.conversations(f"{folder}/rows.jsonl", 999, 10, 1)
    assert len(held_out) == 10 and len(train) == 60, "30 conversations of two turns; no greeting is tested on"
    asked = [{json.dumps(row["prompt"]) for row in side} for side in (train, held_out)]
    assert not asked[0] & asked[1] and "left out: 0" not in checked.split
    documents = [{"messages": [said("system", f"House {n}."), said("user", "Whose?"), said("assistant", f"Mr. {n}")]}
                 for n in range(20)]  # fmt: skip
    found = sources.conversations(f"{in_files(tmp_path, other=documents)}/other.jsonl", 99, 5, 1)
    assert (len(found[0]), len(found[1])) == (15, 5)


def test_few_prompts_with_many_answers_leave_rows_to_learn_from(tmp_path):
    rows = [
        {"prompt": ("rain", "snow", "wind")[n % 3], "chosen": f"Good {n}", "rejected": f"bad {n}"} for n in range(30)
    ]
    train, held_out, checked = sources.preferences(f"{in_files(tmp_path, rows=rows)}/rows.jsonl", 99, 99, 1)
    assert (len(train), len(held_out)) == (20, 10)
    assert checked.split == "rows to learn from: 20, to test on: 10, left out: 0"


def test_the_smallest_group_is_tested_on_however_many_are_wanted(tmp_path):
    rows = [{"instruction": "Same?", "output": str(n)} for n in range(50)] + coded(1)
    train, held_out, _ = sources.instructions(f"{in_files(tmp_path, rows=rows)}/rows.jsonl", 99, 20, 1)
    assert (len(train), len(held_out)) == (50, 1)
