"""Rows for a real model where the Hub cannot be reached, in the columns of the Hub sets: `DATA = "english"`.

Instructions, pairs and problems are generated in plain English; functions and prose are what Python brings along.
Each function of `rows` gives one side of the split: `held_out=False` to learn from, `held_out=True` to test on. The
sides are disjoint by construction: names and things, questions, numbers, and packages belong to one of them.
"""

SHORT = 24  # characters, on one line


def is_short(answer: str) -> bool:
    """Whether exact match can mark an answer."""
    return len(answer) <= SHORT and "\n" not in answer.strip()
