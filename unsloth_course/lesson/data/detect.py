"""Which form a data set is written in: told by its columns, and by what stands in the first of its rows."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import chat, function_calling, pairs, shapes
from unsloth_course.lesson.data.rows import Row, check_columns, listed

Read = Callable[[Row, Iterable[str]], Any]


class Form(NamedTuple):
    """One way of writing rows.

    name: what the report calls it. shape: what `read` gives: "instruction" and "problems" texts by column, "chat"
    turns, "preference" a pair, "text" a text. target: what it is converted to without being told. columns: those that
    are used; of several in one tuple, the first that a row has. read: raises Aside, and CourseError for a row in
    another form.
    """

    name: str
    shape: str
    target: str
    columns: tuple[str | tuple[str, ...], ...]
    read: Read


FORMS = {
    form.name: form
    for form in (
        Form("orca", "preference", "preference", pairs.ORCA_COLUMNS, pairs.read),
        Form("preference", "preference", "preference", pairs.COLUMNS, pairs.read),
        Form("anthropic", "preference", "preference", pairs.ANSWERS, pairs.read),
        Form("messages", "chat", "chat", (chat.COLUMNS,), chat.read_turns),
        Form("sharegpt", "chat", "chat", (chat.COLUMNS,), chat.read_turns),
        Form(
            "alpaca",
            "instruction",
            "instruction",
            ("instruction", ("input", "context"), ("output", "response")),
            shapes.instruction,
        ),
        Form("prompt-completion", "chat", "chat", ("prompt", chat.ANSWER_COLUMNS), chat.read_completion),
        Form("glaive", "chat", "function-calling", function_calling.COLUMNS, function_calling.read),
        Form("problems", "problems", "problems", shapes.PROBLEM, shapes.problem),
        Form("text", "text", "text", (shapes.TEXT, "file"), shapes.text),
    )
}


def held(values: Mapping[str, Any]) -> tuple[tuple[str, str | None], ...]:
    """The columns of a row that hold something, as (column, None); and (column, key) for each key of its turns that no
    form reads, such as a weight."""
    found: dict[tuple[str, str | None], None] = {}
    for column, value in values.items():
        if value is None:
            continue
        found[column, None] = None
        for item in value if isinstance(value, list) else ():
            if isinstance(item, dict) and not item.keys() <= _KEYS:
                found |= {(column, key): None for key in item if key not in _KEYS and item[key] is not None}
    return tuple(found)


def unused(form: Form, has: Iterable[tuple[str, str | None]]) -> list[str]:
    """Of what a row holds, as `held` has it, all that its form does not read: columns, and "column: key" of turns."""
    has = list(has)
    columns = [column for column, key in has if key is None]
    used = {column if isinstance(column, str) else _first(column, columns) for column in form.columns}
    return [str(c) if key is None else f"{c}: {key}" for c, key in has if (key is None) != (c in used)]


def form(rows: Iterable[Row], name: str, shape: str | None = None) -> Form:
    """The form that most of these rows are written in; `name` is what the message calls them.

    shape: of the forms that a row could be read in, one of this shape comes first.

    Raises CourseError when none is written in a form that is known, with the columns that were found.
    """
    rows = list(rows)
    found = Counter(one for row in rows if (one := _of(row.values, shape)) is not None)
    if found:
        return FORMS[found.most_common(1)[0][0]]
    columns = dict.fromkeys(str(column) for row in rows for column in row.values)
    _complain_of_spelling(rows)
    raise CourseError(
        f"{name}: its rows are in no form that is known here; they have the columns {listed(columns) or 'none'}. "
        f"Known are {', '.join(FORMS)}. Rename the columns, as docs/data_formats.md shows them."
    )


def _of(values: Mapping[str, Any], shape: str | None) -> str | None:
    """The form of one row, by its columns; a column that holds null counts as absent."""
    possible = list(_possible(values))
    return next((name for name in possible if FORMS[name].shape == shape), possible[0] if possible else None)


def _possible(values: Mapping[str, Any]) -> Iterator[str]:
    """The forms that a row could be read in, the likeliest first."""
    has = {column for column, value in values.items() if value is not None}
    if has & {"chosen", "rejected"}:
        yield "orca" if "question" in has else "preference" if "prompt" in has else "anthropic"
    column = _first(chat.COLUMNS, has)
    if column in has:
        turns = values[column]
        first = turns[0] if isinstance(turns, list) and turns else {}
        by_from = "from" in first if isinstance(first, Mapping) else False
        yield "sharegpt" if by_from or (not first and column != "messages") else "messages"
    for name, needed, either in _BY_COLUMNS:
        if needed in has and (not either or has & set(either)):
            yield name


def _first(columns: tuple[str, ...], has: Container[str]) -> str:
    """The first of these columns that a row has, and the first of all where it has none."""
    return next((column for column in columns if column in has), columns[0])


_BY_COLUMNS = (
    ("alpaca", "instruction", ("output", "response", "input")),
    ("prompt-completion", "prompt", chat.ANSWER_COLUMNS),
    ("glaive", "chat", ()),
    ("problems", "question", ("answer",)),
    *(("text", column, ()) for column in shapes.TEXT),
)
_KEYS = {"role", "content", "from", "value", "tool_calls"}
_NEARLY = (
    shapes.INSTRUCTION[::2],
    shapes.PROBLEM,
    ("prompt", "completion"),
    *((column,) for column in ("messages", "conversations", "chosen", "text")),
)


def _complain_of_spelling(rows: Iterable[Row]) -> None:
    """Raises CourseError when a column of the first row is close to one of a known form."""
    for row in rows:
        for columns in _NEARLY:
            try:
                check_columns(row, columns)
            except CourseError as error:
                if "Did you mean" in str(error):
                    raise
        return
