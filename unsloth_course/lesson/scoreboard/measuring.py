"""The battery: the same questions for every model, whatever it was trained for."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import evaluation, models, results, rewards
from unsloth_course.lesson.data import preference, problems, sources
from unsloth_course.lesson.evaluation.intervals import ratios_drawn, wilson
from unsloth_course.lesson.evaluation.surprise import MOST
from unsloth_course.lesson.profile import ENGLISH, HUB_DATA, POCKET, SMOLLM2, Profile
from unsloth_course.pocket import datasets
from unsloth_course.pocket.english import is_short

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 1  # goes into every fingerprint: raise it when a change here moves a score of an unchanged model
ANSWERS, PREFERENCES, PROBLEMS, TEXTS = 120, 96, 80, 60  # how many of each; ten, or eight, of each taught skill
TEXT_LENGTH = 256  # tokens of a text that are looked at
SEED = 20_000


@dataclass(frozen=True)
class Measure:
    """One score: what it is called, what it means, whether it is a share (else a perplexity), and who trains for it."""

    title: str
    meaning: str
    share: bool = True
    trained_by: tuple[str, ...] = ()


SCORES = {
    "answers": Measure("answers", "held-out questions in chat, answered exactly", trained_by=("full", "lora")),
    "retention": Measure("retention", "skills that no lesson trains, asked as plain text"),
    "preference": Measure("preference", "held-out questions answered in the preferred way", trained_by=("dpo",)),
    "format": Measure("format", "word problems answered with steps and #### number at the end", trained_by=("grpo",)),
    "accuracy": Measure("accuracy", "the same word problems solved", trained_by=("grpo",)),
    "perplexity_domain": Measure(
        "perplexity, domain", "held-out Python functions; lower is better", share=False, trained_by=("cpt",)
    ),
    "perplexity_general": Measure("perplexity, general", "stories; lower is better", share=False),
}


def battery(model: Any, tokenizer: Any, machine: Profile) -> dict[str, dict[str, Any]]:
    """Puts a model through the battery: for each name in `SCORES` its value, interval, n and questions.

    `value` is a share from 0 to 1 or a perplexity; `interval` its 95 % interval, [low, high]: Wilson's (1927) for a
    share, the percentile bootstrap over texts for a perplexity; `n` the number of questions or texts; `questions` a
    fingerprint of exactly what was asked: two values can be compared when theirs agree. A score that cannot be had
    has the value None and says why in `reason`.

    The questions are held out, the same in every run, and asked greedily. The bundled model gets the bundled sets,
    "smollm2" those in plain English, any other model those of `profile.HUB_DATA`, whatever it learned from, and all of
    them the same stories. Taught in all five lessons.
    """
    return _measured(model, tokenizer, _drawn(machine))


def base(machine: Profile, out: str | Path) -> dict[str, Any]:
    """The untouched model's row, from `base.json` in the folder `out`, or measured now and kept there.

    What is kept is used again when model, profile, package versions and questions are still the same. The results
    have those keys of a lesson's that apply to a model that nobody trained. Raises CourseError as `models.folder` and
    `results.write` do. Taught in all five lessons.
    """
    folder, found, drawn = models.folder(machine.model), results.versions(), _drawn(machine)
    size = models.disk_bytes(folder)
    asked = {name: _fingerprint(names, rows) for names, rows in drawn.items() for name in names}
    key = {
        "model": machine.model,
        "profile": machine.name,
        "file_bytes": size,
        "versions": found,
        "questions": asked,
    }
    try:
        kept = json.loads((Path(out) / "base.json").read_text(encoding="utf-8"))
        if kept["key"] == key:
            return kept
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        pass  # there is none, or a damaged one: then it is measured anew
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=folder, max_seq_length=machine.max_length, dtype=machine.torch_dtype, load_in_4bit=False
    )
    made = {
        "lesson": "base",
        "profile": machine.name,
        "device": machine.device,
        "model": machine.model,
        "data": machine.data,
        "backend": f"unsloth {found['unsloth']}",
        "versions": found,
        "parameters": {"total": models.count(model).total, "trainable": 0},
        "battery": _measured(model, tokenizer, drawn),
        "file_bytes": size,
        "key": key,
    }
    results.write(made, out)
    return made


def _drawn(machine: Profile) -> dict[tuple[str, ...], "Dataset | str"]:
    """The rows of each kind of question, by the scores that it gives; or the reason why they cannot be had."""
    found: dict[tuple[str, ...], Dataset | str] = {}
    for names, (draw, _) in _KINDS.items():
        try:
            found[names] = draw(machine)
        except CourseError as error:
            found[names] = f"not measured: {error}"
    return found


def _fingerprint(names: tuple[str, ...], rows: "Dataset | str") -> str | None:
    """Twelve hexadecimal digits that change with whatever is asked or expected; None where nothing is."""
    if isinstance(rows, str):
        return None
    text = json.dumps([VERSION, names, rows.to_dict()], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _measured(model: Any, tokenizer: Any, drawn: Mapping[tuple[str, ...], "Dataset | str"]) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for names, rows in drawn.items():
        made = [_none(rows) for _ in names] if isinstance(rows, str) else _KINDS[names][1](model, tokenizer, rows)
        mark = _fingerprint(names, rows)
        found |= {name: {**score, "questions": mark} for name, score in zip(names, made, strict=True)}
    return {name: found[name] for name in SCORES}


def _share(marks: Sequence[bool]) -> dict[str, Any]:
    low, high = wilson(sum(marks), len(marks))
    return {"value": sum(marks) / len(marks), "interval": [low, high], "n": len(marks)}


def _perplexity(model: Any, tokenizer: Any, rows: "Dataset") -> list[dict[str, Any]]:
    found = evaluation.perplexity(model, tokenizer, list(rows["text"]), TEXT_LENGTH)
    if not math.isfinite(found.loss):
        return [_none("not measured: the model's loss on this text is not a number.")]
    each = np.exp(np.minimum(ratios_drawn(found.losses, found.tokens), MOST))
    low, high = np.percentile(each, [2.5, 97.5])
    return [{"value": found.perplexity, "interval": [float(low), float(high)], "n": len(found.losses)}]


def _none(reason: str) -> dict[str, Any]:
    return {"value": None, "interval": None, "n": 0, "reason": reason}


_STEP = re.compile(r"\d *[-+*/x×] *\d[^\n=]*= *-?\d")  # "3 * 5 = 15", or "3 x 5 apples = 15"


def is_worked(given: str) -> bool:
    """Whether an answer shows a step of arithmetic and ends in `#### number`, as GSM8K's solutions do."""
    return bool(rewards.form([given])[0] and _STEP.search(given.partition(problems.MARK)[0]))


def _solved(model: Any, tokenizer: Any, rows: "Dataset") -> list[dict[str, Any]]:
    answers = evaluation.solve(model, tokenizer, rows)
    return [_share([*map(is_worked, answers.given)]), _share(answers.right)]


def _held_out(draw: Callable[..., tuple], machine: Profile, lesson: str, rows: int) -> "Dataset":
    """The held-out rows of a lesson's own set: the bundled one, that in English, or the Hub's."""
    source = POCKET if machine.bundled else ENGLISH if machine.model == SMOLLM2 else HUB_DATA[lesson]
    return draw(source, train=1, held_out=_many(machine, rows), seed=SEED)[1]


def _many(machine: Profile, rows: int) -> int:
    """How many rows are asked: a quarter where a real model runs on a CPU, which would need minutes for all."""
    return machine.pick(bundled=rows, gpu=rows, cpu=rows // 4)


def _marked(machine: Profile) -> "Dataset":
    """Held-out questions whose answer exact match can mark: all of the bundled model's, half of the others'."""
    rows = _held_out(sources.instructions, machine, "lora", ANSWERS if machine.bundled else 2 * ANSWERS)
    short = [number for number, answer in enumerate(rows["output"]) if is_short(answer)][:ANSWERS]
    if not short:
        raise CourseError("No held-out question has an answer of at most 24 characters, which exact match could mark.")
    return rows.select(short)


def _fitting(model: Any, tokenizer: Any, rows: "Dataset") -> "Dataset":
    """The pairs whose prompt leaves room for an answer: the same ones for every model of this length."""
    length = getattr(model, "max_seq_length", None)
    return preference.fitting(rows, tokenizer, length, evaluation.LONGEST_PREFERRED)[0] if length else rows


# By the names of the scores: how the rows are drawn, and how a model is measured on them.
_KINDS: dict[tuple[str, ...], tuple[Callable[..., "Dataset"], Callable[..., list[dict[str, Any]]]]] = {
    ("answers",): (_marked, lambda *asked: [_share(evaluation.ask(*asked).right)]),
    ("retention",): (evaluation.probes, lambda *asked: [_share(evaluation.recall(*asked).right)]),
    ("preference",): (
        lambda machine: _held_out(sources.preferences, machine, "dpo", PREFERENCES),
        lambda *asked: [_share(evaluation.prefer(*asked[:2], _fitting(*asked)).preferred)],
    ),
    ("format", "accuracy"): (lambda machine: _held_out(sources.problems, machine, "grpo", PROBLEMS), _solved),
    ("perplexity_domain",): (lambda machine: _held_out(sources.corpus, machine, "cpt", TEXTS), _perplexity),
    ("perplexity_general",): (lambda machine: datasets.stories(_many(machine, TEXTS), SEED), _perplexity),
}
