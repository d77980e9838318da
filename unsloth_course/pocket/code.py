"""Small Python functions: the little code that the pocket model's pretraining held.

It was enough to learn them by: the base finds a held-out one hardly surprising. So the continued-pretraining lesson
teaches another domain (`library`).
"""

import random

from unsloth_course.pocket import world

_VERBS = ("add", "scale", "clip", "count", "total", "shift", "double", "merge", "trim", "find", "pick", "rank")
_NOUNS = ("price", "weight", "score", "width", "height", "speed", "depth", "length", "level", "rate", "cost", "size")
_TEMPLATES = '''
def {verb}_{noun}({noun}, by={n}):
    """Return {noun} times by."""
    return {noun} * by

def {verb}_{noun}({noun}s, limit={m}):
    """Keep each {noun} that is below limit."""
    return [{noun} for {noun} in {noun}s if {noun} < limit]

def {verb}_{noun}({noun}s):
    """Add up every {noun}."""
    total = 0
    for {noun} in {noun}s:
        total += {noun}
    return total

def {verb}_{noun}({noun}, low={n}, high={m}):
    """Hold {noun} between low and high."""
    if {noun} < low:
        return low
    if {noun} > high:
        return high
    return {noun}

def {verb}_{noun}({noun}s):
    """Return the largest {noun}, or None."""
    if not {noun}s:
        return None
    return max({noun}s)

def {verb}_{noun}({noun}s, step={n}):
    """Count each {noun} by its step."""
    counts = {{}}
    for {noun} in {noun}s:
        key = {noun} // step
        counts[key] = counts.get(key, 0) + 1
    return counts
'''.strip().split("\n\n")


def function(rng: random.Random, held_out: bool) -> str:
    """A function on the asked side of the split. The key is its whole text, so no held-out function is ever read."""
    while True:
        words = {"noun": rng.choice(_NOUNS), "verb": rng.choice(_VERBS)}
        words |= {"n": rng.randint(2, 9), "m": rng.randint(10, 99)}
        text = rng.choice(_TEMPLATES).format(**words) + "\n"
        if world.is_held_out("function", text) == held_out:
            return text
