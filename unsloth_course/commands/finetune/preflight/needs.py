"""What a run takes of the disks and of memory, in bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsloth_course.core.errors import CourseError
from unsloth_course.core.hub import file_size
from unsloth_course.core.places import existing
from unsloth_course.core.whole import KEPT
from unsloth_course.lesson import memory, models
from unsloth_course.lesson.profile import POCKET, SMOLLM2, Profile

if TYPE_CHECKING:
    from unsloth_course.lesson.memory import Plan
from unsloth_course.commands.finetune.preflight.sources import HERE, Source

# Bytes for each parameter of a GGUF file. Measured on the bundled model: 2.01, 1.07, 0.73, 0.63. Where a width is no
# multiple of 256, as in SmolLM2, llama.cpp takes more bits, so these are more.
GGUF_BYTES = {"f16": 2.05, "q8_0": 1.1, "q5_k_m": 0.9, "q4_k_m": 0.82}

# A data set from the Hub is kept twice, as it came and as an Arrow table; parquet is compressed and the table is not.
TABLE = {".parquet": 4.0}

FETCHED = ("model download", "data download", "data as a table")


@dataclass(frozen=True)
class Disk:
    """What the run writes to one disk. place: a folder on it; parts: bytes by what they are for; free: bytes."""

    place: Path
    parts: dict[str, int]
    free: int

    @property
    def needed(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        return ", ".join(f"{file_size(part)} {name}" for name, part in self.parts.items() if part) or "nothing to write"


def plan_of(config: dict[str, Any], machine: Profile, method: str, sizes: dict[str, Any]) -> tuple[Plan | None, str]:
    """The memory plan, or None and why there is none. sizes: further arguments of `memory.plan`."""
    if not config:
        return None, ""
    kind = "qlora" if method == "lora" and "quantization_config" in config else method
    try:
        return memory.plan(memory.Shape.checked(config), machine, kind, longest=machine.max_length, **sizes), ""
    except CourseError as error:
        return None, str(error)


def written(config: dict[str, Any], plan: Plan | None, method: str, merge: bool, gguf: Sequence[str]) -> dict[str, int]:
    """Bytes that the run writes into --out, by what they are for; nothing where the model's shape is not known."""
    if plan is None:
        return {}
    parts = plan.prediction.parts
    trained = parts["gradients"]  # a gradient has the type and size of its parameter
    full = memory.parameters(memory.Shape.checked(config))
    found = {
        "model" if method == "full" else "adapter": trained,
        "checkpoints": (KEPT + 1) * (trained + parts["optimizer"]),  # the newest is written before the oldest goes
    }
    if merge:
        found["merged"] = 2 * full
    if gguf:
        # On the way: the merged weights, the converter's copy of them, and the 16-bit GGUF file.
        found["gguf"] = int(full * (3 * 2 + sum(GGUF_BYTES[quant] for quant in gguf)))
    return found


def disks_of(base: Source, data: Source, out: Path, written: dict[str, int]) -> tuple[Disk, ...]:
    """What is written, disk by disk: the Hub's cache and --out, which may lie on one."""
    from huggingface_hub import constants

    table = sum(data.sizes[file] * TABLE.get(os.path.splitext(file)[1], 1.0) for file in data.missing)
    fetched = dict(zip(FETCHED, (base.to_download, data.to_download, int(table)), strict=True))
    cache, target = existing(Path(constants.HF_HUB_CACHE)), existing(out)
    if not sum(fetched.values()):
        parts = {target: written}
    elif _on_one_disk(cache, target):
        parts = {cache: fetched | written}
    else:
        parts = {cache: fetched, target: written}
    return tuple(Disk(place, what, shutil.disk_usage(place).free) for place, what in parts.items())


def _on_one_disk(one: Path, other: Path) -> bool:
    return os.stat(one).st_dev == os.stat(other).st_dev


def loading_of(base: Source, plan: Plan | None, machine: Profile) -> int:
    """Bytes of the computer's memory that are taken up while full weights are read and put into 4 bits.

    Measured on a CPU with a model of 527 MiB in 16 bits: at the peak all of its files were mapped into memory, beside
    229 MiB of weights in 4 bits. Of the files the system takes back what it needs elsewhere.
    """
    packed = plan.prediction.parts["weights"] if plan and machine.name == "cpu" else 0
    if base.kind == HERE:
        folder = models.folder(POCKET) if base.name == POCKET else Path(base.name).expanduser()
        return models.disk_bytes(folder) + packed
    if base.name == SMOLLM2:
        return base.bytes + packed
    return sum(size for file, size in base.sizes.items() if file.endswith(".safetensors")) + packed
