"""The command `data`: what a data set is, what is amiss in it, and the same rows in the columns that a trainer takes.

Rows are read, checked, converted and written one at a time, so memory does not grow with the file. Every row is either
converted or set aside with a reason; none is guessed at and none is dropped in silence.
"""

import contextlib
import functools
import gzip
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from unsloth_course.commands.convert.report import Report, Template
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import chat, detect, pairs, reading, shapes
from unsloth_course.lesson.data.batches import BATCH_ROWS
from unsloth_course.lesson.data.control import Control
from unsloth_course.lesson.data.rows import Aside, Broken, Row, SetAside, key_of, listed
from unsloth_course.lesson.data.splits import WHOLE, Part
from unsloth_course.lesson.data.turns import in_words, question, words
from unsloth_course.lesson.profile import POCKET

TARGETS = ("instruction", "chat", "preference", "function-calling", "problems", "text")
SHAPES = {"function-calling": "chat"}
"""The shape of a target, where it is called otherwise."""
OUT_ENDINGS = (".json", ".jsonl", ".jsonl.gz", ".parquet")
MAX_LENGTH = 512  # tokens

Convert = Callable[[Any], dict[str, Any]]


def _messages(turns: chat.Conversation) -> dict[str, Any]:
    return {"messages": [*turns]} | ({"tools": turns.tools} if turns.tools else {})


def _calls_in_words(turns: chat.Conversation) -> dict[str, Any]:
    return _messages(turns) | {"messages": [*map(in_words, turns)]}


def _pair(pair: pairs.Pair) -> dict[str, Any]:
    answers = {column: [getattr(pair, column)] for column in pairs.ANSWERS}
    return {"prompt": [*pair.prompt], **answers} | ({"tools": pair.prompt.tools} if pair.prompt.tools else {})


_COLUMNS: dict[str, Convert] = {"chat": _messages, "function-calling": _calls_in_words, "preference": _pair}
"""What is written of a shape, where that is not what it is."""


ASKED: dict[str, Callable[[Any], str]] = {
    "instruction": lambda texts: shapes.question(texts["instruction"], texts["input"]),
    "problems": lambda texts: texts["question"],
    "chat": question,
    "preference": lambda pair: words(pair.prompt),
    "text": lambda texts: texts["text"],
}
"""The question in what a form of each shape reads; of raw text all of it."""


def conversion(form: detect.Form, target: str) -> Convert | None:
    """From what a form reads to the row that is written, or None. It raises Aside for a row that does not fit."""
    wanted, columns = SHAPES.get(target, target), _COLUMNS.get(target, lambda values: values)
    if wanted not in reading.READ_AS[form.shape] or (target == "function-calling" and form.shape != "chat"):
        return None
    return lambda values: columns(reading.shaped(values, form.shape, wanted))


def run(
    source: str,
    to: str | None = None,
    out: str | os.PathLike[str] | None = None,
    max_length: int = MAX_LENGTH,
    held_out: str | None = None,
    model: str = POCKET,
    progress: bool = False,
    part: Part = WHOLE,
) -> Report:
    """Detects the form of a data set, checks each row and, with `out`, writes it converted.

    Args:
        source: a file of rows, a document, a folder, or a name on the Hub.
        to: one of TARGETS; without it what suits the form.
        out: a .json, .jsonl, .jsonl.gz or .parquet file. It is written whole or not at all, and beside it
            `<out>.set-aside.jsonl` with the file, the number, the reason and the content of every row set aside.
        max_length: tokens above which a row is counted as cut.
        held_out: a file of the rows kept for testing; rows that ask what these ask are counted.
        model: whose tokenizer and chat template count the tokens: "pocket", a folder or a Hub name.

    Where every row was set aside, the report says so, and only the side file is written. Raises CourseError for data
    that cannot be read to its end or are in no known form, for a conversion that does not exist, and when `out` cannot
    be written.
    """
    if to is not None and to not in TARGETS:
        raise CourseError(f"There is no form {to!r} to convert to. Choose one of {', '.join(TARGETS)}.")
    path = None if out is None else _checked_out(Path(os.path.expanduser(out)), source, held_out)
    form, rows, note = reading.opened(source, SHAPES.get(to, to), part=part)
    target = to or form.target
    convert = conversion(form, target)
    if convert is None:
        possible = [name for name in TARGETS if conversion(form, name)]
        raise CourseError(
            f"{source} is in the form {form.name}, which cannot be converted to {target}. "
            f"Choose one of {', '.join(possible)}."
        )
    template = Template(model)
    in_folder = os.path.isdir(os.path.expanduser(source))
    report = Report(form.name, target, max_length, _held_out(held_out), in_folder, note)
    live = progress and sys.stderr.isatty()
    with _Output(path) if path else contextlib.nullcontext() as output:
        for row in tqdm(rows, unit=" rows", leave=False, disable=not live):
            report.rows += 1
            report.per_file[row.file] += 1
            _one(row, form, convert, report, output, template.control)
        if output:
            output.finish(keep=bool(report.converted))
    if path:
        written = [path] * bool(report.converted) + [side_file(path)] * bool(report.set_aside)
        report.files = [str(file) for file in written]
    report.measure(template)
    return report


def _one(
    row: Row | Broken,
    form: detect.Form,
    convert: Convert,
    report: Report,
    output: "_Output | None",
    control: Control,
) -> None:
    try:
        found = reading.read(row, form, control)
        made = convert(found.values)
    except Aside as reason:
        aside = SetAside(row.file, row.number, str(reason))
        report.set_aside.append(aside)
        if output:
            output.set_aside(aside, row.values)
        return
    line = msgspec.json.encode(made)  # one line, with the letters of all scripts as they are
    report.note(found.row, form, made, found.said)
    if output:
        output.write(line)
    turns = functools.partial(reading.as_turns, found.values, form.shape)
    report.add(row.file, row.number, line, ASKED[form.shape](found.values), turns)


def _held_out(source: str | None) -> dict[str, int] | None:
    """The questions of the held-out file, in any form, by key, with the number of the first row that asks."""
    if source is None:
        return None
    form, rows, _ = reading.opened(source)
    found: dict[str, int] = {}
    for row in rows:
        with contextlib.suppress(Aside):  # what cannot be read asks nothing
            asked = ASKED[form.shape](reading.read(row, form).values)
            found.setdefault(key_of(asked), row.number)
    return found


# Writing


def side_file(out: Path) -> Path:
    """Where the rows that were set aside are kept."""
    return out.with_name(out.name + ".set-aside.jsonl")


def _checked_out(out: Path, source: str, held_out: str | None) -> Path:
    if not out.name.lower().endswith(OUT_ENDINGS):
        raise CourseError(f"{out} has none of the endings {', '.join(OUT_ENDINGS)}. Give the output one of them.")
    for read in filter(None, (source, held_out)):
        same = Path(os.path.expanduser(read))
        for written in (out, side_file(out)):
            if os.path.realpath(same) == os.path.realpath(written):
                raise CourseError(f"{written} would be written over what is read. Give --out another name.")
        if os.path.isdir(same) and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(same)):
            raise CourseError(
                f"{out} lies in the folder {read}, all of which is read: the next run would take what is written now "
                "for rows. Give --out a place outside of it."
            )
    if out.is_dir():
        raise CourseError(f"{out} is a folder. Name a file in it.")
    return out


class _Output:
    """The converted rows and, beside them, those set aside. Under their own names only once they are complete."""

    def __init__(self, out: Path) -> None:
        self.out, self.side = out, side_file(out)
        self._unfinished = [path.with_name(f"{path.name}.{os.getpid()}.unfinished") for path in (out, self.side)]
        self._stack = contextlib.ExitStack()
        self._batch: list[bytes] = []
        self._parquet: Any = None
        self._first = True

    def __enter__(self) -> "_Output":
        name, (rows, aside) = self.out.name.lower(), self._unfinished
        self._list, self._table = name.endswith(".json"), name.endswith(".parquet")
        with self._sentence():
            self.out.parent.mkdir(parents=True, exist_ok=True)
            opened = gzip.open(rows, "wb", compresslevel=6) if name.endswith(".gz") else open(rows, "wb")
            self._stream = self._stack.enter_context(opened)
            self._aside = self._stack.enter_context(aside.open("w", encoding="utf-8", newline="\n"))
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._stack.close()
        for path in self._unfinished:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _sentence(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CourseError(
                f"{self.out} cannot be written: {error.strerror or error}. Nothing was kept; choose another place."
            ) from None

    def write(self, line: bytes) -> None:
        self._batch.append(line)
        if len(self._batch) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        lines, self._batch = self._batch, []
        with self._sentence():
            if self._table:
                self._write_parquet(lines)
            elif not self._list:
                self._stream.write(b"\n".join([*lines, b""]))
            elif lines:
                self._stream.write((b"[\n" if self._first else b",\n") + b",\n".join(lines))
                self._first = False

    def _write_parquet(self, lines: list[bytes]) -> None:
        import pyarrow
        from pyarrow import parquet

        if not lines:
            return
        try:
            table = pyarrow.Table.from_pylist([*map(msgspec.json.decode, lines)])
            if self._parquet is None:
                self._parquet = parquet.ParquetWriter(self._stream, table.schema)
                self._stack.callback(self._parquet.close)
            if new := _names(table.schema) - _names(self._parquet.schema):
                raise ValueError(f"new is {listed(sorted(new))}")
            table = table.cast(self._parquet.schema)
        except (pyarrow.ArrowException, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CourseError(
                f"{self.out}: the rows are not all of the kind that the first are, such as calls with other arguments, "
                f"and a table cannot hold them ({reason}). Write them as .jsonl."
            ) from None
        self._parquet.write_table(table)

    def set_aside(self, aside: SetAside, values: Any) -> None:
        """Takes a row that was set aside, with what stands in it."""
        try:
            text = json.dumps(vars(aside) | {"values": values}, default=str)
        except (ValueError, TypeError, RecursionError):  # nested too deeply, or with keys that are no text
            text = json.dumps(vars(aside) | {"values": None})
        with self._sentence():
            self._aside.write(text + "\n")

    def finish(self, keep: bool) -> None:
        """Gives both files their names; keep: whether there is anything in the first."""
        self._flush()
        with self._sentence():
            if self._list and not self._first:
                self._stream.write(b"\n]\n")
            self._stack.close()
            if keep:
                os.replace(self._unfinished[0], self.out)
            if self._unfinished[1].stat().st_size:
                os.replace(self._unfinished[1], self.side)
            else:
                self.side.unlink(missing_ok=True)  # of an earlier run


def _names(fields: Any) -> set[str]:
    """The names of the fields of a table, and of all that lie in them."""
    found = {field.name for field in fields}
    inside = [[field.type.field(n) for n in range(field.type.num_fields)] for field in fields]
    return found.union(*map(_names, inside))
