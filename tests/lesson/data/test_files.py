"""Reading rows: what a good file gives, and the one sentence that each bad file gets."""

import gzip
import json
import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import files, rows, tables
from unsloth_course.lesson.data.rows import Broken, Checked, SetAside

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
any_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path):
    return list(tables.stream(str(path)))


def refusal(path):
    """The sentence about a file, or about the first of its rows that cannot be read."""
    try:
        found = [row for row in read(path) if isinstance(row, Broken)]
        message = f"{found[0].file}, row {found[0].number}: {found[0].reason}"
    except CourseError as error:
        message = str(error)
    message.encode()  # a message that cannot be printed would be a traceback of its own
    return message


def test_json_rows_are_numbered_from_1(tmp_path):
    path = written(tmp_path, "a.json", '[{"x": 1}, {"x": 2}]')
    assert read(path) == [(str(path), 1, {"x": 1}), (str(path), 2, {"x": 2})]


def test_blank_lines_are_no_rows(tmp_path):
    path = written(tmp_path, "a.jsonl", '\n{"x": 1}\r\n  \n{"x": 2}')
    assert [(row.number, row.values) for row in read(path)] == [(1, {"x": 1}), (2, {"x": 2})]


def test_gzip_is_unpacked(tmp_path):
    path = written(tmp_path, "a.JSONL.GZ", gzip.compress(b'{"x": 1}\n{"x": 2}\n'))
    assert [row.values["x"] for row in read(path)] == [1, 2]


@pytest.mark.parametrize(("name", "text"), [("a.json", '[{"x": "é"}]'), ("a.jsonl", '{"x": "é"}\n')])
def test_a_byte_order_mark_is_skipped(tmp_path, name, text):
    assert read(written(tmp_path, name, b"\xef\xbb\xbf" + text.encode()))[0].values == {"x": "é"}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '[{"x": "é 😀"},\n{"x": "\u2028"}]'),
        ("a.jsonl", '{"x": "é 😀"}\n\n{"x": "\u2028"}'),
        ("a.csv", 'x;y\r\né 😀;"a\nb"\r\n\u2028;'),
        ("a.tsv", "x\ty,z\né 😀\t1\n\u2028\t"),
    ],
)
def test_utf_16_with_a_byte_order_mark_is_read(tmp_path, name, text, encoding):
    content = ("\ufeff" + text).encode(encoding)
    assert [row.values["x"] for row in read(written(tmp_path, name, content))] == ["é 😀", "\u2028"]
    assert "is not whole UTF-16" in refusal(written(tmp_path, name, content[:-1]))
    packed = written(
        tmp_path, "a.jsonl.gz", gzip.compress('\ufeff{"x": 1}\n{"x": "\ud800"}'.encode(encoding, "surrogatepass"))
    )
    assert read(packed)[0].values == {"x": 1} and "not UTF-8" in refusal(packed)


def test_jsonl_is_not_split_at_other_line_ends(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"x": "one\u2028two\x85"}\n')
    assert [row.values["x"] for row in read(path)] == ["one\u2028two\x85"]


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    written(tmp_path, "a.json", '[{"x": 1}]')
    assert read("~/a.json")[0].values == {"x": 1}


def test_missing_file(tmp_path, monkeypatch):
    assert "There is no file" in refusal(tmp_path / "none.json")
    assert "There is no file" in refusal(written(tmp_path, "plain.txt", "") / "none.json")
    monkeypatch.chdir(tmp_path)
    assert f"There is no file none.json in {os.getcwd()}" in refusal("none.json")


def test_names_that_no_file_can_have():
    assert "There is no file" in refusal("a\0b.json")
    assert "cannot be read" in refusal("a" * 5000 + ".json")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes such a name")
def test_a_name_that_is_not_text(tmp_path):
    assert "\\udcff" in refusal(os.path.join(tmp_path, "\udcff.json"))


DEEP = ("[" * 200_000, '{"x":' * 200_000)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        *((name, "[]", ".json, .jsonl, .jsonl.gz") for name in ("data.xml", "data", "json")),
        *(("a.json", content, "is empty") for content in ("", "\ufeff \n", "[]")),
        *(("a.jsonl", content, "is empty") for content in ("", "\n \n")),
        ("a.jsonl.gz", gzip.compress(b""), "is empty"),
        ("a.json", '[{"x": 1},\n {"x" 2}]', "a.json, line 2, column 7"),
        ("a.jsonl", '{"x": 1}\n\n{"x": }\n', "a.jsonl, row 2: line 3, column 7"),
        ("a.json", '{"x": 1}\n{"x": 2}\n', "rename the file to .jsonl"),
        ("a.jsonl", '[\n{"x": 1}]', "rename it to .json"),
        ("a.jsonl", '[{"x": 1}]', "rename it to .json"),
        ("a.json", b'[{"x": "\xff"}]', "byte 8 (from 0)"),
        ("a.jsonl", b'{"x": 1}\n{"x": "\xff"}', "line 2: byte 16 (from 0)"),
        ("a.json", "3", "a number"),
        ("a.json", "null", "null"),
        ("a.json", '"text"', "text"),
        ("a.json", "true", "true or false"),
        ("a.json", "{}", "[{...}, {...}]"),
        ("a.json", '{"version": 1, "data": [{"x": 1}]}', "lists under 'data'"),
        ("a.json", '[{"x": 1}, 2]', "row 2: it is a number, not an object"),
        ("a.jsonl", '{"x": 1}\n\nnull', "row 2: it is null, not an object"),
        *(("a.json", content, "nested too deeply") for content in DEEP),
        *(("a.jsonl", content, "line 1: the JSON is nested too deeply") for content in DEEP),
        ("a.jsonl", '{"x": ' + "9" * 5000 + "}", "thousands of digits"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path, name, content, words):
    assert words in refusal(written(tmp_path, name, content))


def test_a_huge_top_level_that_is_not_a_list_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(files, "JSON_CHUNK_BYTES", 10)
    whole = refusal(written(tmp_path, "a.json", '{"data": [' + ", ".join(["1"] * 20) + "]}"))
    assert "lists under 'data'" in whole
    endless = refusal(written(tmp_path, "b.json", '{"data": [' + ", ".join(["1"] * 20_000) + "]}"))
    assert "the top level is not a list of objects. Put them into one: [{...}, {...}]." in endless


def test_nan_and_infinity_are_read(tmp_path):
    [row] = read(written(tmp_path, "a.jsonl", '{"x": NaN, "y": Infinity, "z": 1e999}'))
    assert row.values["x"] != row.values["x"] and row.values["y"] == row.values["z"] == float("inf")


def test_broken_gzip(tmp_path):
    packed = gzip.compress(b'{"x": 1}\n' * 1000)
    spoilt = packed[:15] + bytes(byte ^ 0xFF for byte in packed[15:])
    for content in (b'{"x": 1}\n', packed[:-20], spoilt):
        assert "not a whole gzip file" in refusal(written(tmp_path, "a.jsonl.gz", content))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_without_end_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 2**20)
    content = b" " * (2**20 + 1)
    assert "line 1 is over 1 MiB" in refusal(
        written(tmp_path, name, gzip.compress(content) if "gz" in name else content)
    )


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet", "a.txt"])
@any_file
@given(content=st.binary())
def test_any_bytes_give_rows_or_a_sentence(tmp_path, name, content):
    path = written(tmp_path, name, content)
    try:
        assert read(path)
    except CourseError as error:
        assert str(path) in str(error)


@any_file
@given(value=json_values)
def test_any_json_gives_its_rows_or_a_sentence(tmp_path, value):
    path = written(tmp_path, "a.json", json.dumps(value))
    good = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    if good:
        assert [repr(row.values) for row in read(path)] == [repr(item) for item in value]
    else:
        refusal(path)


@any_file
@given(values=st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=5))
def test_jsonl_gives_back_what_was_written(tmp_path, values):
    path = written(tmp_path, "a.jsonl", "\n".join(json.dumps(value) for value in values))
    assert [repr(row.values) for row in read(path)] == [repr(value) for value in values]


ODD = ["-0", "-0.0", "1e400", "1E5", "123456789012345678901234567890", "18446744073709551616", "-9223372036854775809"]
ODD += ["0.1", "1.0", "5e-324", "NaN", "-Infinity", '"\\ud83d\\ude00"', '"\\ud83d"', '"\\u0000"', '{"a": 1, "a": 2}']
ODD += ["[1,]", "01", "9" * 5000, "[" * 2000 + "]" * 2000, "\ufeff1", " \n[]\t", '"\t"', "'a'", "", "tru", "{1: 2}"]
ODD += ['{"a" 1}', "1 2"]


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_the_quick_reader_reads_what_json_reads(text, monkeypatch):
    found = []
    for quick in (files.msgspec, None):
        monkeypatch.setattr(files, "msgspec", quick)
        try:
            found.append(repr(files._parsed(text.encode(), first=False)))
        except (ValueError, RecursionError) as error:
            found.append(str(error))
    assert found[0] == found[1]


def test_rows_in_memory():
    datasets = pytest.importorskip("datasets")
    rows = [{"x": 1}, {"x": 2}]
    for source in (rows, datasets.Dataset.from_list(rows), datasets.Dataset.from_list(rows).with_format("pandas")):
        assert [(row.file, row.number, row.values) for row in files.rows_in_memory(source, "mine")] == [
            ("mine", 1, {"x": 1}),
            ("mine", 2, {"x": 2}),
        ]


def test_memory_that_holds_no_rows():
    datasets = pytest.importorskip("datasets")
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list([{"x": 1}]))
    for source, words in [
        ([], "the list is empty"),
        (datasets.Dataset.from_dict({"x": []}), "the data set is empty"),
        (splits, "has the splits 'train'"),
        (iter([{"x": 1}]), "type list_iterator"),
        (None, "type NoneType"),
    ]:
        with pytest.raises(CourseError, match=words):
            list(files.rows_in_memory(source))


def test_the_report_counts_and_shows_the_first_reasons():
    set_aside = [SetAside("a.json", number, "column 'output' is empty") for number in range(1, 12)]
    report = str(Checked([0] * 1234, set_aside, ["text"]))
    assert "rows ready: 1,234, set aside: 11" in report
    assert "a.json, row 8: column 'output' is empty" in report and "row 9" not in report
    assert "and 3 more" in report and "columns not used: 'text'" in report


def test_the_report_escapes_what_the_file_says():
    page = Checked([0], [SetAside("<b>.json", 1, "<|im_end|>")], ["<script>"])._repr_html_()
    assert "&lt;script&gt;" in page and "&lt;|im_end|&gt;" in page and "<script" not in page and "<b>" not in page


def test_names_are_made_safe_to_print():
    assert rows.quoted("a\x1b[31m\nb\ud800") == r"'a\x1b[31m\nb\ud800'"
    assert len(rows.quoted("x" * 1000)) == 42
    assert rows.listed(range(10)).endswith("'7' and 2 more")
