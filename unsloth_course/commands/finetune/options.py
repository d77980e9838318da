"""What a training run is asked to do: options with the field's names, their checks, and the TOML file that holds them.

The file beside every result repeats its run: `python -m unsloth_course finetune --config OUT/finetune.toml`.
"""

import importlib.util
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from unsloth_course.commands.export import QUANTS
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.memory import PROJECTIONS

METHODS = ("full", "lora", "qlora", "dpo", "grpo", "cpt")
WITH_ADAPTER = ("lora", "qlora", "dpo", "grpo", "cpt")
TRACKERS = ("none", "tensorboard", "wandb", "trackio")
SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
SEEDS = 2**32
"""NumPy takes the seeds below this one."""
CONFIG = "finetune.toml"
"""The name of the file that is written beside every result."""


@dataclass(frozen=True)
class Options:
    """What a run is asked to do. None stands for what the lesson of the method does.

    data: "pocket", "english", a file or folder in a form that the command `data` knows, or a Hub name. model: "pocket",
    "smollm2", a folder or a Hub name; without it "smollm2" on a CPU and the lessons' on a GPU. profile: "cpu" or "gpu".
    max_samples: the most rows to learn from. held_out: rows kept for testing. steps: optimizer updates, or epochs:
    passes over the rows. batch: rows of one update, in all processes together (of GRPO: prompts); micro_batch: rows at
    a time, in place of the plan's choice. max_length: tokens of a row. warmup_ratio: the warm-up of the learning rate
    as a share of the steps. lora_alpha: without it the rank. target_modules: the layers that get an adapter, without it
    all seven projections. beta: of DPO. generations, completion_length (tokens): of GRPO. replay: share of general
    text, of CPT. warm_up: supervised steps before DPO and GRPO. eval_steps, save_steps: updates between two
    measurements of the held-out loss, or two checkpoints. early_stopping: so many measurements without a lower loss end
    the run, and the best weights are kept. earlier: "method data" of stages before, whose scores are measured too.
    merge: also save the adapter merged into its base. gguf: quants to export. hand_on: leave a whole model for the next
    stage of a chain. resume: go on from the last checkpoint in `out`, the folder for what the run writes.
    """

    method: str
    data: str
    model: str | None = None
    profile: str | None = None
    max_samples: int | None = None
    held_out: int | None = None
    steps: int | None = None
    epochs: float | None = None
    learning_rate: float | None = None
    embedding_learning_rate: float | None = None
    lr_scheduler_type: str | None = None
    warmup_steps: int | None = None
    warmup_ratio: float | None = None
    weight_decay: float = 0.01
    optim: str | None = None
    batch: int | None = None
    micro_batch: int | None = None
    max_length: int | None = None
    rank: int | None = None
    lora_alpha: int | None = None
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    beta: float | None = None
    generations: int | None = None
    completion_length: int | None = None
    replay: float | None = None
    warm_up: int | None = None
    eval_steps: int | None = None
    save_steps: int | None = None
    early_stopping: int | None = None
    earlier: tuple[str, ...] = ()
    report_to: str = "none"
    seed: int = 3407
    merge: bool = False
    gguf: tuple[str, ...] = ()
    hand_on: bool = False
    resume: bool = False
    out: Path = Path("results/finetune")

    @property
    def lesson(self) -> str:
        """The lesson that teaches the method."""
        return "lora" if self.method == "qlora" else self.method


_WHOLE = (
    *("max_samples", "held_out", "steps", "batch", "max_length", "rank", "lora_alpha", "generations", "micro_batch"),
    *("completion_length", "eval_steps", "save_steps", "early_stopping"),
)
_ONLY = {
    "beta": ("dpo",),
    "generations": ("grpo",),
    "completion_length": ("grpo",),
    "replay": ("cpt",),
    "embedding_learning_rate": ("cpt",),
    "warm_up": ("dpo", "grpo"),
    "early_stopping": ("full", "lora", "qlora", "dpo", "cpt"),
    "eval_steps": ("full", "lora", "qlora", "dpo", "cpt"),
    "max_length": ("full", "lora", "qlora", "dpo", "cpt"),
    "rank": WITH_ADAPTER,
    "lora_alpha": WITH_ADAPTER,
    "target_modules": WITH_ADAPTER,
}


def flag(name: str) -> str:
    """The command's option for a field."""
    return "--" + name.replace("_", "-")


def check(options: Options) -> None:
    """Raises CourseError for what can be told to be wrong before anything is loaded."""
    if options.method not in METHODS:
        raise CourseError(f"There is no method {options.method!r}; choose one of {', '.join(METHODS)}.")
    for name, example in (("data", "my-rows.jsonl"), ("model", "smollm2")):
        value = getattr(options, name)
        if value is not None and not value.strip():
            raise CourseError(f"{flag(name)} is empty (a variable that is not set?); name one, such as {example}.")
    for name in _WHOLE:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise CourseError(f"{flag(name)} is {value}; give a whole number of at least 1.")
    for name, low, high in (
        ("learning_rate", 0, 1),
        ("embedding_learning_rate", 0, 1),
        ("epochs", 0, 1000),
        ("beta", 0, 100),
    ):
        value = getattr(options, name)
        if value is not None and not low < value < high:
            example = {"epochs": "3", "beta": "0.1"}.get(name, "2e-4")
            raise CourseError(f"{flag(name)} is {value:g}; give a number between {low} and {high}, such as {example}.")
    for name in ("lora_dropout", "replay", "weight_decay", "warmup_ratio"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < 1:
            raise CourseError(f"{flag(name)} is {value:g}; give a number from 0 to below 1.")
    for name in ("warmup_steps", "warm_up", "seed"):
        value = getattr(options, name)
        if value is not None and value < 0:
            raise CourseError(f"{flag(name)} is {value}; give a whole number of at least 0.")
    if options.seed >= SEEDS:
        raise CourseError(f"--seed is {options.seed}; give a whole number below {SEEDS}.")
    if options.generations == 1:
        raise CourseError("--generations is 1; grpo compares the completions of a prompt, so give at least 2.")
    if unknown := [name for name in options.target_modules if name not in PROJECTIONS]:
        raise CourseError(
            f"--target-modules names {unknown[0]!r}; choose from {', '.join(PROJECTIONS)}. Without it all of them get "
            "an adapter."
        )
    for name, known in (("report_to", TRACKERS), ("lr_scheduler_type", SCHEDULES), ("profile", ("cpu", "gpu"))):
        value = getattr(options, name)
        if value is not None and value not in known:
            raise CourseError(f"{flag(name)} is {value!r}; choose one of {', '.join(known)}.")
    if unknown := [quant for quant in options.gguf if quant not in QUANTS]:
        raise CourseError(f"There is no quant {unknown[0]!r}; choose from {', '.join(QUANTS)}.")
    for name, methods in _ONLY.items():
        if getattr(options, name) not in (None, ()) and options.method not in methods:
            raise CourseError(
                f"{flag(name)} means nothing with --method {options.method}; it belongs to {' and '.join(methods)}."
            )
    if options.steps is not None and options.epochs is not None:
        raise CourseError("--steps and --epochs both say how long to train; give one of them.")
    if options.warmup_steps is not None and options.warmup_ratio is not None:
        raise CourseError("--warmup-steps and --warmup-ratio both say how long to warm up; give one of them.")
    if options.early_stopping is not None and options.save_steps is not None:
        raise CourseError(
            "--early-stopping saves a checkpoint at every held-out loss, so --save-steps has no say; leave it out, and "
            "give --eval-steps for another distance."
        )
    if options.merge and options.method == "full":
        raise CourseError(
            "--merge puts an adapter into its base, and full fine-tuning has none: it saves a whole model."
        )
    _check_tracker(options.report_to)
    for entry in options.earlier:
        method, _, data = entry.partition(" ")
        if method not in METHODS or not data:
            raise CourseError(f'earlier = {entry!r}: write the method and the data of a stage, such as "lora pocket".')


def _check_tracker(name: str) -> None:
    package = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}.get(name)
    if package and importlib.util.find_spec(package) is None:
        raise CourseError(
            f"--report-to {name} needs the package {package}, which is not installed here. Install it in the course's "
            f"environment (`pip install {package}`), or leave the option out: the curves are in the results anyway."
        )


# The TOML file


def read(path: Path) -> dict[str, Any]:
    """The options in a TOML file, as keyword arguments for Options. Raises CourseError for what is no option."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CourseError(f"{path} cannot be read ({error.strerror}). Name a TOML file with --config.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CourseError(f"{path} is no TOML file: {error}. Mend that line.") from None
    return checked(found, str(path))


def checked(found: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values by option name, of the right kind. where: file, or file and stage, for the sentence of a CourseError."""
    known = {field.name: getattr(field.type, "__name__", str(field.type)) for field in fields(Options)}
    values = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in known:
            raise CourseError(f"{where}: {key!r} is no option of finetune. Those are {', '.join(known)}.")
        values[name] = _value(known[name], value, f"{where}: {key}")
    return values


_KINDS = {"str": "a text in quotes", "int": "a whole number", "float": "a number", "bool": "true or false"}


def _value(kind: str, value: Any, where: str) -> Any:
    if kind.startswith("tuple"):
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise CourseError(f"{where} is {value!r}; give a list of texts in quotes.")
    plain = kind.split(" ")[0]
    if plain == "Path" and isinstance(value, str):
        return Path(value)
    if plain == "float" and type(value) is int:
        value = float(value)
    if type(value).__name__ != plain:
        raise CourseError(f"{where} is {value!r}; give {_KINDS.get(plain, 'a path in quotes')}.")
    return value


def asked(config: Path | None, said: Mapping[str, Any]) -> Options:
    """The options of a file with those that were said beside it, which go first. None and False say nothing.

    Raises CourseError as `read` does, and when method or data are missing.
    """
    values = read(config) if config else {}
    for name, value in said.items():
        if value is None or value is False:
            continue
        if name in ("gguf", "target_modules") and isinstance(value, str):
            value = tuple(item.strip() for item in value.split(",") if item.strip())
        values[name] = str(value) if name == "profile" else value
    for name, example in (("method", "lora"), ("data", "my-rows.jsonl")):
        if name not in values:
            raise CourseError(f"{flag(name)} is missing: say {flag(name)} {example}, or write it into a --config file.")
    return Options(**values)


def text(options: Options) -> str:
    """The options as a TOML file; what is left to the lesson is left out."""
    lines = [f"{name} = {_toml(value)}" for name, value in asdict(options).items() if _is_said(name, value)]
    return "\n".join(lines) + "\n"


def _is_said(name: str, value: Any) -> bool:
    return value is not None and value is not False and value != () and name != "resume"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # A JSON string is a TOML string, but for a character that TOML wants written out.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def write(options: Options, out: Path) -> Path:
    """Writes the options beside the result, all at once. Raises CourseError where the folder takes no file."""
    path, unfinished = out / CONFIG, out / f"{CONFIG}.unfinished"
    try:
        unfinished.write_text(text(options), encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise CourseError(f"{path} cannot be written ({error.strerror}); choose another --out.") from None
    return path


def changed(before: Options, after: Options) -> list[str]:
    """The names of the options in which two runs differ, of those that decide what is trained."""
    aside = {"resume", "merge", "gguf", "hand_on", "out", "report_to", "earlier"}
    one, other = asdict(replace(before, out=after.out)), asdict(after)
    return [name for name in one if name not in aside and one[name] != other[name]]
