"""A lesson's training on a learner's own data and model: the recipes behind the command `finetune`.

The same steps as in the notebooks, with the same calls: load, measure on held-out rows, train, measure again, judge,
save. Under torchrun each process trains on its own GPU with its share of each update's rows, so that the rows of an
update, and with them the loss curve, are those of one process. Taught in the five lessons.
"""

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unsloth_course.commands import options as run_options
from unsloth_course.commands.finetune import processes, stopping
from unsloth_course.commands.finetune.finishing import Outcome, finish
from unsloth_course.commands.finetune.preparing import Prepared, prepare
from unsloth_course.commands.options import METHODS, Options, check
from unsloth_course.core import checkpoints, whole
from unsloth_course.core.errors import CourseError
from unsloth_course.core.model_files import in_run
from unsloth_course.lesson import known_warnings
from unsloth_course.lesson.profile import POCKET, SMOLLM2

__all__ = ["METHODS", "Options", "Outcome", "Prepared", "check", "interrupted", "prepare", "run", "train"]

IN_SEVERAL = ("lora", "full")
"""Methods that were measured in several processes."""


def run(options: Options, started: float | None = None) -> Outcome | None:
    """Trains, judges and saves; returns what came of it. Under torchrun the processes but the first return None.

    started: the `time.monotonic()` from which `wall_seconds` counts. Writes into `options.out`: `adapter` or `model`,
    `merged` and GGUF files where asked for, `<lesson>.json` as the lessons do, `held-out.jsonl`, and `finetune.toml`,
    which repeats the run.

    Raises CourseError as `check`, `profile.detect`, the loaders in `data.sources`, `hub.fetch_model` and
    `stopping.train` do; of several processes it ends all with a sentence, as `processes.together` says.
    """
    started = time.monotonic() if started is None else started
    check(options)
    options = _with_whole_model(options)
    process = processes.current()
    if process.several and (options.method not in IN_SEVERAL or options.resume):
        raise CourseError(
            f"Several processes train {' and '.join(IN_SEVERAL)}, from their beginning; run this one without torchrun."
        )
    if not process.first:
        with processes.together(process):
            _trained(prepare(options, process))
        return None
    with stopping.locked(options.out), processes.together(process), known_warnings.gathered() as seen:
        options, resumed = _resumed(options)
        prepared = prepare(options, process)
        trainer, before = _trained(prepared, resumed)
        return finish(prepared, trainer, before, started, seen)


def _trained(prepared: Prepared, resumed: Path | None = None) -> tuple[Any, Any]:
    """The trainer after its training, and what the model did on the held-out rows before; of the first process only."""
    before = None
    if prepared.process.first:
        print("measuring on the held-out rows")
        before = prepared.measure(prepared.model)
        print(prepared.task.shown(before[0]))
    processes.after_the_first(prepared.process, "the questions")  # so that all begin to train together
    trainer = train(prepared, resumed=resumed)
    processes.after_the_first(prepared.process, "the training")
    return trainer, before


def _with_whole_model(options: Options) -> Options:
    """The options, with the model that lies in a run's folder where that was named.

    Raises CourseError for an adapter, and when the model lies where the run would write over it.
    """
    if options.model in (None, POCKET, SMOLLM2) or not os.path.isdir(named := os.path.expanduser(options.model)):
        return options
    model = in_run(Path(named))
    if (model / "adapter_config.json").is_file():
        merged = shlex.quote(str(model.parent / "export" / "merged"))
        raise CourseError(
            f"{options.model} is an adapter, and a training begins with a whole model. These two go on from it:\n"
            f"    unsloth-course export {shlex.quote(str(model))} --to merged\n"
            f"    unsloth-course finetune --method {options.method} --data {shlex.quote(options.data)} --model {merged}"
        )
    if options.out.resolve() in model.resolve().parents:
        raise CourseError(
            f"The model {options.model} lies in {options.out}, where this run would write over it; choose another "
            "--out, or move the model."
        )
    return replace(options, model=str(model))


def _resumed(options: Options) -> tuple[Options, Path | None]:
    """The options, and the checkpoint to go on from, if any.

    Without one a run of other options begins anew. Raises CourseError when the checkpoints in the folder, or what was
    learned there, are of a run that this one is not, and when the run is at its end.
    """
    saved = options.out / "checkpoints"
    if not options.resume:
        whole.require_none(saved)
        _require_no_other(options)
        return options, None
    before = _before(options.out)
    differ = run_options.changed(before, options) if before else []
    if differ and whole.newest(saved):
        raise CourseError(
            f"{options.out} holds a run with other values of {', '.join(differ)}; its checkpoints would not fit. "
            f"Repeat that run with --config {options.out / run_options.CONFIG} --resume, or choose another --out."
        )
    found = whole.last_good(saved)
    if not found:
        _require_no_other(options)
        if (options.out / f"{options.lesson}.json").is_file() and not (options.hand_on or options.earlier):
            raise CourseError(
                f"{options.out} holds a finished run, and --resume goes on with one that is not. Leave it out to train "
                "anew, or give --out another folder."
            )
    print(f"going on from {found}" if found else f"no checkpoint in {saved} yet: the run begins at its first step")
    return replace(options, resume=not differ, rows_sha256=before.rows_sha256 if before and found else None), found


def _before(out: Path) -> Options | None:
    """The options that the folder was begun for; None for a new one."""
    config = out / run_options.CONFIG
    return Options(**run_options.read(config)) if config.is_file() else None


def _require_no_other(options: Options) -> None:
    """Raises CourseError where a finished run of other options lies, whose adapter or model would be written over."""
    if options.hand_on or options.earlier:
        return  # a stage: the folder is its chain's, which makes it anew
    learned = any((options.out / name).exists() for name in ("adapter", "model"))
    before = _before(options.out) if learned else None
    if before and (differ := run_options.changed(before, options)):
        raise CourseError(
            f"{options.out} holds what a run with other values of {', '.join(differ)} learned, and this one would "
            f"write over it. Choose another --out, or delete {options.out} if it is not needed any more."
        )


def interrupted(options: Options, since: float) -> str:
    """What to say of a run that Ctrl-C ended at once: what of it is saved. since: the `time.time()` of its start."""
    result = options.out / f"{options.lesson}.json"
    if result.is_file() and result.stat().st_mtime >= since:
        missing = " Make the export that is missing with the command export." if options.merge or options.gguf else ""
        return f"Stopped by Ctrl-C after the training; what was learned is saved in {options.out}.{missing}"
    if saved := whole.newest(options.out / "checkpoints"):
        return f"Stopped by Ctrl-C; all up to {saved} is saved. The same command with --resume goes on from there."
    return "Stopped by Ctrl-C before the first checkpoint; nothing of this run was saved yet."


def train(prepared: Prepared, callbacks: Sequence[Any] = (), test: bool = True, resumed: Path | None = None) -> Any:
    """Trains with the lessons' recipe and returns the trainer, with the receipt's watch as `trainer.watching`.

    callbacks: more of them for the trainer. test: measure the held-out loss on the way. resumed: a checkpoint to go on
    from. Raises CourseError as `stopping.train` does.
    """
    from unsloth_course.lesson import diagnosis

    process, options, recipe = prepared.process, prepared.options, prepared.recipe
    saving = {} if process.several else checkpoints.settings(options.save_steps or max(1, prepared.steps // 4))
    settings = prepared.plan.arguments | processes.arguments(process, on_gpu=prepared.machine.name == "gpu")
    settings |= recipe.arguments(prepared.steps, test, saving)
    callbacks = list(callbacks)
    if options.early_stopping:
        from transformers import EarlyStoppingCallback

        callbacks.append(EarlyStoppingCallback(options.early_stopping))
    trainer = recipe.trainer(prepared, prepared.test if test else None, callbacks=callbacks, **settings)
    trainer.watching, trainer.began = diagnosis.watch(trainer), 0
    if process.several:
        # Only one process would run out of memory and start over, and the others would go on without it.
        trainer.train()
    else:
        prepared.plan.guard(trainer)
        trainer.began = stopping.train(trainer, resumed)
    return trainer
