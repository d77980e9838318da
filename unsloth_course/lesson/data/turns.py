"""A turn of a conversation: who speaks, what is said, what is called; in the keys that chat templates show.

A turn keeps beside its role and content what a template may show: `tool_calls`, `reasoning_content`, `name`,
`tool_call_id`; and `weight` where that is 0, for a turn that is read and never learned.
"""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from unsloth_course.lesson.data.rows import Aside, is_number, kind, listed, quoted

ROLES = ("system", "user", "assistant", "tool")
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

Turns = list[dict[str, Any]]


def turn(role: str, content: str) -> dict[str, Any]:
    """A turn of a conversation."""
    return {"role": role, "content": content}


def role_of(said: Any) -> str | None:
    """The role that a name stands for, whatever its capitals and the space around it; None for no such name."""
    return _ROLE_OF.get(said.strip().casefold()) if isinstance(said, str) else None


def words(turns: Iterable[dict[str, Any]]) -> str:
    """All that is said in some turns, in one text."""
    return "\n\n".join([item["content"] if len(item) == 2 else in_words(item)["content"] for item in turns])


def question(turns: Turns) -> str:
    """All that the last answer is asked with: every turn before it, in one text."""
    last = len(turns) - 1
    while turns[last]["role"] != "assistant":
        last -= 1
    return words(turns[:last])


def in_words(item: dict[str, Any]) -> dict[str, Any]:
    """The same turn with its calls written out behind its content, as in `function_calling`."""
    if "tool_calls" not in item:
        return item
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in item["tool_calls"]]
    lines = [item["content"]] * bool(item["content"]) + [f"{CALL} {call}" for call in calls]
    return {key: value for key, value in item.items() if key != "tool_calls"} | {"content": "\n".join(lines)}


def unpacked(text: str, column: str) -> Any:
    """The list of turns that a text stands for, as a cell of a CSV file holds it; any other text as it is.

    Raises Aside for turns that cannot be read.
    """
    if not _WRITTEN.match(text) or not any(
        all(f"{mark}{key}{mark}" in text for key in keys) for keys in _KEYS for mark in "\"'"
    ):
        return text
    found = from_text(text)
    if not isinstance(found, list):
        raise Aside(f"column {quoted(column)} holds turns that are no JSON; write them with json.dumps")
    return found


def from_text(text: str) -> Any:
    """What JSON, or Python's spelling of the same, stands for; None where it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            pass
    return None


def are_turns(value: Any) -> bool:
    """Whether this is a list, or a turn that stands alone."""
    return isinstance(value, list) or (isinstance(value, dict) and ("role" in value or "from" in value))


def turns_of(value: Any, column: str) -> Turns:
    """The turns in a column, each with role and content; one may stand alone. Raises Aside for what is none."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise Aside(f"column {quoted(column)} is {kind(value)}, not a list of turns")
    return [turn_of(column, number, item) for number, item in enumerate(value, 1)]


def turn_of(column: str, number: int, item: Any) -> dict[str, Any]:
    """A turn in the keys that templates show. Raises Aside for what is none, with the column and its number there."""
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
    reasoning = next((item[key] for key in REASONING if item.get(key)), "")
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        content, thought = _joined(content, place)
        if thought:
            reasoning = f"{reasoning}\n{thought}" if reasoning else thought
    if content is None and calls:
        content = ""
    if role == "assistant" and is_number(content):
        content = str(content)
    if not isinstance(content, str):
        what_is = "no " + quoted(what) if what not in item else f"{kind(content)} as {quoted(what)}, not text"
        raise Aside(f"{place} has {what_is}")
    if not isinstance(reasoning, str):
        raise Aside(f"{place} has {kind(reasoning)} as its reasoning, not text")
    if (weight := item.get("weight")) not in (None, 0, 1):
        raise Aside(f"{place} has the weight {quoted(weight)}, and a turn is learned (1) or not (0)")
    made = turn(role, content)
    if calls:
        made["tool_calls"] = _calls(calls, place)
    if reasoning:
        made["reasoning_content"] = reasoning
    if weight == 0:
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
        function = function_of(call)
        if function is None:
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


def function_of(item: Any) -> Mapping[str, Any] | None:
    """The function of a call or of a tool, which may be the whole of it; None where it has no name."""
    function = item.get("function", item) if isinstance(item, Mapping) else None
    return function if isinstance(function, Mapping) and isinstance(function.get("name"), str) else None


def without_nulls(value: Any) -> Any:
    """The same without the names that stand for null, in objects at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
