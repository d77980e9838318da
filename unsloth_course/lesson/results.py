"""The results file of a run: `results/<lesson>.json`, the same keys for every lesson."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from unsloth_course.core.lessons import VERDICTS
from unsloth_course.core.writing import plain, write_text
from unsloth_course.lesson import evaluation, models
from unsloth_course.lesson.evaluation.scores import KINDS
from unsloth_course.lesson.fingerprint import fingerprint
from unsloth_course.lesson.memory import size
from unsloth_course.lesson.profile import HUB_MODEL, POCKET, SMOLLM2, Profile

if TYPE_CHECKING:
    from unsloth_course.lesson.diagnosis import Receipt, Watch
    from unsloth_course.lesson.memory import Plan

CARD = "README.md"
NAMED = ("unsloth", "torch", "transformers", "trl", "peft", "datasets")
CURVES = (
    "loss",
    "eval_loss",
    "reward",
    "reward_std",
    "reward_std_in_groups",
    "frac_reward_zero_std",
    "completions/mean_length",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
)
"""What is kept of a trainer's log, step by step, where it was logged."""
Text = Annotated[str, Meta(max_length=10_000)]
Whole = Annotated[int, Meta(ge=0)]
Number = Annotated[float, Meta(ge=0, lt=1e305)]  # JSON may hold integers that no float can
End = Annotated[float, Meta(gt=-1e305, lt=1e305)]


class Answered(msgspec.Struct):
    """A score of the battery: a value, its interval and its n, or the reason why it was not measured."""

    value: Number | None = None
    interval: tuple[End, End] | None = None
    n: Whole = 0
    questions: Text | None = None
    reason: Text | None = None

    def __post_init__(self) -> None:
        if self.value is None:
            self.interval, self.n, self.reason = None, 0, self.reason or "not measured"
        elif self.interval is None:
            raise ValueError("the value has no interval")
        elif self.interval[0] > self.interval[1]:
            raise ValueError("the interval begins after its end")


class Parameters(msgspec.Struct):
    """Counts of parameters."""

    total: Whole
    trainable: Whole


class Training(msgspec.Struct, frozen=True):
    """What a training cost."""

    peak_memory_bytes: Whole
    seconds: Number


class OwnTest(msgspec.Struct):
    """The lesson's own score. What is null, as when a loss was not a number, is not known."""

    metric: Text
    n: Whole
    before: Number | None = None
    after: Number | None = None
    interval: tuple[End | None, End | None] | None = None

    def __post_init__(self) -> None:
        if self.interval and None in self.interval:
            self.interval = None


class Verdict(msgspec.Struct):
    """The verdict of the receipt."""

    verdict: Literal[VERDICTS]


class Place(msgspec.Struct, kw_only=True):
    """Where a run was."""

    profile: Text
    device: Text


class Results(Place, kw_only=True):
    """What others read of a results file: of the base, what nobody trained has."""

    lesson: Text
    model: Text
    data: Text
    versions: dict[str, Text]
    parameters: Parameters
    battery: dict[str, Answered] | None = None
    file_bytes: Whole = 0
    seed: Whole | None = None
    training: Training = Training(0, 0.0)
    evaluation: OwnTest | None = None
    receipt: Verdict | None = None


class Run(Results, kw_only=True):
    """The same of a run, which has all of it."""

    seed: Whole
    training: Training
    evaluation: OwnTest
    receipt: Verdict


Kind = TypeVar("Kind", bound=msgspec.Struct)


def read(path: Path, kind: type[Kind]) -> Kind:
    """What a results file holds. Raises ValueError, in words that go on after "the file is left out:"."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from None
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        raise ValueError(f"{where.strip('.`') or 'the whole'} is wrong: {what[0].lower()}{what[1:]}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is not valid JSON") from None


SAMPLES = 6
SAMPLE_CHARACTERS = 600


def versions(names: Sequence[str] = NAMED) -> dict[str, str]:
    """The installed versions of the packages that decide what a run does."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def build(
    lesson: str,
    machine: Profile,
    parameters: models.Count,
    watching: "Watch",
    score: evaluation.Score,
    receipt: "Receipt",
    plan: "Plan",
    wall_seconds: float,
    battery: Mapping[str, Any] | None = None,
    file_bytes: int = 0,
    samples: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """The results of a run, as the keys of the results file.

    plan: that of `memory.plan`, whose reasons are kept. battery: the scores of `scoreboard.battery`. file_bytes: the
    size of what was learned, as `models.disk_bytes` has it for the saved adapter or model. The scoreboard needs both.
    samples: what it wrote before and after, as `samples` gives it; the first six are kept.
    """
    trainer, history = watching.trainer, watching.trainer.state.log_history
    batch, accumulation = trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps
    steps = trainer.state.global_step
    summary = next((row for row in reversed(history) if "train_runtime" in row), {})
    examples = steps * batch * accumulation
    found = versions()
    return {
        "lesson": lesson,
        "profile": machine.name,
        "device": machine.device,
        "model": machine.model,
        "data": machine.data,
        "fingerprint": fingerprint(machine.model, machine.data, lesson),
        "backend": f"unsloth {found['unsloth']}",
        "versions": found,
        "seed": trainer.args.seed,
        "parameters": {"total": parameters.total, "trainable": parameters.trainable},
        "training": {
            "steps": steps,
            "learning_rate": float(trainer.args.learning_rate),
            "examples": examples,
            "tokens": _tokens(history, trainer.train_dataset, examples),
            "seconds": float(summary.get("train_runtime", 0.0)),
            "loss": [float(row["loss"]) for row in history if "loss" in row],
            "curves": curves(history),
            "peak_memory_bytes": watching.meter.peak_bytes,
            "predicted_memory_bytes": plan.prediction.total,
            "micro_batch": batch,
            "accumulation": accumulation,
            "reasons": [f"{choice.what} {choice.value}: {choice.why}" for choice in (*machine.reasons, *plan.reasons)],
        },
        "evaluation": asdict(score),
        "receipt": receipt.to_dict(),
        "battery": dict(battery or {}),
        "file_bytes": file_bytes,
        "samples": [dict(sample) for sample in samples][:SAMPLES],
        "wall_seconds": round(wall_seconds, 1),
    }


def curves(history: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """The learning curves in a trainer's log: pairs of step and value by name, with the finite numbers alone."""
    found: dict[str, list[list[float]]] = {}
    for row in history:
        for name in CURVES:
            value, step = row.get(name), row.get("step")
            if all(isinstance(number, int | float) and math.isfinite(number) for number in (value, step)):
                found.setdefault(name, []).append([int(step), float(value)])
    return found


def samples(before: Any, after: Any, texts: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """What a model wrote to the same prompts before and after training, for the results file: six, of 600 characters.

    before, after: the `evaluation.Answers`. Then the samples are of each kind that there is, and say its name and how
    many answers of how many are of it: the newly right ones alone would flatter. Of text without marks instead the
    prompts, the texts before, and as `texts` those after.
    """
    if texts is not None:
        return [_sample(*row) for row in list(zip(before, after, texts, strict=True))[:SAMPLES]]
    found = evaluation.changed(before, after, dict.fromkeys(KINDS, SAMPLES))
    kinds = [[row for row in found.shown if row[0] == kind] for kind in (found.counts or ("",))]
    # By turns of each kind, and shown in the order of the kinds.
    turns = [row for several in itertools.zip_longest(*kinds) for row in several if row][:SAMPLES]
    counts, whole = found.counts, len(after.right)
    return [
        _sample(prompt, old, new) | ({"kind": kind, "count": counts[kind], "of": whole} if kind else {})
        for kind, prompt, _, old, new in sorted(turns, key=found.shown.index)
    ]


def _sample(prompt: str, before: str, after: str) -> dict[str, Any]:
    return {name: text[:SAMPLE_CHARACTERS] for name, text in (("prompt", prompt), ("before", before), ("after", after))}


def costs(watching: "Watch") -> dict[str, str]:
    """What a finished training cost, in words, to lay runs side by side: parameters, memory, time.

    Gradients and activations are one figure: the ones grow while the others are released. Time is that of training
    alone: measuring the loss on unseen rows in between is taken off. A step's is the median, since the first ones may
    have to compile. Taught in lesson colab1 (full fine-tuning).
    """
    trainer, meter = watching.trainer, watching.meter
    count, spent = models.count(trainer.model), seconds(trainer.state.log_history)
    return {
        "trained parameters": f"{count.trainable:,} ({count.share:.1%})",
        "peak memory": size(meter.peak_bytes),
        "of it, optimizer": size(meter.parts["optimizer"]),
        "of it, gradients and activations": size(meter.parts["gradients"] + meter.parts["activations"]),
        "seconds of training": f"{spent:.1f}",
        "milliseconds per step": f"{1000 * median(meter.step_seconds or [spent]):.0f}",
    }


def seconds(history: Sequence[Mapping[str, Any]]) -> float:
    """Seconds that the last training in a trainer's log took, the evaluations inside it taken off; 0 without one."""
    ends = [number for number, row in enumerate(history) if "train_runtime" in row]
    if not ends:
        return 0.0
    begin = ends[-2] + 1 if len(ends) > 1 else 0
    evaluated = sum(float(row.get("eval_runtime", 0.0)) for row in history[begin : ends[-1]])
    return max(0.0, float(history[ends[-1]]["train_runtime"]) - evaluated)


def _tokens(history: list[dict], dataset: Any, examples: int) -> int:
    """Tokens that the run read: TRL's own count where it logs one, else the rows' mean length times the rows read."""
    counted = [int(row["num_tokens"]) for row in history if "num_tokens" in row]
    if counted:
        return max(counted)
    if "input_ids" not in dataset.column_names or not len(dataset):
        return 0
    return round(sum(map(len, dataset["input_ids"])) / len(dataset) * examples)


def write(results: Mapping[str, Any], folder: str | Path) -> Path:
    """Writes results as `<lesson>.json` into a folder, whole or not at all, and returns the path.

    Numbers that JSON does not know (a loss that became infinite) are written as null.
    """
    path = Path(folder) / f"{results['lesson']}.json"
    write_text(path, json.dumps(plain(results), indent=2, allow_nan=False) + "\n")
    return path


def card(results: Mapping[str, Any], receipt: "Receipt", folder: str | Path, base: str | None = None) -> None:
    """Writes the model card (README.md) of what was learned, from the results of its run, without a path or a row.

    base: the name of the model that it was trained from, if it is not the run's. Follows the Hub's documentation of
    model cards. Taught in all five lessons.
    """
    base, training = base or results["model"], results["training"]
    hub, data = {SMOLLM2: HUB_MODEL}.get(base, base), results.get("options", results)["data"]
    adapter = (Path(folder) / "adapter_config.json").is_file()
    local = base != POCKET and Path(base).expanduser().exists()
    name = "a model of its owner's" if local else {POCKET: "the bundled model of unsloth-course"}.get(base, hub)
    rows = [
        ("method", results.get("method", results["lesson"])),
        ("data", Path(data).name if Path(data).expanduser().exists() else data),
        ("training", f"{training['steps']} updates, {training['examples']:,} rows, rate {training['learning_rate']:g}"),
        ("trained parameters", f"{results['parameters']['trainable']:,} of {results['parameters']['total']:,}"),
        *receipt.rows(),
    ]
    lines = ["---", f"library_name: {'peft' if adapter else 'transformers'}", "tags: [unsloth, trl]"]
    lines += [f"base_model: {hub}"] if "/" in hub and not local else []
    lines += ["---", "", f"# {'A LoRA adapter' if adapter else 'A model'}, trained from {name}", ""]
    lines += [f"Made by unsloth-course, with Unsloth and TRL. {receipt.sentence()}", "", "| | |", "|---|---|"]
    lines += [f"| {what} | {value.replace('|', '/')} |" for what, value in rows]
    write_text(Path(folder) / CARD, "\n".join([*lines, "", "Talk to it with `unsloth-course chat FOLDER`.", ""]))
