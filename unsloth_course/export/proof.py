"""The round trip: is what was exported the same model? The first difference is named.

A reading is what `own_process.answers` gives: prompts, their token ids, the stop token, and greedy answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unsloth_course import evaluation
from unsloth_course.errors import CourseError
from unsloth_course.export.llama import Llama

SAME_ON = 50  # prompts on which every token must be the same
SAME = ("merged", "f16", "q8_0")  # of these formats; a smaller one is judged by its score
# Where two tokens are likely to within 10 % of each other (exp 0.1), rounding to 16 or 8 bits may choose the other one.
# The text after it then differs for no fault of the export: that prompt is compared up to there, shown and not counted.
TIE = 0.1
MOST_POINTS = 3.0  # by which the score of a smaller format may differ


def read_gguf(llama: Llama, questions: Sequence[str], reference: Mapping[str, Any], most: int) -> dict[str, Any]:
    """What real llama.cpp makes of the questions: its own chat form, its own token ids, its own stop token.

    It answers the reference's token ids, so that a difference in an answer is one of the model. most: tokens.
    """
    from concurrent.futures import ThreadPoolExecutor

    from unsloth_course.export.llama import SLOTS

    prompts = [llama.prompt([{"role": "user", "content": question}]) for question in questions]
    tokens = [llama.tokens(prompt) for prompt in prompts]
    stop = llama.stop_text()
    with ThreadPoolExecutor(SLOTS) as pool:
        written = list(pool.map(lambda ids: llama.complete(ids, most), reference["prompt_tokens"]))
    found = llama.tokens(stop, special=False)
    return {
        "prompts": prompts,
        "prompt_tokens": tokens,
        "stop": {"id": found[0] if len(found) == 1 else None, "text": stop},
        "answers": [_answer(ids, text, stopped, reference["stop"]["id"]) for ids, text, stopped in written],
    }


def _answer(tokens: list[int], text: str, stopped: bool, stop: int) -> dict[str, Any]:
    """An answer of llama.cpp as a reading has it, the stop token left out.

    llama.cpp also stops at tokens whose names it knows, such as `<|endoftext|>`, whatever the file says. Such an answer
    is `early`: the token stays in it, and it is compared up to there.
    """
    early = stopped and tokens[-1:] != [stop]
    tokens = tokens[:-1] if stopped and not early else tokens
    return {"tokens": tokens, "text": text, "stopped": stopped and not early, "early": early}


def first_difference(
    reference: Mapping[str, Any], found: Mapping[str, Any], answers: bool = True, tie: float = 0.0
) -> str:
    """The first way in which a reading differs from the reference, as a sentence; "" when there is none.

    Looked at in this order: the chat form, the prompt's token ids, the stop token, and (if `answers`) the answers to
    the first 50 prompts, token by token. tie: a difference is passed over where the reference's token led by less, as
    a difference of logits.
    """
    for number, (ours, theirs) in enumerate(zip(reference["prompts"], found["prompts"], strict=True), 1):
        if ours != theirs:
            place = _first(ours, theirs)
            return (
                f"the chat template is another one: prompt {number} differs at character {place + 1}, "
                f"{ours[place : place + 20]!r} became {theirs[place : place + 20]!r}"
            )
    both = zip(reference["prompt_tokens"], found["prompt_tokens"], strict=True)
    for number, (ours, theirs) in enumerate(both, 1):
        if ours != theirs:
            place = _first(ours, theirs)
            return (
                f"prompt {number} is split otherwise: token {place + 1}, {_at(ours, place)} became {_at(theirs, place)}"
            )
    if reference["stop"] != found["stop"]:
        ours, theirs = (f"{made['stop']['text']!r} ({made['stop']['id']})" for made in (reference, found))
        return f"the stop token is another one: {ours} became {theirs}"
    if not answers:
        return ""
    both = zip(reference["answers"][:SAME_ON], found["answers"][:SAME_ON], strict=True)
    for number, (ours, theirs) in enumerate(both, 1):
        mine = _comparable(ours, theirs)
        if mine != theirs["tokens"]:
            place = _first(mine, theirs["tokens"])
            if _lead(ours, place) < tie:
                continue
            return (
                f"the answer to prompt {number} differs at token {place + 1}: {_at(mine, place)} became "
                f"{_at(theirs['tokens'], place)} ({ours['text']!r} became {theirs['text']!r})"
            )
        if ours["stopped"] != theirs["stopped"] and not theirs.get("early"):
            return f"the answer to prompt {number} {'no longer' if ours['stopped'] else 'now'} stops by itself"
    return ""


def _lead(answer: Mapping[str, Any], place: int) -> float:
    leads = answer.get("leads", ())
    return leads[place] if place < len(leads) else float("inf")


def _comparable(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[int]:
    return ours["tokens"][: len(theirs["tokens"])] if theirs.get("early") else ours["tokens"]


def _first(ours: Sequence[Any], theirs: Sequence[Any]) -> int:
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((place for place, (mine, other) in pairs if mine != other), min(len(ours), len(theirs)))


def _at(tokens: Sequence[int], place: int) -> str:
    return str(tokens[place]) if place < len(tokens) else "the end"


def same_answers(reference: Mapping[str, Any], found: Mapping[str, Any]) -> int:
    """On how many of the first 50 prompts every token is the same."""
    both = zip(reference["answers"][:SAME_ON], found["answers"][:SAME_ON], strict=True)
    return sum(
        _comparable(ours, theirs) == theirs["tokens"] and (theirs.get("early") or ours["stopped"] == theirs["stopped"])
        for ours, theirs in both
    )


def score(reading: Mapping[str, Any], expected: Sequence[str]) -> float:
    """The share of exact answers, from 0 to 1; an answer that does not stop by itself is not exact."""
    pairs = zip(reading["answers"], expected, strict=True)
    right = [made["stopped"] and evaluation.is_exact(made["text"], wanted) for made, wanted in pairs]
    return sum(right) / len(right)


def require_same(name: str, kind: str, reference: Mapping[str, Any], found: Mapping[str, Any], expected: Any) -> None:
    """Raises CourseError that names the first difference when an exported model is not the one that it was made from.

    name: what the message calls it. kind: "merged" or the quant. Where the first token that differs was a tie, that
    answer is rounding and no failure (the table shows it). A q5_k_m or q4_k_m file may answer otherwise, but its
    score must be within 3 points.
    """
    found_difference = first_difference(reference, found, answers=kind in SAME, tie=TIE)
    if found_difference:
        raise CourseError(f"The round trip of {name} failed: {found_difference}.")
    if kind not in SAME:
        before, after = 100 * score(reference, expected), 100 * score(found, expected)
        if abs(after - before) > MOST_POINTS:
            raise CourseError(
                f"The round trip of {name} failed: it scores {after:.1f} % on {len(expected)} held-out questions, and "
                f"the model that it was made from {before:.1f} %; {MOST_POINTS:.0f} points are allowed. The first "
                f"difference in what they write: {first_difference(reference, found) or 'after the first 50 prompts'}."
            )
