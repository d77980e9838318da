"""A lesson's training on a learner's own data and model: the recipes behind the command `finetune`.

The same steps as in the notebooks, with the same calls: load, measure on held-out rows, train, measure again, judge,
save. `options` says what is asked for, `tasks` what is measured, `recipes` how each method trains, `checkpoints` keeps
a run that is interrupted, `preflight` looks before anything is downloaded, and `chain` strings stages together. Under
torchrun each process trains on its own GPU with its share of each update's rows, so that the rows of an update, and
with them the loss curve, are those of one process. Taught in the five lessons.
"""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from unsloth_course.commands.finetune import options as settings_of
from unsloth_course.commands.finetune import preflight, processes, recipes, tasks
from unsloth_course.commands.finetune.options import METHODS, Options, check
from unsloth_course.core import checkpoints
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import known_warnings, models
from unsloth_course.lesson.profile import POCKET, SMOLLM2

__all__ = ["METHODS", "Options", "Outcome", "Prepared", "check", "interrupted", "prepare", "run", "train"]

IN_SEVERAL = ("lora", "full")
"""Methods that were measured in several processes."""


@dataclass
class Prepared:
    """A run that is ready to train: machine, model, task, rows in TRL's columns, the plan for the batch."""

    options: Options
    process: processes.Process
    machine: Any
    recipe: recipes.Recipe
    task: tasks.Task
    model: Any
    tokenizer: Any
    parameters: models.Count
    train: Any
    test: Any
    plan: Any
    steps: int
    base: str
    earlier: list[tasks.Task] = field(default_factory=list)
    handed: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """A finished run: the results JSON as a dict, the files that were written, the receipt."""

    results: dict[str, Any]
    files: list[Path] = field(default_factory=list)
    receipt: Any = None
    exports: list[Any] = field(default_factory=list)
    warnings: str = ""

    @property
    def trained(self) -> bool:
        """Whether the receipt says anything but "not trained"."""
        return self.results["receipt"]["verdict"] != "not trained"

    def to_json(self) -> str:
        """The results file's text: what `--json` prints."""
        return self.files[-1].read_text(encoding="utf-8").rstrip()

    def __str__(self) -> str:
        exports = [line for made in self.exports for line in ("", str(made))]
        said = ["", "what the libraries said:", self.warnings] if self.warnings else []
        return "\n".join([str(self.receipt), *exports, *said, "", *(f"file  {path}" for path in self.files)])


def run(options: Options, started: float | None = None) -> Outcome | None:
    """Trains, judges and saves; returns what came of it. Under torchrun the processes but the first return None.

    started: the `time.monotonic()` from which `wall_seconds` counts. Writes into `options.out`: `adapter` or `model`,
    `merged` and GGUF files where asked for, `<lesson>.json` as the lessons do, `held-out.jsonl`, and `finetune.toml`,
    which repeats the run.

    Raises CourseError as `check`, `profile.detect`, the loaders in `data.sources`, `hub.fetch_model` and
    `checkpoints.train` do; of several processes it ends all with a sentence, as `processes.together` says.
    """
    started = time.monotonic() if started is None else started
    check(options)
    _check_model_stays(options)
    process = processes.current()
    if process.several and (options.method not in IN_SEVERAL or options.resume):
        raise CourseError(
            f"Several processes train {' and '.join(IN_SEVERAL)}, from their beginning; run this one without torchrun."
        )
    if not process.first:
        with processes.together(process):
            _trained(prepare(options, process))
        return None
    _make_folder(options.out)
    with checkpoints.locked(options.out), processes.together(process), known_warnings.watch() as seen:
        options, resumed = _resumed(options)
        prepared = prepare(options, process)
        trainer, before = _trained(prepared, resumed)
        return _finish(prepared, trainer, before, started, seen)


def _trained(prepared: Prepared, resumed: Path | None = None) -> tuple[Any, Any]:
    before = measured(prepared)
    trainer = train(prepared, resumed=resumed)
    processes.after_the_first(prepared.process, "the training")
    return trainer, before


def _check_model_stays(options: Options) -> None:
    """Raises CourseError when the model lies in the folder that the run writes into, where it might be replaced."""
    if options.model in (None, POCKET, SMOLLM2) or not os.path.isdir(model := os.path.expanduser(options.model)):
        return
    if options.out.resolve() in Path(model).resolve().parents:
        raise CourseError(
            f"The model {options.model} lies in {options.out}, where this run would write over it; choose another "
            "--out, or move the model."
        )


def _resumed(options: Options) -> tuple[Options, Path | None]:
    """The options, and the checkpoint to go on from, if any.

    Without one a run of other options begins anew, as if it had not been resumed. Raises CourseError when the
    checkpoints in the folder, or what was learned there, are of a run that this one is not.
    """
    saved = options.out / "checkpoints"
    if not options.resume:
        checkpoints.require_none(saved)
        _require_no_other(options)
        return options, None
    differ = _differing(options)
    if differ and checkpoints.newest(saved):
        raise CourseError(
            f"{options.out} holds a run with other values of {', '.join(differ)}; its checkpoints would not fit. "
            f"Repeat that run with --config {options.out / settings_of.CONFIG} --resume, or choose another --out."
        )
    found = checkpoints.last_good(saved)
    if not found:
        _require_no_other(options)
    print(f"going on from {found}" if found else f"no checkpoint in {saved} yet: the run begins at its first step")
    return replace(options, resume=not differ), found


def _differing(options: Options) -> list[str]:
    """The names of the options in which the run that the folder was begun for was another one."""
    config = options.out / settings_of.CONFIG
    return settings_of.changed(Options(**settings_of.read(config)), options) if config.is_file() else []


def _require_no_other(options: Options) -> None:
    """Raises CourseError where a finished run of other options lies, whose adapter or model would be written over."""
    if options.hand_on or options.earlier:
        return  # a stage: the folder is its chain's, which makes it anew
    learned = any((options.out / name).exists() for name in ("adapter", "model"))
    if learned and (differ := _differing(options)):
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
    if saved := checkpoints.newest(options.out / "checkpoints"):
        return f"Stopped by Ctrl-C; all up to {saved} is saved. The same command with --resume goes on from there."
    return "Stopped by Ctrl-C before the first checkpoint; nothing of this run was saved yet."


def prepare(options: Options, process: processes.Process | None = None) -> Prepared:
    """Loads model and rows, writes `finetune.toml`, and plans the batch. Raises CourseError as `run` does."""
    check(options)
    process = process or processes.Process()
    from unsloth_course.lesson import data, memory

    if options.batch is not None:
        processes.share(options.batch, process)
    if process.several and options.profile != "cpu":
        _take_gpu_if_any(options, process)
    machine = _machine(options)
    recipe = recipes.Recipe(options, machine)
    processes.share(recipe.batch, process)
    print(machine)
    if machine.model == POCKET:
        print(
            "pocket is for trying the commands in seconds: it knows the course's small world and no English. Your own "
            "rows want --model smollm2."
        )
    if process.first:
        _make_folder(options.out)
        _look_first(options, machine, recipe, process.count)
    # What comes from the Hub is fetched once for each host.
    with processes.before_the_others(process, "the files", on_each_host=True):
        folder = models.folder(machine.model)
        task = recipe.task()
    print(task.checked)
    if process.first:
        # Not before all that a mistyped start is refused for: another run's result may lie there. Before the warm-up,
        # which a resumed run takes over if this file names its options.
        settings_of.write(options, options.out)
    warm, base, handed = recipe.warm_rows(task), machine.model, []
    earlier = [_earlier(stage, machine, options) for stage in options.earlier]
    if warm is not None and options.method == "dpo":
        folder, handed = recipe.warmed_up(folder, warm, earlier)
        base = folder
    model, tokenizer = recipe.load(folder)
    plan = memory.plan(
        model,
        machine,
        options.method,
        rows=recipe.batch,
        rank=recipe.rank,
        processes=process.count,
        micro_batch=options.micro_batch,
        **task.sizes(tokenizer),
    )
    print(plan)
    model, parameters = recipe.made_trainable(model, plan.checkpointing)
    print(parameters)
    if warm is not None and options.method == "grpo":
        recipe.supervise(model, tokenizer, data.problems.warm_up(warm, recipe.own(recipes.WORKED)))
    learn, test = recipe.blocks(task, tokenizer) if options.method == "cpt" else task.rows()
    if process.first:
        tasks.write_lines(task, options.out)
    return Prepared(
        options=options,
        process=process,
        machine=machine,
        recipe=recipe,
        task=task,
        model=model,
        tokenizer=tokenizer,
        parameters=parameters,
        train=learn,
        test=test,
        plan=plan,
        steps=recipe.steps(len(learn)),
        base=base,
        earlier=earlier,
        handed=handed,
    )


def _look_first(options: Options, machine: Any, recipe: recipes.Recipe, count: int) -> None:
    """Says what a run will need before anything is downloaded. Raises CourseError for what will not fit."""
    if options.gguf:
        from unsloth_course.commands import export

        export.require_tools("gguf")
    found = preflight.look(
        machine.model,
        machine.data,
        options.method,
        length=machine.max_length,
        rows=recipe.batch,
        rank=recipe.rank,
        out=options.out,
        machine=machine,
        completion=recipe.completion if options.method == "grpo" else None,
        processes=count,
        checkpoints=checkpoints.KEPT + 1,  # the newest is written before the oldest goes
        merge=options.merge,
        gguf=options.gguf,
        hand_on=options.hand_on,
    )
    print(found)
    found.require()


def _machine(options: Options) -> Any:
    from unsloth_course.lesson import profile

    asked = (options.profile, options.model, options.data)
    found = profile.detect(*asked, lesson=options.lesson, updates=options.steps, on_cpu=SMOLLM2)
    return replace(found, max_length=options.max_length) if options.max_length else found


def _earlier(stage: str, machine: Any, options: Options) -> tasks.Task:
    """The task of a stage before, for its held-out rows."""
    method, _, data = stage.partition(" ")
    other = Options(method, data, max_samples=1000, held_out=options.held_out, batch=options.batch, seed=options.seed)
    return recipes.Recipe(other, replace(machine, data=data)).task()


def _take_gpu_if_any(options: Options, process: processes.Process) -> None:
    from unsloth_course.lesson import profile

    profile.quiet()
    import torch

    if torch.cuda.is_available() or options.profile == "gpu":
        processes.take_gpu(process)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CourseError(
            f"The folder {out} cannot be made ({error.strerror}); choose another one with --out."
        ) from None


def measured(prepared: Prepared) -> Any:
    """What the model does on the held-out rows, and what else it knows; of the first process only.

    The others wait for it here, so that all begin to train together.
    """
    found = None
    if prepared.process.first:
        print("measuring on the held-out rows")
        found = _measured(prepared, prepared.model)
        print(prepared.task.shown(found[0]))
    processes.after_the_first(prepared.process, "the questions")
    return found


def _measured(prepared: Prepared, model: Any) -> tuple[Any, Any, list[Any]]:
    """On the held-out rows, on what is not trained, and on those of the stages before."""
    lesson = (model, prepared.tokenizer)
    return (
        prepared.task.measure(*lesson),
        prepared.task.kept(*lesson),
        [task.measure(*lesson) for task in prepared.earlier],
    )


def train(prepared: Prepared, callbacks: Sequence[Any] = (), test: bool = True, resumed: Path | None = None) -> Any:
    """Trains with the lessons' recipe and returns the trainer, with the receipt's watch as `trainer.watching`.

    callbacks: more of them for the trainer. test: measure the held-out loss on the way. resumed: a checkpoint to go on
    from. Raises CourseError as `checkpoints.train` does.
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
    trainer = recipe.trainer(
        prepared.model,
        prepared.tokenizer,
        prepared.train,
        prepared.test if test else None,
        prepared.steps,
        settings,
        callbacks,
    )
    trainer.watching, trainer.began = diagnosis.watch(trainer), 0
    if process.several:
        # Only one process would run out of memory and start over, and the others would go on without it.
        trainer.train()
    else:
        prepared.plan.guard(trainer)
        trainer.began = checkpoints.train(trainer, resumed)
    return trainer


def _finish(prepared: Prepared, trainer: Any, before: Any, started: float, seen: known_warnings.Seen) -> Outcome:
    """Measures again, judges, saves; in the first process."""
    from unsloth_course.lesson import diagnosis, results

    options, model, task, plan = prepared.options, trainer.model, prepared.task, prepared.plan
    after = _measured(prepared, model)
    score = tasks.scored(task, before, after, model, prepared.tokenizer)
    answers = (task.answers(before[0]), task.answers(after[0]))
    receipt = diagnosis.receipt(trainer.watching, score, answers if answers[0] else None, plan.prediction.total)
    saved = _saved(prepared, model, receipt.verdict != "not trained")
    if options.hand_on:
        saved.append(_handed_on(prepared, model))
    found = results.build(
        options.lesson,
        prepared.machine,
        prepared.parameters,
        trainer.watching,
        score,
        receipt,
        plan,
        time.monotonic() - started,
        file_bytes=models.disk_bytes(saved[0]),
        samples=results.samples(*answers) if answers[0] else (),
    )
    found["training"] |= {
        "processes": plan.processes,
        "began_at_step": trainer.began,
        "examples": trainer.state.global_step * plan.rows,
        "samples_per_second": _pace(trainer, plan.rows),
    }
    found["method"] = options.method
    found["options"] = asdict(options) | {"out": str(options.out)}
    found["stands"] = _stands(task, before[0], after[0])
    found["earlier"] = [
        _stands(other, was, now)
        for other, was, now in zip(prepared.earlier, prepared.handed or before[2], after[2], strict=True)
    ]
    found["warnings"] = seen.to_list()
    written = results.write(found, options.out)
    checkpoints.discard(options.out / "checkpoints")  # what they were for is saved
    exports = _exported(options)
    files = [*saved, *(Path(path) for made in exports for path in made.written)]
    return Outcome(found, [*files, written], receipt, exports, str(seen))


def _stands(task: tasks.Task, was: Any, now: Any) -> dict[str, Any]:
    """What a chain's scoreboard shows of a task."""
    return {"metric": task.STANDS, "before": task.stands(was), "after": task.stands(now)}


def _exported(options: Options) -> list[Any]:
    """What --merge and --gguf ask for, each with its round trip."""
    if not (options.merge or options.gguf):
        return []
    from unsloth_course.commands import export

    return export.after_training(options.out, options.merge, options.gguf, print)


def _pace(trainer: Any, rows: int) -> float | None:
    """Rows trained in a second, in all processes together; evaluations and what was trained before a resume aside."""
    from unsloth_course.lesson import results

    seconds = results.seconds([row for row in trainer.state.log_history if row.get("step", 0) >= trainer.began])
    steps = trainer.state.global_step - trainer.began
    return round(steps * rows / seconds, 2) if seconds and steps else None


def _handed_on(prepared: Prepared, model: Any) -> Path:
    """The adapter merged into its base, for the next stage; that stage measures first, and sees that it is the same."""
    target = prepared.options.out / "merged"
    shutil.rmtree(target, ignore_errors=True)
    _written(lambda: model.save_pretrained_merged(str(target), prepared.tokenizer, save_method="merged_16bit"))
    return target


def _saved(prepared: Prepared, model: Any, trained: bool) -> list[Path]:
    """Writes what was learned; returns the folder of the adapter, or of the model.

    trained: raise CourseError unless what was saved says so too; an exit code does not (see `saved`).
    """
    from unsloth_course.commands.finetune import saved

    options, tokenizer = prepared.options, prepared.tokenizer
    if options.method != "full":
        adapter = models.save_adapter(model, tokenizer, options.out / "adapter", base=prepared.base)
        if trained:
            saved.adapter(adapter)
        return [adapter]
    whole = options.out / "model"
    _written(lambda: (model.save_pretrained(str(whole)), tokenizer.save_pretrained(str(whole))))
    saved.model(whole)
    return [whole]


def _written(save: Any) -> None:
    try:
        save()
    except OSError as error:
        raise CourseError(
            f"The model could not be written ({error}); free some disk space or choose another --out."
        ) from None
