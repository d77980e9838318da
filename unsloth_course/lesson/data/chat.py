"""The chat shape: a conversation as a list of turns, TRL's conversational language modeling type.

Three forms are read: `messages` (role, content), ShareGPT's `conversations` (from, value; as in FastChat's data, Chiang
et al. 2023), and `prompt` with `completion`, as text or as turns (TRL, "Dataset formats and types"). What a model calls
a function with is written into its turn as `function_calling` has it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from unsloth_course.lesson.data.rows import (
    CONTROL_TOKENS,
    Aside,
    Row,
    check_columns,
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
ANSWER_COLUMNS = ("completion", "response")
_ROLE_OF = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}
_KEYS = (("role", "content"), ("from", "value"))
_WRITTEN = re.compile(r"""\s*\[\s*\{\s*(["'])(role|content|from|value)\1\s*:""")
CALL = "<functioncall>"

Turns = list[dict[str, str]]


def turn(role: str, content: str) -> dict[str, str]:
    """A turn of a conversation."""
    return {"role": role, "content": content}


def question(turns: Turns) -> str:
    """What the user asks first."""
    return next(item["content"] for item in turns if item["role"] == "user")


def read_turns(row: Row, tokens: Iterable[str] = CONTROL_TOKENS) -> Turns:
    """The turns of a row in the form `messages` or ShareGPT, checked.

    The roles human and gpt, and their like, become user and assistant, whatever their capitals. Raises Aside when
    nothing can be learned from the conversation (see `check`), or when it is not one; CourseError for a column that is
    missing.
    """
    column = present(row, COLUMNS)
    check_columns(row, (column,))
    return check(turns_of(row.values[column], column), tokens, column)


def read_completion(row: Row, tokens: Iterable[str] = CONTROL_TOKENS) -> Turns:
    """The turns of a row with a `prompt` and a `completion` (or `response`), each text or turns, checked.

    Raises as `read_turns` does.
    """
    column = present(row, ANSWER_COLUMNS)
    check_columns(row, ("prompt", column))
    turns: Turns = []
    for name, role in (("prompt", "user"), (column, "assistant")):
        value = row.values[name]
        turns += turns_of(value, name) if are_turns(value) else [turn(role, text_of(row, name))]
    return check(turns, tokens, f"prompt, {column}")


def are_turns(value: Any) -> bool:
    """Whether this is a list, or the text of a list of turns, as a cell of a CSV file holds it."""
    if not isinstance(value, str) or not (found := _WRITTEN.match(value)):
        return isinstance(value, list)
    return any(all(f"{found[1]}{key}{found[1]}" in value for key in keys) for keys in _KEYS)


def turns_of(value: Any, column: str) -> Turns:
    """The turns in a column, each with role and content. Raises Aside where it holds none."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # a cell of a CSV file
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Aside(f"column {quoted(column)} holds turns that are no JSON; write them with json.dumps") from None
    if not isinstance(value, list):
        raise Aside(f"column {quoted(column)} is {kind(value)}, not a list of turns")
    return [_turn_of(column, number, item) for number, item in enumerate(value, 1)]


def _turn_of(column: str, number: int, item: Any) -> dict[str, str]:
    if not isinstance(item, Mapping):
        raise Aside(f"column {quoted(column)}: turn {number} is {kind(item)}, not an object")
    who, what = _KEYS[item.get("role") is None]
    said, content = item.get(who), item.get(what)
    if said is None:
        found = listed(item) or "nothing"
        raise Aside(f"column {quoted(column)}: turn {number} has no 'role' or 'from'; it has {found}")
    known = _ROLE_OF.get(said.strip().casefold()) if isinstance(said, str) else None
    if known is None:
        found = quoted(said) if isinstance(said, str) else kind(said)
        raise Aside(f"column {quoted(column)}: turn {number} has the role {found}, none of {listed(ROLES)}")
    calls = item.get("tool_calls")
    if calls:
        return turn(known, _with_calls(column, number, content, calls))
    if not isinstance(content, str):
        what_is = "no " + quoted(what) if what not in item else f"{kind(content)} as {quoted(what)}, not text"
        raise Aside(f"column {quoted(column)}: turn {number} has {what_is}")
    return turn(known, content)


def _with_calls(column: str, number: int, content: Any, calls: Any) -> str:
    """The content of a turn with its calls written out behind it, as in `function_calling`."""
    lines = [content] if isinstance(content, str) and content else []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise Aside(f"column {quoted(column)}: turn {number} has a tool call without a name")
        arguments = function.get("arguments") or {}
        try:
            if isinstance(arguments, str):
                arguments = json.loads(arguments)
            text = json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)
        except (ValueError, TypeError, RecursionError):
            raise Aside(f"column {quoted(column)}: turn {number} has a tool call with broken arguments") from None
        lines.append(f"{CALL} {text}")
    return "\n".join(lines)


def check(turns: Turns, tokens: Iterable[str], column: str) -> Turns:
    """The same turns. Raises Aside when they are no conversation to learn from.

    A conversation may begin with a system turn, which may be empty; then the user speaks, and the assistant last. No
    other turn is empty, none holds a control token, and all are valid Unicode.
    """
    place = f"column {quoted(column)}"
    if not turns:
        raise Aside(f"{place} is empty")
    tokens = tuple(tokens)
    # All of it is looked at in one go, which most conversations pass; turn by turn only to say what is amiss.
    whole = "\n".join([item["content"] for item in turns])
    said = [item["content"] for item in turns if item["role"] != "system"]
    if useless({column: whole}, tokens, optional=(column,)) or not all(map(str.strip, said)):
        for number, item in enumerate(turns, 1):
            where = f"{column}, turn {number}"
            if reason := useless({where: item["content"]}, tokens, optional=(where,) * (item["role"] == "system")):
                raise Aside(reason)
    roles = [item["role"] for item in turns]
    if "system" in roles[1:]:
        number = roles.index("system", 1) + 1
        raise Aside(f"{place}: turn {number} is the system's, which may only be the first")
    if roles[roles[0] == "system" and len(roles) > 1] != "user":
        raise Aside(f"{place} does not begin with a turn of the user")
    if roles[-1] != "assistant":
        raise Aside(f"{place} does not end in a turn of the assistant")
    return turns


def to_instruction(turns: Turns) -> dict[str, str]:
    """A question with one answer as the instruction shape. Raises Aside where the conversation is more than that."""
    if [item["role"] for item in turns] != ["user", "assistant"]:
        raise Aside(f"it has {len(turns)} turns, and an instruction is one of the user with one answer")
    return {"instruction": turns[0]["content"], "input": "", "output": turns[1]["content"]}
