"""Reward functions for GRPO, each a plain function with TRL's signature, and what a group of rewards turns into.

TRL hands a reward function the `prompts`, the `completions` and every other column of the data set, each as a list, and
wants one number per completion back. A completion is text, or a list of chat turns when the prompts are. What a model
writes is any text at all: nothing here evaluates it, and nothing raises on it. Taught in lesson colab4 (GRPO).
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.rewards.comparing import Payoff, Payoffs, payoffs
    from unsloth_course.lesson.rewards.groups import SPREAD, Group, advantages, group, lesson_of, spread_in_groups
    from unsloth_course.lesson.rewards.paying import brevity, close, exact, form, steps, text_of

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
