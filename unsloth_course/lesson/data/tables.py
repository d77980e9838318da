"""The rows of any file, folder or Hub data set, and of what lies in memory: one stream, whatever is read.

What cannot be read comes as a `Broken` with its reason wherever the next row can still be found, so that no row is
lost unseen.
"""

import csv
import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import documents, files
from unsloth_course.lesson.data.documents import DOCUMENTS
from unsloth_course.lesson.data.files import ENDINGS
from unsloth_course.lesson.data.rows import Broken, Row, is_unicode, listed, quoted, shown, without_place

SEPARATED = (".csv", ".tsv")
ROWS = (*ENDINGS, *SEPARATED, ".parquet")
ALL_ENDINGS = (*ROWS, *DOCUMENTS)
IN_FOLDERS = (*DOCUMENTS, ".jsonl")
"""What is read of a folder of raw text."""
DELIMITERS = (",", ";", "\t")
"""What may stand between the fields of a CSV file; the first of them that is in its first line does. In .tsv: a tab."""
BATCH_ROWS = 1000
PARQUET_BYTES = 2**16  # of a column are read at once
HEAD_BYTES = 2**20  # are fetched at once of a file on the Hub, to look at its first rows
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def stream(source: str, endings: tuple[str, ...] = IN_FOLDERS) -> Iterator[Row | Broken]:
    """The rows of a file, of the files in a folder, or of a data set on the Hub (`owner/name`, its split "train").

    Files are JSON, JSON lines (also gzipped), CSV, TSV, Parquet and documents, which are one row each with the column
    `text`. Memory does not grow with the rows. endings: of the files in a folder that are read; everything else in it
    comes as a `Broken`, and so does the rest of a file that cannot be read to its end.

    Raises CourseError for a file that cannot be read to its end, with the place; for what is no such file; for a
    folder without files; and as `hub.fetch_dataset` does.
    """
    path = Path(os.path.expanduser(source))
    if documents.is_folder(path):
        yield from _rows_in_folder(path, endings)
    elif on_the_hub(source):
        from unsloth_course.core import hub

        yield from files.rows_in_memory(hub.fetch_dataset(source), source)
    elif not path.name.lower().endswith(ALL_ENDINGS):
        raise CourseError(
            f"{shown(path)} has none of the endings {', '.join(ALL_ENDINGS)}, and it is no folder and no name on the "
            "Hub. Convert it, or give it the right name."
        )
    else:
        yield from _rows_of_file(path)


def _rows_in_folder(folder: Path, endings: tuple[str, ...]) -> Iterator[Row | Broken]:
    empty = True
    for path, reason in documents.files_in(folder):
        empty, number = False, 0
        if reason is None and not path.name.lower().endswith(endings):
            reason = f"it has none of the endings {', '.join(endings)}"
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


def _rows_of_file(path: Path) -> Iterator[Row | Broken]:
    name, file, empty = path.name.lower(), shown(path), True
    documents.check_plain(path, file)
    read = files.read_rows
    if name.endswith(DOCUMENTS):
        read = documents.read
    elif not name.endswith(ENDINGS):
        read = _csv_rows if name.endswith(SEPARATED) else _parquet_rows
    try:
        for row in read(path, file):
            empty = False
            yield row
    except OSError as error:
        raise CourseError(f"{file} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise CourseError(f"{file} is not whole UTF-16. Save it as UTF-8.") from None
    if empty:
        raise CourseError(f"{file} is empty: it has no rows. Write or download it again.")


def first_rows(name: str, count: int) -> list[Row | Broken]:
    """The first rows of a data set on the Hub, without fetching the rest of it where it is not in the cache.

    Raises CourseError as `hub.fetch_dataset` does.
    """
    from unsloth_course.core import hub

    found = hub.look_up(name, "dataset")
    if found.missing and not found.reason:
        try:
            return _head(name, _first_file(found.sizes), count)
        except Exception:  # one file alone may be what the library reads otherwise; the whole of it has the last word
            pass
    return list(itertools.islice(files.rows_in_memory(hub.fetch_dataset(name), name), count))


def _first_file(names: Iterable[str]) -> str:
    rows = sorted(name for name in names if name.lower().endswith(ROWS))
    return next((name for name in rows if "train" in name), rows[0])


def _head(name: str, file: str, count: int) -> list[Row | Broken]:
    from huggingface_hub import HfFileSystem, constants

    system = HfFileSystem(endpoint=constants.ENDPOINT, skip_instance_cache=True)
    with system.open(f"datasets/{name}/{file}", "rb", block_size=HEAD_BYTES) as remote:
        stream = io.BufferedReader(remote)  # which can read a line of at most so many bytes
        rows = _parquet_rows(stream, name) if file.lower().endswith(".parquet") else files.rows_in_stream(stream, name)
        return list(itertools.islice(rows, count))


def on_the_hub(source: str) -> bool:
    """Whether this is to be looked for on the Hub: a name like owner/dataset that nothing on this machine has."""
    if not HUB_NAME.fullmatch(source) or source.lower().endswith(ALL_ENDINGS):
        return False
    try:
        return not Path(os.path.expanduser(source)).exists()
    except (OSError, ValueError):
        return True


def _csv_rows(path: Path, shown: str) -> Iterator[Row | Broken]:
    csv.field_size_limit(files.MAX_LINE_BYTES)
    with open(path, "rb") as raw:
        # Bytes that are not UTF-8 come through as surrogates, so that only the rows that hold them are set aside.
        wide = files.is_utf16(raw)
        encoding, errors = ("utf-16", "surrogatepass") if wide else ("utf-8-sig", "surrogateescape")
        stream = io.TextIOWrapper(raw, encoding, errors, newline="")
        head = stream.readline(files.MAX_LINE_BYTES)
        stream.seek(0)
        marks = "\t" if path.name.lower().endswith(".tsv") else DELIMITERS
        reader = csv.reader(stream, strict=True, delimiter=next((mark for mark in marks if mark in head), marks[0]))
        columns = _header(reader, shown)
        if columns and columns[0] == "sep=":  # Excel's first line, which names the mark
            columns = _header(reader, shown)
        number, line = 0, reader.line_num
        while columns is not None and (cells := _cells(reader)) is not None:
            first, line = line + 1, reader.line_num
            if cells == []:  # a blank line
                continue
            number += 1
            yield _csv_row(shown, number, columns, cells, (first, line))


def _cells(reader: Iterator[list[str]]) -> list[str] | csv.Error | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        return error


def _header(reader: Iterator[list[str]], shown: str) -> list[str] | None:
    columns = _cells(reader)
    if columns is None:
        return None
    if isinstance(columns, csv.Error):
        raise CourseError(f"{shown}, line 1: the CSV is broken ({columns}). Mend it there.")
    columns = [column.strip() for column in columns]
    twice = [column for column in dict.fromkeys(columns) if columns.count(column) > 1]
    if twice:
        raise CourseError(f"{shown}, line 1 names the columns {listed(twice)} more than once. Rename them.")
    return columns


def _csv_row(
    shown: str, number: int, columns: list[str], cells: list[str] | csv.Error, lines: tuple[int, int]
) -> Row | Broken:
    if isinstance(cells, csv.Error):
        where = f"line {lines[0]}" if lines[1] <= lines[0] else f"lines {lines[0]} to {lines[1]}"
        return Broken(shown, number, f"{where}: the CSV is broken ({cells})", None)
    if len(cells) != len(columns):
        return Broken(shown, number, f"it has {len(cells)} fields, and the first line names {len(columns)}", cells)
    for column, cell in zip(columns, cells, strict=True):
        if not cell.isascii() and not is_unicode(cell):
            return Broken(shown, number, f"column {quoted(column)} holds bytes that are not UTF-8", cells)
    return Row(shown, number, None, dict(zip(columns, cells, strict=True)))


def _parquet_rows(file: Path | BinaryIO, shown: str) -> Iterator[Row | Broken]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        # Otherwise the whole file is read ahead, and more than one group of rows is held.
        with parquet.ParquetFile(file, pre_buffer=False, buffer_size=PARQUET_BYTES) as table:
            for group in range(table.num_row_groups):
                for batch in table.iter_batches(BATCH_ROWS, row_groups=[group]):
                    for values in batch.to_pylist():
                        number += 1
                        yield Row(shown, number, None, values)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CourseError(f"{shown} is not a whole Parquet file ({reason}). Download or write it again.") from None
