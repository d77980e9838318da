"""Rows of any form and from anywhere, in the shape that is wanted: the one way of reading, for lessons and commands.

A row is read in the form that it is written in (`detect`), checked, and put into another shape where that can be done
without guessing. What cannot be used is set aside with a reason.
"""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import chat, detect, documents, pairs, shapes, tables
from unsloth_course.lesson.data.files import Source, rows_in_memory
from unsloth_course.lesson.data.rows import (
    CONTROL_TOKENS,
    Aside,
    Broken,
    Checked,
    Row,
    SetAside,
    nothing_left,
    without_place,
)

LOOKED_AT = 200  # rows that the form is told from
BATCH_ROWS = 1000

Shaped = Callable[[Any], Any]


class Opened(NamedTuple):
    """The form of a data set, and its rows, from the first."""

    form: detect.Form
    rows: Iterator[Row | Broken]


def opened(source: Source, shape: str | None = None, name: str | None = None, column: str | None = None) -> Opened:
    """Tells the form of a data set from its first 200 rows; nothing more is read yet.

    source: a file, a folder or a name on the Hub; or rows in memory, which messages call `name`. shape: what the rows
    are wanted for, which decides where they could be read in more than one way. A folder is one of raw text, unless it
    has files of rows (JSON, JSON lines, CSV, Parquet) in another form: then these are read. column: the rows are raw
    text, which stands in this one.

    Raises CourseError as `tables.stream` and `rows_in_memory` do, for an empty name, and for rows in no form that is
    known.
    """
    form = None
    if column:
        form = detect.FORMS["text"]._replace(
            columns=(column, "file"), read=functools.partial(shapes.text, column=column)
        )
    if not isinstance(source, str | os.PathLike):
        return _told(rows_in_memory(source, name), name or "The data", shape, form)
    source = os.fspath(source)
    if not source.strip():
        raise CourseError("The name of the data is empty (a variable that is not set?); name a file or a folder.")
    if not documents.is_folder(Path(os.path.expanduser(source))):
        return _told(tables.stream(source), source, shape, form)
    found = _form_of_files(source, shape) if shape != "text" else None
    if found is not None:
        return Opened(found, tables.stream(source, tables.ROWS))
    return Opened(form or detect.FORMS["text"], tables.stream(source))


def _told(rows: Iterator[Row | Broken], source: str, shape: str | None, form: detect.Form | None) -> Opened:
    first = list(itertools.islice(rows, LOOKED_AT))
    return Opened(form or _form(first, source, shape), itertools.chain(first, rows))


def _form(first: list[Row | Broken], source: str, shape: str | None = None) -> detect.Form:
    whole = [row for row in first if isinstance(row, Row)]
    if not whole and first:
        raise CourseError(
            f"{first[0].file}: none of its first {len(first):,} rows can be read, so its form is not known. "
            f"Row {first[0].number}: {first[0].reason.rstrip('.')}. Mend it, or name another file."
        )
    return detect.form(whole, source, shape)


def form(source: str) -> detect.Form:
    """The form of a file, a folder or a data set on the Hub, of which only the first rows are fetched.

    Raises CourseError as `opened` does.
    """
    if tables.on_the_hub(source):
        return _form(tables.first_rows(source, LOOKED_AT), source)
    return opened(source).form


def _form_of_files(folder: str, shape: str | None) -> detect.Form | None:
    """The form of the rows in a folder's files, or None where they are raw text, or there are none."""
    rows = (row for row in tables.stream(folder, tables.ROWS) if isinstance(row, Row))
    try:
        form = detect.form(itertools.islice(rows, LOOKED_AT), folder, shape)
    except CourseError:
        return None
    return None if form.shape == "text" else form


def read(row: Row | Broken, form: detect.Form, tokens: Iterable[str] = CONTROL_TOKENS) -> Any:
    """What stands in a row of this form, checked, in the form's shape. Raises Aside where it cannot be used."""
    if isinstance(row, Broken):
        raise Aside(row.reason)
    try:
        return form.read(row, tokens)
    except CourseError as error:
        raise Aside(without_place(error, row.place())) from None


# From one shape to another


def _asked(texts: dict[str, str]) -> chat.Turns:
    user = chat.turn("user", shapes.question(texts["instruction"], texts["input"]))
    return [user, chat.turn("assistant", texts["output"])]


def _solved(texts: dict[str, str]) -> chat.Turns:
    return [chat.turn("user", texts["question"]), chat.turn("assistant", texts["answer"])]


def _preferred(pair: pairs.Pair) -> chat.Turns:
    return [*pair.prompt, chat.turn("assistant", pair.chosen)]


def _problem(turns: chat.Turns) -> dict[str, str]:
    texts = chat.to_instruction(turns)
    return shapes.verifiable({"question": texts["instruction"], "answer": texts["output"]})


def _as_it_is(values: Any) -> Any:
    return values


TURNS: dict[str, Callable[[Any], chat.Turns]] = {
    "chat": _as_it_is,
    "instruction": _asked,
    "problems": _solved,
    "preference": _preferred,
}
"""How a row of each shape is a conversation; of a pair, the one with the chosen answer."""


def _through(shape: str, last: Shaped) -> Shaped:
    turns = TURNS[shape]
    return lambda values: last(turns(values))


SHAPED: dict[tuple[str, str], Shaped] = {
    ("instruction", "instruction"): _as_it_is,
    ("problems", "problems"): shapes.verifiable,
    ("preference", "preference"): _as_it_is,
    ("text", "text"): _as_it_is,
    **{(shape, "chat"): turns for shape, turns in TURNS.items()},
    **{(shape, "instruction"): _through(shape, chat.to_instruction) for shape in ("chat", "problems", "preference")},
    **{(shape, "problems"): _through(shape, _problem) for shape in ("chat", "instruction")},
}
"""From the shape that was read to the one that is wanted. Each raises Aside for a row that does not fit it."""


# Into the memory


def _columns_of_pair(pair: pairs.Pair) -> dict[str, Any]:
    return {column: getattr(pair, column) for column in pairs.COLUMNS}


def _columns_of_turns(turns: chat.Turns) -> dict[str, Any]:
    return {"messages": turns}


_COLUMNS: dict[str, Shaped] = {"preference": _columns_of_pair, "chat": _columns_of_turns}


def _features(shape: str) -> Any:
    from datasets import Features, Value

    text = Value("string")
    turns = [{"role": text, "content": text}]
    columns = {
        "instruction": dict.fromkeys(shapes.INSTRUCTION, text),
        "problems": dict.fromkeys(shapes.PROBLEM, text),
        "preference": {"prompt": turns, "chosen": text, "rejected": text},
        "chat": {"messages": turns},
        "text": {"text": text, "file": text},
    }
    return Features(columns[shape])


def load(
    source: Source,
    shape: str,
    name: str | None = None,
    control_tokens: Iterable[str] = CONTROL_TOKENS,
    column: str | None = None,
) -> Checked:
    """All rows of a data set in the shape that is wanted, in their order, and what was set aside.

    Args:
        source: a file, a folder or a data set on the Hub; a `datasets.Dataset`, or a list of dicts (of raw text also
            of texts). The rows are in any form that `detect` knows.
        shape: "instruction", "problems", "preference" or "text", with the columns that the `load` of that room names;
            or "chat", with the column messages, a list of turns with role and content.
        name: what messages call data that comes from memory, for example "yahma/alpaca-cleaned".
        control_tokens: a row with one of these in its text is set aside, except in raw text. A tokenizer turns the
            words `<|im_end|>` in a question into the token that ends the turn, so the row could write turns that
            nobody wrote.
        column: of raw text, where rows keep it.

    Rows are held in memory as Arrow has them, about as many bytes as in the file.

    Raises CourseError as `opened` does; for rows that cannot be put into that shape; and when nothing is left.
    """
    form, rows = opened(source, shape, name, column)
    shaped = SHAPED.get((form.shape, shape))
    if shaped is None:
        raise CourseError(
            f"{name or source} is in the form {form.name}, which cannot be read as {shape}. "
            f"It can be read as {' or '.join(to for was, to in SHAPED if was == form.shape)}."
        )
    columns, features = _COLUMNS.get(shape, _as_it_is), _features(shape)
    tokens = tuple(filter(None, control_tokens))
    set_aside: list[SetAside] = []
    layouts: dict[tuple, None] = {}

    def ready() -> Iterator[dict[str, Any]]:
        for row in rows:
            try:
                values = shaped(read(row, form, tokens))
            except Aside as aside:
                set_aside.append(SetAside(row.file, row.number, str(aside)))
                continue
            layouts[detect.held(row.values)] = None
            yield columns(values)

    dataset = in_batches(ready(), features)
    if not len(dataset):
        raise CourseError(nothing_left(set_aside))
    unused = dict.fromkeys(name for has in layouts for name in detect.unused(form, has))
    return Checked(dataset, set_aside, list(unused))


def in_batches(rows: Iterator[dict[str, Any]], features: Any) -> Any:
    """A `datasets.Dataset` of these rows, made a thousand at a time: they are never all there as Python objects."""
    import pyarrow
    from datasets import Dataset, fingerprint

    schema = features.arrow_schema
    tables = [pyarrow.Table.from_pylist([], schema=schema)]
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        tables.append(pyarrow.Table.from_pylist(batch, schema=schema))
    # To name it by its content, as the library does by itself, takes several copies of it.
    return Dataset(pyarrow.concat_tables(tables), fingerprint=fingerprint.generate_random_fingerprint())
