"""Dials: one thing to turn per lesson, with a static picture of the same where nobody can turn it.

Each has `show()`: the widget where a person can turn it, the picture elsewhere.
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.dials.group import GroupDial, advantages
    from unsloth_course.lesson.dials.preference_loss import Pair, PreferenceDial, preference
    from unsloth_course.lesson.dials.scale import FACTORS, AdapterDial, Setting, adapter
    from unsloth_course.lesson.dials.sweeps import Sweep, SweepDial, Trial, learning_rate, replay

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
