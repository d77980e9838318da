"""Memory of a training run: predicted before it, planned with, and measured while it runs.

`prediction` counts bytes from the architecture, `planning` turns them into a micro-batch and what goes with it, `meter`
measures, `paging` notices a training that slows down, and `report` is the command `memory`. All lessons plan and
measure; the LoRA lesson explains it.
"""

from unsloth_course.memory.meter import Meter, graph_bytes, process_peak
from unsloth_course.memory.planning import Plan, plan
from unsloth_course.memory.prediction import (
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
from unsloth_course.memory.report import Report, report

__all__ = [
    "BYTES",
    "GIB",
    "GPUS",
    "HEADROOM",
    "METHODS",
    "PARTS",
    "PROJECTIONS",
    "Meter",
    "Plan",
    "Prediction",
    "Report",
    "Shape",
    "fits",
    "graph_bytes",
    "lora_parameters",
    "parameters",
    "plan",
    "predict",
    "predict_run",
    "process_peak",
    "report",
    "size",
]
