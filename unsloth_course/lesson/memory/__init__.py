"""Memory of a training run: predicted before it, planned with, and measured while it runs.

`shape` says what it depends on, `formulas` counts bytes from that, `prediction` adds them up, `planning` turns them
into a micro-batch and what goes with it, `guard` starts over with a smaller one and notices a training that slows
down, `meter` measures. All lessons plan and measure; the LoRA lesson explains it.
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.memory.formulas import BYTES
    from unsloth_course.lesson.memory.meter import Meter, graph_bytes
    from unsloth_course.lesson.memory.planning import Plan, plan
    from unsloth_course.lesson.memory.prediction import GPUS, HEADROOM, PARTS, Prediction, fits, predict
    from unsloth_course.lesson.memory.shape import GIB, METHODS, PROJECTIONS, Shape, lora_parameters, parameters, size

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
