"""What a model's chat template can show of a conversation, and the conversation as it can show it.

A template that knows no functions leaves them out without a word, and a model would learn to call what it was never
shown. So each template is asked first, with a mark to look for.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from unsloth_course.lesson.data.turns import CALL, Turns, in_words, turn

Render = Callable[[Turns, list[Any] | None], str]
_MARK = "find_the_mark"
_TOOL = {"name": _MARK, "description": "x", "parameters": {"type": "object", "properties": {}, "required": []}}
TOLD = {
    "system": "the system text is put in front of the first question",
    "tools": "functions (tools) are written into the system turn",
    "calls": f"calls of functions are written as {CALL} with JSON",
    "reasoning": "reasoning (reasoning_content) is left out",
    "turns": "the turns of some rows, which it refuses and a training leaves out",
}
"""What is done with what is not shown."""


class Shows(NamedTuple):
    """Whether a template shows functions that may be called, calls, the reasoning before an answer, a system turn."""

    tools: bool
    calls: bool
    reasoning: bool
    system: bool = True

    def lacking(self, turns: Turns, tools: Any) -> list[str]:
        """What of a conversation the template cannot show: names of these fields."""
        calls, thoughts = (any(key in item for item in turns) for key in ("tool_calls", "reasoning_content"))
        there = bool(tools), calls, thoughts, turns[0]["role"] == "system" and bool(turns[0]["content"].strip())
        return [name for name, holds, shown in zip(self._fields, there, self, strict=True) if holds and not shown]


NOTHING = Shows(False, False, False)


def shown_by(render: Render) -> Shows:
    """What a template shows. render: the text that it writes for turns, and functions or None."""

    def marked(said: dict[str, Any], tools: list[Any] | None = None, before: Sequence[Any] = ()) -> bool:
        try:
            return _MARK in render([*before, turn("user", "x"), turn("assistant", "y") | said], tools)
        except Exception:  # templates are anybody's, and raise what they like for what they do not know
            return False

    call = {"id": "call00001", "type": "function", "function": {"name": _MARK, "arguments": {}}}
    return Shows(
        tools=marked({}, [{"type": "function", "function": _TOOL}]),
        calls=marked({"tool_calls": [call]}) or marked({"content": "", "tool_calls": [call]}),
        reasoning=marked({"reasoning_content": _MARK}),
        system=marked({}, before=[turn("system", _MARK)]),
    )


def as_shown(turns: Turns, tools: list[Any] | None, shows: Shows) -> tuple[Turns, list[Any] | None]:
    """The conversation with all that the template shows; the rest in words, but for reasoning, which is left out."""
    if not shows.calls:
        turns = [in_words(item) for item in turns]
    if not shows.reasoning:
        turns = [{key: value for key, value in item.items() if key != "reasoning_content"} for item in turns]
    first = turns[:1] if turns[0]["role"] == "system" else []
    said = [item["content"] for item in first if item["content"].strip()]
    if tools and not shows.tools:
        listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        how = f"To call one, write {CALL} and JSON with its name and arguments." if not shows.calls else ""
        said.append(f"You may call these functions. {how}".strip() + f"\n{listed}")
        tools = None
    elif not first or shows.system:
        return turns, tools or None
    text, rest = "\n\n".join(said), turns[len(first) :]
    if shows.system:
        return [turn("system", text), *rest], tools or None
    question = "\n\n".join(filter(None, (text, rest[0]["content"])))
    return [rest[0] | {"content": question}, *rest[1:]], tools or None
