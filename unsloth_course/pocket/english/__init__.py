"""Rows for a real model where the Hub cannot be reached, in the columns of the Hub sets: `DATA = "english"`.

Instructions, pairs and problems are generated in plain English; functions and prose are what Python brings along. Each
function gives rows of one side of the split: `held_out=False` to learn from, `held_out=True` to test on. The sides are
disjoint by construction: names and things, questions, numbers, and packages belong to one of them.
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.pocket.english.rows import functions, instructions, preferences, problems

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
