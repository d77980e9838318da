"""Rows from JSON and JSON lines, or from memory, each with its place. What cannot be read comes as a `Broken` with its
reason wherever the next row can still be found. What a row must hold is the concern of its shape.
"""

import codecs
import io
import json
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeAlias

import msgspec

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data.rows import Broken, Row, Rows, kind, listed

if TYPE_CHECKING:
    from datasets import Dataset

ENDINGS = (".json", ".jsonl", ".jsonl.gz")
MAX_LINE_BYTES = 64 * 2**20
"""A JSONL line above this is refused, so that a small .gz cannot unpack into all of the memory."""
JSON_CHUNK_BYTES = 2**20
"""A list in a .json file is read in pieces of this size, so that its rows need not fit the memory together."""
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_BLANK = object()
ARRAY_HINT = " If the file is one JSON list, rename it to .json."
LINES_HINT = " If every line is an object of its own, rename the file to .jsonl."

Source: TypeAlias = "str | os.PathLike[str] | Dataset | list[dict[str, Any]] | list[str]"


def read_rows(stream: BinaryIO, file: str) -> Rows:
    """The rows of a .json file (a list of objects), or of a .jsonl or .jsonl.gz file (an object per line).

    A file is read line by line or piece by piece, so it may be larger than the memory; blank lines count as lines, not
    as rows. Text is UTF-8, or UTF-16 with a byte order mark. NaN and Infinity, as Python writes them, are floats.

    stream: of the bytes, unpacked. file: its name, for messages too. Raises UnicodeDecodeError for broken UTF-16, and
    while iterating CourseError with file, line and column (characters, from 1), or the offset in bytes, where no
    further row can be found: broken JSON or bytes in a list, no list at the top of a .json file, too long a line.
    """
    read = _json_rows if file.lower().endswith(".json") else _jsonl_rows
    return read(_Recoded(stream) if is_utf16(stream) else stream, file)


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


def _json_rows(stream: BinaryIO, file: str) -> Rows:
    text = _Text(stream, file)
    if not (first := text.next_character()):
        return
    if first != "[":
        _refuse_top(text)
    text.at += 1
    number, more = 0, text.next_character() != "]"
    while more:
        number += 1
        yield _row_or_broken(file, number, text.value())
        more = text.next_character() == ","
        if not more and text.next_character() != "]":
            text.refuse("Expecting ',' delimiter")
        text.at += more
    text.at += 1
    if text.next_character():
        text.refuse("Extra data")


def _refuse_top(text: "_Text") -> NoReturn:
    """Raises CourseError for a file that holds one value that is no list, which may go on for ever."""
    while len(text.buffer) <= MAX_LINE_BYTES and text.grow():
        pass
    top = f"{text.file}: the top level is"
    if not text.whole:
        raise CourseError(f"{top} not a list of objects. Put them into one: [{{...}}, {{...}}].")
    value = text.value()
    if text.next_character():
        text.refuse("Extra data", hint=LINES_HINT)
    raise CourseError(f"{top} {kind(value)}, not a list of objects.{_list_inside(value)}")


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
        self.line, self.column = self.place(self.at)
        self.buffer, self.at = self.buffer[self.at :], 0
        raw = self.stream.read(max(JSON_CHUNK_BYTES, len(self.buffer)))
        self.whole, first = not raw, not self.read
        self.read += len(raw)
        try:
            text = self.decoder.decode(raw, final=self.whole)
        except UnicodeDecodeError as error:
            raise CourseError(f"{self.file}{_amiss(error, self.read - len(error.object))}") from None
        self.buffer += text.removeprefix("\ufeff") if first else text
        return True

    def place(self, position: int) -> tuple[int, int]:
        """The line and the column, from 1, of a position in the buffer."""
        lines = self.buffer.count("\n", 0, position)
        column = position - self.buffer.rfind("\n", 0, position) if lines else self.column + position
        return self.line + lines, column

    def next_character(self) -> str:
        """The next character that is no white space, which is left where it is; "" at the end."""
        while True:
            self.at = _SPACE.match(self.buffer, self.at).end()
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.grow():
                return ""

    def refuse(self, reason: str, position: int | None = None, hint: str = "") -> NoReturn:
        """Raises CourseError for the JSON at a position in the buffer, or where it was read up to."""
        line, column = self.place(self.at if position is None else position)
        where = f"{self.file}, line {line}, column {column}"
        raise CourseError(f"{where}: the JSON is broken ({reason}). Mend it there.{hint}") from None

    def value(self) -> object:
        """The next value."""
        self.next_character()
        while True:
            reason, position = "Expecting value", len(self.buffer)
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                reason, position = error.msg, error.pos
            except (ValueError, RecursionError) as error:
                raise CourseError(f"{self.file}{_amiss(error)}") from None
            else:
                if end < len(self.buffer) or self.whole:  # else a number may go on
                    self.at = end
                    return value
            # A text without an end, or something amiss close to where the buffer ends: perhaps the rest is not read.
            cut = reason.startswith("Unterminated") or position > len(self.buffer) - 32
            if not cut or len(self.buffer) - self.at > MAX_LINE_BYTES or not self.grow():
                self.refuse(reason, position)


def _amiss(error: ValueError | RecursionError, offset: int = 0) -> str:
    """What is amiss with JSON, as it stands behind its place; offset: where its bytes begin in the file."""
    if isinstance(error, UnicodeDecodeError):
        return f": byte {offset + error.start} (from 0) is not UTF-8. Save the file as UTF-8."
    if isinstance(error, json.JSONDecodeError):
        return f", column {error.colno}: the JSON is broken ({error.msg}). Mend it there."
    if isinstance(error, RecursionError):
        return ": the JSON is nested too deeply to be read. Flatten it."
    return ": an integer has thousands of digits. Write it as text, in quotes."  # Python's limit


def _list_inside(value: object) -> str:
    names = [name for name, inside in value.items() if isinstance(inside, list)] if isinstance(value, dict) else []
    if names:
        return f" There are lists under {listed(names)}: save the one you want as a file of its own."
    return " Put the objects into one list: [{...}, {...}]."


def _jsonl_rows(stream: BinaryIO, file: str) -> Rows:
    offset = number = line = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        line += 1
        if len(raw) > MAX_LINE_BYTES:
            limit = MAX_LINE_BYTES // 2**20
            raise CourseError(f"{file}, line {line} is over {limit} MiB. Put one object on a line, or rename to .json.")
        hint = ARRAY_HINT if line == 1 and raw.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[") else ""
        try:
            values = _parsed(raw, line == 1)
            if values is not _BLANK:
                number += 1
                yield _row_or_broken(file, number, values, hint)
        except (ValueError, RecursionError) as error:
            number += 1
            reason = f"line {line}{_amiss(error, offset)}{hint}"
            yield Broken(file, number, reason, raw.decode("utf-8", "backslashreplace"))
        offset += len(raw)


def _parsed(line: bytes, first: bool) -> object:
    """The value that a line of JSON stands for. Raises UnicodeDecodeError, and as `json.loads` does."""
    try:
        return msgspec.json.decode(line)  # several times as fast as json
    except Exception:  # what is amiss, and whether json takes it in spite of that, such as NaN, json says
        pass
    text = line.decode().removeprefix("\ufeff" if first else "")
    return _DECODER.decode(text) if text and not text.isspace() else _BLANK


def _row_or_broken(file: str, number: int, values: object, hint: str = "") -> Row | Broken:
    if type(values) is dict or isinstance(values, Mapping):
        return Row(file, number, values)
    reason = f"it is {kind(values)}, not an object of columns and values"
    return Broken(file, number, f"{reason}.{hint}" if hint else reason, values)


def rows_in_memory(source: Any, name: str | None = None) -> Rows:
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
        yield _row_or_broken(name, number, {"text": values} if isinstance(values, str) else values)
