"""Recorded runs of the lessons: what a learner's own curve is laid over, and what a learner without a GPU looks at.

`upkeep/record.py` makes a recording from the results files of three or more seeds; it is shipped in
`recorded/runs/` with device, versions and date: as `<lesson>-<profile>.json` of the bundled model, and as
`<lesson>-<profile>-smollm2.json` of the real one. A run is compared only where its weights and the source of its rows
are those of the recorded ones, which `fingerprint` tells by their content and not by their names.
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.recordings.files import RECORDED, find, read, write
    from unsloth_course.lesson.recordings.recorded import SEEDS, Measured, Recording, Run, compare, rounded
    from unsloth_course.lesson.recordings.showing import Shown, show

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
