"""What is said of what was found: what will not do, what is worth knowing, and the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unsloth_course.commands.finetune.preflight.needs import FETCHED
from unsloth_course.commands.finetune.preflight.sources import HERE, Source
from unsloth_course.core import hub
from unsloth_course.core.hub import file_size
from unsloth_course.lesson import memory, smollm2
from unsloth_course.lesson.profile import ENGLISH, POCKET, SMOLLM2, Choice, Profile

if TYPE_CHECKING:
    from unsloth_course.commands.finetune.preflight import Preflight


def lacking(found: Preflight, machine: Profile) -> Iterator[str]:
    """Sentences on disks and memory that are too small."""
    for disk in (disk for disk in found.disks if disk.needed > disk.free):
        needed = {name for name, size in disk.parts.items() if size}
        elsewhere = ", set HF_HOME to a folder on another disk" if needed.intersection(FETCHED) else ""
        elsewhere += ", or choose another --out" if needed.difference(FETCHED) else ""
        yield (
            f"The disk of {disk.place} has {file_size(disk.free)} free, and the run needs {file_size(disk.needed)} "
            f"there ({disk}). Free some space{elsewhere}."
        )
    if found.plan and not found.plan.fits:
        total, room = memory.size(found.plan.prediction.total), memory.size(machine.memory_bytes)
        tokens = f"{found.plan.micro_batch} x {machine.max_length} tokens"
        smaller = " take --method qlora," if found.method == "lora" and not found.quantised else ""
        yield (
            f"{found.method} of {found.model.name} needs {total} with {tokens} at a time, and"
            f" {machine.device} has {room}, of which 90 % may be used. Shorten the rows (--max-length),"
            f"{smaller} or choose a smaller model; `python -m unsloth_course memory` names GPUs that are large enough."
        )


def not_done(found: Preflight, machine: Profile, exported: bool, hand_on: bool) -> Iterator[str]:
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


def notes(found: Preflight, machine: Profile) -> Iterator[str]:
    """What is worth knowing."""
    import psutil

    model, data = found.model, found.data
    for source in (model, data):
        if source.reason and not source.problem:
            yield f"{source.name}: {source.reason}; the complete copy in the cache is used."
        elif source.gated:
            yield f"{source.name} is gated: accept its licence on its page and log in with `hf auth login`."
    if found.method in ("lora", "qlora") and not found.quantised:
        smaller = {name: size for name, size in found.siblings.items() if size and size < 0.6 * model.bytes}
        if smaller and model.to_download:
            name = min(smaller, key=lambda name: smaller[name])
            share = model.bytes / smaller[name]
            yield f"{name} is the same model in 4 bits, {share:.1f} times smaller to download: --model {name} takes it."
    if found.method == "qlora" and not found.quantised and machine.name == "cpu":
        yield "On a CPU no adapter is merged into weights in 4 bits; an export merges it into the full weights instead."
    if found.loading > (free := psutil.virtual_memory().available):
        yield (
            f"While the weights are put into 4 bits their files are mapped into memory, {memory.size(found.loading)} "
            f"with the model, and {memory.size(free)} is free: the loading will be slow. Close other programs, or take "
            "a repository that is in 4 bits already."
        )
    if found.plan and found.plan.fits and machine.name == "cpu" and found.plan.prediction.total > free:
        room = memory.size(machine.memory_bytes)
        yield f"Of {room} of memory only {memory.size(free)} is free now: close other programs."


def table(found: Preflight, machine: Profile) -> Iterator[Choice]:
    """The table: what, how much, and what follows."""
    model, data = found.model, found.data
    form = "in 4 bits or otherwise packed" if found.quantised else "full weights"
    if model.kind == HERE:
        form += ", bundled" if model.name == POCKET else ", on this machine"
    elif model.name == SMOLLM2:
        form = smollm2.WHAT
    yield Choice("model", file_size(model.bytes) if model.bytes else "not known", f"{model.name}: {form}")
    for name, size in found.siblings.items():
        yield Choice("the same", "not there" if size is None else file_size(size), name)
    yield from _download(model)
    if data.name in (POCKET, ENGLISH):
        yield Choice("data", "generated", "nothing to fetch")
    else:
        yield Choice("data", file_size(data.bytes) if data.bytes else "not known", data.name)
        yield from _download(data)
    for disk in found.disks:
        yield Choice("disk", f"{file_size(disk.needed)} of {file_size(disk.free)} free", f"{disk.place}: {disk}")
    if found.plan:
        needed, room = memory.size(found.plan.prediction.total), memory.size(machine.memory_bytes)
        plan = found.plan
        way = f"{plan.micro_batch} rows of up to {machine.max_length} tokens at a time"
        way += ", with checkpointing" if plan.checkpointing else ""
        yield Choice("memory", f"{needed} of {room}", f"{way}: {'it fits' if plan.fits else 'it does not fit'}")
    else:
        yield Choice("memory", "not known", "the model's config.json has not been read")
    if found.loading:
        yield Choice("loading", memory.size(found.loading), "of the computer's memory, to put full weights into 4 bits")


def _download(source: Source) -> Iterator[Choice]:
    if source.kind == HERE or not source.sizes:
        return
    if not source.missing:
        yield Choice("in the cache", "all there", "nothing to download")
        return
    files = len(source.sizes)
    here = f"{files - len(source.missing)} of {files} files are there; missing: {hub.listed(source.missing)}"
    yield Choice("in the cache", source.state, f"{file_size(source.to_download)} to download; {here}")
