"""Exercises that check themselves: three for each lesson, offline, with no account.

A lesson shows a function whose body is `...`; its last line is `exercises.check("lora.2", merge)`. The check asks the
function about inputs that the learner has not seen and tests properties of what comes back, never one stored answer. A
wrong answer gets a first hint, the next a second one, and from the third on a solution stands beside the verdict.

One module per lesson holds its exercises; `asking` says what an exercise is.
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.exercises.checking import ALL, LESSONS, check, find, progress

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
