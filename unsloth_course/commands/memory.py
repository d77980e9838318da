"""What the command `memory` prints: a plan for a run that nobody has started yet, without loading a model."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import profile
from unsloth_course.lesson.memory.planning import Plan, plan
from unsloth_course.lesson.memory.prediction import GPUS, fits
from unsloth_course.lesson.memory.shape import METHODS, Shape, known
from unsloth_course.lesson.profile import POCKET, SMOLLM2

_GRAPHS = ("H100", "H200")
_NO_BFLOAT16 = ("T4", "V100")


@dataclass(frozen=True)
class Report:
    """A plan on one machine, and which named GPUs its predicted peak fits."""

    model: str
    where: str
    plan: Plan
    gpus: dict[str, bool]

    def to_json(self) -> str:
        made = self.plan
        found = {
            "model": self.model,
            "where": self.where,
            "method": made.method,
            "predicted_bytes": made.prediction.total,
            "parts": made.prediction.parts,
            "fits": made.fits,
            "micro_batch": made.micro_batch,
            "accumulation": made.accumulation,
            "checkpointing": made.checkpointing,
            "rows": made.rows,
            "gpus": self.gpus,
            "reasons": [f"{reason.what} {reason.value}: {reason.why}" for reason in made.reasons],
        }
        return json.dumps(found, indent=2)

    def __str__(self) -> str:
        large = [name for name, room in self.gpus.items() if room]
        small = [name for name, room in self.gpus.items() if not room]
        lines = [f"{self.plan.method} of {self.model} on {self.where}", "", str(self.plan), ""]
        lines.append(f"fits       {', '.join(large) or 'none of the GPUs that are listed'}")
        if small:
            lines.append(f"too small  {', '.join(small)}")
        return "\n".join(lines)


def report(
    method: str,
    model: str | None = None,
    gpu: str | None = None,
    *,
    length: int = 512,
    rows: int | None = None,
    micro_batch: int | None = None,
    rank: int = 16,
) -> Report:
    """Plans a run of `method` with rows of `length` tokens, and predicts its memory.

    model: "pocket", "smollm2", a folder, or a name on the Hub, of which only config.json is fetched, and nothing where
    its shape is known; without it the model that `finetune` takes on that machine. gpu: a name of GPUS; without it the
    machine at hand. rows: of one update. micro_batch: rows at a time, in place of the plan's own choice.

    Raises CourseError for unknown methods, GPUs and models, and for sizes that do not go together.
    """
    from unsloth_course.core import hub
    from unsloth_course.lesson import models

    if method not in METHODS:
        raise CourseError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    lesson = "lora" if method == "qlora" else method
    machine = profile.decide(_facts(gpu), model=model, data=POCKET, lesson=lesson, on_cpu=SMOLLM2)
    machine = replace(machine, max_length=max(length, machine.max_length))
    name = models.folder(POCKET) if machine.model == POCKET else machine.model
    here = name != SMOLLM2 and Path(name).exists()
    config = (None if here else known(name)) or hub.read_config(name)
    shape = Shape.checked(config)
    made = plan(shape, machine, method, longest=length, rows=rows, rank=rank, micro_batch=micro_batch)
    return Report(machine.model, machine.device, made, {name: fits(made.prediction, name)[0] for name in GPUS})


def _facts(gpu: str | None) -> Any:
    if gpu is None:
        return profile.facts()
    names = {name.lower(): name for name in GPUS}
    if gpu.lower() not in names:
        raise CourseError(f"No GPU named {gpu!r} is known; choose one of {', '.join(GPUS)}.")
    name = names[gpu.lower()]
    return profile.Machine(
        cuda_name=name,
        cuda_bytes=GPUS[name],
        bfloat16=name not in _NO_BFLOAT16,
        cores=1,
        memory_bytes=0,
        apple_silicon=False,
        capability=(9, 0) if name in _GRAPHS else (0, 0),
    )
