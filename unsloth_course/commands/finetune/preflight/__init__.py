"""Before anything is downloaded: what a run will fetch, where it will lie, what it needs, and what will not fit.

A repository of full weights is three times the download of the same model in 4 bits, and a run that finds the disk full
after an hour has lost the hour. So sizes are asked first: of the Hub's own lists of files, the cache, the disks and the
memory. `look` asks, `Preflight.require` refuses. docs/before-you-download.md explains the lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unsloth_course.commands.finetune.preflight import needs, sentences, sources
from unsloth_course.commands.finetune.preflight.needs import Disk
from unsloth_course.commands.finetune.preflight.sources import Source
from unsloth_course.commands.options import Options
from unsloth_course.core.errors import CourseError
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


def look(options: Options, machine: Profile, recipe: Any, processes: int = 1) -> Preflight:
    """Asks for every size that a run depends on. Of the model only config.json is fetched, of the data nothing.

    machine: the profile, with model, data and length. recipe: the `Recipe`, for the rows of an update and the rank.
    processes: how many share the rows. Nothing is raised: what is wrong is in `problems`. Follows the documentation of
    `huggingface_hub.HfApi.model_info`; taught by docs/before-you-download.md.
    """
    method, merge = options.method, options.merge or options.hand_on
    base, siblings = sources.model_of(machine.model)
    rows_of = sources.data_of(machine.data, method)
    config, unread = ({}, "") if base.problem else sources.config_of(machine.model)
    quantised = sources.quantised(machine.model, config)
    sizes = {"rows": recipe.batch, "rank": recipe.taken.rank or 16, "processes": processes}
    sizes["completion"] = recipe.taken.completion_length
    plan, unplanned = needs.plan_of(config, machine, method, sizes)
    disks = needs.disks_of(base, rows_of, options.out, needs.written(config, plan, method, merge, options.gguf))
    loading = needs.loading_of(base, plan, machine) if method == "qlora" and not quantised else 0
    found = Preflight(method, base, quantised, siblings, rows_of, disks, plan, loading)
    problems = [text for text in (base.problem, rows_of.problem, unread) if text]
    problems += sentences.lacking(found, machine)
    problems += sentences.not_done(found, machine, options.merge or bool(options.gguf), options.hand_on)
    problems += [unplanned] if unplanned else []
    notes, rows = sentences.notes(found, machine), sentences.table(found, machine)
    return replace(found, problems=problems, notes=[*notes], rows=(*rows,))
