"""The round trip: is what was exported the same model? The first difference is named.

A reading is what `own_process.reading` gives: prompts, their token ids, the stop token, the likeliest token at each
place of known answers, and greedy answers. `docs/export.md` states the rule.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from unsloth_course.commands.export import held_out
from unsloth_course.commands.export.llama import SLOTS, Llama
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import evaluation

LONGEST_ANSWER = 64  # tokens: of what is written, and of a known answer that is scored
SAME_ON = 50  # prompts on which every token must be the same


class Limit(NamedTuple):
    """How much of a difference is rounding, in logits.

    A token's lead is its logit minus the next one's. tie: rounding may choose another token where the source's own led
    by less. drift: how far the leads of the same tokens may be from the source's, on average.
    """

    tie: float
    drift: float


# Measured on adapters of the pocket model (docs/export.md).
SAME = {"merged": Limit(0.1, 0.02), "f16": Limit(0.1, 0.02), "q8_0": Limit(0.3, 0.1), "onnx": Limit(0.1, 0.02)}
"""The formats of which every token must be the same; a smaller one is judged by its score."""
LAYERS = 4  # of the model that this was measured on
# Rounding base and adapter to one bfloat16 weight moves the leads of SmolLM2-135M (30 layers) so far that what is read
# proves little, and `own_process.merge` compares the weights.
BY_WEIGHTS = Limit(float("inf"), float("inf"))
# bfloat16 knows only steps of 0.125 between 16 and 32, where logits often are: there drift says nothing.
IN_16_BIT = Limit(0.3, float("inf"))
MOST_POINTS = 3.0  # by which the score of a smaller format may differ
EXACT, NEXT_TOKEN = "exact_match", "next_token_accuracy"
METRICS = {EXACT: "exact answers", NEXT_TOKEN: "next-token accuracy over the known answers"}


def read_gguf(
    llama: Llama, rows: Sequence[Mapping[str, Any]], reference: Mapping[str, Any], metric: str = EXACT
) -> dict[str, Any]:
    """What real llama.cpp makes of the rows: its own chat form, its own token ids, its own stop token.

    It answers the reference's token ids, so that a difference in an answer is one of the model. There is a `next` where
    that is compared: with the metric "next_token_accuracy".
    """
    from concurrent.futures import ThreadPoolExecutor

    prompts = [row["prompt"] if "prompt" in row else llama.prompt(row["messages"]) for row in rows]
    tokens = [
        llama.tokens(text, special="prompt" not in row, control="prompt" not in row)
        for text, row in zip(prompts, rows, strict=True)
    ]
    stop = llama.stop_text()
    ids = reference["prompt_tokens"]
    with ThreadPoolExecutor(SLOTS) as pool:
        written = list(pool.map(lambda one: llama.complete(one, reference["most"]), ids[: len(reference["answers"])]))
        scored = metric == NEXT_TOKEN
        following = list(pool.map(llama.follow, ids, reference["wanted"])) if scored else []
    found = llama.tokens(stop, special=False)
    return {
        "prompts": prompts,
        "prompt_tokens": tokens,
        "stop": {"id": found[0] if len(found) == 1 else None, "text": stop},
        "wanted": reference["wanted"],
        "next": following,
        "answers": [_answer(made, reference["stop"]["id"]) for made in written],
    }


def _answer(made: Any, stop: int) -> dict[str, Any]:
    """An answer of llama.cpp (`llama.Completion`) as a reading has it, the stop token left out.

    llama.cpp also stops at tokens whose names it knows, such as `<|endoftext|>`, whatever the file says. Such an answer
    is `early`: the token stays in it, and it is compared up to there.
    """
    early = made.stopped and made.tokens[-1:] != [stop]
    tokens = made.tokens[:-1] if made.stopped and not early else made.tokens
    return {
        "tokens": tokens,
        "text": made.text,
        "stopped": made.stopped and not early,
        "early": early,
        "leads": made.leads,
    }


def first_difference(
    reference: Mapping[str, Any], found: Mapping[str, Any], answers: bool = True, tie: float = 0.0
) -> str:
    """The first way in which a reading differs from the reference, as a sentence; "" when there is none.

    Looked at in this order: the chat form, the prompt's token ids, the stop token, and (if `answers`) the answers to
    the first 50 prompts, token by token. A beginning of sequence that one writes into the chat form and the other puts
    before it is compared by its token ids alone. tie: a difference is passed over where the reference's token led by
    less, as a difference of logits.
    """
    bos = reference.get("bos", "")
    prompts = ([text.removeprefix(bos) for text in made["prompts"]] for made in (reference, found))
    for number, (ours, theirs) in enumerate(zip(*prompts, strict=True), 1):
        if ours != theirs:
            place = _first(ours, theirs)
            return (
                f"the chat template is another one: prompt {number} differs at character {place + 1}, "
                f"{ours[place : place + 20]!r} became {theirs[place : place + 20]!r}"
            )
    for number, (ours, theirs) in enumerate(zip(reference["prompt_tokens"], found["prompt_tokens"], strict=True), 1):
        if ours != theirs:
            place = _first(ours, theirs)
            became = f"{_at(ours, place)} became {_at(theirs, place)}"
            return f"prompt {number} is split otherwise: token {place + 1}, {became}"
    if reference["stop"] != found["stop"]:
        ours, theirs = (f"{made['stop']['text']!r} ({made['stop']['id']})" for made in (reference, found))
        return f"the stop token is another one: {ours} became {theirs}"
    return next(_differences(reference, found, tie), "") if answers else ""


def _differences(reference: Mapping[str, Any], found: Mapping[str, Any], tie: float = 0.0) -> Iterator[str]:
    """A sentence for each of the first 50 answers that is another one."""
    both = zip(reference["answers"][:SAME_ON], found["answers"][:SAME_ON], strict=True)
    for number, (ours, theirs) in enumerate(both, 1):
        tokens, early = theirs["tokens"], theirs.get("early")
        mine = ours["tokens"][: len(tokens)] if early else ours["tokens"]
        place = _first(mine, tokens)
        if mine != tokens and not any(lead < tie for lead in ours["leads"][place : place + 1]):
            became = f"{_at(mine, place)} became {_at(tokens, place)} ({ours['text']!r} became {theirs['text']!r})"
            yield f"the answer to prompt {number} differs at token {place + 1}: {became}"
        elif mine == tokens and ours["stopped"] != theirs["stopped"] and not early:
            yield f"the answer to prompt {number} {'no longer' if ours['stopped'] else 'now'} stops by itself"


def _first(ours: Sequence[Any], theirs: Sequence[Any]) -> int:
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((place for place, (mine, other) in pairs if mine != other), min(len(ours), len(theirs)))


def _at(tokens: Sequence[int], place: int) -> str:
    return str(tokens[place]) if place < len(tokens) else "the end"


def same_answers(reference: Mapping[str, Any], found: Mapping[str, Any]) -> int:
    """On how many of the first 50 prompts every token is the same."""
    return len(found["answers"][:SAME_ON]) - sum(1 for _ in _differences(reference, found))


def drift(reference: Mapping[str, Any], found: Mapping[str, Any]) -> float | None:
    """By how much the leads of the same answer tokens differ, on average (logits); None without any token.

    Of the answers to the first 50 prompts, each up to where the two begin to differ. Where a model is sure of its
    answers, this shows a change of weights long before any token changes.
    """
    gaps = [abs(mine - other) for _, _, mine, other in _leads(reference, found)]
    return sum(gaps) / len(gaps) if gaps else None


def _leads(reference: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[tuple[int, int, float, float]]:
    """Prompt and token (counted from 1) with both leads, of each answer token that the two have in common."""
    both = zip(reference["answers"][:SAME_ON], found["answers"][:SAME_ON], strict=True)
    for number, (ours, theirs) in enumerate(both, 1):
        same = _first(ours["tokens"], theirs["tokens"])
        for place, leads in enumerate(zip(ours["leads"][:same], theirs["leads"][:same], strict=False), 1):
            yield number, place, *leads


def metric_for(rows: Sequence[Mapping[str, Any]], reference: Mapping[str, Any]) -> str:
    """What the held-out rows are scored by: "exact_match" where every answer is short and on one line, else
    "next_token_accuracy".

    So it is where the model is right in hardly any answer: a broken file would be within 3 points of it by exact match.
    """
    exact = held_out.short(rows) and 100 * score(reference, rows, EXACT) > MOST_POINTS
    return EXACT if exact else NEXT_TOKEN


def score(reading: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], metric: str) -> float:
    """A reading's score on the rows that it was made of, from 0 to 1.

    "exact_match": the share of exact answers; one that does not stop by itself is not exact. "next_token_accuracy": of
    all tokens of the known answers (the first 64 of each, the stop token too) the share that was likeliest there.
    """
    if metric == NEXT_TOKEN:
        pairs = [
            pair for ours in zip(reading["next"], reading["wanted"], strict=True) for pair in zip(*ours, strict=True)
        ]
        return sum(mine == known for mine, known in pairs) / len(pairs)
    answers = zip(reading["answers"], rows, strict=True)
    right = [made["stopped"] and evaluation.is_exact(made["text"], row["answer"]) for made, row in answers]
    return sum(right) / len(right)


def limit_for(kind: str, reference: Mapping[str, Any]) -> Limit | None:
    """What rounding explains in a format of this kind; None for one that is judged by its score.

    Each layer rounds by itself, so that drift grows with the square root of their number.
    """
    if kind == "merged" and reference.get("layers", LAYERS) > LAYERS:
        return BY_WEIGHTS
    if kind not in SAME or reference.get("dtype") != "float32":
        return IN_16_BIT if kind in SAME else None
    tie, drift = SAME[kind]
    return Limit(tie, drift * math.sqrt(max(1.0, reference.get("layers", LAYERS) / LAYERS)))


def require_same(
    name: str,
    kind: str,
    reference: Mapping[str, Any],
    found: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    metric: str,
) -> None:
    """Raises CourseError that names the first difference when an exported model is not the one that it was made from.

    name: what the message calls it. kind: "merged", "onnx" or the quant. docs/export.md says what has to be the same.
    """
    limit = limit_for(kind, reference)
    if difference := first_difference(reference, found, answers=bool(limit), tie=limit.tie if limit else 0.0):
        raise CourseError(f"The round trip of {name} failed: {difference}.")
    if limit and (drifted := drift(reference, found) or 0.0) > limit.drift:
        number, place, mine, other = max(_leads(reference, found), key=lambda found: abs(found[2] - found[3]))
        raise CourseError(
            f"The round trip of {name} failed: the tokens are the same, but their leads over the next ones differ by "
            f"{drifted:.3f} logits on average, and rounding explains {limit.drift:.2g}. Token {place} of the answer to "
            f"prompt {number} differs most: {mine:.3f} became {other:.3f}."
        )
    if not limit:
        before, after = (100 * score(reading, rows, metric) for reading in (reference, found))
        if abs(after - before) > MOST_POINTS:
            raise CourseError(
                f"The round trip of {name} failed: it scores {after:.1f} % on {len(rows)} held-out prompts "
                f"({METRICS[metric]}), and the model that it was made from {before:.1f} %; {MOST_POINTS:.0f} points "
                "are allowed. The first difference in what they write: "
                f"{first_difference(reference, found) or 'after the first 50 prompts'}."
            )
