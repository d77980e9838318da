"""A thousand malformed files of every kind: a sentence or a report for each, no traceback, and no row that is lost."""

import csv
import gzip
import io
import itertools
import json
import random
import shutil
from collections import Counter
from types import SimpleNamespace

import pyarrow
import pytest
from pyarrow import parquet

from unsloth_course.commands.convert import convert
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import reading
from unsloth_course.lesson.data.control import CHATML

from .test_command import READY, accounted

KINDS = (".json", ".jsonl", ".jsonl.gz", ".csv", ".parquet", "folder")
COUNT = 1000
DEEP = "[" * 3000 + "]" * 3000
WRONG = (None, 3, -0.0, 1e308, 10**400, True, [], {}, "", " ", "\0", "a\0b", "\ud800", "<|im_end|>", [[]], [{}], [None])
TURNS = (
    [{"role": "user"}],
    [{"role": "user", "content": 3}, {"role": "assistant", "content": "b"}],
    [{"role": "wizard", "content": "a"}, {"role": "assistant", "content": "b"}],
    [{"from": [], "value": 1}],
    [{"role": "assistant", "content": "a"}],
    [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}],
    "USER:",
    "\n\nHuman:",
    '[{"role": "user"',
)


# What is done to a row


def spoilt(rng, rows):
    """The same rows with one of them spoilt."""
    row = rng.choice(rows)
    column = rng.choice(list(row))
    change = rng.choice(["drop", "wrong", "turns", "misspell", "deep", "mixed", "more", "null"])
    if change == "drop":
        del row[column]
    elif change == "wrong":
        row[column] = rng.choice(WRONG)
    elif change == "turns":
        row[column] = rng.choice(TURNS)
    elif change == "misspell":
        row[column + "s"] = row.pop(column)
    elif change == "deep":
        row[column] = json.loads("[" * 90 + "]" * 90)
    elif change == "mixed":
        rows.insert(rng.randrange(len(rows) + 1), json.loads(json.dumps(rng.choice(list(READY.values())))))
    elif change == "more":
        row |= {f"extra{n}": rng.choice(WRONG) for n in range(rng.choice([1, 300]))}
    else:
        rows[rows.index(row)] = dict.fromkeys(row)
    return rows


def not_an_object(rng):
    """A line, or an item of a list, that is JSON and no row, or no JSON."""
    return rng.choice(
        ["null", "3", "[]", '""', "{}", "9" * 5000, DEEP * 20, '{"a":' * 5000, "NaN", "{'a': 1}", "tru", "\0"]
    )


# What a file is made of


def as_json(rng, rows):
    items = [json.dumps(row) for row in rows]
    known = len(items)
    if rng.random() < 0.2:
        items[rng.randrange(len(items))] = not_an_object(rng)
        known = None
    return f"[{', '.join(items)}]".encode(), known


def as_lines(rng, rows):
    lines = [json.dumps(row) for row in rows]
    if rng.random() < 0.3:
        lines[rng.randrange(len(lines))] = not_an_object(rng)
    return "\n".join(lines).encode(), len(lines)


def as_csv(rng, rows):
    columns = list(dict.fromkeys(column for row in rows for column in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="")
    writer.writeheader()
    writer.writerows(
        {column: json.dumps(v) if isinstance(v, list | dict) else v for column, v in row.items()} for row in rows
    )
    return out.getvalue().encode("utf-8", "surrogatepass"), len(rows) if any(map(bool, rows)) else None


def as_parquet(rng, rows):
    try:
        return _parquet(rows), len(rows)
    except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError, TypeError, ValueError):  # it cannot hold these
        rows = [{key: str(value).encode("utf-8", "replace") for key, value in row.items()} for row in rows]
        return _parquet(rows), len(rows) if any(rows) else None


def _parquet(rows):
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


MAKE = {".json": as_json, ".jsonl": as_lines, ".jsonl.gz": as_lines, ".csv": as_csv, ".parquet": as_parquet}


# What is done to the bytes


def damaged(rng, content):
    """The same bytes with something done to them."""
    change = rng.choice(
        ["cut", "flip", "utf-16", "latin", "nul", "random", "empty", "mark", "doubled", "quotes", "ends"]
    )
    at = rng.randrange(len(content) + 1)
    if change == "cut":
        return content[:at]
    if change == "flip":
        flipped = bytearray(content)
        for _ in range(rng.choice([1, 8, 100]) if content else 0):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if change == "utf-16":
        return content.decode("latin-1").encode(rng.choice(["utf-16", "utf-16-le", "utf-32"]))
    if change == "latin":
        return (
            content[:at]
            + rng.choice([b"\xff", b"\xe9", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
            + content[at:]
        )
    if change == "nul":
        return content[:at] + b"\0" * rng.choice([1, 5000]) + content[at:]
    if change == "random":
        return rng.randbytes(rng.choice([1, 50, 5000]))
    if change == "empty":
        return rng.choice([b"", b" \n\n", b"\xef\xbb\xbf", b"[]", b"{}"])
    if change == "mark":
        return b"\xef\xbb\xbf" * 2 + content
    if change == "doubled":
        return content + content[at:]
    if change == "quotes":
        return content.replace(b'"', b"'", 3) if rng.random() < 0.5 else content[:at] + b'"' + content[at:]
    return content.replace(b"\n", b"\r") + b"\r"


def malformed(rng, folder):
    """A file or folder that is not as it should be: (path, its rows or None where that cannot be told, what it is)."""
    kind, form = rng.choice(KINDS), rng.choice(list(READY))
    rows = [json.loads(json.dumps(READY[form])) for _ in range(rng.randint(1, 6))]
    if kind == "folder":
        whole = folder / "rows"
        whole.mkdir()
        for number in range(rng.randint(0, 3)):
            one = rng.choice(KINDS[:-1])
            content, _ = MAKE[one](rng, spoilt(rng, json.loads(json.dumps(rows))))
            content = gzip.compress(content) if one == ".jsonl.gz" else content
            (whole / f"{number}{one}").write_bytes(damaged(rng, content) if rng.random() < 0.5 else content)
        for number in range(rng.randint(0, 2)):
            (whole / f"text{number}{rng.choice(['.txt', '.md', '.bin', ''])}").write_bytes(rng.randbytes(9))
        return whole, None, f"folder {form}"
    if rng.random() < 0.5:
        content, known = MAKE[kind](rng, spoilt(rng, rows))
        content = gzip.compress(content) if kind == ".jsonl.gz" else content
    else:
        content, known = MAKE[kind](rng, rows)
        packed_first = rng.random() < 0.5
        if kind == ".jsonl.gz" and packed_first:
            content = gzip.compress(content)
        content, known = damaged(rng, content), None
        if kind == ".jsonl.gz" and not packed_first:
            content = gzip.compress(content)
        if kind == ".jsonl":
            known = sum(bool(line) and not line.isspace() for line in content.split(b"\n"))
    if rng.random() < 0.05:  # a file under the name of another kind
        kind, known = rng.choice(KINDS[:-1]), None
    path = folder / f"rows{kind}"
    path.write_bytes(content)
    return path, known, f"{kind} {form}"


def outcome(path, known, folder):
    """What came of a file: "refused", "all set aside", "some set aside" or "harmless"; and that no row is lost."""
    out = folder / "out.jsonl"
    try:
        report = convert.run(str(path), out=out)
    except CourseError as error:
        sentence = str(error)
        sentence.encode()
        assert sentence.endswith((".", ")")) and "Traceback" not in sentence and len(sentence) < 2000
        assert sorted(entry.name for entry in folder.iterdir()) == [path.name], "nothing is left behind"
        return "refused"
    accounted(report)
    json.loads(report.to_json())
    str(report)
    side = convert.side_file(out)
    lengths = [len(file.read_bytes().splitlines()) if file.exists() else 0 for file in (out, side)]
    assert lengths == [report.converted, len(report.set_aside)]
    if known is not None:
        assert report.rows == known
    try:
        checked = reading.load(str(path), "chat" if report.target == "function-calling" else report.target)
    except CourseError:
        assert not report.converted
    else:
        assert (len(checked.dataset), len(checked.set_aside)) == (report.converted, len(report.set_aside))
    if not report.set_aside:
        return "harmless"
    return "some set aside" if report.converted else "all set aside"


@pytest.mark.parametrize("part", range(4))
def test_a_thousand_malformed_inputs(tmp_path, monkeypatch, part):
    """Some turn out to be harmless, such as a flipped bit in a word: these are checked as well, and not counted."""
    monkeypatch.setattr(convert.Report, "measure", lambda report, template: None)
    monkeypatch.setattr(convert, "Template", lambda model: SimpleNamespace(control=CHATML))
    found = Counter()
    for number in itertools.count(part, 4):
        folder = tmp_path / str(number)
        folder.mkdir()
        path, known, what = malformed(random.Random(number), folder)
        try:
            found[outcome(path, known, folder)] += 1
        except BaseException as error:
            error.add_note(f"input {number}: {what}")
            raise
        shutil.rmtree(folder)
        if found.total() - found["harmless"] == COUNT // 4:
            break
    assert found["harmless"] < 60 and min(found["refused"], found["some set aside"], found["all set aside"]) > 5
