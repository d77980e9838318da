"""What a training run is asked to do: each option once, with its bounds, its methods and its help; and the TOML file.

The file beside every result repeats its run, wherever it lies: `finetune --config OUT/finetune.toml`. This module lies
beside the room `finetune`, since the command line reads it before any room is loaded.
"""

import importlib.util
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Lt, Predicate

from unsloth_course.core.errors import CourseError
from unsloth_course.core.writing import write_text
from unsloth_course.lesson.memory.shape import METHODS

QUANTS = ("f16", "q8_0", "q5_k_m", "q4_k_m")
SEEDS = 2**32
"""NumPy takes the seeds below this one."""
CONFIG = "finetune.toml"
"""The name of the file that is written beside every result."""
_PATHS = ("data", "test_data", "model")
"""The options that may name a file or folder."""


class Of(tuple):
    """The methods that an option belongs to."""


class Help(str):
    """What `finetune --help` says of an option."""


class Give(str):
    """What to give in place of a value that is out of bounds."""


Text = Annotated[str, Predicate(str.strip)]
Count = Annotated[int, Ge(1), Give("a whole number of at least 1")]
FromZero = Annotated[int, Ge(0), Give("a whole number of at least 0")]
Share = Annotated[float, Ge(0), Lt(1), Give("a number from 0 to below 1")]
Rate = Annotated[float, Gt(0), Lt(1), Give("a number between 0 and 1, such as 2e-4")]
Seed = Annotated[int, Ge(0), Lt(SEEDS), Give(f"a whole number from 0 to below {SEEDS}")]
Beta = Annotated[float, Gt(0), Lt(100), Give("a number between 0 and 100, such as 0.1")]
Passes = Annotated[float, Gt(0), Lt(1000), Give("a number between 0 and 1000, such as 3")]
Group = Annotated[int, Ge(2), Give("at least 2, as grpo compares the completions of a prompt")]
_ADAPTER = Of(("lora", "qlora", "dpo", "grpo", "cpt"))
_NOT_GRPO = Of(("full", "lora", "qlora", "dpo", "cpt"))


@dataclass(frozen=True)
class Options:
    """What a run is asked to do. None stands for what the lesson of the method does; nothing is checked before `check`.

    data: "pocket", "english", a file or folder in a form that the command `data` knows, or a Hub name. model: "pocket",
    "smollm2", a folder or a Hub name; without it "smollm2" on a CPU and the lessons' on a GPU. steps: optimizer
    updates, or epochs: passes over the rows. batch: rows of one update, in all processes together (of GRPO: prompts).
    target_modules: without it all seven projections. earlier: "method data" of stages before, whose scores are measured
    too. hand_on: leave a whole model for the next stage of a chain. out: the folder for what the run writes.

    Of a run that was written down also filled_in: the options that were left open, and what the recipe took for them
    stands there; rows_sha256: the fingerprint of its rows; made_with: versions of packages.
    """

    method: Annotated[Literal[METHODS], Help("full, lora, qlora, dpo, grpo or cpt.")]
    data: Annotated[Text, Help('"pocket", a file or folder in a form that `data` knows, or a name on the Hub.')]
    model: Annotated[
        Text | None, Help('A folder, a Hub name or "smollm2" (what a CPU takes); "pocket" is for trying this out.')
    ] = None
    profile: Annotated[
        Literal["cpu", "gpu"] | None, Help("Machine to run for; without it the command looks for itself.")
    ] = None
    max_samples: Annotated[Count | None, Help("The most rows to learn from.")] = None
    held_out: Annotated[Count | None, Help("Rows kept for testing.")] = None
    test_data: Annotated[Text | None, Help("Rows to test on, in place of some of --data.")] = None
    split: Annotated[Text | None, Help("Split of --data to learn from; without it train or what begins so.")] = None
    config_name: Annotated[Text | None, Help("Configuration of --data; without it main or the first.")] = None
    steps: Annotated[Count | None, Help("Updates; without it the lesson's.")] = None
    epochs: Annotated[Passes | None, Help("Passes over the rows, in place of --steps.")] = None
    learning_rate: Annotated[Rate | None, Help("Without it the lesson's.")] = None
    embedding_learning_rate: Annotated[Rate | None, Of(("cpt",)), Help("Of cpt.")] = None
    lr_scheduler_type: Annotated[
        Literal["cosine", "linear", "constant", "constant_with_warmup"] | None, Help("cosine, linear, constant ...")
    ] = None
    warmup_steps: Annotated[FromZero | None, Help("Steps in which the learning rate rises.")] = None
    warmup_ratio: Annotated[Share | None, Help("The same as a share of the steps.")] = None
    weight_decay: Annotated[Share, Help("Without it 0.01.")] = 0.01
    optim: Annotated[str | None, Help("Optimizer, by its name in transformers.")] = None
    batch: Annotated[Count | None, Help("Rows of an update, in all processes (of grpo: prompts).")] = None
    micro_batch: Annotated[Count | None, Help("Rows at a time; without it the plan chooses.")] = None
    max_length: Annotated[Count | None, _NOT_GRPO, Help("Tokens of a row; what is longer is cut.")] = None
    rank: Annotated[Count | None, _ADAPTER, Help("LoRA rank; without it 16, of cpt 64.")] = None
    lora_alpha: Annotated[Count | None, _ADAPTER, Help("Without it the rank.")] = None
    lora_dropout: Annotated[Share, Help("Without it 0.")] = 0.0
    target_modules: Annotated[tuple[str, ...], _ADAPTER, Help("Layers with an adapter, such as q_proj,v_proj.")] = ()
    beta: Annotated[Beta | None, Of(("dpo",)), Help("Of dpo.")] = None
    generations: Annotated[Group | None, Of(("grpo",)), Help("Completions of a prompt, of grpo.")] = None
    completion_length: Annotated[Count | None, Of(("grpo",)), Help("Tokens of a completion, of grpo.")] = None
    tools_in_system: Annotated[
        bool, Help("Write functions that the chat template cannot show into the system turn.")
    ] = False
    replay: Annotated[Share | None, Of(("cpt",)), Help("Share of general text, of cpt.")] = None
    warm_up: Annotated[FromZero | None, Of(("dpo", "grpo")), Help("Supervised steps before dpo and grpo.")] = None
    eval_steps: Annotated[Count | None, _NOT_GRPO, Help("Updates between two held-out losses; else a quarter.")] = None
    save_steps: Annotated[Count | None, Help("Updates between two checkpoints; else a quarter.")] = None
    early_stopping: Annotated[
        Count | None, _NOT_GRPO, Help("End after so many held-out losses without a lower one; keep the best weights.")
    ] = None
    earlier: tuple[str, ...] = ()
    filled_in: tuple[str, ...] = ()
    rows_sha256: str | None = None
    made_with: dict[str, str] = field(default_factory=dict)
    report_to: Annotated[Literal["none", "tensorboard", "wandb", "trackio"], Help("tensorboard, wandb or trackio.")] = (
        "none"
    )
    seed: Annotated[Seed, Help("Seed of rows and adapter; without it 3407.")] = 3407
    merge: Annotated[bool, Help("Also save the adapter merged into its base.")] = False
    gguf: Annotated[tuple[Literal[QUANTS], ...], Help("Also export f16, q8_0, q5_k_m, q4_k_m, with commas.")] = ()
    hand_on: bool = False
    resume: Annotated[bool, Help("Go on from the last checkpoint in --out.")] = False
    out: Annotated[Path, Help("Folder for what the run writes; else results/finetune.")] = Path("results/finetune")

    @property
    def lesson(self) -> str:
        """The lesson that teaches the method."""
        return "lora" if self.method == "qlora" else self.method


HINTS = get_type_hints(Options, include_extras=True)


def _noted(hint: Any, kind: type) -> Any:
    """What a type hint, or a part of it, is annotated with of one kind; None without."""
    own = (part for part in getattr(hint, "__metadata__", ()) if isinstance(part, kind))
    inner = (_noted(part, kind) for part in get_args(hint) if not isinstance(part, str))
    return next(filter(None, (*own, *inner)), None)


def _bases(hint: Any) -> set[Any]:
    """The classes that a type hint is made of."""
    if hasattr(hint, "__metadata__"):
        return _bases(hint.__origin__)
    if get_origin(hint) is Literal:
        return {str}
    return {get_origin(hint) or hint}.union(*map(_bases, get_args(hint)))


def means_something(name: str, method: str) -> bool:
    """Whether an option belongs to a method."""
    return method in (_noted(HINTS[name], Of) or (method,))


def flag(name: str) -> str:
    """The command's option for a field."""
    return "--" + name.replace("_", "-")


def on_the_command_line() -> Iterator[tuple[str, type, str]]:
    """Of each option of the command: its name, its type there, and its help."""
    for name, hint in HINTS.items():
        if noted := _noted(hint, Help):
            yield name, next((kind for kind in (bool, int, float, Path) if kind in _bases(hint)), str), noted


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list of texts in quotes",
    Path: "a path in quotes",
    str: "a text in quotes",
}


def _flaw(name: str, value: Any) -> str:
    """What is wrong with a value, and what to give in its place; "" when it can be."""
    from pydantic import TypeAdapter, ValidationError  # here, so that --help stays quick

    try:
        TypeAdapter(HINTS[name]).validate_python(value, strict=True)
    except ValidationError as error:
        found = error.errors()[0]
    else:
        return ""
    shown = f"{value:g}" if isinstance(value, float) else repr(list(value) if isinstance(value, tuple) else value)
    if found["type"] == "literal_error" and isinstance(found["input"], str):
        known = found["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return f"is {shown}; choose one of {known}"
    if found["type"] == "predicate_failed":
        example = "smollm2" if name == "model" else "my-rows.jsonl"
        return f"is empty (a variable that is not set?); name one, such as {example}"
    give = _noted(HINTS[name], Give)
    if give and found["type"].startswith(("greater", "less")):
        return f"is {shown}; give {give}"
    return f"is {shown}; give {next(text for kind, text in _KINDS.items() if kind in _bases(HINTS[name]))}"


def check(options: Options) -> None:
    """Raises CourseError for what can be told to be wrong before anything is loaded."""
    from unsloth_course.lesson.memory import PROJECTIONS

    for name in HINTS:
        value = getattr(options, name)
        if flaw := _flaw(name, value):
            raise CourseError(f"{flag(name)} {flaw}.")
        if value not in (None, ()) and not means_something(name, options.method):
            only = " and ".join(_noted(HINTS[name], Of))
            raise CourseError(f"{flag(name)} means nothing with --method {options.method}; it belongs to {only}.")
    if unknown := [name for name in options.target_modules if name not in PROJECTIONS]:
        raise CourseError(
            f"--target-modules names {unknown[0]!r}; choose from {', '.join(PROJECTIONS)}. Without it all of them get "
            "an adapter."
        )
    for one, other, what in (("steps", "epochs", "train"), ("warmup_steps", "warmup_ratio", "warm up")):
        if getattr(options, one) is not None and getattr(options, other) is not None:
            raise CourseError(f"{flag(one)} and {flag(other)} both say how long to {what}; give one of them.")
    if options.early_stopping is not None and options.save_steps is not None:
        raise CourseError(
            "--early-stopping saves a checkpoint at every held-out loss, so --save-steps has no say; leave it out, and "
            "give --eval-steps for another distance."
        )
    if options.merge and options.method == "full":
        raise CourseError(
            "--merge puts an adapter into its base, and full fine-tuning has none: it saves a whole model."
        )
    if (tracker := options.report_to) != "none" and importlib.util.find_spec(tracker) is None:
        raise CourseError(
            f"--report-to {tracker} needs the package {tracker}, which is not installed here. Install it in the "
            f"course's environment (`pip install {tracker}`), or leave the option out: the curves are in the results "
            "anyway."
        )
    for entry in options.earlier:
        method, _, data = entry.partition(" ")
        if method not in METHODS or not data:
            raise CourseError(f'earlier = {entry!r}: write the method and the data of a stage, such as "lora pocket".')


# The TOML file


def read(path: Path) -> dict[str, Any]:
    """The options in a TOML file, as keyword arguments for Options. Raises CourseError for what is no option.

    Paths in a file that a run wrote are seen from where it lies, and the folder that it lies in is the run's.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CourseError(f"{path} cannot be read ({error.strerror}). Name a TOML file with --config.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CourseError(f"{path} is no TOML file: {error}. Mend that line.") from None
    values = checked(found, str(path))
    if values.get("made_with"):
        values["out"] = path.parent
        beside = {name: os.path.normpath(path.parent.resolve() / values[name]) for name in _PATHS if name in values}
        values |= {name: place for name, place in beside.items() if os.path.exists(place)}
    return values


def checked(found: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values by option name, of the right kind. where: file, or file and stage, for the sentence of a CourseError."""
    values = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in HINTS:
            raise CourseError(f"{where}: {key!r} is no option of finetune. Those are {', '.join(HINTS)}.")
        if tuple in _bases(HINTS[name]) and isinstance(value, str | list):
            value = (value,) if isinstance(value, str) else tuple(value)
        elif name == "out" and isinstance(value, str):
            value = Path(value)
        if flaw := _flaw(name, value):
            raise CourseError(f"{where}: {key} {flaw}.")
        values[name] = float(value) if type(value) is int and float in _bases(HINTS[name]) else value
    return values


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
        values[name] = value
        values["filled_in"] = tuple(other for other in values.get("filled_in", ()) if other != name)
    for name, example in (("method", "lora"), ("data", "my-rows.jsonl")):
        if name not in values:
            raise CourseError(f"{flag(name)} is missing: say {flag(name)} {example}, or write it into a --config file.")
    return Options(**values)


def text(options: Options) -> str:
    """The options as a TOML file; what is left to the lesson is left out."""
    said = {name: value for name, value in asdict(options).items() if value is not False and value not in (None, ())}
    said.pop("resume", None)
    versions = said.pop("made_with")
    # What JSON writes is TOML too, but for a character that TOML wants written out.
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False, default=str)}\n" for name, value in said.items()]
    if versions:
        lines += ["\n[made_with]\n", *(f"{name} = {json.dumps(version)}\n" for name, version in versions.items())]
    return "".join(lines).replace("\x7f", "\\u007f")


def write(options: Options, out: Path) -> Path:
    """Writes the options beside the result, all at once, with paths as seen from there.

    Raises CourseError where the folder takes no file.
    """
    if options.made_with:
        seen = {name: _seen_from(out, getattr(options, name)) for name in _PATHS}
        options = replace(options, out=Path("."), **seen)
    write_text(out / CONFIG, text(options))
    return out / CONFIG


def _seen_from(folder: Path, name: str | None) -> str | None:
    """A path as seen from a folder; what is no path stays."""
    from unsloth_course.lesson.profile import NEITHER_HUB_NOR_PATH

    place = os.path.expanduser(name or "")
    if name in NEITHER_HUB_NOR_PATH or not os.path.exists(place):
        return name
    try:
        return Path(os.path.relpath(os.path.realpath(place), folder.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        return os.path.realpath(place)


def as_said(options: Options) -> Options:
    """The options without what a recipe filled in."""
    return replace(options, **dict.fromkeys(options.filled_in), filled_in=())


def changed(before: Options, after: Options) -> list[str]:
    """The names of the options in which two runs differ, of those that decide what is trained."""
    aside = {"resume", "merge", "gguf", "hand_on", "out", "report_to", "earlier", "rows_sha256", "made_with"}
    one, other = asdict(as_said(before)), asdict(as_said(after))
    return [name for name in one if name not in aside and one[name] != other[name]]
