"""Rows from a JSON or JSONL file or from memory, each with its place, and the report on the rows that were set aside.

Every shape of data reads its rows here. What a row must hold is the shape's own concern.
"""

import codecs
import difflib
import gzip
import html
import json
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn, TypeAlias

from unsloth_course.core.errors import CourseError

try:  # several times as fast as json; among the pins, but not everywhere
    import msgspec.json as quick_json
except ImportError:
    quick_json = None

if TYPE_CHECKING:
    from datasets import Dataset

ENDINGS = (".json", ".jsonl", ".jsonl.gz")
MAX_LINE_BYTES = 64 * 2**20
"""A JSONL line above this is refused, so that a small .gz cannot unpack into all of the memory."""
JSON_CHUNK_BYTES = 2**20
"""A list in a .json file is read in pieces of this size, so that its rows need not fit the memory together."""

CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
"""ChatML's control tokens, as SmolLM2 has them. For another model pass its tokenizer's `all_special_tokens`."""

REASONS_SHOWN = 8
_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_SPACE = re.compile(r"[ \t\n\r]*")
ARRAY_HINT = " If the file is one JSON list, rename it to .json."

Source: TypeAlias = "str | os.PathLike[str] | Dataset | list[dict[str, Any]]"


class Row(NamedTuple):
    """One object and where it came from; `number` counts rows from 1, `line` is set for JSONL only."""

    file: str
    number: int
    line: int | None
    values: Mapping[str, Any]

    def place(self, column: str | None = None) -> str:
        """The words that begin a message about this row: file, row, line, and the column where there is one."""
        line = "" if self.line is None else f" (line {self.line})"
        return f"{self.file}, row {self.number}{line}" + ("" if column is None else f", column {quoted(column)}")


class Broken(NamedTuple):
    """A row that cannot even be read: where it is, why, and what stands there (a value, or text that is no JSON)."""

    file: str
    number: int
    reason: str
    values: Any


class Aside(Exception):
    """Why one row is set aside. The shapes raise it; whoever loops over the rows knows file and number."""


@dataclass(frozen=True)
class SetAside:
    """A row that is well formed and yet of no use for training, and why. `row` is None for a whole file."""

    file: str
    row: int | None
    reason: str

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        return f"{self.file}{row}: {self.reason}"


@dataclass(repr=False)
class Checked:
    """A checked data set, the rows that were set aside, the columns that were not used, and a note on its origin."""

    dataset: "Dataset"
    set_aside: list[SetAside]
    unused_columns: list[str]
    note: str = ""

    def _lines(self) -> tuple[str, list[str]]:
        details = [str(row) for row in self.set_aside[:REASONS_SHOWN]]
        if len(self.set_aside) > REASONS_SHOWN:
            details.append(f"and {len(self.set_aside) - REASONS_SHOWN:,} more, all in .set_aside")
        if self.unused_columns:
            details.append(f"columns not used: {listed(self.unused_columns)}")
        if self.note:
            details.append(self.note)
        return f"rows ready: {len(self.dataset):,}, set aside: {len(self.set_aside):,}", details

    def __str__(self) -> str:
        headline, details = self._lines()
        return "\n  ".join([headline, *details])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        headline, details = self._lines()
        items = "".join(f"<li>{html.escape(detail)}</li>" for detail in details)
        return f"<p>{html.escape(headline)}</p>" + (f"<ul>{items}</ul>" if items else "")


def quoted(name: object) -> str:
    """A name from a file, made safe to print: quoted, at most 40 characters, control characters escaped."""
    text = str(name)
    return repr(text if len(text) <= 40 else text[:39] + "…")


def key_of(text: str) -> str:
    """What two texts have in common that are the same but for capitals and white space."""
    return " ".join(text.split()).casefold()


def listed(names: Iterable[object]) -> str:
    """Up to eight names, quoted, with a count of the rest."""
    names = list(names)
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(quoted(name) for name in names[:8]) + rest


def kind(value: object) -> str:
    """What a value is, in the words of JSON. The value itself is not shown: it may be huge, or nested without end."""
    if isinstance(value, bool):
        return "true or false"
    names = {int: "a number", float: "a number", str: "text", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def present(row: Row, columns: tuple[str, ...]) -> str:
    """The first of these columns that holds something in this row, and the first of all where none does."""
    return next((column for column in columns if row.values.get(column) is not None), columns[0])


def check_columns(row: Row, columns: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raises CourseError when the row lacks one of the columns, and names the one that was probably meant.

    A row may do without an optional column, but not with one that is misspelt: its text would be lost unseen.
    """
    columns = tuple(columns)
    others = [column for column in row.values if column not in columns]
    for column in columns:
        if column in row.values:
            continue
        close = _closest(column, tuple(others))
        if column in optional and close is None:
            continue
        meant = f" Did you mean {quoted(column)} by {quoted(close)}? Rename it." if close is not None else ""
        found = f"It has {listed(row.values)}." if row.values else "It has no columns."
        raise CourseError(f"{row.place(column)}: this column is missing. {found}{meant}")


@lru_cache(maxsize=256)  # the rows of a file lack the same columns, and to compare names takes long
def _closest(column: str, others: tuple[str, ...]) -> str | None:
    candidates = {str(other).strip().lower(): other for other in others if len(str(other)) <= 40}
    matches = difflib.get_close_matches(column, candidates, n=1, cutoff=0.75)
    return candidates[matches[0]] if matches else None


def text_of(row: Row, column: str) -> str:
    """The text in a column, "" where there is nothing. Raises CourseError for a value of another type."""
    value = row.values.get(column)
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):  # NaN: how pandas writes "nothing here"
        return ""
    raise CourseError(f"{row.place(column)}: found {kind(value)}, expected text. Write the value in quotes.")


def useless(texts: Mapping[str, str], control_tokens: Iterable[str], optional: Iterable[str] = ()) -> str | None:
    """Why nothing should be learned from these texts by column, or None: empty, a control token, or no Unicode."""
    for column, text in texts.items():
        if column not in optional and (not text or text.isspace()):
            return f"column {quoted(column)} is empty"
        for token in control_tokens:
            if token in text:
                return f"column {quoted(column)} contains the control token {token}"
        if not is_unicode(text):
            return f"column {quoted(column)} contains half of a surrogate pair, which is not text"
    return None


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def nothing_left(set_aside: list[SetAside]) -> str:
    """The sentence for data of which every row was set aside."""
    reason, count = Counter(row.reason for row in set_aside).most_common(1)[0]
    return (
        f"{set_aside[0].file}: nothing is left to train on. Rows set aside: {len(set_aside):,}, most often "
        f"({count:,}) because {reason}. Mend these rows, or bring others."
    )


def rows_of(source: Source, name: str | None = None) -> Iterator[Row]:
    """The rows of a file, of a `datasets.Dataset`, or of a list of dicts; `name` stands for the latter two in messages.

    Raises CourseError for a file that `read_rows` refuses, and for data in memory that is empty or of another type.
    """
    if isinstance(source, str | os.PathLike):
        return read_rows(source)
    return _rows_in_memory(source, name)


def without_place(error: CourseError, *places: str) -> str:
    """A message without the file or row that it begins with, for a report that names them anyhow."""
    text = str(error)
    for place in places:
        text = text.removeprefix(place).lstrip(",: ")
    return text


def read_rows(path: str | os.PathLike[str], tolerant: bool = False) -> "Iterator[Row | Broken]":
    """The rows of a .json file (a list of objects), or of a .jsonl or .jsonl.gz file (an object per line).

    A file is read line by line or piece by piece, so it may be larger than the memory; blank lines count as lines, not
    as rows. A byte order mark is skipped. NaN and Infinity, which Python writes into JSON, are read as floats.

    tolerant: a row that cannot be read, where the next one can still be found, comes as a `Broken` instead of an error.

    Raises CourseError while iterating, with file, row, line and column (characters, from 1) as far as they apply: no
    such file, a folder, another ending, an empty file, bytes that are not UTF-8 (offset in bytes), broken JSON, no
    list at the top, a row that is not an object.
    """
    path = Path(os.path.expanduser(path))
    # A file name may hold bytes that are no text; escaped, they can be printed.
    file = str(path).encode("utf-8", "backslashreplace").decode()
    ending = next((known for known in ENDINGS if path.name.lower().endswith(known)), None)
    if os.path.isdir(path):
        raise CourseError(f"{file} is a folder. Name one file in it.")
    if ending is None:
        raise CourseError(
            f"{file} has none of the endings {', '.join(ENDINGS)}. Convert it, or give it the right name."
        )
    try:
        with _open(path, file, unpack=ending == ".jsonl.gz") as stream:
            rows = _json_rows(stream, file, tolerant) if ending == ".json" else _jsonl_rows(stream, file, tolerant)
            empty = True
            for row in rows:
                empty = False
                yield row
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise CourseError(f"{file} is not a whole gzip file. Download or pack it again.") from None
    except OSError as error:
        raise CourseError(f"{file} cannot be read: {error.strerror or error}.") from None
    if empty:
        raise CourseError(f"{file} is empty: it has no rows. Write or download it again.")


def rows_in_stream(stream: BinaryIO, file: str) -> "Iterator[Row | Broken]":
    """The rows of JSON in a stream, a list or an object a line, whichever it begins with. Raises as `read_rows`."""
    begins = stream.read(1024).removeprefix(codecs.BOM_UTF8).lstrip()
    stream.seek(0)
    return (_json_rows if begins.startswith(b"[") else _jsonl_rows)(stream, file, tolerant=True)


def _open(path: Path, file: str, unpack: bool) -> BinaryIO:
    try:
        return gzip.open(path, "rb") if unpack else open(path, "rb")
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name
        folder = "" if path.is_absolute() else f" in {os.getcwd()}"
        raise CourseError(f"There is no file {file}{folder}. Check the name and the folder.") from None


def _json_rows(stream: BinaryIO, file: str, tolerant: bool) -> "Iterator[Row | Broken]":
    text = _Text(stream, file)
    text.grow()
    while text.buffer.isspace() and text.grow():
        pass
    if not text.buffer or text.buffer.isspace():
        return
    if not text.buffer.lstrip().startswith("["):
        while len(text.buffer) <= MAX_LINE_BYTES and text.grow():
            pass
        if not text.whole:  # and it may go on for ever
            raise CourseError(f"{file}: the top level is not a list of objects. Put them into one: [{{...}}, {{...}}].")
        items = _parsed(text.buffer, file, None)
        raise CourseError(f"{file}: the top level is {kind(items)}, not a list of objects.{_list_inside(items)}")
    for number, values in enumerate(_items(text), 1):
        yield _row_or_broken(file, number, None, values, tolerant)


class _Text:
    """The text of a file as far as it was read and not yet used, and where in the file that begins."""

    def __init__(self, stream: BinaryIO, file: str) -> None:
        self.stream, self.file = stream, file
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.buffer, self.at = "", 0
        self.line, self.column, self.read = 1, 1, 0
        self.whole = False

    def grow(self) -> bool:
        """Reads on; what is in the buffer is doubled at least, so that no value is looked at too often."""
        if self.whole:
            return False
        self._forget()
        raw = self.stream.read(max(JSON_CHUNK_BYTES, len(self.buffer)))
        waiting = len(self.decoder.getstate()[0])
        self.whole = not raw
        try:
            text = self.decoder.decode(raw, final=self.whole)
        except UnicodeDecodeError as error:
            _refuse_bytes(self.file, self.read - waiting + error.start, raw if self.read == 0 else b"")
        self.buffer += text.removeprefix("\ufeff") if self.read == 0 else text
        self.read += len(raw)
        return True

    def _forget(self) -> None:
        lines = self.buffer.count("\n", 0, self.at)
        self.line += lines
        self.column = self.at - self.buffer.rfind("\n", 0, self.at) if lines else self.column + self.at
        self.buffer, self.at = self.buffer[self.at :], 0

    def next_character(self) -> str:
        """The next character that is no white space, which is left where it is; "" at the end."""
        while True:
            self.at = _SPACE.match(self.buffer, self.at).end()
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.grow():
                return ""

    def refuse(self, reason: str, position: int | None = None) -> NoReturn:
        """Raises CourseError for the JSON at a position in the buffer."""
        position = self.at if position is None else position
        lines = self.buffer.count("\n", 0, position)
        column = position - self.buffer.rfind("\n", 0, position) if lines else self.column + position
        place = f"{self.file}, line {self.line + lines}, column {column}"
        raise CourseError(f"{place}: the JSON is broken ({reason}). Mend it there.") from None


def _items(text: _Text) -> Iterator[object]:
    """The values of a list, one after another."""
    text.next_character()
    text.at += 1
    if text.next_character() == "]":
        text.at += 1
    else:
        while True:
            yield _value(text)
            mark = text.next_character()
            if mark not in (",", "]"):
                text.refuse("Expecting ',' delimiter")
            text.at += 1
            if mark == "]":
                break
            text.next_character()
    if text.next_character():
        text.refuse("Extra data")


def _value(text: _Text) -> object:
    while True:
        reason, position = "Expecting value", len(text.buffer)
        try:
            value, end = _DECODER.raw_decode(text.buffer, text.at)
        except json.JSONDecodeError as error:
            reason, position = error.msg, error.pos
        except RecursionError:
            raise CourseError(f"{text.file}: the JSON is nested too deeply to be read. Flatten it.") from None
        except ValueError:
            _refuse_digits(text.file)
        else:
            if end < len(text.buffer) or text.whole:  # else a number may go on
                text.at = end
                return value
        # A text without an end, or something amiss close to where the buffer ends: the rest is perhaps not read yet.
        cut = reason.startswith("Unterminated") or position > len(text.buffer) - 32
        if not cut or len(text.buffer) - text.at > MAX_LINE_BYTES or not text.grow():
            text.refuse(reason, position)


def _refuse_digits(where: str) -> NoReturn:  # Python's limit on the digits of an integer
    raise CourseError(f"{where}: an integer has thousands of digits. Write it as text, in quotes.") from None


def _list_inside(items: object) -> str:
    names = [name for name, value in items.items() if isinstance(value, list)] if isinstance(items, dict) else []
    if names:
        return f" There are lists under {listed(names)}: save the one you want as a file of its own."
    return " Put the objects into one list: [{...}, {...}]."


def _jsonl_rows(stream: BinaryIO, file: str, tolerant: bool) -> "Iterator[Row | Broken]":
    offset = number = line = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        line += 1
        if len(raw) > MAX_LINE_BYTES:
            limit = MAX_LINE_BYTES // 2**20
            raise CourseError(f"{file}, line {line} is over {limit} MiB. Put one object on a line, or rename to .json.")
        before, offset = offset, offset + len(raw)
        try:
            text = _decoded(raw, f"{file}, line {line}", before)
            if not text or text.isspace():
                continue
            values = _parsed(text, file, line)
        except CourseError as error:
            if not tolerant:
                raise
            number += 1
            yield Broken(file, number, without_place(error, file), raw.decode("utf-8", "backslashreplace"))
            continue
        number += 1
        yield _row_or_broken(file, number, line, values, tolerant)


def _row_or_broken(file: str, number: int, line: int | None, values: object, tolerant: bool) -> "Row | Broken":
    if tolerant and not isinstance(values, Mapping):
        return Broken(file, number, f"it is {kind(values)}, not an object of columns and values", values)
    return _row(file, number, line, values)


def _row(file: str, number: int, line: int | None, values: object) -> Row:
    row = Row(file, number, line, values)
    if not isinstance(values, Mapping):
        hint = ARRAY_HINT if line == 1 and isinstance(values, list) else ""
        raise CourseError(f"{row.place()} is {kind(values)}, not an object of columns and values.{hint}")
    return row


def _decoded(raw: bytes, where: str, offset: int = 0) -> str:
    """The text of `raw`, which begins `offset` bytes into the (unpacked) file, without the byte order mark."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse_bytes(where, offset + error.start, raw if offset == 0 else b"")
    return text.removeprefix("\ufeff") if offset == 0 else text


def _refuse_bytes(where: str, byte: int, begins: bytes) -> NoReturn:
    utf16 = " It begins like UTF-16." if begins[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
    raise CourseError(f"{where}: byte {byte} (from 0) is not UTF-8.{utf16} Save the file as UTF-8.") from None


def _loads(text: str) -> object:
    """The value that JSON stands for. Raises as `json.loads` does."""
    if quick_json is not None:
        try:
            return quick_json.decode(text)
        except Exception:  # what is amiss, and whether json takes it in spite of that, such as NaN, json says
            pass
    return _DECODER.decode(text)


def dumps(value: object) -> str:
    """A row of texts as JSON on one line, with the letters of all scripts as they are."""
    return _ENCODER.encode(value) if quick_json is None else quick_json.encode(value).decode()


def _parsed(text: str, file: str, line: int | None) -> object:
    """The JSON value in `text`, which is line `line` of a JSONL file, or a whole JSON file where that is None."""
    where = file if line is None else f"{file}, line {line}"
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        place = f"{file}, line {line or error.lineno}, column {error.colno}"
        hint = ""
        if line is None and error.msg == "Extra data":
            hint = " If every line is an object of its own, rename the file to .jsonl."
        elif line == 1 and text.lstrip().startswith("["):
            hint = ARRAY_HINT
        raise CourseError(f"{place}: the JSON is broken ({error.msg}). Mend it there.{hint}") from None
    except RecursionError:
        raise CourseError(f"{where}: the JSON is nested too deeply to be read. Flatten it.") from None
    except ValueError:
        _refuse_digits(where)


def _rows_in_memory(source: object, name: str | None) -> Iterator[Row]:
    import datasets

    if isinstance(source, datasets.Dataset):
        items: Iterable[object] = source.with_format(None)
    elif isinstance(source, list):
        items = source
    elif isinstance(source, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise CourseError(f"{name or 'The data set'} has the splits {listed(source)}. Pick one: data[SPLIT].")
    else:
        found = type(source).__name__
        raise CourseError(
            f"{name or 'The data'} is of type {found}. Give a path, a datasets.Dataset or a list of dicts."
        )
    name = name or ("the data set" if isinstance(source, datasets.Dataset) else "the list")
    if not len(source):
        raise CourseError(f"{name} is empty: it has no rows.")
    for number, values in enumerate(items, 1):
        yield _row(name, number, None, values)
