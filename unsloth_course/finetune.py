"""A lesson's training on a learner's own data and model: the recipe behind the command `finetune`.

The same steps as in the notebooks, with the same calls: load, ask the held-out questions, train, ask again, judge,
save. Under torchrun each process trains on its own GPU with its share of each update's rows, so that the rows of an
update, and with them the loss curve, are those of one process. Taught in lessons colab1 (full fine-tuning) and colab2
(LoRA).
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unsloth_course import models, processes
from unsloth_course.errors import CourseError

METHODS = ("lora", "full")
LATER = ("qlora", "dpo", "grpo", "cpt")
"""Methods that a lesson teaches, or will, and that this command does not have yet."""
# As in the lessons: for the bundled model, and for a model from elsewhere.
STEPS = (200, 120)
LEARNING_RATES = {"lora": (1e-3, 2e-4), "full": (1e-4, 5e-5)}
HELD_OUT = 200  # questions
SHORT_RUN = 50  # steps; up to so many, each one's loss is logged


@dataclass(frozen=True)
class Options:
    """What a run is asked to do. None stands for what the lesson does.

    data: "pocket", a .json or .jsonl file, or a Hub name. model: "pocket", a folder or a Hub name. profile: "cpu" or
    "gpu". max_samples: the most rows to learn from. steps: optimizer updates. batch: rows of one update, in all
    processes together. merge: also save the adapter merged into its base. out: folder for what the run writes.
    """

    method: str
    data: str
    model: str | None = None
    profile: str | None = None
    max_samples: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    rank: int = 16
    batch: int | None = None
    seed: int = 3407
    merge: bool = False
    out: Path = Path("results/finetune")


@dataclass
class Prepared:
    """A run that is ready to train: machine, model, rows in TRL's columns, the plan for the batch."""

    options: Options
    process: processes.Process
    machine: Any
    model: Any
    tokenizer: Any
    parameters: models.Count
    train: Any
    test: Any
    held_out: Any
    plan: Any
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Outcome:
    """A finished run: the results JSON as a dict, the files that were written, the receipt."""

    results: dict[str, Any]
    files: list[Path] = field(default_factory=list)
    receipt: Any = None

    @property
    def trained(self) -> bool:
        """Whether the receipt says anything but "not trained"."""
        return self.results["receipt"]["verdict"] != "not trained"

    def to_json(self) -> str:
        """The results file's text: what `--json` prints."""
        return self.files[-1].read_text(encoding="utf-8").rstrip()

    def __str__(self) -> str:
        return "\n".join([str(self.receipt), "", *(f"file  {path}" for path in self.files)])


def check(options: Options) -> None:
    """Raises CourseError for what can be told to be wrong before anything is loaded."""
    if options.method in LATER:
        raise CourseError(
            f"finetune has no {options.method} yet; its methods are {', '.join(METHODS)}. `python -m unsloth_course "
            f"run {'lora' if options.method == 'qlora' else options.method}` runs the lesson."
        )
    if options.method not in METHODS:
        raise CourseError(f"There is no method {options.method!r}; choose one of {', '.join(METHODS)}.")
    for name in ("max_samples", "steps", "rank", "batch"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise CourseError(f"--{name.replace('_', '-')} is {value}; give a whole number of at least 1.")
    if options.learning_rate is not None and not 0 < options.learning_rate < 1:
        raise CourseError(f"--learning-rate is {options.learning_rate:g}; give a number between 0 and 1, such as 2e-4.")
    if options.merge and options.method == "full":
        raise CourseError(
            "--merge puts an adapter into its base, and full fine-tuning has none: it saves a whole model."
        )


def run(options: Options, started: float | None = None) -> Outcome | None:
    """Trains, judges and saves; returns what came of it. Under torchrun the processes but the first return None.

    started: the `time.monotonic()` from which `wall_seconds` counts. Writes `adapter` or `model`, with `merge` also
    `merged`, and `<method>.json` as the lessons do, into `options.out`.

    Raises CourseError as `check`, `profile.detect`, `sources.instructions` and `hub.fetch_model` do; of several
    processes it ends all with a sentence, as `processes.together` says.
    """
    started = time.monotonic() if started is None else started
    check(options)
    process = processes.current()
    with processes.together(process):
        prepared = prepare(options, process)
        before = asked(prepared)
        trainer = train(prepared)
        processes.after_the_first(process, "the training")
        return _finish(prepared, trainer, before, started) if process.first else None
    return None


def prepare(options: Options, process: processes.Process | None = None) -> Prepared:
    """Loads model and rows, and plans the batch. Raises CourseError as `run` does."""
    check(options)
    process = process or processes.Process()
    from unsloth_course import data, memory, profile

    if options.batch is not None:
        processes.share(options.batch, process)
    if process.several and options.profile != "cpu":
        _take_gpu_if_any(options, process)
    machine = profile.detect(options.profile, options.model, options.data, lesson=options.method)
    batch = options.batch or machine.arguments["per_device_train_batch_size"]
    processes.share(batch, process)
    print(machine)
    if process.first:
        _make_folder(options.out)
    own = int(not machine.bundled)
    steps = options.steps or STEPS[own]
    rows = steps * batch if options.max_samples is None else min(options.max_samples, steps * batch)
    # What comes from the Hub is fetched once for each host.
    with processes.before_the_others(process, "the files", on_each_host=True):
        folder = models.folder(machine.model)
        learn, held_out, checked = data.sources.instructions(machine.data, rows, HELD_OUT, options.seed)
    print(checked)
    model, tokenizer = _load(options, machine, folder)
    lengths = data.instruction.lengths(learn, tokenizer, machine.max_length)
    print(lengths)
    plan = memory.plan(
        model,
        machine,
        options.method,
        longest=lengths.longest,
        rows=batch,
        rank=options.rank,
        processes=process.count,
    )
    print(plan)
    model, parameters = _made_trainable(options, model, plan.checkpointing)
    print(parameters)
    columns, to_chat = learn.column_names, data.instruction.to_prompt_completion
    return Prepared(
        options=options,
        process=process,
        machine=machine,
        model=model,
        tokenizer=tokenizer,
        parameters=parameters,
        train=learn.map(to_chat, batched=True, remove_columns=columns),
        test=held_out.map(to_chat, batched=True, remove_columns=columns),
        held_out=held_out,
        plan=plan,
        steps=steps,
        learning_rate=options.learning_rate or LEARNING_RATES[options.method][own],
    )


def _take_gpu_if_any(options: Options, process: processes.Process) -> None:
    from unsloth_course import profile

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


def _load(options: Options, machine: Any, folder: str) -> tuple[Any, Any]:
    from unsloth import FastLanguageModel

    return FastLanguageModel.from_pretrained(
        model_name=folder,
        max_seq_length=machine.max_length,
        dtype=machine.torch_dtype,
        load_in_4bit=False,
        full_finetuning=options.method == "full",
        use_gradient_checkpointing=False,
    )


def _made_trainable(options: Options, model: Any, checkpointing: bool) -> tuple[Any, models.Count]:
    if options.method == "full":
        return model, models.require_full(model)
    from unsloth import FastLanguageModel

    model = FastLanguageModel.get_peft_model(
        model,
        r=options.rank,
        lora_alpha=options.rank,
        lora_dropout=0,
        target_modules=models.PROJECTIONS,
        use_gradient_checkpointing=checkpointing,
        random_state=options.seed,
    )
    return model, models.require_lora(model, options.rank)


def asked(prepared: Prepared) -> tuple[Any, Any] | None:
    """The answers to the held-out questions and to the probes of untouched skills; of the first process only.

    The others wait for it here, so that all begin to train together.
    """
    answers = None
    if prepared.process.first:
        print("asking the held-out questions")
        answers = _answers(prepared, prepared.model)
    processes.after_the_first(prepared.process, "the questions")
    return answers


def _answers(prepared: Prepared, model: Any) -> tuple[Any, Any]:
    """To the held-out questions, and to the probes."""
    from unsloth_course import evaluation

    return (
        evaluation.ask(model, prepared.tokenizer, prepared.held_out),
        evaluation.recall(model, prepared.tokenizer, evaluation.probes(prepared.machine)),
    )


def train(prepared: Prepared, callbacks: Sequence[Any] = (), test: bool = True) -> Any:
    """Trains with the lessons' recipe and returns the trainer, with the receipt's watch as `trainer.watching`.

    callbacks: more of them for the trainer. test: measure the held-out loss on the way.
    """
    from unsloth_course import training

    process, options = prepared.process, prepared.options
    settings = prepared.plan.arguments | processes.arguments(process, on_gpu=prepared.machine.name == "gpu")
    if prepared.steps <= SHORT_RUN:
        settings["logging_steps"] = 1
    return training.supervised(
        prepared.model,
        prepared.tokenizer,
        prepared.train,
        prepared.machine,
        steps=prepared.steps,
        learning_rate=prepared.learning_rate,
        seed=options.seed,
        out=options.out,
        watched=True,
        held_out=prepared.test if test else None,
        callbacks=callbacks,
        # Only one process would run out of memory and start over, and the others would go on without it.
        guard=None if process.several else prepared.plan.guard,
        **settings,
    )


def _finish(prepared: Prepared, trainer: Any, before: tuple[Any, Any], started: float) -> Outcome:
    """Asks again, judges, saves; in the first process."""
    from unsloth_course import diagnosis, evaluation, results

    options, model = prepared.options, trainer.model
    after = _answers(prepared, model)
    score = evaluation.score(before[0], after[0], (before[1], after[1]))
    receipt = diagnosis.receipt(trainer.watching, score, (before[0], after[0]), prepared.plan.prediction.total)
    saved = _saved(prepared, model)
    found = results.build(
        options.method,
        prepared.machine,
        prepared.parameters,
        trainer.watching,
        score,
        receipt,
        prepared.plan,
        time.monotonic() - started,
        file_bytes=models.disk_bytes(saved[0]),
        samples=results.samples(before[0].questions, before[0].given, after[0].given),
    )
    plan = prepared.plan
    found["training"] |= {
        "processes": plan.processes,
        "examples": trainer.state.global_step * plan.rows,
        "samples_per_second": _pace(trainer, plan.rows),
    }
    found["options"] = asdict(options) | {"out": str(options.out)}
    return Outcome(found, [*saved, results.write(found, options.out)], receipt)


def _pace(trainer: Any, rows: int) -> float | None:
    """Rows trained in a second, in all processes together; evaluations in between are not counted."""
    from unsloth_course import results

    seconds = results.seconds(trainer.state.log_history)
    return round(trainer.state.global_step * rows / seconds, 2) if seconds else None


def _saved(prepared: Prepared, model: Any) -> list[Path]:
    """Writes what was learned; returns the folders, first the adapter or the model."""
    options, tokenizer = prepared.options, prepared.tokenizer
    if options.method == "lora":
        folders = [models.save_adapter(model, tokenizer, options.out / "adapter", base=prepared.machine.model)]
        if options.merge:
            folders.append(options.out / "merged")
            _written(lambda: model.save_pretrained_merged(str(folders[1]), tokenizer, save_method="merged_16bit"))
        return folders
    whole = options.out / "model"
    _written(lambda: (model.save_pretrained(str(whole)), tokenizer.save_pretrained(str(whole))))
    return [whole]


def _written(save: Any) -> None:
    try:
        save()
    except OSError as error:
        raise CourseError(
            f"The model could not be written ({error}); free some disk space or choose another --out."
        ) from None
