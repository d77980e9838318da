"""Small Python functions: the little code that the pocket model's pretraining held.

It was enough to learn them by: the base finds a held-out one hardly surprising. So the continued-pretraining lesson
teaches another domain (`library`).
"""

import random

from unsloth_course.pocket import world

_VERBS = ("add", "scale", "clip", "count", "total", "shift", "double", "merge", "trim", "find", "pick", "rank")
_NOUNS = ("price", "weight", "score", "width", "height", "speed", "depth", "length", "level", "rate", "cost", "size")


def _body(rng: random.Random, noun: str) -> tuple[str, str, str]:
    """Arguments, docstring and body lines of one of six shapes."""
    n, m = rng.randint(2, 9), rng.randint(10, 99)
    return rng.choice(
        (
            (f"{noun}, by={n}", f"Return {noun} times by.", f"    return {noun} * by"),
            (
                f"{noun}s, limit={m}",
                f"Keep each {noun} that is below limit.",
                f"    return [{noun} for {noun} in {noun}s if {noun} < limit]",
            ),
            (
                f"{noun}s",
                f"Add up every {noun}.",
                f"    total = 0\n    for {noun} in {noun}s:\n        total += {noun}\n    return total",
            ),
            (
                f"{noun}, low={n}, high={m}",
                f"Hold {noun} between low and high.",
                f"    if {noun} < low:\n        return low\n"
                f"    if {noun} > high:\n        return high\n    return {noun}",
            ),
            (
                f"{noun}s",
                f"Return the largest {noun}, or None.",
                f"    if not {noun}s:\n        return None\n    return max({noun}s)",
            ),
            (
                f"{noun}s, step={n}",
                f"Count each {noun} by its step.",
                f"    counts = {{}}\n    for {noun} in {noun}s:\n        key = {noun} // step\n"
                f"        counts[key] = counts.get(key, 0) + 1\n    return counts",
            ),
        )
    )


def function(rng: random.Random, held_out: bool) -> str:
    """A function on the asked side of the split. The key is its whole text, so no held-out function is ever read."""
    while True:
        noun = rng.choice(_NOUNS)
        name = f"{rng.choice(_VERBS)}_{noun}"
        arguments, doc, body = _body(rng, noun)
        text = f'def {name}({arguments}):\n    """{doc}"""\n{body}\n'
        if world.is_held_out("function", text) == held_out:
            return text
