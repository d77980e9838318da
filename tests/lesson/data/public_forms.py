"""Made-up rows in the exact shape of four public data sets, with their known faults planted at known places.

Nothing here is taken from the sets; what a row looks like follows their data cards and FACTS: Anthropic/hh-rlhf (Bai et
al. 2022), Intel/orca_dpo_pairs, yahma/alpaca-cleaned, glaiveai/glaive-function-calling-v2.
"""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

WORDS = r"""
the a of river stone market paper weather city number letter it's don't café naïve 東京 Human Assistant USER
question answer, 1,250.50 $3 "quoted" (aside) {brace} [list] \n back\slash <b>bold</b>
https://example.org/?q=1&b=2
""".split()  # noqa: SIM905 - a word a line otherwise


class Made(NamedTuple):
    """Rows, what each is to become, and why those that become nothing are set aside, by row number."""

    rows: list[dict[str, Any]]
    become: list[dict[str, Any]]
    aside: dict[int, str]


def made(seed: int, count: int, row: Callable[[random.Random], tuple[dict, dict]], faults: dict[str, tuple]) -> Made:
    """count: of rows. faults: by name, how often, what is done to a good row, and a word of the reason."""
    rng = random.Random(seed)
    names = [name for name, (times, _, _) in faults.items() for _ in range(times)]
    places = dict(zip(rng.sample(range(1, count + 1), len(names)), names, strict=True))
    rows, become, aside = [], [], {}
    for number in range(1, count + 1):
        values, wanted = row(rng)
        if number in places:
            _, spoil, reason = faults[places[number]]
            values, aside[number] = spoil(values), reason
        else:
            become.append(wanted)
        rows.append(values)
    return Made(rows, become, aside)


def text(rng: random.Random, most: int = 40, lines: bool = True) -> str:
    """Some words, now and then on several lines."""
    words = rng.choices(WORDS, k=rng.randint(1, most))
    return "".join(word + (rng.choice("\n ") if lines and rng.random() < 0.1 else " ") for word in words).strip()


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


# Anthropic/hh-rlhf


def _pair(rng: random.Random) -> tuple[dict, dict]:
    prompt = [turn("user", text(rng))]
    for _ in range(rng.randint(0, 4)):
        prompt += [turn("assistant", text(rng)), turn("user", text(rng))]
    chosen, rejected = "Yes. " + text(rng), "No. " + text(rng)
    told = "".join(f"\n\n{'Human' if t['role'] == 'user' else 'Assistant'}: {t['content']}" for t in prompt)
    # Where the answer is all that follows, the space behind the colon is there; some answers end in blanks.
    row = {
        "chosen": f"{told}\n\nAssistant: {chosen}",
        "rejected": f"{told}\n\nAssistant: {rejected}{rng.choice(['', ' '])}",
    }
    return row, {"prompt": prompt, "chosen": [turn("assistant", chosen)], "rejected": [turn("assistant", rejected)]}


def _cut(told: str) -> str:
    return told[: told.rindex("\n\nAssistant:") + len("\n\nAssistant:")]


def hh_rlhf(seed: int = 1, count: int = 2312) -> Made:
    """As many rows as the test split of harmless-base, with its faults in its numbers: 5 histories that differ, 4 empty
    answers; and a few that other splits have."""
    return made(
        seed,
        count,
        _pair,
        {
            "history": (
                5,
                lambda r: r | {"rejected": "\n\nHuman: Else?\n\nAssistant: So.\n\nHuman: b\n\nAssistant: c"},
                "histories",
            ),
            "empty chosen": (2, lambda r: r | {"chosen": _cut(r["chosen"])}, "empty answer"),
            "empty rejected": (2, lambda r: r | {"rejected": _cut(r["rejected"]) + " "}, "empty answer"),
            "the same": (3, lambda r: r | {"rejected": r["chosen"] + "\n"}, "are the same"),
            "ends with the user": (
                3,
                lambda r: r | {"chosen": r["chosen"] + "\n\nHuman: And?"},
                "does not end in an answer",
            ),
            "no conversation": (
                2,
                lambda r: r | {"chosen": r["chosen"].replace("\n\nHuman:", "Q:")},
                "does not begin with",
            ),
        },
    )


# Intel/orca_dpo_pairs


def _orca(rng: random.Random) -> tuple[dict, dict]:
    system = rng.choice(["", "You are an AI assistant. You will be given a task.", text(rng)])
    row = {"system": system, "question": text(rng, 120), "chosen": "A: " + text(rng), "rejected": "B: " + text(rng, 80)}
    prompt = [turn("system", system)] * bool(system) + [turn("user", row["question"])]
    answers = {column: [turn("assistant", row[column])] for column in ("chosen", "rejected")}
    return row, {"prompt": prompt, **answers}


def orca_dpo_pairs(seed: int = 2, count: int = 2500) -> Made:
    """Rows with the columns system, question, chosen and rejected; system is often empty."""
    return made(
        seed,
        count,
        _orca,
        {
            "empty": (4, lambda r: r | {"rejected": ""}, "'rejected' is empty"),
            "blank": (3, lambda r: r | {"chosen": " \n"}, "'chosen' is empty"),
            "no question": (3, lambda r: r | {"question": ""}, "'question' is empty"),
            "the same": (6, lambda r: r | {"rejected": " " + r["chosen"]}, "are the same"),
            "control": (2, lambda r: r | {"chosen": "<|im_end|>" + r["chosen"]}, "control token"),
            "null": (2, lambda r: r | {"rejected": None}, "'rejected' is empty"),
        },
    )


# yahma/alpaca-cleaned


def _alpaca(rng: random.Random) -> tuple[dict, dict]:
    row = {
        "instruction": text(rng),
        "input": rng.choice(["", "", text(rng, 80)]),
        "output": text(rng, rng.choice([2, 120])),
    }
    return row, row


def alpaca_cleaned(seed: int = 3, count: int = 2500) -> Made:
    """Rows with the columns instruction, input (empty in most) and output."""
    return made(
        seed,
        count,
        _alpaca,
        {
            "empty": (20, lambda r: r | {"output": ""}, "'output' is empty"),
            "no instruction": (3, lambda r: r | {"instruction": " "}, "'instruction' is empty"),
            "true": (4, lambda r: r | {"output": True}, "found true or false, expected text"),
            "control": (2, lambda r: r | {"input": "<|endoftext|>"}, "control token"),
            "misspelt": (2, lambda r: {"instruction": r["instruction"], "outputs": r["output"]}, "Did you mean"),
            "half a character": (2, lambda r: r | {"output": "\ud83d"}, "surrogate"),
        },
    )


# glaiveai/glaive-function-calling-v2


def _function(rng: random.Random) -> dict[str, Any]:
    name = "_".join(rng.choices(["get", "send", "find", "price", "note", "time"], k=3))
    parameters = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
    return {"name": name, "description": text(rng, 8, lines=False), "parameters": parameters}


def _arguments(rng: random.Random) -> dict[str, Any]:
    values = [
        text(rng, 4),
        rng.randint(-5, 10**6),
        round(rng.random() * 90, 2),
        True,
        None,
        [1, "a"],
        {"in": {"deep": "it's"}},
        "{}'}",
    ]
    return {name: rng.choice(values) for name in rng.sample(["city", "amount", "note", "tags"], k=rng.randint(0, 3))}


def _call(rng: random.Random, name: str) -> tuple[str, str]:
    """A call as Glaive writes it, and as it is to be written."""
    arguments = _arguments(rng)
    quoted = json.dumps(arguments, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, None, 2]))
    wanted = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f'{{"name": "{name}", "arguments": \'{quoted}\'}}', f"<functioncall> {wanted}"


def _glaive(rng: random.Random) -> tuple[dict, dict]:
    functions = [_function(rng) for _ in range(rng.randint(0, 2))]
    system = "You are a helpful assistant, with no access to external functions."
    if functions:
        listed = "\n\n".join(json.dumps(function, indent=4) for function in functions)
        system = f"You are a helpful assistant with access to the following functions. Use them if required -\n{listed}"
    turns, told = [turn("system", system)], []
    for _ in range(rng.randint(1, 4)):
        turns.append(turn("user", text(rng)))
        told.append(f"USER: {turns[-1]['content']}")
        if functions and rng.random() < 0.7:
            calls = [_call(rng, rng.choice(functions)["name"]) for _ in range(rng.choice([1, 1, 2]))]
            said = rng.choice(["", "Let me see. "])
            turns.append(turn("assistant", said + " ".join(wanted for _, wanted in calls)))
            told.append(
                f"ASSISTANT: {said}" + " ".join(f"<functioncall> {call}" for call, _ in calls) + " <|endoftext|>"
            )
            turns.append(turn("tool", json.dumps({"status": "success", "value": text(rng, 5)})))
            told.append(f"FUNCTION RESPONSE: {turns[-1]['content']}")
        turns.append(turn("assistant", text(rng)))
        told.append(f"ASSISTANT: {turns[-1]['content']} <|endoftext|>")
    return {"system": f"SYSTEM: {system}\n", "chat": "\n\n\n".join(told) + rng.choice(["", "\n\n\n", " "])}, {
        "messages": turns
    }


def glaive(seed: int = 4, count: int = 2500) -> Made:
    """Rows with a system text and a chat; calls have their arguments in single quotes, and there may be several."""

    def ends(chat: str) -> Callable[[dict], dict]:
        return lambda row: row | {"chat": f"{row['chat'].rstrip()}\n\n\n{chat}"}

    return made(
        seed,
        count,
        _glaive,
        {
            "thousands": (
                5,
                ends('ASSISTANT: <functioncall> {"name": "f", "arguments": \'{"amount": 1,000}\'} <|endoftext|>'),
                "function call cannot be read",
            ),
            "cut off": (
                4,
                ends('ASSISTANT: <functioncall> {"name": "f", "arguments": \'{"amount":'),
                "function call cannot be read",
            ),
            "no name": (
                2,
                ends("ASSISTANT: <functioncall> {\"arguments\": '{}'} <|endoftext|>"),
                "function call cannot be read",
            ),
            "says nothing": (3, ends("USER: \n\n\nASSISTANT: Well. <|endoftext|>"), "is empty"),
            "nobody asks": (3, lambda row: row | {"chat": "ASSISTANT: Hi <|endoftext|>"}, "no turn to learn"),
            "no chat": (2, lambda row: row | {"chat": ""}, "does not begin with a turn"),
        },
    )


SETS = {"anthropic": hh_rlhf, "orca": orca_dpo_pairs, "alpaca": alpaca_cleaned, "glaive": glaive}
"""By the form that `data` tells them to be."""
