"""Rows of any form and from anywhere, in the shape that is wanted: the one way of reading, for lessons and commands.

A row is read in the form that it is written in (`detect`), checked, and put into another shape where that can be done
without guessing. What cannot be used is set aside with a reason.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import chat, detect, pairs, shapes, splits, tables, templates
from unsloth_course.lesson.data.batches import TURN, in_batches
from unsloth_course.lesson.data.control import CHATML, HELD, TAKEN_OFF, Control, without_end
from unsloth_course.lesson.data.files import Source, rows_in_memory
from unsloth_course.lesson.data.rows import Aside, Broken, Checked, Row, Rows, SetAside, nothing_left
from unsloth_course.lesson.data.splits import WHOLE, Part
from unsloth_course.lesson.data.turns import Turns, turn, words

if TYPE_CHECKING:
    from datasets import Dataset

LOOKED_AT = 200  # rows that the form is told from


class Opened(NamedTuple):
    """The form of a data set, its rows, from the first, and the sentence on which of its splits they are, if any."""

    form: detect.Form
    rows: Rows
    note: str = ""


def opened(source: Source, shape: str | None = None, name: str | None = None, part: Part = WHOLE) -> Opened:
    """Tells the form of a data set from its first 200 rows; nothing more is read yet.

    source, name, part: as for `load`. shape: what the rows are wanted for, which decides where they could be read in
    more than one way. A folder is one of raw text, unless it has files of rows (JSON, JSON lines, CSV, Parquet) in
    another form: then these are read. Raises CourseError as `tables.stream` and `rows_in_memory` do, for an empty name,
    and for rows in no form that is known.
    """
    if not isinstance(source, str | os.PathLike):
        return _told(rows_in_memory(source, name), name or "The data", shape)
    source = os.fspath(source)
    if not source.strip():
        raise CourseError("The name of the data is empty (a variable that is not set?); name a file or a folder.")
    files, note = _files(source, part, shape)
    if not os.path.isdir(os.path.expanduser(source)):
        return _told(tables.stream(source, files=files), source, shape)._replace(note=note)
    found = _form_of_files(source, shape, files) if shape != "text" else None
    if found is not None:
        return Opened(found, tables.stream(source, tables.ROWS, files), note)
    return Opened(detect.FORMS["text"], tables.stream(source, files=files), note)


def _files(source: str, part: Part, shape: str | None) -> tuple[list[str] | None, str]:
    found = tables.parts(source)
    if found:
        return splits.chosen(found, part, shape, source)
    if part != WHOLE:
        raise CourseError(
            f"{source} has no splits that the names of its files tell; leave --split and --config-name out."
        )
    return None, ""


def tests_beside(source: str, part: Part, shape: str) -> Part | None:
    """The part of a folder or Hub data set that its makers test on, or None where there is none."""
    found = tables.parts(source) if part.split is None else {}
    tests = part._replace(tests=True)
    return tests if found and splits.chosen(found, tests, shape, source)[0] else None


def _told(rows: Rows, source: str, shape: str | None) -> Opened:
    first = list(itertools.islice(rows, LOOKED_AT))
    whole = [row for row in first if isinstance(row, Row)]
    if not whole and first:
        raise CourseError(
            f"{first[0].file}: none of its first {len(first):,} rows can be read, so its form is not known. "
            f"Row {first[0].number}: {first[0].reason.rstrip('.')}. Mend it, or name another file."
        )
    return Opened(detect.form(whole, source, shape), itertools.chain(first, rows))


def _form_of_files(folder: str, shape: str | None, files: list[str] | None) -> detect.Form | None:
    """The form of the rows in a folder's files, or None where they are raw text, or there are none."""
    rows = (row for row in tables.stream(folder, tables.ROWS, files) if isinstance(row, Row))
    try:
        form = detect.form(itertools.islice(rows, LOOKED_AT), folder, shape)
    except CourseError:
        return None
    return None if form.shape == "text" else form


class Found(NamedTuple):
    """What stands in a row, in the shape of its form; the row with its columns as they are called here; and what there
    is to say of it, such as a turn that is left out."""

    values: Any
    row: Row
    said: tuple[str, ...]


def read(row: Row | Broken, form: detect.Form, control: Control = CHATML) -> Found:
    """A row of this form, checked. One end of sequence behind a text, which the template writes again, is taken off.

    Raises Aside where it cannot be used.
    """
    if isinstance(row, Broken):
        raise Aside(row.reason)
    row, said = detect.prepared(row, form.renames), ()
    try:
        values = form.read(row, control.tokens)
    except Aside as aside:
        if not control.end or HELD not in str(aside):
            raise
        bare = row._replace(values=without_end(row.values, control.end))
        values, said = form.read(bare, control.tokens), (TAKEN_OFF,)
    return Found(values, row, (*getattr(values, "said", ()), *said))


def as_turns(values: Any, shape: str) -> Any:
    """A row of any shape as a conversation; of a pair, the one with the chosen answer, and raw text as it is."""
    if shape in ("instruction", "problems"):
        return chat.Conversation(shapes.turns(values))
    if shape == "preference":
        found = chat.Conversation([*values.prompt, values.chosen])
        found.tools = values.prompt.tools
        return found
    return values["text"] if shape == "text" else values


READ_AS = {
    "instruction": ("instruction", "chat", "problems"),
    "problems": ("problems", "chat", "instruction"),
    "preference": ("preference", "chat", "instruction"),
    "chat": ("chat", "instruction", "problems"),
    "text": ("text",),
}
"""The shapes that a row of each shape can be put into."""


def shaped(values: Any, was: str, wanted: str) -> Any:
    """A row of one shape in another one. Raises Aside for a row that does not fit it."""
    if was != wanted:
        values = as_turns(values, was)
    if was != wanted != "chat":
        values = chat.to_instruction(values)
        if wanted == "problems":
            values = {"question": values["instruction"], "answer": values["output"]}
    return shapes.verifiable(values) if wanted == "problems" else values


def _columns(values: Any, shape: str) -> dict[str, Any]:
    """A row of this shape as it is held in memory."""
    if shape == "chat":
        return {"messages": [*values], "tools": values.tools or None}
    if shape != "preference":
        return values
    prompt, _ = templates.as_shown(values.prompt, values.prompt.tools, templates.NOTHING)
    answers = {column: words([getattr(values, column)]) for column in pairs.ANSWERS}
    return {"prompt": [turn(said["role"], said["content"]) for said in prompt], **answers}


_FEATURES: dict[str, dict[str, Any]] = {
    "instruction": dict.fromkeys(shapes.INSTRUCTION, "string"),
    "problems": dict.fromkeys(shapes.PROBLEM, "string"),
    "preference": {"prompt": TURN, "chosen": "string", "rejected": "string"},
    "chat": {"messages": TURN},
    "text": {"text": "string", "file": "string"},
}


def load(
    source: Source, shape: str, name: str | None = None, control_tokens: Control = CHATML, part: Part = WHOLE
) -> Checked:
    """All rows of a data set in the shape that is wanted, in their order, and what was set aside.

    source: a file, a folder or a data set on the Hub; a `datasets.Dataset`, or a list of dicts (of raw text also of
    texts), which messages call `name`; in any form that `detect` knows. shape: "instruction", "problems", "preference"
    or "text", with the columns that the `load` of that room names; or "chat", with the column messages, a list of turns
    with role and content. Of both kinds of turns a column tools stands beside them where any row has functions to call.
    control_tokens: a row with one of these in its text is set aside, except in raw text: a tokenizer turns the words
    `<|im_end|>` in a question into the token that ends the turn. part: which of the splits, where there are such.

    Rows are held in memory as Arrow has them, about as many bytes as in the file. Raises CourseError as `opened` does;
    for rows that cannot be put into that shape; and when nothing is left.
    """
    form, rows, note = opened(source, shape, name, part)
    if shape not in READ_AS[form.shape]:
        raise CourseError(
            f"{name or source} is in the form {form.name}, which cannot be read as {shape}. "
            f"It can be read as {' or '.join(READ_AS[form.shape])}."
        )
    set_aside: list[SetAside] = []
    layouts: dict[tuple, None] = {}
    said: Counter[str] = Counter()

    def ready() -> Iterator[dict[str, Any]]:
        for row in rows:
            try:
                found = read(row, form, control_tokens)
                values = shaped(found.values, form.shape, shape)
            except Aside as aside:
                set_aside.append(SetAside(row.file, row.number, str(aside)))
                continue
            layouts[detect.held(found.row.values)] = None
            said.update(found.said)
            if shape == "preference":
                said.update(
                    templates.NOTHING.lacking([*values.prompt, values.chosen, values.rejected], values.prompt.tools)
                )
            yield _columns(values, shape)

    dataset = in_batches(ready(), _FEATURES[shape])
    if not len(dataset):
        raise CourseError(nothing_left(set_aside))
    unused = dict.fromkeys(name for has in layouts for name in detect.unused(form, has))
    told = {templates.TOLD.get(what, what): count for what, count in said.items()}
    return Checked(dataset, set_aside, list(unused), note, told)


def fitted(rows: "Dataset", tokenizer: Any, in_system: bool = False) -> tuple["Dataset", list[str]]:
    """Rows with prompt and completion, or with prompt, chosen and rejected, as the tokenizer's template shows them, and
    what there is to say.

    A system text that it cannot show goes into the first question, and a row whose turns it refuses is left out.
    in_system: functions that the template cannot show are written into the system turn. Raises CourseError where that
    was not asked for and would be needed, and where all rows are refused.
    """

    def render(turns: Turns, tools: list[Any] | None) -> str:
        return tokenizer.apply_chat_template(turns, tools=tools, tokenize=False)

    shows, refuses = templates.shown_by(render), "raise_exception" in str(tokenizer.chat_template)
    if shows.system and not refuses and isinstance(rows.features["prompt"].feature, dict):
        return rows, []
    lacking: dict[str, None] = {}
    refused: list[str] = []

    def ready() -> Iterator[dict[str, Any]]:
        for row in rows:
            answers = {name: [turn("assistant", row[name])] for name in pairs.ANSWERS if name in row}
            turns, tools = [*row["prompt"], *(answers.get("chosen") or row["completion"])], row.get("tools")
            lacking.update(dict.fromkeys(shows.lacking(turns, tools)))
            turns, tools = templates.as_shown(turns, tools, shows)
            try:
                refuses and render(turns, tools)
            except Exception as error:  # templates are anybody's
                refused.append(f"turns of {', '.join(said['role'] for said in turns[:6])}: {error}")
                continue
            last = {name: row[name] for name in answers} or {"completion": turns[-1:], "tools": tools}
            yield {"prompt": turns[:-1], **last}

    columns = dict.fromkeys(pairs.ANSWERS, "string") if "chosen" in rows.column_names else {"completion": TURN}
    made = in_batches(ready(), {"prompt": TURN, **columns})
    if "tools" in lacking and not in_system:
        raise CourseError(
            "Rows have functions to call (tools), and the chat template of this model cannot show them: it would learn "
            "calls to functions that it never saw. Add --tools-in-system, which writes them into the system turn, or "
            "take a --model whose template shows them."
        )
    told = [f"What the chat template cannot show: {templates.TOLD[name]}." for name in lacking]
    if refused:
        told.append(
            f"{len(refused):,} of {len(rows):,} rows are left out: the chat template refuses them, the first with "
            f"{refused[0].rstrip('.')}."
        )
        if not len(made):
            raise CourseError(f"{told[-1]} Nothing is left; bring other rows, or take another --model.")
    return made, told
