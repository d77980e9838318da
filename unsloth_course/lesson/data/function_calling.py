"""The function-calling shape: a chat in which the assistant may call functions, whose results are turns of a `tool`.

Read from the form of glaiveai/glaive-function-calling-v2: `system` and `chat` are text, turns begin with USER:,
ASSISTANT: or FUNCTION RESPONSE:, the assistant's end in <|endoftext|>, and a call is

    <functioncall> {"name": "get_weather", "arguments": '{"city": "Tokyo"}'}

with its arguments in single quotes, which is no JSON. Calls are written anew as JSON, with the arguments as an object.
"""

import json
import re
from collections.abc import Iterable

from unsloth_course.lesson.data import chat
from unsloth_course.lesson.data.chat import Conversation
from unsloth_course.lesson.data.rows import CONTROL_TOKENS, Aside, Row, check_columns, quoted, text_of
from unsloth_course.lesson.data.turns import CALL, Turns, turn

COLUMNS = ("system", "chat")
END = "<|endoftext|>"
_SPEAKERS = {"SYSTEM": "system", "USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
# A speaker's name stands at the start of a line, or behind what ends a turn.
_SPEAKER = re.compile(r"(?:\n|<\|endoftext\|>)[ \t]*(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):")
_DECODER = json.JSONDecoder()
_written = json.JSONEncoder(ensure_ascii=False).encode
_NAME = r'"name"\s*:\s*(?P<name>"(?:[^"\\]|\\.)*")'
# The words before and after arguments in single quotes; the name stands before them or behind.
_BEFORE = re.compile(rf"\{{\s*(?:{_NAME}\s*,\s*)?\"arguments\"\s*:\s*'\s*")
_BEHIND = re.compile(rf"\s*'\s*(?:,\s*{_NAME}\s*)?\}}")
_SPACE = re.compile(r"\s*")


def read(row: Row, tokens: Iterable[str] = CONTROL_TOKENS) -> Conversation:
    """The turns of a row in Glaive's form, checked as `chat.whole` does, with every call written as JSON.

    Raises Aside also for a call that cannot be read, and for a column that is missing or no text.
    """
    check_columns(row, COLUMNS, optional=("system",))
    turns = spoken(text_of(row, "chat"))
    if turns is None:
        raise Aside("column 'chat' does not begin with a turn (USER:)")
    system = text_of(row, "system").strip().removeprefix("SYSTEM:").strip()
    return chat.whole(row, turns, tokens, "chat", system)


def spoken(text: str) -> Turns | None:
    """The turns of a conversation as Glaive writes it, or None where the text does not begin with one.

    White space around what is said, and the <|endoftext|> behind it, belong to the form. Raises Aside for a call that
    cannot be read.
    """
    before, *rest = _SPEAKER.split(f"\n{text}")
    if not rest or _said(before):
        return None
    turns = []
    for number, (speaker, said) in enumerate(zip(rest[::2], rest[1::2], strict=True), 1):
        content = _said(said)
        if CALL in content and speaker == "ASSISTANT":
            content = _rewritten(content, number)
        turns.append(turn(_SPEAKERS[speaker], content))
    return turns


def _said(text: str) -> str:
    said = text.strip()
    while said.endswith(END):
        said = said.removesuffix(END).rstrip()
    return said


def _rewritten(content: str, number: int) -> str:
    """What the assistant says, with each of its calls as JSON."""
    parts, start = [], 0
    while (found := content.find(CALL, start)) >= 0:
        at = _SPACE.match(content, found + len(CALL)).end()
        try:
            call, end = _call(content, at)
        except (ValueError, RecursionError):
            raise Aside(f"column 'chat', turn {number}: a function call cannot be read") from None
        parts += [content[start:found], CALL, " ", _written(call)]
        start = end
    return "".join([*parts, content[start:]])


def _call(text: str, at: int) -> tuple[dict, int]:
    """The call that begins at a position, as an object with name and arguments, and where it ends.

    Raises ValueError where there is none.
    """
    if before := _BEFORE.match(text, at):
        return _quoted_call(text, before)
    call, end = _DECODER.raw_decode(text, at)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ValueError("no name")
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):  # JSON in JSON, as OpenAI's interface writes it
        arguments = json.loads(arguments) if arguments.strip() else {}
    return _made(call["name"], arguments), end


def _quoted_call(text: str, before: re.Match[str]) -> tuple[dict, int]:
    if text.startswith("'", before.end()) and (behind := _BEHIND.match(text, before.end())):  # '' for no arguments
        arguments = {}
    else:
        try:
            arguments, end = _DECODER.raw_decode(text, before.end())
            behind = _BEHIND.match(text, end)
        except ValueError:
            # Inside single quotes an apostrophe may be escaped, which JSON does not know.
            stop = text.find("'}", before.end())
            arguments = json.loads(text[before.end() : stop].replace("\\'", "'"))
            behind = _BEHIND.match(text, stop)
    if behind is None:
        raise ValueError("no end")
    name = before["name"] or behind["name"]
    if name is None:
        raise ValueError("no name")
    return _made(_DECODER.raw_decode(name)[0], arguments), behind.end()


def _made(name: str, arguments: object) -> dict:
    if not isinstance(arguments, dict):
        raise ValueError(f"the arguments are {quoted(type(arguments).__name__)}")
    return {"name": name, "arguments": arguments}
