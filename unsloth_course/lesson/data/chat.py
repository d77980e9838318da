"""The chat shape: a conversation as a list of turns, TRL's conversational language modeling type.

Three forms are read: `messages` (role, content), ShareGPT's `conversations` (from, value; as in FastChat's data, Chiang
et al. 2023), and `prompt` with `completion`, as text or as turns (TRL, "Dataset formats and types"). A turn keeps what
a chat template may show beside its content: `tool_calls`, `reasoning_content`, `name`, `tool_call_id`; and `weight`
where that is 0, for a turn that is read and never learned. What stands beside the turns in a row belongs to them: a
system text, turns before, and the functions that the model may call.
"""

import ast
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from unsloth_course.lesson.data.rows import (
    CONTROL_TOKENS,
    Aside,
    Row,
    check_columns,
    is_number,
    kind,
    listed,
    present,
    quoted,
    text_of,
    useless,
)

ROLES = ("system", "user", "assistant", "tool")
COLUMNS = ("messages", "conversations", "conversation")
"""Where a row may keep its turns."""
ANSWER_COLUMNS = ("completion", "response", "answer", "output")
SYSTEM = ("system", "system_prompt", "system_message")
HISTORY = ("history",)
TOOLS = ("tools", "functions")
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
BESIDE = (SYSTEM, HISTORY, TOOLS)
"""What a row may hold beside its turns; of each the first column that a row has."""
_MEDIA, _TOOLS = frozenset(MEDIA), frozenset(TOOLS)
_ANY_BESIDE = frozenset((*SYSTEM, *HISTORY, *TOOLS, *MEDIA))
CALLING = ("function_call", "functioncall", "tool_call")
"""Roles whose turn is a call of the assistant's, written as JSON."""
_SPOKEN_BY = {
    "system": ("developer",),
    "user": ("human",),
    "assistant": ("gpt", "chatgpt", "model", "bot", "ai", *CALLING),
    "tool": ("function", "function_response", "tool_response", "tool_result", "observation", "ipython"),
}
_ROLE_OF = {name: role for role, names in _SPOKEN_BY.items() for name in (role, *names)}
_PLAIN_ROLES = {name: role for name, role in _ROLE_OF.items() if name not in CALLING}
_KEYS = (("role", "content"), ("from", "value"))
OF_RESULTS = ("name", "tool_call_id")
REASONING = ("reasoning_content", "thinking", "reasoning")
TURN_KEYS = frozenset(
    ("role", "content", "from", "value", "tool_calls", "function_call", "weight", *OF_RESULTS, *REASONING)
)
_WRITTEN = re.compile(r"""\s*\[\s*\{\s*(["'])\w+\1\s*:""")
_LONG = re.compile(r"\d{16}")
CALL = "<functioncall>"
FIRST, LAST = "a first turn of the assistant is left out", "a last turn that nobody answers is left out"
NOT_SHOWN = "a function is called that the row does not show ('tools')"

Turns = list[dict[str, Any]]


class Conversation(list):
    """Turns, with `tools`: the functions that the model may call, as OpenAI's interface writes them; and `said`: what
    there is to say of the row, such as a turn that was left out."""

    tools: Sequence[Any] = ()
    said: tuple[str, ...] = ()


def role_of(said: Any) -> str | None:
    """The role that a name stands for, whatever its capitals and the space around it; None for no such name."""
    return _ROLE_OF.get(said.strip().casefold()) if isinstance(said, str) else None


def turn(role: str, content: str) -> dict[str, Any]:
    """A turn of a conversation."""
    return {"role": role, "content": content}


def words(turns: Iterable[dict[str, Any]]) -> str:
    """All that is said in some turns, in one text."""
    return "\n\n".join([item["content"] if len(item) == 2 else in_words(item)["content"] for item in turns])


def question(turns: Turns) -> str:
    """All that the last answer is asked with: every turn before it, in one text."""
    last = len(turns) - 1
    while turns[last]["role"] != "assistant":
        last -= 1
    return words(turns[:last])


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


# Cells of a table


def unpacked(text: str, column: str) -> Any:
    """The list of turns that a text stands for, as a cell of a CSV file holds it; any other text as it is.

    Raises Aside for turns that cannot be read.
    """
    if not _WRITTEN.match(text) or not _names_turns(text):
        return text
    found = from_text(text)
    if not isinstance(found, list):
        raise Aside(f"column {quoted(column)} holds turns that are no JSON; write them with json.dumps")
    return found


def _names_turns(text: str) -> bool:
    return any(all(f"{mark}{key}{mark}" in text for key in keys) for keys in _KEYS for mark in "\"'")


def from_text(text: str) -> Any:
    """What JSON, or Python's spelling of the same, stands for; None where it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


# Turns


def are_turns(value: Any) -> bool:
    """Whether this is a list, or a turn that stands alone."""
    return isinstance(value, list) or (isinstance(value, dict) and ("role" in value or "from" in value))


def turns_of(value: Any, column: str) -> Turns:
    """The turns in a column, each with role and content; one may stand alone. Raises Aside for what is none."""
    value = [value] if isinstance(value, Mapping) else value
    if not isinstance(value, list):
        raise Aside(f"column {quoted(column)} is {kind(value)}, not a list of turns")
    return [_turn_of(column, number, item) for number, item in enumerate(value, 1)]


def _turn_of(column: str, number: int, item: Any) -> dict[str, Any]:
    if type(item) is dict and len(item) == 2:  # as most are
        if item.get("role") in ROLES and type(item.get("content")) is str:
            return item
        said = item.get("from")
        if type(said) is str and said in _PLAIN_ROLES and type(item.get("value")) is str:
            return {"role": _PLAIN_ROLES[said], "content": item["value"]}
    place = f"column {quoted(column)}: turn {number}"
    if not isinstance(item, Mapping):
        raise Aside(f"{place} is {kind(item)}, not an object")
    who, what = _KEYS[item.get("role") is None]
    said, content = item.get(who), item.get(what)
    if said is None:
        raise Aside(f"{place} has no 'role' or 'from'; it has {listed(item) or 'nothing'}")
    role = role_of(said)
    if role is None:
        found = quoted(said) if isinstance(said, str) else kind(said)
        raise Aside(f"{place} has the role {found}, none of {listed(ROLES)}")
    calls = item.get("tool_calls") or item.get("function_call")
    if said.strip().casefold() in CALLING and not calls:
        calls, content = content, ""
    reasoning = next((item[key] for key in REASONING if item.get(key)), None)
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        content, thought = _joined(content, place)
        reasoning = "\n".join(filter(None, (reasoning, thought))) if isinstance(reasoning or "", str) else reasoning
    if content is None and calls:
        content = ""
    if role == "assistant" and is_number(content):
        content = str(content)
    if not isinstance(content, str):
        what_is = "no " + quoted(what) if what not in item else f"{kind(content)} as {quoted(what)}, not text"
        raise Aside(f"{place} has {what_is}")
    made = turn(role, content)
    if calls:
        made["tool_calls"] = _calls(calls, place)
    if reasoning:
        if not isinstance(reasoning, str):
            raise Aside(f"{place} has {kind(reasoning)} as its reasoning, not text")
        made["reasoning_content"] = reasoning
    if (weight := item.get("weight")) not in (None, 1):
        if weight != 0:
            raise Aside(f"{place} has the weight {quoted(weight)}, and a turn is learned (1) or not (0)")
        made["weight"] = 0
    if role == "tool":
        made.update({key: item[key] for key in OF_RESULTS if isinstance(item.get(key), str)})
    return made


def _joined(parts: list[Mapping[str, Any]], place: str) -> tuple[str, str]:
    """The text of a content that is a list of parts, and the reasoning among them."""
    found = {"text": "", "thinking": ""}
    for part in parts:
        named = part.get("type") or "text"
        key = "thinking" if named == "thinking" else "text"
        if named not in ("text", "input_text", "output_text", "thinking") or not isinstance(part.get(key), str):
            raise Aside(f"{place} has a part of the kind {quoted(named)}, and only text can be read")
        found[key] += part[key]
    return found["text"], found["thinking"]


def _calls(calls: Any, place: str) -> list[dict[str, Any]]:
    """The calls of a turn, each with its arguments as an object.

    Arguments that come as an object lose what is null in them: a table has all names in every row, and null in those
    that the call did not have. Written as text they are what was written.
    """
    if isinstance(calls, str):
        calls = from_text(calls)
    made = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise Aside(f"{place} has a tool call without a name")
        arguments = function.get("arguments") or {}
        try:
            arguments = json.loads(arguments) if isinstance(arguments, str) else without_nulls(arguments)
            text = json.dumps(arguments)
        except (ValueError, TypeError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            raise Aside(f"{place} has a tool call with broken arguments")
        if _LONG.search(text):
            raise Aside(f"{place} calls a function with a number of 16 digits or more, which would lose some; quote it")
        named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        made.append({**named, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return made


def without_nulls(value: Any) -> Any:
    """The same without the names that stand for null, in objects at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def in_words(item: dict[str, Any]) -> dict[str, Any]:
    """The same turn with its calls written out behind its content, as in `function_calling`."""
    if "tool_calls" not in item:
        return item
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in item["tool_calls"]]
    lines = [item["content"]] * bool(item["content"]) + [f"{CALL} {call}" for call in calls]
    return {key: value for key, value in item.items() if key != "tool_calls"} | {"content": "\n".join(lines)}


# What stands beside the turns


def beside(row: Row, turns: Turns, column: str, system: str | None = None) -> Conversation:
    """The turns with what the row holds beside them: its system text first (or `system`), its history, its tools.

    Raises Aside for pictures and the like, for tools that cannot be read, and where two system texts differ.
    """
    found, values = Conversation(turns), row.values
    if _ANY_BESIDE.isdisjoint(values):
        return found
    if media := next((name for name in _MEDIA.intersection(values) if values[name]), None):
        raise Aside(f"column {quoted(media)} holds what is no text, and only text can be read")
    if not _TOOLS.isdisjoint(values):
        found.tools = _tools(row, present(row, TOOLS))
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
    values = {name: row.values.get(name) for names in BESIDE for name in names}
    empty = ("", "[]", "null", None)
    return next(
        (name for name, value in values.items() if value and not (isinstance(value, str) and value.strip() in empty)),
        None,
    )


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
            turns.append(_turn_of("history", number, item))
    return turns


def _tools(row: Row, column: str) -> list[dict[str, Any]]:
    value = row.values.get(column)
    if isinstance(value, str):
        found = from_text(value) if value.strip() else []
        value = [] if value.strip() == "null" else found
    else:
        value = without_nulls(value or [])
    made = []
    for tool in [value] if isinstance(value, Mapping) else value if isinstance(value, list) else [None]:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise Aside(f"column {quoted(column)} holds no list of functions with their names")
        made.append(tool if "function" in tool else {"type": "function", "function": tool})
    return made


# What can be learned from


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
