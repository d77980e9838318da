"""Memory of a training run: predicted before it, planned with, and measured while it runs.

`prediction` counts bytes from the architecture, `planning` turns them into a micro-batch and what goes with it, `meter`
measures, `paging` notices a training that slows down. All lessons plan and
measure; the LoRA lesson explains it.
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.memory.meter import Meter, graph_bytes, process_peak
    from unsloth_course.lesson.memory.planning import Plan, plan
    from unsloth_course.lesson.memory.prediction import (
        BYTES,
        GIB,
        GPUS,
        HEADROOM,
        METHODS,
        PARTS,
        PROJECTIONS,
        Prediction,
        Shape,
        fits,
        lora_parameters,
        parameters,
        predict,
        predict_run,
        size,
    )

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
