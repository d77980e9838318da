"""The chat shape: a conversation as a list of turns, TRL's conversational language modeling type.

Three forms are read: `messages` (role, content), ShareGPT's `conversations` (from, value; as in FastChat's data, Chiang
et al. 2023), and `prompt` with `completion`, as text or as turns (TRL, "Dataset formats and types"). What stands beside
the turns in a row belongs to them: a system text, turns before, and the functions that the model may call.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from unsloth_course.lesson.data.rows import CONTROL_TOKENS, Aside, Row, check_columns, present, quoted, text_of, useless
from unsloth_course.lesson.data.turns import (
    Turns,
    are_turns,
    from_text,
    function_of,
    in_words,
    turn,
    turn_of,
    turns_of,
    without_nulls,
)

COLUMNS = ("messages", "conversations", "conversation")  # where a row may keep its turns
ANSWER_COLUMNS = ("completion", "response", "answer", "output")
SYSTEM = ("system", "system_prompt", "system_message")
HISTORY = ("history",)
TOOLS = ("tools", "functions")
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
BESIDE = (SYSTEM, HISTORY, TOOLS)  # what a row may hold beside its turns; of each the first column that a row has
_MEDIA, _TOOLS = frozenset(MEDIA), frozenset(TOOLS)
_ANY_BESIDE = frozenset((*SYSTEM, *HISTORY, *TOOLS, *MEDIA))
FIRST, LAST = "a first turn of the assistant is left out", "a last turn that nobody answers is left out"
NOT_SHOWN = "a function is called that the row does not show ('tools')"


class Conversation(list):
    """Turns, with `tools`: the functions that the model may call, as OpenAI's interface writes them; and `said`: what
    there is to say of the row, such as a turn that was left out."""

    tools: Sequence[Any] = ()
    said: tuple[str, ...] = ()


def read_turns(row: Row, tokens: Iterable[str] = CONTROL_TOKENS) -> Conversation:
    """The turns of a row in the form `messages` or ShareGPT, checked.

    The roles human and gpt, and their like, become user and assistant, whatever their capitals. Raises Aside when
    nothing can be learned from the conversation (see `whole`), when it is not one, and for a column that is missing.
    """
    column = present(row, COLUMNS)
    check_columns(row, (column,))
    return whole(row, turns_of(row.values[column], column), tokens, column)


def read_completion(row: Row, tokens: Iterable[str] = CONTROL_TOKENS) -> Conversation:
    """The turns of a row with a `prompt` and a `completion` (or `response`), each text or turns, checked.

    Raises as `read_turns` does.
    """
    column = present(row, ANSWER_COLUMNS)
    check_columns(row, ("prompt", column))
    turns: Turns = []
    for name, role in (("prompt", "user"), (column, "assistant")):
        value = row.values[name]
        turns += turns_of(value, name) if are_turns(value) else [turn(role, text_of(row, name, name == column))]
    return whole(row, turns, tokens, f"prompt, {column}")


def beside(row: Row, turns: Turns, column: str, system: str | None = None) -> Conversation:
    """The turns with what the row holds beside them: its system text first (or `system`), its history, its tools.

    Raises Aside for pictures and the like, for tools that cannot be read, and where two system texts differ.
    """
    found, values = Conversation(turns), row.values
    if _ANY_BESIDE.isdisjoint(values):
        return found
    if media := next((name for name in _MEDIA.intersection(values) if values[name]), None):
        raise Aside(f"column {quoted(media)} holds what is no text, and only text can be read")
    found.tools = () if _TOOLS.isdisjoint(values) else _tools(row)
    before = _history(row) if "history" in values else []
    system = text_of(row, present(row, SYSTEM)) if system is None else system
    if system and not system.isspace():
        first = next((item for item in (*before, *turns) if item["role"] == "system"), None)
        if first is None:
            before.insert(0, turn("system", system))
        elif first["content"].strip() != system.strip():
            raise Aside(
                f"column {quoted(present(row, SYSTEM))} and the turns in {quoted(column)} hold two system texts"
            )
    found[:0] = before
    return found


def holds_beside(row: Row) -> str | None:
    """The column of a row that makes it more than a question with an answer, or None."""
    if _ANY_BESIDE.isdisjoint(row.values):
        return None
    held = ((name, row.values.get(name)) for names in BESIDE for name in names)
    return next((n for n, v in held if v and not (isinstance(v, str) and v.strip() in ("", "[]", "null"))), None)


def _history(row: Row) -> Turns:
    value = row.values.get("history")
    value = from_text(value) if isinstance(value, str) and value.strip() else value or []
    if not isinstance(value, list):
        raise Aside("column 'history' holds no list of turns, or of questions with their answers")
    turns: Turns = []
    for number, item in enumerate(value, 1):
        if isinstance(item, list) and len(item) == 2 and all(isinstance(text, str) for text in item):
            turns += [turn("user", item[0]), turn("assistant", item[1])]
        else:
            turns.append(turn_of("history", number, item))
    return turns


def _tools(row: Row) -> list[dict[str, Any]]:
    column = present(row, TOOLS)
    value = row.values.get(column) or []
    if isinstance(value, str):
        value = [] if value.strip() in ("", "null") else from_text(value)
    else:
        value = without_nulls(value)
    tools = [value] if isinstance(value, Mapping) else value if isinstance(value, list) else [None]
    if not all(map(function_of, tools)):
        raise Aside(f"column {quoted(column)} holds no list of functions with their names")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def whole(row: Row, turns: Turns, tokens: Iterable[str], column: str, system: str | None = None) -> Conversation:
    """The conversation of a row with what stands beside its turns, checked.

    It may begin with a system turn, which may be empty; then the user speaks, and the assistant last. A first turn of
    the assistant, and a last one that is not, are left out, and `said` says so. Raises Aside where nothing is left to
    learn from, for a turn that is empty, holds a control token, is no valid Unicode, or has a picture in it, and for a
    call of a function that is not among the tools.
    """
    found = beside(row, turns, column, system)
    check(found, tokens, column)
    return found


def check(turns: Conversation, tokens: Iterable[str], column: str) -> None:
    """Leaves out of the turns what cannot be learned from. Raises Aside as `whole` does."""
    place = f"column {quoted(column)}"
    if not turns:
        raise Aside(f"{place} is empty")
    look_at(turns, lambda number: f"{column}, turn {number}", tokens)
    if turns.tools and (reason := useless({"tools": json.dumps(turns.tools, ensure_ascii=False)}, tokens)):
        raise Aside(reason)
    roles = [item["role"] for item in turns]
    if "system" in roles[1:]:
        number = roles.index("system", 1) + 1
        raise Aside(f"{place}: turn {number} is the system's, which may only be the first")
    begins = int(roles[0] == "system")
    if "user" not in roles or "assistant" not in roles[roles.index("user") :]:
        what = "a turn of the user" if "user" not in roles else "an answer of the assistant"
        raise Aside(f"{place} has no turn to learn: {what} is missing")
    ends = len(roles) - roles[::-1].index("assistant")
    if ends < len(roles):
        del turns[ends:]
        turns.said += (LAST,)
    if roles.index("user") > begins:
        del turns[begins : roles.index("user")]
        turns.said += (FIRST,)
    if not turns.tools and all(len(item) == 2 for item in turns):
        return
    if all(item.get("weight") == 0 for item in turns if item["role"] == "assistant"):
        raise Aside(f"{place}: every turn of the assistant has the weight 0, so there is nothing to learn")
    called = [call["function"]["name"] for item in turns for call in item.get("tool_calls", ())]
    shown = {tool["function"]["name"] for tool in turns.tools}
    if called and not shown:
        turns.said += (NOT_SHOWN,)
    elif unknown := [name for name in called if name not in shown]:
        raise Aside(f"{place}: the function {quoted(unknown[0])} is called, which is not among the row's tools")


def look_at(turns: Iterable[dict[str, Any]], place_of: Callable[[int], str], tokens: Iterable[str]) -> None:
    """Raises Aside for a turn that is empty, holds a control token or a picture, or is no Unicode.

    place_of: what its place is called, by its number from 1.

    A system turn may be empty: that keeps a template from writing its own.
    """
    texts = [(item if len(item) == 2 else in_words(item))["content"] for item in turns]
    whole, tokens = "\n".join(texts), tuple(tokens)
    # All of it is looked at in one go, which most conversations pass; turn by turn only to say what is amiss.
    if all(map(str.strip, texts)) and "<image>" not in whole and not useless({"": whole}, tokens):
        return
    for number, (item, text) in enumerate(zip(turns, texts, strict=True), 1):
        place = place_of(number)
        if reason := useless({place: text}, tokens, optional=(place,) * (item["role"] == "system")):
            raise Aside(reason)
        if item["role"] == "user" and "<image>" in text:
            raise Aside(f"column {quoted(place)} has a picture in it (<image>), and only text can be read")


def to_instruction(turns: Turns) -> dict[str, str]:
    """A question with one answer as the instruction shape. Raises Aside where the conversation is more than that."""
    if [item["role"] for item in turns] != ["user", "assistant"]:
        raise Aside(f"it has {len(turns)} turns, and an instruction is one of the user with one answer")
    if any(len(item) > 2 for item in turns) or getattr(turns, "tools", None):
        raise Aside("it has calls, tools or reasoning, and an instruction is a question with an answer")
    return {"instruction": turns[0]["content"], "input": "", "output": turns[1]["content"]}
