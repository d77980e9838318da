"""The command `data`: every row of any file is converted or set aside with a reason, and nothing gives a traceback."""

import csv
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unsloth_course import cli
from unsloth_course.commands.convert import convert
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import files, function_calling, instruction, tables
from unsloth_course.lesson.data.rows import Row, shown

from .test_files import any_file, json_values

USER, ANSWER = {"role": "user", "content": "What is 40 plus 48?"}, {"role": "assistant", "content": "88"}
GLAIVE = """USER: Weather in Tokyo and Rome?


ASSISTANT: <functioncall> {"name": "weather", "arguments": '{"city": "Tokyo"}'} \
<functioncall> {"name": "weather", "arguments": '{"city": "Rome's"}'} <|endoftext|>


FUNCTION RESPONSE: {"degrees": 22}


ASSISTANT: It is 22 degrees. <|endoftext|>"""
TOLD = [{"from": "human", "value": USER["content"]}, {"from": "gpt", "value": "88"}]
READY = {
    "alpaca": {"instruction": "What is 40 plus 48?", "input": "", "output": "88"},
    "sharegpt": {"conversations": TOLD},
    "messages": {"messages": [{"role": "system", "content": ""}, USER, ANSWER]},
    "prompt-completion": {"prompt": "What is 40 plus 48?", "completion": "88"},
    "orca": {"system": "Be brief.", "question": "What is 40 plus 48?", "chosen": "88", "rejected": "89"},
    "preference": {"prompt": [USER], "chosen": [ANSWER], "rejected": "89"},
    "anthropic": {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
    "glaive": {"system": "SYSTEM: You may call functions.", "chat": GLAIVE},
    "problems": {"question": "What is 40 plus 48?", "answer": "40 + 48 = 88\n#### 88"},
    "text": {"text": "def add(a, b):\n    return a + b\n"},
}
few_files = settings(any_file, max_examples=50)  # each example writes and converts two or three files
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip())


@pytest.fixture
def command(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["unsloth-course", "data", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as ended:
            status = ended.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def written(folder, rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path):
    """Rows of a file whose texts may hold any line end that JSON leaves as it is."""
    return [json.loads(line) for line in path.read_bytes().decode().split("\n") if line]


def accounted(report):
    assert report.rows == report.converted + len(report.set_aside)
    assert all(row.file and row.reason and row.row for row in report.set_aside)


# Forms and conversions


@pytest.mark.parametrize("form", READY)
def test_each_form_is_told_and_converted(tmp_path, command, form):
    source = written(tmp_path, [READY[form]] * 2)
    status, out, _ = command(source, "--out", tmp_path / "out.jsonl", "--json")
    found = json.loads(out)
    assert (status, found["format"], found["rows"], found["converted"], found["set_aside"]) == (0, form, 2, 2, [])
    assert set(found["columns"]) == set(READY[form])
    assert len(read(tmp_path / "out.jsonl")) == 2
    assert not (tmp_path / "out.jsonl.set-aside.jsonl").exists()


@pytest.mark.parametrize("form", READY)
def test_a_converted_file_converts_to_itself(tmp_path, form):
    first = convert.run(str(written(tmp_path, [READY[form]])), out=tmp_path / "a.jsonl")
    second = convert.run(str(tmp_path / "a.jsonl"), to=first.target, out=tmp_path / "b.jsonl")
    assert second.converted == 1 and read(tmp_path / "a.jsonl") == read(tmp_path / "b.jsonl")


@pytest.mark.parametrize("form", READY)
@pytest.mark.parametrize("target", convert.TARGETS)
def test_every_conversion_gives_rows_or_a_sentence(tmp_path, form, target):
    try:
        report = convert.run(str(written(tmp_path, [READY[form]])), to=target, out=tmp_path / "out.jsonl")
    except CourseError as error:
        assert "cannot be converted" in str(error)
    else:
        accounted(report)


@few_files
@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_instruction_to_chat_and_back_is_the_identity(tmp_path, rows):
    rows = [{"instruction": one, "input": "", "output": two} for one, two in rows]
    convert.run(str(written(tmp_path, rows)), to="chat", out=tmp_path / "chat.jsonl")
    convert.run(str(tmp_path / "chat.jsonl"), to="instruction", out=tmp_path / "back.jsonl")
    assert read(tmp_path / "back.jsonl") == rows


@few_files
@given(
    rows=st.lists(st.tuples(texts, texts, st.integers()), min_size=1, max_size=5),
    by=st.sampled_from(["chat", "instruction"]),
)
def test_problems_to_another_shape_and_back_is_the_identity(tmp_path, rows, by):
    rows = [{"question": one, "answer": f"{two}\n#### {number}"} for one, two, number in rows]
    convert.run(str(written(tmp_path, rows)), to=by, out=tmp_path / "other.parquet")
    convert.run(str(tmp_path / "other.parquet"), to="problems", out=tmp_path / "back.jsonl")
    assert read(tmp_path / "back.jsonl") == rows


names = texts.filter(lambda name: "<functioncall>" not in name)
arguments = st.dictionaries(st.text(max_size=5), json_values, max_size=3).filter(
    lambda value: "NaN" not in str(json.dumps(value))
)


@few_files
@given(calls=st.lists(st.tuples(names, arguments, arguments), min_size=1, max_size=3))
def test_any_arguments_in_single_quotes_are_read_as_they_were_written(tmp_path, calls):
    told, wanted = ["USER: Go"], []
    for name, *both in calls:
        written_calls = [
            f'<functioncall> {{"name": {json.dumps(name)}, "arguments": \'{json.dumps(one)}\'}}' for one in both
        ]
        told += [f"ASSISTANT: {' '.join(written_calls)} <|endoftext|>", "FUNCTION RESPONSE: {}"]
        wanted += [{"name": name, "arguments": one} for one in both]
    chat = "\n\n\n".join([*told, "ASSISTANT: Done <|endoftext|>"])
    convert.run(str(written(tmp_path, [{"system": "", "chat": chat}])), to="chat", out=tmp_path / "out.jsonl")
    [row] = read(tmp_path / "out.jsonl")
    found = [
        json.loads(call)
        for turn in row["messages"][:-1]
        if turn["role"] == "assistant"
        for call in turn["content"].split("<functioncall>")[1:]
    ]
    assert repr(found) == repr(json.loads(json.dumps(wanted)))


@few_files
@given(turns=st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_sharegpt_says_what_messages_say(tmp_path, turns):
    turns = [turn for pair in turns for turn in zip(("human", "gpt"), pair, strict=True)]
    told = {"conversations": [{"from": who, "value": said} for who, said in turns]}
    convert.run(str(written(tmp_path, [told])), out=tmp_path / "chat.jsonl")
    roles = {"human": "user", "gpt": "assistant"}
    wanted = [{"role": roles[who], "content": said} for who, said in turns]
    assert read(tmp_path / "chat.jsonl") == [{"messages": wanted}]


def test_other_names_of_the_columns_are_known(tmp_path):
    rows = [
        {"instruction": "Who?", "context": "Ann is here.", "response": "Ann", "category": "qa"},
        {"instruction": "Who?", "context": "Ann is here.", "response": None, "output": "Ann", "category": "qa"},
        {"instruction": "Who?", "context": "", "response": "Ann"},
    ]
    report = convert.run(str(written(tmp_path, rows)), out=tmp_path / "o.jsonl")
    assert [row["input"] for row in read(tmp_path / "o.jsonl")] == ["Ann is here.", "Ann is here.", ""]
    assert (report.format, list(report.unused), report.set_aside) == ("alpaca", ["category"], [])
    report = convert.run(str(written(tmp_path, [rows[0] | {"output": "Bo"}])))
    assert report.unused == {"response": None, "category": None}


def test_a_column_that_holds_nothing_gives_way_to_the_next(tmp_path):
    """A table has all columns in every row, and null in those that the row does not have."""
    rows = [
        {"messages": None, "conversations": TOLD},
        {"messages": [USER, ANSWER], "conversations": None},
    ]
    report = convert.run(str(written(tmp_path, rows)), out=tmp_path / "o.jsonl")
    assert read(tmp_path / "o.jsonl") == [{"messages": [USER, ANSWER]}] * 2 and not report.unused


def test_glaive_becomes_messages_with_a_tool():
    turns = function_calling.read(Row("a", 1, READY["glaive"]))
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool", "assistant"]
    assert turns[0]["content"] == "You may call functions." and turns[3]["content"] == '{"degrees": 22}'
    assert turns[2]["content"] == (
        '<functioncall> {"name": "weather", "arguments": {"city": "Tokyo"}} '
        '<functioncall> {"name": "weather", "arguments": {"city": "Rome\'s"}}'
    )


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ('{"name": "f", "arguments": {"a": 1}}', {"a": 1}),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', {"a": 1}),
        ('{"arguments": \'{"a": 1}\', "name": "f"}', {"a": 1}),
        ('{"name": "f", "arguments": \'\'}', {}),
        ('{"name": "f"}', {}),
        ('{"name": "f", "arguments": \'{"a": "it\\\'s"}\'}', {"a": "it's"}),
        ('{"name": "f", "arguments": \'{\n  "a": "{}\'}"\n}\'}', {"a": "{}'}"}),
    ],
)
def test_calls_are_read_in_all_their_spellings(call, arguments):
    [_, turn] = function_calling.spoken(f"USER: x\n\n\nASSISTANT: Well. <functioncall> {call} <|endoftext|>")
    assert turn["content"].startswith("Well. <functioncall> ")
    assert json.loads(turn["content"].split("<functioncall>")[1]) == {"name": "f", "arguments": arguments}


@pytest.mark.parametrize("call", ["", "{", '{"name": "f", "arguments": \'{"a": \'}', '{"arguments": {}}', "[1]", "'"])
def test_a_call_that_cannot_be_read_sets_the_row_aside(tmp_path, call):
    bad = {"system": "", "chat": f"USER: x\n\n\nASSISTANT: <functioncall> {call}"}
    report = convert.run(str(written(tmp_path, [READY["glaive"], bad])))
    assert [(row.row, "function call" in row.reason) for row in report.set_aside] == [(2, True)]


def test_tool_calls_of_the_messages_form_are_written_out(tmp_path):
    calls = [{"function": {"name": "f", "arguments": '{"a": 1}'}}, {"function": {"name": "g", "arguments": {}}}]
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "3"},
        ANSWER,
    ]
    convert.run(str(written(tmp_path, [{"messages": turns}])), to="function-calling", out=tmp_path / "o.jsonl")
    said = read(tmp_path / "o.jsonl")[0]["messages"][1]["content"]
    assert said == '<functioncall> {"name": "f", "arguments": {"a": 1}}\n<functioncall> {"name": "g", "arguments": {}}'


# Files


@pytest.mark.parametrize("ending", convert.OUT_ENDINGS)
def test_each_kind_of_file_is_written(tmp_path, ending):
    rows = [READY["preference"], READY["preference"]]
    out = tmp_path / f"new/out{ending}"
    convert.run(str(written(tmp_path, rows)), out=out)
    again = convert.run(str(out), out=tmp_path / "again.jsonl")
    assert (again.format, again.converted) == ("preference", 2)
    assert read(tmp_path / "again.jsonl")[0] == {
        "prompt": [USER],
        "chosen": [ANSWER],
        "rejected": [ANSWER | {"content": "89"}],
    }


def test_a_json_list_is_read_piece_by_piece(tmp_path, monkeypatch):
    rows = [{"instruction": f"{n} é\u2028" * n, "input": "[,]", "output": '"}'} for n in range(1, 60)]
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps(rows, ensure_ascii=False, indent=indent), encoding="utf-8")
        for size in (1, 7, 100):
            monkeypatch.setattr(files, "JSON_CHUNK_BYTES", size)
            assert [row.values for row in tables.stream(str(tmp_path / "a.json"))] == rows


@any_file
@given(
    value=st.lists(st.dictionaries(st.text(), json_values, max_size=3), min_size=1, max_size=3),
    broken=st.integers(0, 60),
)
def test_pieces_do_not_change_what_is_found(tmp_path, value, broken):
    text = json.dumps(value, indent=1)
    text = text[:broken] + "}" + text[broken:]
    found = []
    for size in (2**20, 3):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        before, files.JSON_CHUNK_BYTES = files.JSON_CHUNK_BYTES, size
        try:
            found.append(repr([row.values for row in tables.stream(str(tmp_path / "a.json"))]))
        except CourseError as error:
            found.append(str(error))
        finally:
            files.JSON_CHUNK_BYTES = before
    assert found[0] == found[1]


def test_a_folder_of_texts(tmp_path):
    folder = tmp_path / "texts"
    (folder / "inside").mkdir(parents=True)
    (folder / "a.txt").write_text("one", encoding="utf-8")
    (folder / "inside" / "b.md").write_text("two", encoding="utf-8")
    (folder / "c.bin").write_bytes(b"\0")
    written(folder, [{"text": "three"}, {"text": " "}])
    report = convert.run(str(folder), out=tmp_path / "out.jsonl")
    accounted(report)
    assert (report.format, report.converted, len(report.set_aside)) == ("text", 3, 2)
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == ["one", "two", "three"]


def test_an_output_is_not_written_into_the_folder_that_is_read(tmp_path, command):
    folder = tmp_path / "rows"
    folder.mkdir()
    written(folder, [READY["alpaca"]] * 3)
    for out in (folder / "o.jsonl", folder / "new" / "o.jsonl"):
        status, _, err = command(folder, "--out", out)
        assert status == 1 and "lies in the folder" in err and "outside" in err
    assert [path.name for path in folder.iterdir()] == ["rows.jsonl"]
    for _ in range(2):
        status, out, _ = command(folder, "--out", tmp_path / "o.jsonl", "--json")
        assert status == 0 and json.loads(out)["converted"] == 3
    other = written(tmp_path, [READY["alpaca"]], "other.jsonl")
    assert "lies in the folder" in command(other, "--out", folder / "o.jsonl", "--held-out", folder)[2]


def test_of_a_folder_the_first_row_set_aside_is_named_with_its_file(tmp_path, command):
    folder = tmp_path / "rows"
    folder.mkdir()
    written(folder, [READY["alpaca"]], "a.jsonl")
    bad = written(folder, [READY["alpaca"] | {"output": ""}], "b.jsonl")
    assert f"(first: {shown(bad)}, row 1)" in command(folder)[1]
    written(tmp_path, [READY["alpaca"], READY["alpaca"] | {"output": ""}])
    assert "(first: row 2)" in command(tmp_path / "rows.jsonl")[1]


def test_an_empty_name_is_not_this_folder(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = written(tmp_path, [READY["alpaca"]])
    for arguments in (("",), (source, "--held-out", "")):
        status, _, err = command(*arguments)
        assert status == 1 and "is empty" in err


def test_csv_rows_that_cannot_be_read_are_set_aside(tmp_path):
    content = b'instruction,output\nSay a,a\nSay b\n\nSay \xff,c\n"Say d"x,d\nSay e,e\n"Say f,f\n'
    (tmp_path / "a.csv").write_bytes(content)
    report = convert.run(str(tmp_path / "a.csv"))
    accounted(report)
    assert report.converted == 2
    reasons = {row.row: row.reason for row in report.set_aside}
    assert (
        reasons[6].startswith("line 8: ")
        and "1 fields" in reasons[2]
        and "not UTF-8" in reasons[3]
        and "broken" in reasons[4]
        and "broken" in reasons[6]
    )


@pytest.mark.parametrize(
    ("mark", "name", "first"),
    [(",", "a.csv", ""), (";", "a.csv", ""), ("\t", "a.csv", ""), ("\t", "a.tsv", ""), (";", "a.csv", "sep=;\n")],
)
def test_the_fields_of_a_csv_file_may_be_parted_otherwise(tmp_path, mark, name, first):
    rows = [
        {"instruction": "Say a; b,\tc", "input": "", "output": 'a "b"\nc'},
        {"instruction": "d", "input": "", "output": "e"},
    ]
    with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as stream:
        stream.write(first)
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=mark)
        writer.writeheader()
        writer.writerows(rows)
    convert.run(str(tmp_path / name), out=tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl") == rows


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"x,x\n1,2\n", "more than once"),
        ("a.parquet", b"PAR1 no", "not a whole Parquet file"),
        ("a.xml", b"<a/>", "none of the endings"),
        ("a.jsonl", b"", "empty"),
        ("a.jsonl", b'{"x": 1}', "no form that is known"),
        ("a.jsonl", b'{"instructoin": "a", "output": "b"}', "Did you mean"),
        ("a.json", b'[{"text": "a"}, {"text" "b"}]', "column 25"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, command, name, content, words):
    (tmp_path / name).write_bytes(content)
    status, out, err = command(tmp_path / name, "--out", tmp_path / "out.jsonl", "--json")
    assert (status, out) == (1, "") and words in err and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_sentences_about_what_is_asked_for(tmp_path, command):
    source = written(tmp_path, [READY["alpaca"]])
    for arguments, words in [
        ((source, "--to", "poem"), "no form 'poem'"),
        ((source, "--to", "text"), "cannot be converted to text"),
        ((source, "--out", source), "written over what is read"),
        ((source, "--out", tmp_path / "a.doc"), "none of the endings"),
        ((source, "--out", source / "a.jsonl"), "cannot be written"),
        ((tmp_path / "none.jsonl",), "There is no file"),
        ((source, "--held-out", tmp_path / "none.csv"), "There is no file"),
    ]:
        status, _, err = command(*arguments)
        assert status == 1 and words in err and len(read(source)) == 1


# Rows set aside


def test_the_side_file_holds_the_rows_and_the_report_names_them(tmp_path, command):
    lines = [READY["alpaca"], {"instruction": "Say a.", "output": ""}, {"instruction": "b", "input": 3, "output": "b"}]
    source = tmp_path / "rows.jsonl"
    source.write_bytes(
        b"\n".join([*(json.dumps(row).encode() for row in lines), b'{"broken', b"[1]", b'{"x": "\xff"}'])
    )
    status, out, _ = command(source, "--out", tmp_path / "o.jsonl", "--json")
    found = json.loads(out)
    side = read(tmp_path / "o.jsonl.set-aside.jsonl")
    assert status == 0 and found["rows"] == 6 and found["converted"] == 1 and found["empty"] == 1
    assert [{"file": row["file"], "row": row["row"], "reason": row["reason"]} for row in side] == found["set_aside"]
    assert [row["row"] for row in side] == [2, 3, 4, 5, 6] and side[0]["values"] == lines[1]
    assert "found a number, expected text" in side[1]["reason"] and side[2]["values"] == '{"broken\n'
    status, out, _ = command(source)
    assert status == 0 and "set aside: 5" in out


def test_when_every_row_is_set_aside_the_report_comes_with_the_sentence(tmp_path, command):
    source = written(tmp_path, [{"instruction": "Say a.", "output": ""}] * 3)
    status, out, err = command(source, "--out", tmp_path / "o.jsonl", "--json")
    assert status == 1 and len(json.loads(out)["set_aside"]) == 3 and "nothing is left" in err
    assert not (tmp_path / "o.jsonl").exists() and len(read(tmp_path / "o.jsonl.set-aside.jsonl")) == 3


# The report


def test_lengths_are_those_of_the_instruction_room(tmp_path, tokenizer):
    rows = [{"instruction": f"Say {n} times é", "input": "x" * n, "output": "word " * n} for n in range(1, 40)]
    report = convert.run(str(written(tmp_path, rows)), max_length=100)
    wanted = instruction.lengths(instruction.load(rows).dataset, tokenizer, 100)
    found = report.lengths
    assert (found["shortest"], found["median"], found["longest"]) == (wanted.shortest, wanted.median, wanted.longest)
    assert found["cut"] / found["measured"] == wanted.share_over
