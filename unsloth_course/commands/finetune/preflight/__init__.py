"""Before anything is downloaded: what a run will fetch, where it will lie, what it needs, and what will not fit.

A repository of full weights is three times the download of the same model in 4 bits, and a run that finds the disk full
after an hour has lost the hour. So sizes are asked first: of the Hub's own lists of files, the cache, the disks and the
memory. `look` asks, `Preflight.require` refuses. docs/before-you-download.md explains the lines.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unsloth_course.commands.finetune.preflight import sizes
from unsloth_course.commands.finetune.preflight.sizes import FETCHED, HERE, Disk, Source
from unsloth_course.commands.options import Options
from unsloth_course.core import hub
from unsloth_course.core.errors import CourseError
from unsloth_course.core.hub import file_size
from unsloth_course.lesson import memory, smollm2
from unsloth_course.lesson.memory import Plan
from unsloth_course.lesson.profile import ENGLISH, POCKET, SMOLLM2, Choice, Profile, lined_up


@dataclass(frozen=True)
class Preflight:
    """What was found. `problems` are sentences on what will not do, the most important one first; `notes` the rest.

    siblings: the same model in 4 bits, or in full weights, with its bytes; None where the Hub has no such repository.
    plan: the memory plan, None where the model's shape is not known; unplanned: why. loading: bytes of the computer's
    memory that are taken up while full weights are read and put into 4 bits; 0 where that is not done.
    """

    options: Options
    machine: Profile
    model: Source
    quantised: bool
    siblings: dict[str, int | None]
    data: Source
    disks: list[Disk]
    plan: Plan | None
    unplanned: str
    loading: int

    def require(self) -> None:
        """Raises CourseError with all that will not do, the most important first; returns if there is nothing."""
        if self.problems:
            raise CourseError("\n".join(self.problems))

    def __str__(self) -> str:
        said = [f"will not do: {problem}" for problem in self.problems]
        return "\n".join([*said, lined_up([*self._rows()]), *(f"note: {note}" for note in self.notes)])

    @cached_property
    def problems(self) -> list[str]:
        unknown = filter(None, (self.model.problem, self.data.problem, self.unplanned))
        return [*unknown, *self._lacking(), *self._not_done()]

    @cached_property
    def notes(self) -> list[str]:
        return [*self._notes()]

    def _lacking(self) -> Iterator[str]:
        for disk in (disk for disk in self.disks if disk.needed > disk.free):
            needed = {name for name, size in disk.parts.items() if size}
            elsewhere = ", set HF_HOME to a folder on another disk" if needed.intersection(FETCHED) else ""
            elsewhere += ", or choose another --out" if needed.difference(FETCHED) else ""
            yield (
                f"The disk of {disk.place} has {file_size(disk.free)} free, and the run needs {file_size(disk.needed)} "
                f"there ({disk}). Free some space{elsewhere}."
            )
        if self.plan and not self.plan.fits:
            total, room = memory.size(self.plan.prediction.total), memory.size(self.machine.memory_bytes)
            method, tokens = self.options.method, f"{self.plan.micro_batch} x {self.machine.max_length} tokens"
            smaller = " take --method qlora," if method == "lora" and not self.quantised else ""
            yield (
                f"{method} of {self.model.name} needs {total} with {tokens} at a time, and {self.machine.device} has "
                f"{room}, of which 90 % may be used. Shorten the rows (--max-length),{smaller} or choose a smaller "
                "model; `python -m unsloth_course memory` names GPUs that are large enough."
            )

    def _not_done(self) -> Iterator[str]:
        options, cpu = self.options, self.machine.name == "cpu"
        others = " or ".join(f"--model {name}" for name, size in self.siblings.items() if size) or "full weights"
        if options.method == "full" and self.quantised:
            yield (
                f"{self.model.name} holds packed weights, which full fine-tuning cannot change: take {others}, or "
                "--method lora."
            )
        elif cpu and self.quantised and (options.merge or options.gguf or options.hand_on):
            yield (
                f"{self.model.name} holds weights in 4 bits, and Unsloth merges no adapter into these on a CPU. Leave "
                f"out --merge and --gguf and export on a GPU, or take {others}."
            )
        elif cpu and options.method == "qlora" and options.hand_on:
            yield (
                "A stage of qlora cannot hand its model on here: on a CPU Unsloth merges no adapter into weights in 4 "
                "bits. Take --method lora for it."
            )

    def _notes(self) -> Iterator[str]:
        import psutil

        model, method, cpu = self.model, self.options.method, self.machine.name == "cpu"
        for source in (model, self.data):
            if source.reason and not source.problem:
                yield f"{source.name}: {source.reason}; the complete copy in the cache is used."
            elif source.gated:
                yield f"{source.name} is gated: accept its licence on its page and log in with `hf auth login`."
        smaller = [(size, name) for name, size in self.siblings.items() if size and size < 0.6 * model.bytes]
        if method in ("lora", "qlora") and not self.quantised and smaller and model.to_download:
            size, name = min(smaller)
            share = model.bytes / size
            yield f"{name} is the same model in 4 bits, {share:.1f} times smaller to download: --model {name} takes it."
        if method == "qlora" and not self.quantised and cpu:
            yield "On a CPU no adapter is merged into weights in 4 bits; an export merges it into the full weights."
        if self.loading > (free := psutil.virtual_memory().available):
            yield (
                f"While the weights are put into 4 bits their files are mapped into memory, {memory.size(self.loading)}"
                f" with the model, and {memory.size(free)} is free: the loading will be slow. Close other programs, or "
                "take a repository that is in 4 bits already."
            )
        if self.plan and self.plan.fits and cpu and self.plan.prediction.total > free:
            room = memory.size(self.machine.memory_bytes)
            yield f"Of {room} of memory only {memory.size(free)} is free now: close other programs."

    def _rows(self) -> Iterator[Choice]:
        model, data, plan = self.model, self.data, self.plan
        form = "in 4 bits or otherwise packed" if self.quantised else "full weights"
        if model.kind == HERE:
            form += ", bundled" if model.name == POCKET else ", on this machine"
        form = smollm2.WHAT if model.name == SMOLLM2 else form
        yield Choice("model", file_size(model.bytes) if model.bytes else "not known", f"{model.name}: {form}")
        for name, size in self.siblings.items():
            yield Choice("the same", "not there" if size is None else file_size(size), name)
        yield from _download(model)
        if data.name in (POCKET, ENGLISH):
            yield Choice("data", "generated", "nothing to fetch")
        else:
            yield Choice("data", file_size(data.bytes) if data.bytes else "not known", data.name)
            yield from _download(data)
        for disk in self.disks:
            yield Choice("disk", f"{file_size(disk.needed)} of {file_size(disk.free)} free", f"{disk.place}: {disk}")
        if plan:
            needed, room = memory.size(plan.prediction.total), memory.size(self.machine.memory_bytes)
            way = f"{plan.micro_batch} rows of up to {self.machine.max_length} tokens at a time"
            way += ", with checkpointing" if plan.checkpointing else ""
            yield Choice("memory", f"{needed} of {room}", f"{way}: {'it fits' if plan.fits else 'it does not fit'}")
        else:
            yield Choice("memory", "not known", "the model's config.json has not been read")
        if self.loading:
            what = "of the computer's memory, to put full weights into 4 bits"
            yield Choice("loading", memory.size(self.loading), what)


def _download(source: Source) -> Iterator[Choice]:
    if source.missing:
        here = f"{len(source.sizes) - len(source.missing)} of {len(source.sizes)} files are there"
        told = f"{file_size(source.to_download)} to download; {here}; missing: {hub.listed(source.missing)}"
        yield Choice("in the cache", source.state, told)
    elif source.kind != HERE and source.sizes:
        yield Choice("in the cache", "all there", "nothing to download")


def look(options: Options, machine: Profile, recipe: Any, processes: int = 1) -> Preflight:
    """Asks for every size that a run depends on. Of the model only config.json is fetched, of the data nothing.

    machine: the profile, with model, data and length. recipe: the `Recipe`, for the rows of an update and the rank.
    processes: how many share the rows. Nothing is raised: what is wrong is in `problems`. Follows the documentation of
    `huggingface_hub.HfApi.model_info`; taught by docs/before-you-download.md.
    """
    model, data = sizes.model_of(machine.model), sizes.data_of(machine.data, options.method)
    asked = {"rows": recipe.batch, "rank": recipe.taken.rank or 16, "processes": processes}
    asked["completion"] = recipe.taken.completion_length
    config, plan, unplanned = ({}, None, "") if model.problem else sizes.plan_of(machine, options.method, asked)
    named = machine.model.lower().endswith(sizes.IN_4_BITS)
    quantised = "quantization_config" in config if config else named
    return Preflight(
        options,
        machine,
        model,
        quantised,
        sizes.siblings_of(model),
        data,
        sizes.disks_of(model, data, options.out, sizes.written(config, plan, options)),
        plan,
        unplanned,
        sizes.loading_of(model, plan, machine) if options.method == "qlora" and not quantised else 0,
    )
