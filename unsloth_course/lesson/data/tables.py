"""The rows of any file, folder or Hub data set, and of what lies in memory: one stream, whatever is read, in which what
cannot be read comes as a `Broken` wherever the next row can still be found.
"""

import csv
import gzip
import io
import itertools
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from unsloth_course.core import hub
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import documents, splits
from unsloth_course.lesson.data.batches import BATCH_ROWS
from unsloth_course.lesson.data.documents import DOCUMENTS
from unsloth_course.lesson.data.files import ENDINGS, MAX_LINE_BYTES, is_utf16, read_rows, rows_in_memory
from unsloth_course.lesson.data.rows import (
    UNREADABLE,
    Broken,
    Row,
    Rows,
    is_unicode,
    listed,
    quoted,
    shown,
    without_place,
)
from unsloth_course.lesson.profile import HUB_DATA

SEPARATED = (".csv", ".tsv")
ON_DISK = ("state.json", "dataset_dict.json")
"""What `save_to_disk` writes into the folder of a data set, and into that of one with splits."""
LFS = b"version https://git-lfs"
ROWS = (*ENDINGS, *SEPARATED, ".parquet")
ALL_ENDINGS = (*ROWS, *DOCUMENTS)
IN_FOLDERS = (*DOCUMENTS[:3], ".jsonl", *DOCUMENTS[3:])  # what is read of a folder of raw text
DELIMITERS = (",", ";", "\t")
"""What may stand between the fields of a CSV file; the first of them that is in its first line does. In .tsv: a tab."""
PARQUET_BYTES = 2**16  # of a column are read at once
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def stream(source: str, endings: tuple[str, ...] = IN_FOLDERS, files: Collection[str] | None = None) -> Rows:
    """The rows of a file, of the files in a folder, or of a data set on the Hub (`owner/name`).

    Files are JSON, JSON lines (also gzipped), CSV, TSV, Parquet and documents, which are one row each with the column
    `text`; a folder may also be what `Dataset.save_to_disk` wrote. Memory does not grow with the rows. endings: of the
    files in a folder that are read; everything else in it comes as a `Broken`, and so does the rest of a file that
    cannot be read to its end. files: of a folder or of the Hub the only ones to read, as `parts` has them; without it
    all, and of the Hub the split "train".

    Raises CourseError for a file that cannot be read to its end, with the place; for what is no such file; for a
    folder without files; and as `hub.fetch_dataset` does.
    """
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        saved = any((path / name).is_file() for name in ON_DISK)
        yield from _rows_on_disk(path, files) if saved else _rows_in_folder(path, endings, files)
    elif on_the_hub(source):
        chosen = {} if files is None else {"files": tuple(files)}
        yield from rows_in_memory(hub.fetch_dataset(source, **chosen), source)
    elif not path.name.lower().endswith(ALL_ENDINGS):
        raise CourseError(
            f"{shown(path)} has none of the endings {', '.join(ALL_ENDINGS)}, and it is no folder and no name on the "
            "Hub. Convert it, or give it the right name."
        )
    else:
        yield from _rows_of_file(path)


def parts(source: str) -> splits.Files:
    """The files of each configuration and split of a folder or a Hub data set; empty where it has no splits.

    Of the Hub nothing is fetched but the list of files; where that cannot be had, there are no splits.
    """
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        if (path / ON_DISK[1]).is_file():
            return {("", entry.name): [entry.name] for entry in sorted(path.iterdir()) if entry.is_dir()}
        names = [file.relative_to(path).as_posix() for file, reason in documents.files_in(path) if reason is None]
    elif on_the_hub(source) and source not in HUB_DATA.values():  # the course's own are read as they are
        try:
            names = hub.look_up(source, "dataset").sizes
        except CourseError:  # fetching says it better
            return {}
    else:
        return {}
    return splits.of_files(name for name in names if name.lower().endswith(ROWS))


def _rows_on_disk(folder: Path, files: Collection[str] | None) -> Rows:
    from datasets import load_from_disk

    for place in [folder] if files is None else [folder / name for name in files]:
        try:
            found = load_from_disk(str(place))
        except Exception as error:  # the library lets through what its parsers raise
            reason = " ".join(str(error).split())[:200]
            raise CourseError(f"{shown(place)} is not what save_to_disk writes ({reason}). Write it again.") from None
        yield from rows_in_memory(found, shown(place))


def _rows_in_folder(folder: Path, endings: tuple[str, ...], files: Collection[str] | None = None) -> Rows:
    empty = True
    others = set() if files is None else set(itertools.chain.from_iterable(parts(str(folder)).values()))
    for path, reason in documents.files_in(folder):
        empty, number, name = False, 0, path.relative_to(folder).as_posix()
        if reason is None and not path.name.lower().endswith(endings):
            reason = f"it has none of the endings {', '.join(endings)}"
        if reason is None and files is not None and name not in files:
            if name in others:  # of another split
                continue
            reason = "it belongs to none of the splits that the names of the files tell"
        if reason is None:
            try:
                for row in _rows_of_file(path):
                    number = row.number
                    yield row
            except CourseError as error:
                reason = without_place(error, shown(path))
        if reason:
            yield Broken(shown(path), number + 1, reason, None)
    if empty:
        raise CourseError(
            f"The folder {shown(folder)} has no files to read; hidden ones are left out. "
            f"Put {', '.join(endings)} files into it."
        )


def _rows_of_file(path: Path) -> Rows:
    name, file, empty = path.name.lower(), shown(path), True
    documents.check_plain(path, file)
    try:
        with open(path, "rb") as raw:
            if raw.peek(len(LFS)).startswith(LFS):
                raise CourseError(
                    f"{file} is a Git LFS pointer in place of the file. Fetch the file itself with `git lfs pull`."
                )
            with gzip.open(raw) if name.endswith(".gz") else raw as stream:
                for row in _reader(name)(stream, file):
                    empty = False
                    yield row
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise CourseError(f"{file} is not a whole gzip file. Download or pack it again.") from None
    except OSError as error:
        raise CourseError(f"{file} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise CourseError(f"{file} is not whole UTF-16. Save it as UTF-8.") from None
    if empty:
        raise CourseError(f"{file} is empty: it has no rows. Write or download it again.")


def _reader(name: str) -> Callable[[BinaryIO, str], Rows]:
    if name.endswith(DOCUMENTS):
        return documents.read
    return _csv_rows if name.endswith(SEPARATED) else _parquet_rows if name.endswith(".parquet") else read_rows


def on_the_hub(source: str) -> bool:
    """Whether this is to be looked for on the Hub: a name like owner/dataset that nothing on this machine has."""
    if not HUB_NAME.fullmatch(source) or source.lower().endswith(ALL_ENDINGS):
        return False
    return not os.path.exists(os.path.expanduser(source))


def _csv_rows(raw: BinaryIO, shown: str) -> Rows:
    csv.field_size_limit(MAX_LINE_BYTES)
    # Bytes that are not UTF-8 come through as surrogates, so that only the rows that hold them are set aside.
    encoding, errors = ("utf-16", "surrogatepass") if is_utf16(raw) else ("utf-8-sig", "surrogateescape")
    stream = io.TextIOWrapper(raw, encoding, errors, newline="")
    head = stream.readline(MAX_LINE_BYTES)
    stream.seek(0)
    marks = "\t" if shown.lower().endswith(".tsv") else DELIMITERS
    dialect = {"strict": True, "delimiter": next((mark for mark in marks if mark in head), marks[0])}
    lines = _Lines(stream)
    reader = csv.reader(lines, **dialect)
    columns = _header(reader, shown)
    if columns and columns[0] == "sep=":  # Excel's first line, which names the mark
        columns = _header(reader, shown)
    number = 0
    while columns is not None:
        lines.taken = []
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # Perhaps a quote that is never closed: what it swallowed is read again, without the line of the quote.
            number, first = number + 1, lines.number - len(lines.taken) + 1
            yield _again(lines.taken[0], dialect, shown, number, columns) or Broken(
                shown, number, f"line {first}: the CSV is broken ({error})", lines.taken[0]
            )
            lines.back()
            reader = csv.reader(lines, **dialect)
            continue
        if cells is None:
            return
        if cells:  # else a blank line
            number += 1
            yield _csv_row(shown, number, columns, cells)


class _Lines:
    """The lines of a file, which can be taken back but for the first that was taken since `taken` was emptied."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._stream, self._waiting = iter(stream), deque[str]()
        self.taken: list[str] = []
        self.number = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._stream)
        self.taken.append(line)
        self.number += 1
        return line

    def back(self) -> None:
        """Puts the lines back behind the first one."""
        self._waiting.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1


def _again(line: str, dialect: dict[str, Any], shown: str, number: int, columns: list[str]) -> Row | Broken | None:
    """The row of a broken line whose quotes are marked by backslashes, as some programs write them."""
    try:
        cells = next(csv.reader([line], escapechar="\\", **dialect)) if '\\"' in line else []
    except csv.Error:
        return None
    return _csv_row(shown, number, columns, cells) if len(cells) == len(columns) else None


def _header(reader: Iterator[list[str]], shown: str) -> list[str] | None:
    try:
        columns = next(reader, None)
    except csv.Error as error:
        raise CourseError(f"{shown}, line 1: the CSV is broken ({error}). Mend it there.") from None
    if columns is None:
        return None
    columns = _to_the_last([column.strip() for column in columns])
    twice = [column for column in dict.fromkeys(columns) if columns.count(column) > 1]
    if twice:
        raise CourseError(f"{shown}, line 1 names the columns {listed(twice)} more than once. Rename them.")
    return columns


def _to_the_last(cells: list[str], least: int = 0) -> list[str]:
    """The cells up to the last that holds something, but `least` at least: some programs end lines in commas."""
    count = len(cells)
    while count > least and not cells[count - 1]:
        count -= 1
    return cells[:count]


def _csv_row(shown: str, number: int, columns: list[str], cells: list[str]) -> Row | Broken:
    if len(cells) > len(columns):
        cells = _to_the_last(cells, len(columns))
    if len(cells) != len(columns):
        return Broken(shown, number, f"it has {len(cells)} fields, and the first line names {len(columns)}", cells)
    for column, cell in zip(columns, cells, strict=True):
        if not cell.isascii() and not is_unicode(cell):
            return Broken(shown, number, f"column {quoted(column)} holds bytes that are not UTF-8", cells)
    return Row(shown, number, dict(zip(columns, cells, strict=True)))


def _parquet_rows(file: BinaryIO, shown: str) -> Rows:
    import pyarrow
    from pyarrow import parquet

    unreadable = (pyarrow.ArrowException, OSError, ValueError, OverflowError)
    number, lost = 0, {}
    try:
        # Otherwise the whole file is read ahead, and more than one group of rows is held.
        with parquet.ParquetFile(file, pre_buffer=False, buffer_size=PARQUET_BYTES) as table:
            columns = table.schema_arrow.names
            if twice := [name for name in dict.fromkeys(columns) if columns.count(name) > 1]:
                raise CourseError(f"{shown} has the columns {listed(twice)} more than once. Rename them.")
            groups = [*range(table.num_row_groups)]
            while True:
                readable = [name for name in columns if name not in lost]
                try:
                    batches = table.iter_batches(BATCH_ROWS, row_groups=groups, columns=readable)
                    values = (row for batch in batches for row in batch.to_pylist())
                    for row in itertools.islice(values, number, None):
                        number += 1
                        yield Row(shown, number, {**row, **lost} if lost else row)
                    return
                except unreadable:
                    lost |= {name: UNREADABLE for name in readable if not _can_be_read(table, name, unreadable)}
                    if len(lost) in (len(columns) - len(readable), len(columns)):
                        raise
    except unreadable as error:
        reason = " ".join(str(error).split())[:200]
        raise CourseError(f"{shown} is not a whole Parquet file ({reason}). Download or write it again.") from None


def _can_be_read(table: Any, column: str, unreadable: tuple[type[Exception], ...]) -> bool:
    try:
        for batch in table.iter_batches(BATCH_ROWS, columns=[column]):
            batch.to_pylist()
    except unreadable:
        return False
    return True
