"""Which form a data set is written in: told by its columns, and by what stands in the first of its rows."""

import functools
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import chat, function_calling, pairs, shapes
from unsloth_course.lesson.data.rows import Aside, Row, did_you_mean, listed
from unsloth_course.lesson.data.turns import OF_RESULTS, REASONING, TURN_KEYS, role_of, unpacked

Read = Callable[[Row, Iterable[str]], Any]
Columns = tuple[str | tuple[str, ...], ...]

LABEL = ("label", "kto_tag")
_LABELS = {"true": True, "false": False, "1": True, "0": False}


class Form(NamedTuple):
    """One way of writing rows.

    name: what the report calls it. shape: what `read` gives: "instruction" and "problems" texts by column, "chat"
    turns, "preference" a pair, "text" a text. target: what it is converted to without being told. columns: those that
    are used; of several in one tuple, the first that a row has. read: raises Aside. needs: the columns that tell it, of
    each tuple one. renames: columns that are spelt otherwise, with their name here.
    """

    name: str
    shape: str
    target: str
    columns: Columns
    read: Read
    needs: Columns = ()
    renames: Mapping[str, str] = {}


def _asked(name: str, asked: tuple[str, ...], others: tuple[tuple[str, ...], ...], needs: Columns) -> Form:
    columns = (asked, *others)
    read = functools.partial(shapes.asked, columns=columns)
    return Form(name, "instruction", "instruction", columns, read, needs)


def _pair(name: str, *prompt: str | tuple[str, ...], more: Columns = ()) -> Form:
    columns = (pairs.PROMPTS, *more, pairs.CHOSEN, pairs.REJECTED, *chat.BESIDE)
    return Form(name, "preference", "preference", columns, pairs.read, (*prompt, (*pairs.CHOSEN, *pairs.REJECTED)))


def _talk(name: str, columns: Columns, read: Read, target: str = "chat") -> Form:
    return Form(name, "chat", target, (*columns, *chat.BESIDE), read, columns[:2] if name != "glaive" else ("chat",))


FORMS = {
    form.name: form
    for form in (
        _pair("preference", "prompt"),
        _pair("orca", ("question", "query")),
        _pair("instruction-preference", "instruction", more=("input",)),
        _pair("conversation-preference", chat.COLUMNS),
        _pair("openai-preference", "input"),
        _pair("anthropic"),
        _talk("messages", (chat.COLUMNS,), chat.read_turns),
        _talk("sharegpt", (chat.COLUMNS,), chat.read_turns),
        _asked("alpaca", ("instruction",), shapes.INSTRUCTION_NAMES, ("instruction", ("output", "response", "input"))),
        _talk("prompt-completion", ("prompt", chat.ANSWER_COLUMNS), chat.read_completion),
        _talk("glaive", function_calling.COLUMNS, function_calling.read, "function-calling"),
        Form("problems", "problems", "problems", shapes.PROBLEM, shapes.problem, shapes.PROBLEM),
        _asked("question-answer", *shapes.ASKED[:1], shapes.ASKED[1:], (shapes.ASKED[0], shapes.ASKED[2])),
        Form("text", "text", "text", (shapes.TEXT, "file"), shapes.text, (shapes.TEXT,)),
    )
}


def _names(columns: Iterable[str | tuple[str, ...]]) -> set[str]:
    return {name for column in columns for name in ([column] if isinstance(column, str) else column)}


_NEEDED = sorted(_names(column for form in FORMS.values() for column in form.needs))
_KNOWN = _names((*(column for form in FORMS.values() for column in form.columns), LABEL))
_TURNS = _names((chat.COLUMNS, pairs.CHOSEN, pairs.REJECTED, "prompt", chat.ANSWER_COLUMNS))
"""Columns that may hold turns, which in a cell of a table are text."""


def prepared(row: Row, renames: Mapping[str, str] = {}) -> Row:
    """The row with its columns called as they are here, and with turns in place of text that stands for them.

    Raises Aside where such a text cannot be read.
    """
    values = {renames.get(column, column): value for column, value in row.values.items()} if renames else row.values
    changed = {}
    for column, value in values.items():
        if column in _TURNS and type(value) is str and (value[:1] == "[" or value[:1].isspace()):
            found = unpacked(value, column)
            if found is not value:
                changed[column] = found
    return row if values is row.values and not changed else row._replace(values={**values, **changed})


# What a row holds, and what of it is read


def held(values: Mapping[str, Any]) -> tuple[tuple[str, str | None], ...]:
    """The columns of a row that hold something, as (column, None); and (column, key) for each key of its turns that no
    form reads, such as `messages: audio`, those inside of their calls and parts too."""
    found: dict[tuple[str, str | None], None] = {}
    for column, value in values.items():
        if value is None:
            continue
        found[column, None] = None
        if column in chat.TOOLS:  # shown as they are
            continue
        place = ""
        if type(value) is dict:
            inside = column == "input" and type(value.get("messages")) is list
            found |= {(column, key): None for key in value if inside and key not in ("messages", "tools")}
            place, value = ("messages: ", value["messages"]) if inside else ("", [value])
        for item in value if type(value) is list else ():
            if type(item) is not dict:
                continue
            plain = item.get("content" if "role" in item else "value" if "from" in item else "")
            if len(item) != 2 or type(plain) is not str:  # else it holds who speaks and a text, as most do
                found |= {(column, place + key): None for key in _unread(item, TURN_KEYS)}
    return tuple(found)


_INSIDE = {
    "tool_calls": frozenset(("id", "type", "function", "name", "arguments")),
    "function_call": frozenset(("name", "arguments")),
    "function": frozenset(("name", "arguments")),
    "content": frozenset(("type", "text", "thinking")),
}


def _unread(item: Mapping[str, Any], read: frozenset[str]) -> Iterator[str]:
    """The keys of a turn, and of what lies in it, that are not read and hold something."""
    shadowed: tuple[str, ...] = ()
    if read is TURN_KEYS:
        shadowed = ("from", "value") if item.get("role") is not None else ("role", "content")
        thoughts = [key for key in REASONING if item.get(key)]
        shadowed += tuple(thoughts[1:]) + ("function_call",) * bool(item.get("tool_calls"))
        shadowed += () if role_of(item.get("role") or item.get("from")) == "tool" else OF_RESULTS
    elif read is _INSIDE["content"]:
        shadowed = ("text",) if item.get("type") == "thinking" else ("thinking",)
    elif "function" in item:
        shadowed = ("name", "arguments")
    for key, value in item.items():
        if value is None:
            continue
        if key not in read or key in shadowed or (key in ("id", *OF_RESULTS) and not isinstance(value, str)):
            yield key
        elif key in _INSIDE and isinstance(value, list | dict):
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, dict):
                    yield from (f"{key}: {name}" for name in _unread(inner, _INSIDE[key]))


def unused(form: Form, has: Iterable[tuple[str, str | None]]) -> list[str]:
    """Of what a row holds, as `held` has it, all that its form does not read: columns, and "column: key" of turns."""
    has = list(has)
    columns = [column for column, key in has if key is None]
    used = {column if isinstance(column, str) else _first(column, columns) for column in form.columns}
    return [str(c) if key is None else f"{c}: {key}" for c, key in has if (key is None) != (c in used)]


# Telling the form


def form(rows: Iterable[Row], name: str, shape: str | None = None) -> Form:
    """The form that most of these rows are written in; `name` is what the message calls them.

    shape: of the forms that a row could be read in, one of this shape comes first.

    Raises CourseError when none is written in a form that is known, with the columns that were found.
    """
    rows = list(rows)
    renames = _spelt_otherwise(rows)
    seen = []
    for row in rows:
        try:
            seen.append(prepared(row, renames))
        except Aside:
            seen.append(row)
    found = Counter(one for row in seen if (one := _of(row.values, shape)) is not None)
    if found:
        return _suited(FORMS[found.most_common(1)[0][0]], seen, shape)._replace(renames=renames)
    columns = dict.fromkeys(str(column) for row in rows for column in row.values)
    others = tuple(column for column in columns if column not in _KNOWN)
    meant = next(filter(None, (did_you_mean(column, others) for column in _NEEDED if column not in columns)), "")
    raise CourseError(
        f"{name}: its rows are in no form that is known here; they have the columns {listed(columns) or 'none'}.{meant}"
        f" Known are {', '.join(FORMS)}. Rename the columns, as docs/data_formats.md shows them."
    )


def _spelt_otherwise(rows: list[Row]) -> dict[str, str]:
    """Columns whose name differs from a known one by capitals and space, where no other has that name."""
    columns = dict.fromkeys(column for row in rows for column in row.values if isinstance(column, str))
    plain = Counter(column.strip().casefold() for column in columns)
    return {
        column: name
        for column in columns
        if column not in _KNOWN and (name := column.strip().casefold()) in _KNOWN and plain[name] == 1
    }


def _suited(found: Form, rows: list[Row], shape: str | None) -> Form:
    """The form as these rows need it: a question with a system text is a conversation, of a pair in another shape the
    rejected answer is not read, and a label has its say."""
    if (
        found.name == "problems"
        and shape is None
        and not any(shapes.MARK in str(row.values.get("answer")) for row in rows)
    ):
        found = FORMS["question-answer"]
    if found.shape in ("instruction", "problems"):
        if shape == "chat" or any(map(chat.holds_beside, rows)):
            read = functools.partial(_told, found)
            found = found._replace(shape="chat", target="chat", columns=(*found.columns, *chat.BESIDE), read=read)
        else:
            found = found._replace(read=functools.partial(_alone, found))
    if found.shape == "preference" and shape not in (None, "preference"):
        found = found._replace(columns=tuple(names for names in found.columns if names != pairs.REJECTED))
    if found.shape == "chat" and any(label_of(row) is not None for row in rows):
        read = functools.partial(_labelled, found)
        found = found._replace(columns=(*found.columns, LABEL), read=read)
    return found


def _alone(found: Form, row: Row, tokens: Iterable[str]) -> Any:
    if (column := chat.holds_beside(row)) is not None:
        raise Aside(f"column {column!r} belongs to a conversation, and most rows here are none; give --to chat")
    return found.read(row, tokens)


def _told(found: Form, row: Row, tokens: Iterable[str]) -> chat.Conversation:
    """A question with its answer, and what stands beside them, as a conversation."""
    return chat.whole(row, shapes.turns(found.read(row, tokens)), tokens, found.name)


def label_of(row: Row) -> bool | None:
    """Whether a row without a second answer is labelled as a good one, as KTO has it; None where it has no label."""
    value = next((row.values[name] for name in LABEL if row.values.get(name) is not None), None)
    return _LABELS.get(str(value).strip().casefold())


def _labelled(found: Form, row: Row, tokens: Iterable[str]) -> chat.Conversation:
    label = label_of(row)
    if label is None:
        raise Aside("column 'label' is neither true nor false, so it is not known whether the answer is a good one")
    if not label:
        raise Aside("column 'label': it is labelled as a bad answer, which must not be learned")
    return found.read(row, tokens)


def _of(values: Mapping[str, Any], shape: str | None) -> str | None:
    """The form of one row, by its columns; a column that holds null counts as absent."""
    has = {column for column, value in values.items() if value is not None}
    possible = [form for form in FORMS.values() if _may_be(form, has, values)]
    return next((form.name for form in possible if form.shape == shape), possible[0].name if possible else None)


def _may_be(form: Form, has: set[str], values: Mapping[str, Any]) -> bool:
    if not all(has & _names((column,)) for column in form.needs):
        return False
    if form.name in ("messages", "sharegpt"):
        return form.name == _words_of(values, has)
    return form.name != "openai-preference" or isinstance(values["input"], Mapping)


def _words_of(values: Mapping[str, Any], has: Container[str]) -> str:
    column = _first(chat.COLUMNS, has)
    turns = values[column]
    first = turns[0] if isinstance(turns, list) and turns else {}
    by_from = "from" in first if isinstance(first, Mapping) else False
    return "sharegpt" if by_from or (not first and column != "messages") else "messages"


def _first(columns: tuple[str, ...], has: Container[str]) -> str:
    """The first of these columns that a row has, and the first of all where it has none."""
    return next((column for column in columns if column in has), columns[0])
