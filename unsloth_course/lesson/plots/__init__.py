"""The course's pictures: loss, memory, scores before and after, and the curves behind the dials.

Every function returns a figure that is registered nowhere, so a notebook cell that ends with it shows it once, and
nothing needs closing. `figure.caption` says in one sentence what the picture shows.
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.plots.bars import before_after, by_skill, memory
    from unsloth_course.lesson.plots.lines import curve, curves, groups
    from unsloth_course.lesson.plots.logs import loss, traces
    from unsloth_course.lesson.plots.style import BLUE, COLOURS, FAINT, GREEN, GREY, ORANGE, RUN_COLOURS, Picture
    from unsloth_course.lesson.plots.weights import layers, spectrum

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
