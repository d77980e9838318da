"""Before anything is downloaded: what a run will fetch, where it will lie, what it needs, and what will not fit.

A repository of full weights is three times the download of the same model in 4 bits, and a run that finds the disk full
after an hour has lost the hour. So sizes are asked first: of the Hub's own lists of files, the cache, the disks and the
memory. `look` asks, `Preflight.require` refuses. docs/before-you-download.md explains the lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unsloth_course.commands.finetune.preflight import needs, sentences, sources
from unsloth_course.commands.finetune.preflight.needs import Disk
from unsloth_course.commands.finetune.preflight.sources import Source
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import profile
from unsloth_course.lesson.profile import Choice, Profile, lined_up

if TYPE_CHECKING:
    from unsloth_course.lesson.memory import Plan


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
    if machine is None:
        lesson = "lora" if method == "qlora" else method
        machine = profile.decide(profile.facts(), model=model, data=data, lesson=lesson)
    base, siblings = sources.model_of(model)
    rows_of = sources.data_of(data, method)
    config, unread = ({}, "") if base.problem else sources.config_of(model)
    quantised = sources.quantised(model, config)
    plan, unplanned = needs.plan_of(config, machine, method, length, rows, rank, completion, processes)
    written = needs.written(config, plan, method, checkpoints, merge or hand_on, gguf)
    disks = needs.disks_of(base, rows_of, out, written)
    loading = needs.loading_of(base, plan, machine) if method == "qlora" and not quantised else 0
    found = Preflight(method, base, quantised, siblings, rows_of, disks, plan, loading)
    problems = [text for text in (base.problem, rows_of.problem, unread) if text]
    problems += sentences.lacking(found, machine, length)
    problems += sentences.not_done(found, machine, merge or bool(gguf), hand_on)
    problems += [unplanned] if unplanned else []
    notes, rows = sentences.notes(found, machine), sentences.table(found, machine, length)
    return replace(found, problems=problems, notes=[*notes], rows=(*rows,))
