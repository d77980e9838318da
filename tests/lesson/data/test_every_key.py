"""Whatever a row holds is in what it is converted to, or is named in the report, or the row is set aside."""

import copy
import itertools
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unsloth_course.commands.convert import convert
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import detect, reading
from unsloth_course.lesson.data.rows import Aside, Row

EXAMPLES = int(os.environ.get("EVERY_KEY_EXAMPLES", "40"))  # 2,000 by hand
USER, ANSWER = {"role": "user", "content": "*"}, {"role": "assistant", "content": "*"}
CALLS = [{"id": "*", "type": "function", "function": {"name": "find", "arguments": {"a": "*"}}}]
TOOLS = [{"type": "function", "function": {"name": "find", "description": "*"}}]
CALLED = [{"role": "assistant", "content": "*", "tool_calls": CALLS}, {"role": "tool", "content": "*", "name": "*"}]
PARTS = {"role": "user", "content": [{"type": "text", "text": "*"}, {"type": "text", "text": "*"}]}
TOLD = [{"from": "human", "value": "*"}, {"from": "gpt", "value": "*"}]
BASE = {
    "preference": [
        {"prompt": "*", "chosen": "*", "rejected": "*"},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]},
        {"prompt": [USER], "chosen": ANSWER, "rejected": ANSWER, "system": "*"},
    ],
    "conversation-preference": [{"conversations": TOLD[:1], "chosen": TOLD[1], "rejected": TOLD[1], "tools": TOOLS}],
    "orca": [{"system": "*", "question": "*", "chosen": "*", "rejected": "*"}],
    "instruction-preference": [{"instruction": "*", "input": "*", "chosen": "*", "rejected": "*"}],
    "openai-preference": [
        {"input": {"messages": [USER], "tools": TOOLS}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}
    ],
    "anthropic": [{"chosen": "\n\nHuman: same\n\nAssistant: *", "rejected": "\n\nHuman: same\n\nAssistant: *"}],
    "messages": [
        {"messages": [USER, ANSWER]},
        {"messages": [PARTS, *CALLED, ANSWER], "tools": TOOLS, "system": "*"},
        {"messages": [USER, ANSWER], "history": [["*", "*"]]},
    ],
    "sharegpt": [{"conversations": TOLD}, {"conversations": TOLD, "system_prompt": "*", "tools": json.dumps(TOOLS)}],
    "alpaca": [
        {"instruction": "*", "input": "*", "output": "*"},
        {"instruction": "*", "output": "*", "system": "*", "history": [["*", "*"]]},
    ],
    "prompt-completion": [{"prompt": "*", "completion": "*"}, {"prompt": [USER], "completion": [ANSWER]}],
    "glaive": [{"system": "SYSTEM: *", "chat": "USER: *\n\n\nASSISTANT: * <|endoftext|>"}],
    "problems": [{"question": "*", "answer": "*\n#### 12"}],
    "question-answer": [{"query": "*", "response": "*"}, {"question": "*", "context": "*", "answer": "*"}],
    "text": [{"text": "*"}, {"code": "*", "file": "*"}],
}
WORDS = """
weight name tool_call_id reasoning_content thinking reasoning function_call tool_calls from value role content id type
text system system_prompt history tools functions label images input context output response answer question query
prompt chosen rejected messages conversations score arguments function file completion code
"""
KEYS = st.sampled_from(WORDS.split()) | st.text("xyz", min_size=1, max_size=3)
VALUES = st.sampled_from(
    [
        "*",
        None,
        [],
        {},
        ["*"],
        {"k": "*"},
        {"k": {"l": ["*"]}},
        [USER, ANSWER],
        CALLS,
        CALLS[0],
        [{"type": "text", "text": "*"}],
    ]
)


def inside(value):
    """All objects in a value, but for what is shown as it is."""
    if isinstance(value, dict):
        yield value
        for key, item in value.items():
            if key not in ("tools", "functions", "arguments"):
                yield from inside(item)
    elif isinstance(value, list):
        for item in value:
            yield from inside(item)


def marked(value, numbers):
    """The value with another word in place of each star."""
    if isinstance(value, str):
        return value.replace("*", f"mark{next(numbers)}end") if "*" in value else value
    if isinstance(value, dict):
        return {key: marked(item, numbers) for key, item in value.items()}
    return [marked(item, numbers) for item in value] if isinstance(value, list) else value


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, path)
    elif isinstance(value, str) and "mark" in value:
        yield path, [word.partition("end")[0] + "end" for word in value.split("mark")[1:]]


def is_named(path, unused):
    return any(path[: len(names)] == tuple(names) for names in (one.split(": ") for one in unused))


@pytest.mark.parametrize("name", detect.FORMS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_every_key_is_used_or_named(name, data):
    row = copy.deepcopy(data.draw(st.sampled_from(BASE[name])))
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.sampled_from([*inside(row)]))
        key = data.draw(KEYS)
        if key not in place:
            place[key] = copy.deepcopy(data.draw(VALUES))
    row = Row("mine", 1, marked(row, itertools.count(100)))
    target = data.draw(st.sampled_from([None, "chat", "preference", "instruction"]))
    try:
        form = detect.form([row], "mine", target)
        change = convert.conversion(form, target or form.target)
        values, told, _ = reading.read(row, form)
        made = json.dumps(change(values) if change else None)
    except (Aside, CourseError):
        return
    unused = detect.unused(form, detect.held(told.values))
    for path, words in leaves(row.values) if change else ():
        assert is_named(path, unused) or all(f"mark{word}" in made for word in words), (path, unused, made)
