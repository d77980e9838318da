"""Rows from a JSON or JSONL file or from memory, each with its place.

What cannot be read comes as a `Broken` with its reason wherever the next row can still be found, so that no row is
lost unseen. What a row must hold is the concern of its shape.
"""

import codecs
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeAlias

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data.rows import Broken, Row, kind, listed, without_place

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
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
ARRAY_HINT = " If the file is one JSON list, rename it to .json."

Source: TypeAlias = "str | os.PathLike[str] | Dataset | list[dict[str, Any]] | list[str]"


def read_rows(path: Path, file: str) -> Iterator[Row | Broken]:
    """The rows of a .json file (a list of objects), or of a .jsonl or .jsonl.gz file (an object per line).

    A file is read line by line or piece by piece, so it may be larger than the memory; blank lines count as lines, not
    as rows. Text is UTF-8, or UTF-16 with a byte order mark. NaN and Infinity, which Python writes into JSON, are read
    as floats.

    file: what messages call it. Raises OSError, UnicodeDecodeError for broken UTF-16, and while iterating CourseError
    with file, line and column (characters, from 1) as far as they apply, where no further row can be found: a list in
    bytes that are not UTF-8 (offset in bytes) or with broken JSON, no list at the top of a .json file, a line above the
    limit, a gzip file that is cut off.
    """
    ending = path.name.lower()
    try:
        with gzip.open(path, "rb") if ending.endswith(".gz") else open(path, "rb") as raw:
            stream = _Recoded(raw) if is_utf16(raw) else raw
            yield from (_json_rows if ending.endswith(".json") else _jsonl_rows)(stream, file)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise CourseError(f"{file} is not a whole gzip file. Download or pack it again.") from None


def is_utf16(stream: BinaryIO) -> bool:
    """Whether a stream, which stays where it is, begins with the byte order mark of UTF-16."""
    return stream.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class _Recoded:
    """A stream of UTF-16 as one of UTF-8. Half of a surrogate pair becomes bytes that are not UTF-8."""

    def __init__(self, raw: BinaryIO) -> None:
        self._text = io.TextIOWrapper(raw, "utf-16", "surrogatepass", newline="\n")

    def read(self, size: int) -> bytes:
        """About so many bytes, and none only at the end."""
        return self._text.read(size).encode("utf-8", "surrogatepass")

    def readline(self, size: int) -> bytes:
        """A line, or the first `size` characters of it."""
        return self._text.readline(size).encode("utf-8", "surrogatepass")


def rows_in_stream(stream: BinaryIO, file: str) -> Iterator[Row | Broken]:
    """The rows of JSON in a stream, a list or an object a line, whichever it begins with. Raises as `read_rows`."""
    begins = stream.read(1024).removeprefix(codecs.BOM_UTF8).lstrip()
    stream.seek(0)
    return (_json_rows if begins.startswith(b"[") else _jsonl_rows)(stream, file)


def _json_rows(stream: BinaryIO, file: str) -> Iterator[Row | Broken]:
    text = _Text(stream, file)
    first = text.next_character()
    if not first:
        return
    if first != "[":
        while len(text.buffer) <= MAX_LINE_BYTES and text.grow():
            pass
        if not text.whole:  # and it may go on for ever
            raise CourseError(f"{file}: the top level is not a list of objects. Put them into one: [{{...}}, {{...}}].")
        items = _parsed(text.buffer, file, None)
        raise CourseError(f"{file}: the top level is {kind(items)}, not a list of objects.{_list_inside(items)}")
    for number, values in enumerate(_items(text), 1):
        yield _row_or_broken(file, number, None, values)


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
            _refuse_bytes(self.file, self.read - waiting + error.start)
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


def _jsonl_rows(stream: BinaryIO, file: str) -> Iterator[Row | Broken]:
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
            number += 1
            yield Broken(file, number, without_place(error, file), raw.decode("utf-8", "backslashreplace"))
            continue
        number += 1
        yield _row_or_broken(file, number, line, values)


def _row_or_broken(file: str, number: int, line: int | None, values: object) -> Row | Broken:
    if isinstance(values, Mapping):
        return Row(file, number, line, values)
    hint = f".{ARRAY_HINT}" if line == 1 and isinstance(values, list) else ""
    return Broken(file, number, f"it is {kind(values)}, not an object of columns and values{hint}", values)


def _decoded(raw: bytes, where: str, offset: int = 0) -> str:
    """The text of `raw`, which begins `offset` bytes into the (unpacked) file, without the byte order mark."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse_bytes(where, offset + error.start)
    return text.removeprefix("\ufeff") if offset == 0 else text


def _refuse_bytes(where: str, byte: int) -> NoReturn:
    raise CourseError(f"{where}: byte {byte} (from 0) is not UTF-8. Save the file as UTF-8.") from None


def _loads(text: str) -> object:
    """The value that JSON stands for. Raises as `json.loads` does."""
    if quick_json is not None:
        try:
            return quick_json.decode(text)
        except Exception:  # what is amiss, and whether json takes it in spite of that, such as NaN, json says
            pass
    return _DECODER.decode(text)


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


def rows_in_memory(source: Any, name: str | None = None) -> Iterator[Row | Broken]:
    """The rows of a `datasets.Dataset` or of a list of dicts, which messages call `name`; a text is a row too.

    Raises CourseError while iterating for what is empty or of another type.
    """
    import datasets

    if isinstance(source, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise CourseError(f"{name or 'The data set'} has the splits {listed(source)}. Pick one: data[SPLIT].")
    if not isinstance(source, datasets.Dataset | list):
        found = type(source).__name__
        raise CourseError(
            f"{name or 'The data'} is of type {found}. Give a path, a datasets.Dataset or a list of dicts."
        )
    in_list = isinstance(source, list)
    name = name or ("the list" if in_list else "the data set")
    if not len(source):
        raise CourseError(f"{name} is empty: it has no rows.")
    for number, values in enumerate(source if in_list else source.with_format(None), 1):
        yield _row_or_broken(name, number, None, {"text": values} if isinstance(values, str) else values)
