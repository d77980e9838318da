"""Rows of the preference shape, read and checked: a prompt with two answers, in three forms (see `preference`)."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import chat
from unsloth_course.lesson.data.chat import Turns
from unsloth_course.lesson.data.rows import Aside, Row, check_columns, listed, quoted, text_of, useless

COLUMNS = ("prompt", "chosen", "rejected")
ORCA_COLUMNS = ("system", "question", "chosen", "rejected")
ANSWERS = ("chosen", "rejected")
SAME = "'chosen' and 'rejected' are the same"
ROLES = ("system", "user", "assistant")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


class Pair(NamedTuple):
    """A prompt with its two answers; `column` is where the user's words stood."""

    prompt: Turns
    chosen: str
    rejected: str
    column: str


def read(row: Row, tokens: Iterable[str]) -> Pair:
    """The pair of a row in one of the three forms, checked.

    Raises Aside when nothing can be learned from it (see `check`), and CourseError for a column that is missing or
    misspelt, and for a value that is neither text nor turns.
    """
    return check(_form_of(row)(row), tuple(tokens))


def _form_of(row: Row) -> Callable[[Row], Pair]:
    """How a row of this form is read. Raises CourseError when its columns are none of the three."""
    if "prompt" in row.values:
        check_columns(row, COLUMNS)
        return _read_prompt
    if "question" in row.values:
        check_columns(row, ORCA_COLUMNS, optional=("system",))
        return _read_question
    check_columns(row, ("prompt", "question"), optional=("prompt", "question"))  # refuses what is misspelt only
    check_columns(row, ANSWERS)
    if len(row.values) > len(ANSWERS) and not all(_is_whole(row.values[column]) for column in ANSWERS):
        # The prompt may be in any of the others.
        raise CourseError(
            f"{row.place('prompt')}: this column is missing. It has {listed(row.values)}. Rename the column with the "
            "prompt to 'prompt', or let 'chosen' and 'rejected' be whole conversations."
        )
    return _read_nested


def _is_whole(value: object) -> bool:
    """Whether an answer has its prompt with it: turns before the last one, or text in which the user speaks first."""
    if chat.are_turns(value):
        return isinstance(value, str) or len(value) > 1
    return isinstance(value, str) and conversation(value) is not None


def _read_question(row: Row) -> Pair:
    system, question, chosen, rejected = (text_of(row, column) for column in ORCA_COLUMNS)
    first = [chat.turn("system", system)] if system and not system.isspace() else []
    return Pair([*first, chat.turn("user", question)], chosen, rejected, "question")


def _read_prompt(row: Row) -> Pair:
    prompt, chosen, rejected = (_text_or_turns(row, column) for column in COLUMNS)
    if isinstance(prompt, str):
        prompt = [chat.turn("user", prompt)]
    return Pair(prompt, _answer("chosen", chosen, prompt), _answer("rejected", rejected, prompt), "prompt")


def _answer(column: str, value: str | Turns, prompt: Turns) -> str:
    """The one answer that a column holds; the turns of the prompt may be repeated before it."""
    if isinstance(value, str):
        return value
    history, answer = _parted(column, value)
    if history and history != prompt:
        raise Aside(f"column {quoted(column)} holds turns before the answer that are not the prompt")
    return answer


def _read_nested(row: Row) -> Pair:
    values = [_text_or_turns(row, column) for column in ANSWERS]
    if isinstance(values[0], str) != isinstance(values[1], str):
        raise Aside("of 'chosen' and 'rejected' one is text and the other a list of turns")
    parts = []
    for column, value in zip(ANSWERS, values, strict=True):
        if isinstance(value, str):
            value = _told(column, value)
        parts.append(_parted(column, value))
    (history, chosen), (other, rejected) = parts
    if history != other:
        raise Aside("the histories before the two answers differ")
    return Pair(history, chosen, rejected, "chosen")


def _told(column: str, text: str) -> Turns:
    if not text or text.isspace():
        return []
    turns = conversation(text)
    if turns is None:
        raise Aside(f"column {quoted(column)} does not begin with a blank line and 'Human:', and it has no prompt")
    return turns


def conversation(text: str) -> Turns | None:
    """The turns of a conversation as Anthropic/hh-rlhf writes it, or None where the text does not begin with one.

    A turn begins with a blank line and "Human:" or "Assistant:", the first one with "Human:"; white space around what
    is said belongs to the form, not to the turn.
    """
    before, *rest = _SPEAKER.split(text)
    if before.strip() or not rest or rest[0] != "Human":
        return None
    spoken = zip(rest[::2], rest[1::2], strict=True)
    return [{"role": _SPEAKERS[who], "content": said.strip()} for who, said in spoken]


def _parted(column: str, turns: Turns) -> tuple[Turns, str]:
    """A conversation in two: the turns before the last answer, and that answer."""
    if not turns:
        raise Aside(f"column {quoted(column)} is empty")
    *history, last = turns
    if last["role"] != "assistant":
        raise Aside(f"column {quoted(column)} does not end in an answer of the assistant")
    if not last["content"].strip():
        raise Aside(f"column {quoted(column)} ends in an empty answer")
    return history, last["content"]


def _text_or_turns(row: Row, column: str) -> str | Turns:
    value = row.values.get(column)
    if not chat.are_turns(value):
        return text_of(row, column)
    turns = chat.turns_of(value, column)
    for number, turn in enumerate(turns, 1):
        if turn["role"] not in ROLES:
            role = quoted(turn["role"])
            raise Aside(f"column {quoted(column)}: turn {number} has the role {role}, none of {listed(ROLES)}")
    return turns


def check(pair: Pair, tokens: tuple[str, ...]) -> Pair:
    """The same pair. Raises Aside when nothing can be learned from it."""
    if not pair.prompt:
        raise Aside(f"column {quoted(pair.column)} " + ("is empty" if pair.column == "prompt" else "has no prompt"))
    said = [*[turn["content"] for turn in pair.prompt], pair.chosen, pair.rejected]
    # All of it is looked at in one go, which most pairs pass; text by text only to say what is amiss.
    amiss = useless({"": "\n".join(said)}, tokens) is not None or not all(map(str.strip, said))
    for number, turn in enumerate(pair.prompt if amiss else (), 1):
        system = turn["role"] == "system"
        if pair.column == "question":
            place = "system" if system else "question"
        else:
            place = pair.column if len(pair.prompt) == 1 else f"{pair.column}, turn {number}"
        # An empty system turn says something: it keeps a template from writing its own.
        if reason := useless({place: turn["content"]}, tokens, optional=(place,) if system else ()):
            raise Aside(reason)
    if pair.prompt[-1]["role"] != "user":
        raise Aside(f"column {quoted(pair.column)}: the prompt does not end in a turn of the user")
    if amiss and (reason := useless({"chosen": pair.chosen, "rejected": pair.rejected}, tokens)):
        raise Aside(reason)
    if pair.chosen.strip() == pair.rejected.strip():
        raise Aside(SAME)
    return pair
