"""Rows of the preference shape, read and checked: a prompt with two answers, in the forms that are public.

The prompt may be text (`prompt`, `question`, `instruction` with `input`), turns (`prompt`, `messages`,
`conversations`), or OpenAI's `input` with messages and tools; or it stands in front of both answers. An answer is text,
a turn, or a conversation that ends in it.
"""

import functools
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from unsloth_course.lesson.data import chat
from unsloth_course.lesson.data.chat import Conversation
from unsloth_course.lesson.data.rows import Aside, Row, check_columns, listed, present, quoted, text_of
from unsloth_course.lesson.data.shapes import question
from unsloth_course.lesson.data.turns import Turns, are_turns, turn, turns_of

COLUMNS = ("prompt", "chosen", "rejected")
ANSWERS = ("chosen", "rejected")
PROMPTS = ("prompt", "question", "query", "instruction", *chat.COLUMNS, "input")
"""Where a row may keep its prompt; without any of them it stands in front of the answers."""
CHOSEN = ("chosen", "chosen_messages", "preferred_output")
REJECTED = ("rejected", "rejected_messages", "non_preferred_output")
BESIDE = ("tool_calls", "reasoning_content")  # what makes two answers different that say the same
SAME = "'chosen' and 'rejected' are the same"
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


class Pair(NamedTuple):
    """A prompt, with the tools that its answers may call, and the answers, each a turn; `column` is where the user's
    words stood.
    """

    prompt: Conversation
    chosen: dict[str, Any]
    rejected: dict[str, Any]
    column: str


def read(row: Row, tokens: Iterable[str]) -> Pair:
    """The pair of a row in one of the forms, checked.

    Raises Aside when nothing can be learned from it (see `check`), for a column that is missing or misspelt, and for a
    value that is neither text nor turns.
    """
    names = present(row, CHOSEN), present(row, REJECTED)
    check_columns(row, names)
    column = present(row, PROMPTS)
    if column not in row.values:
        column = next((name for name in PROMPTS if name in row.values), CHOSEN[0])
    if column == CHOSEN[0]:
        _check_whole(row, names)
        (prompt, chosen), (other, rejected) = [_parted(name, _whole(row, name)) for name in names]
        if prompt != other:
            raise Aside("the histories before the two answers differ")
    else:
        if column == "question":
            check_columns(row, chat.SYSTEM[:1], optional=chat.SYSTEM)
        prompt, chosen, rejected = _with_prompt(row, _prompt(row, column), names)
    inside = row.values.get(column)
    if column == "input" and isinstance(inside, dict) and inside.get("tools"):
        if not {"tools", "functions"}.isdisjoint(row.values):
            raise Aside("column 'input' and the row itself hold tools")
        row = row._replace(values={**row.values, "tools": inside["tools"]})
    return check(Pair(chat.beside(row, prompt, column), chosen, rejected, column), tuple(tokens))


def _prompt(row: Row, column: str) -> Turns:
    value = row.values[column]
    if column == "input" and isinstance(value, dict) and "messages" in value:
        return turns_of(value["messages"], column)
    if column in (*chat.COLUMNS, "prompt") and are_turns(value):
        return turns_of(value, column)
    text = text_of(row, column)
    return [turn("user", question(text, text_of(row, "input") if column == "instruction" else ""))]


def _with_prompt(row: Row, prompt: Turns, names: tuple[str, str]) -> tuple[Turns, dict[str, Any], dict[str, Any]]:
    """The prompt, which the turns in front of an answer may repeat or go on from, and the answers alone."""
    values = [row.values[name] for name in names]
    if type(values[0]) is type(values[1]) is str:  # as most are
        return prompt, *(turn("assistant", text) for text in values)
    fronts, alone = [], []
    for name, value in zip(names, values, strict=True):
        front, last = _parted(name, turns_of(value, name)) if are_turns(value) else ([], None)
        fronts.append(front)
        alone.append(last or turn("assistant", text_of(row, name, True)))
    front = max(fronts, key=len)
    for name, other in zip(names, fronts, strict=True):
        if other and other != front:
            raise Aside(f"the histories before the two answers differ: that of {quoted(name)} is another one")
    if front and front[0]["role"] == "assistant" and front[-1]["role"] in ("user", "tool"):
        return [*prompt, *front], *alone
    if front and not any(front[n : n + len(prompt)] == prompt for n in range(len(front))):
        name = names[fronts.index(front)]
        raise Aside(f"column {quoted(name)} holds turns before the answer that are not the prompt")
    return front or prompt, *alone


def _check_whole(row: Row, names: tuple[str, str]) -> None:
    """Raises Aside where the prompt is perhaps in a column of another name, or the answers are of two kinds."""
    values = [row.values[name] for name in names]
    if len(row.values) > len(names):
        check_columns(row, PROMPTS[:4], optional=PROMPTS[:4])  # refuses what is misspelt only
        if not all(len(value) > 1 if isinstance(value, list) else _begins(value) for value in values):
            raise Aside(
                f"column 'prompt': this column is missing. It has {listed(row.values)}. Rename the column with the "
                "prompt to 'prompt', or let 'chosen' and 'rejected' be whole conversations."
            )
    if are_turns(values[0]) != are_turns(values[1]):
        raise Aside("of 'chosen' and 'rejected' one is text and the other a list of turns")


def _whole(row: Row, column: str) -> Turns:
    """The conversation that an answer ends."""
    value = row.values[column]
    if are_turns(value):
        return turns_of(value, column)
    text = text_of(row, column, True)
    turns = conversation(text) if text and not text.isspace() else []
    if turns is None:
        raise Aside(f"column {quoted(column)} does not begin with a blank line and 'Human:', and it has no prompt")
    return turns


def _begins(value: object) -> bool:
    return isinstance(value, str) and conversation(value) is not None


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


def _parted(column: str, turns: Turns) -> tuple[Turns, dict[str, Any]]:
    """A conversation in two: the turns before the last answer, and that answer."""
    if not turns:
        raise Aside(f"column {quoted(column)} is empty")
    *history, last = turns
    if last["role"] != "assistant":
        raise Aside(f"column {quoted(column)} does not end in an answer of the assistant")
    if not last["content"].strip() and "tool_calls" not in last:
        raise Aside(f"column {quoted(column)} ends in an empty answer")
    return history, last


def check(pair: Pair, tokens: tuple[str, ...]) -> Pair:
    """The same pair. Raises Aside when nothing can be learned from it."""
    if not pair.prompt:
        raise Aside(f"column {quoted(pair.column)} " + ("has no prompt" if pair.column == CHOSEN[0] else "is empty"))
    chat.look_at([*pair.prompt, pair.chosen, pair.rejected], functools.partial(_place, pair), tokens)
    for number, said in enumerate(pair.prompt[1:], 2):
        if said["role"] == "tool" and pair.prompt[number - 2]["role"] in ("system", "user"):
            raise Aside(f"column {quoted(pair.column)}: turn {number} has the role 'tool', and nothing was called")
    if pair.prompt[-1]["role"] not in ("user", "tool"):
        raise Aside(f"column {quoted(pair.column)}: the prompt does not end in a turn of the user")
    one, other = pair.chosen, pair.rejected
    if one["content"].strip() == other["content"].strip() and all(one.get(key) == other.get(key) for key in BESIDE):
        raise Aside(SAME)
    return pair


def _place(pair: Pair, number: int) -> str:
    """What the place of a turn of the prompt, or behind it of an answer, is called."""
    roles = [turn["role"] for turn in pair.prompt]
    if number > len(roles):
        return ANSWERS[number - len(roles) - 1]
    if roles not in (["user"], ["system", "user"]):
        return f"{pair.column}, turn {number}"
    return pair.column if roles[number - 1] == "user" else "system"
