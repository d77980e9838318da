"""What a training run is asked to do: each option once, with its bounds, its methods and its help; and the TOML file.

The file beside every result repeats its run, wherever it lies: `finetune --config OUT/finetune.toml`. This module lies
beside the room `finetune`, since the command line reads it before any room is loaded.
"""
# ruff: noqa: RUF009 (`_option` is dataclasses' `field`)

import importlib.util
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from types import NoneType
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

# The kinds of values: their bounds, and what to give in place of a value that is none of them.
Text = Annotated[str, Predicate(str.strip), "give a text in quotes, such as my-rows.jsonl"]
Texts = Annotated[tuple[str, ...], "give a list of texts in quotes"]
Switch = Annotated[bool, "give true or false"]
Folder = Annotated[Path, "give a path in quotes"]
Versions = Annotated[dict[str, str], "give a table of names and versions"]
Count = Annotated[int, Ge(1), "give a whole number of at least 1"]
FromZero = Annotated[int, Ge(0), "give a whole number of at least 0"]
Share = Annotated[float, Ge(0), Lt(1), "give a number from 0 to below 1"]
Rate = Annotated[float, Gt(0), Lt(1), "give a number between 0 and 1, such as 2e-4"]
Seed = Annotated[int, Ge(0), Lt(SEEDS), f"give a whole number from 0 to below {SEEDS}"]
Beta = Annotated[float, Gt(0), Lt(100), "give a number between 0 and 100, such as 0.1"]
Passes = Annotated[float, Gt(0), Lt(1000), "give a number between 0 and 1000, such as 3"]
Group = Annotated[int, Ge(2), "give at least 2, as grpo compares the completions of a prompt"]
Quants = Annotated[tuple[Literal[QUANTS], ...], f"choose one of {', '.join(QUANTS)}"]
Schedule = Literal["cosine", "linear", "constant", "constant_with_warmup"]
_ADAPTER = ("lora", "qlora", "dpo", "grpo", "cpt")
_NOT_GRPO = ("full", "lora", "qlora", "dpo", "cpt")


def _option(help: str, default: Any = None, of: tuple[str, ...] = METHODS) -> Any:
    """A field that is an option of the command. of: the methods that it belongs to."""
    return field(default=default, metadata={"help": help, "of": of})


@dataclass(frozen=True)
class Options:
    """What a run is asked to do. None stands for what the lesson of the method does; nothing is checked before `check`.

    earlier: "method data" of stages before, whose scores are measured too. hand_on: leave a whole model for the next
    stage of a chain. Of a run that was written down also filled_in: the options that were left open, and what the
    recipe took for them stands there; rows_sha256: the fingerprint of its rows; made_with: versions of packages.
    """

    method: Literal[METHODS] = _option("full, lora, qlora, dpo, grpo or cpt.", MISSING)
    data: Text = _option('"pocket", a file or folder in a form that `data` knows, or a name on the Hub.', MISSING)
    model: Text | None = _option(
        'A folder, a Hub name or "smollm2" (what a CPU takes); "pocket" is for trying this out.'
    )
    profile: Literal["cpu", "gpu"] | None = _option("Machine to run for; without it the command looks for itself.")
    max_samples: Count | None = _option("The most rows to learn from.")
    held_out: Count | None = _option("Rows kept for testing.")
    test_data: Text | None = _option("Rows to test on, in place of some of --data.")
    split: Text | None = _option("Split of --data to learn from; without it train or what begins so.")
    config_name: Text | None = _option("Configuration of --data; without it main or the first.")
    steps: Count | None = _option("Updates; without it the lesson's.")
    epochs: Passes | None = _option("Passes over the rows, in place of --steps.")
    learning_rate: Rate | None = _option("Without it the lesson's.")
    embedding_learning_rate: Rate | None = _option("Of cpt.", of=("cpt",))
    lr_scheduler_type: Schedule | None = _option("cosine, linear, constant ...")
    warmup_steps: FromZero | None = _option("Steps in which the learning rate rises.")
    warmup_ratio: Share | None = _option("The same as a share of the steps.")
    weight_decay: Share = _option("Without it 0.01.", 0.01)
    optim: Text | None = _option("Optimizer, by its name in transformers.")
    batch: Count | None = _option("Rows of an update, in all processes (of grpo: prompts).")
    micro_batch: Count | None = _option("Rows at a time; without it the plan chooses.")
    max_length: Count | None = _option("Tokens of a row; what is longer is cut.", of=_NOT_GRPO)
    rank: Count | None = _option("LoRA rank; without it 16, of cpt 64.", of=_ADAPTER)
    lora_alpha: Count | None = _option("Without it the rank.", of=_ADAPTER)
    lora_dropout: Share = _option("Without it 0.", 0.0)
    target_modules: Texts = _option("Layers with an adapter, such as q_proj,v_proj.", (), _ADAPTER)
    beta: Beta | None = _option("Of dpo.", of=("dpo",))
    generations: Group | None = _option("Completions of a prompt, of grpo.", of=("grpo",))
    completion_length: Count | None = _option("Tokens of a completion, of grpo.", of=("grpo",))
    tools_in_system: Switch = _option("Write functions that the chat template cannot show into the system turn.", False)
    replay: Share | None = _option("Share of general text, of cpt.", of=("cpt",))
    warm_up: FromZero | None = _option("Supervised steps before dpo and grpo.", of=("dpo", "grpo"))
    eval_steps: Count | None = _option("Updates between two held-out losses; else a quarter.", of=_NOT_GRPO)
    save_steps: Count | None = _option("Updates between two checkpoints; else a quarter.")
    early_stopping: Count | None = _option(
        "End after so many held-out losses without a lower one; keep the best weights.", of=_NOT_GRPO
    )
    earlier: Texts = ()
    filled_in: Texts = ()
    rows_sha256: Text | None = None
    made_with: Versions = field(default_factory=dict)
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = _option("tensorboard, wandb or trackio.", "none")
    seed: Seed = _option("Seed of rows and adapter; without it 3407.", 3407)
    merge: Switch = _option("Also save the adapter merged into its base.", False)
    gguf: Quants = _option("Also export f16, q8_0, q5_k_m, q4_k_m, with commas.", ())
    hand_on: Switch = False
    resume: Switch = _option("Go on from the last checkpoint in --out.", False)
    out: Folder = _option("Folder for what the run writes; else results/finetune.", Path("results/finetune"))

    @property
    def lesson(self) -> str:
        """The lesson that teaches the method."""
        return "lora" if self.method == "qlora" else self.method


HINTS = get_type_hints(Options, include_extras=True)


def _kind(name: str) -> Any:
    """The kind of an option's values, None aside."""
    hint = HINTS[name]
    return get_args(hint)[0] if NoneType in get_args(hint) else hint


def means_something(name: str, method: str) -> bool:
    return method in Options.__dataclass_fields__[name].metadata.get("of", METHODS)


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def on_the_command_line() -> Iterator[tuple[str, type, str]]:
    """Of each option of the command: its name, its type there, and its help."""
    for one in fields(Options):
        if one.metadata:
            kind = getattr(_kind(one.name), "__origin__", str)
            yield one.name, kind if kind in (bool, int, float, Path) else str, one.metadata["help"]


def _value(name: str, value: Any, said: str) -> Any:
    """A value as its option holds it. Raises CourseError for one that it cannot be. said: the option, as it was."""
    from pydantic import TypeAdapter  # here, so that --help stays quick

    kind = _kind(name)
    try:
        return TypeAdapter(HINTS[name]).validate_python(value, strict=True)
    except ValueError:
        shown = f"{value:g}" if isinstance(value, float) else repr(list(value) if isinstance(value, tuple) else value)
    if isinstance(value, str) and not value.strip():
        shown = "empty (a variable that is not set?)"
    literal = get_origin(kind) is Literal
    give = f"choose one of {', '.join(get_args(kind))}" if literal else kind.__metadata__[-1]
    raise CourseError(f"{said} is {shown}; {give}.")


def check(options: Options) -> None:
    """Raises CourseError for what can be told to be wrong before anything is loaded."""
    from unsloth_course.lesson.memory import PROJECTIONS

    for name in HINTS:
        value = _value(name, getattr(options, name), flag(name))
        if value not in (None, ()) and not means_something(name, options.method):
            only = " and ".join(Options.__dataclass_fields__[name].metadata["of"])
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
        if _kind(name) in (Texts, Quants) and isinstance(value, str | list):
            value = (value,) if isinstance(value, str) else tuple(value)
        elif name == "out" and isinstance(value, str):
            value = Path(value)
        values[name] = _value(name, value, f"{where}: {key}")
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
    """Writes the options beside the result, all at once, with paths as seen from there."""
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


def changed(before: Options, after: Options) -> list[str]:
    """The names of the options in which two runs differ, of those that decide what is trained."""
    aside = {"resume", "merge", "gguf", "hand_on", "out", "report_to", "earlier", "rows_sha256", "made_with"}
    # What a recipe filled in was not asked for.
    one, other = (asdict(replace(run, **dict.fromkeys(run.filled_in), filled_in=())) for run in (before, after))
    return [name for name in one if name not in aside and one[name] != other[name]]
