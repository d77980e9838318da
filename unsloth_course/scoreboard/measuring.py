"""The battery: the same questions for every model, whatever it was trained for."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsloth_course import evaluation, models, results
from unsloth_course.errors import CourseError
from unsloth_course.profile import POCKET

if TYPE_CHECKING:
    from unsloth_course.profile import Profile

VERSION = 1  # goes into every fingerprint: raise it when a change here moves a score of an unchanged model
ANSWERS, PREFERENCES, PROBLEMS, TEXTS = 120, 96, 80, 100  # how many of each; ten, or eight, of each taught skill
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
    "format": Measure("format", "held-out word problems answered with steps and #### number at the end"),
    "accuracy": Measure("accuracy", "the same word problems solved", trained_by=("grpo",)),
    "perplexity_domain": Measure(
        "perplexity, domain", "held-out text of the new domain; lower is better", share=False, trained_by=("cpt",)
    ),
    "perplexity_general": Measure("perplexity, general", "stories; lower is better", share=False),
}


def battery(model: Any, tokenizer: Any, machine: "Profile") -> dict[str, dict[str, Any]]:
    """Puts a model through the battery: for each name in `SCORES` its value, interval, n and questions.

    `value` is a share from 0 to 1 or a perplexity; `interval` its 95 % interval, [low, high]: Wilson's (1927) for a
    share, the percentile bootstrap over texts for a perplexity; `n` the number of questions or texts; `questions` a
    fingerprint of exactly what was asked: two values can be compared when theirs agree. A score that cannot be had
    has the value None and says why in `reason`.

    The questions are held out, the same in every run, and asked greedily. The bundled model gets the bundled sets; a
    model from the Hub the Hub's sets of `profile.HUB_DATA`, unless its data is "pocket". Taught in all five lessons.
    """
    found: dict[str, dict[str, Any]] = {}
    for part, rows, reason in _drawn(machine):
        if reason:
            found |= {name: _unmeasured(reason) for name in part.names}
            continue
        made = part.measure(model, tokenizer, rows)
        mark = _fingerprint(part, rows)
        found |= {name: {**score, "questions": mark} for name, score in zip(part.names, made, strict=True)}
    return {name: found[name] for name in SCORES}


def base(machine: "Profile", out: str | Path) -> dict[str, Any]:
    """The untouched model's row, from `base.json` in the folder `out`, or measured now and kept there.

    What is kept is used again when model, profile, package versions and questions are still the same. The results
    have the keys of a lesson's that apply to a model that nobody trained. Raises CourseError as `models.folder` and
    `results.write` do. Taught in all five lessons.
    """
    folder = models.folder(machine.model)
    found = results.versions()
    key = {
        "profile": machine.name,
        "model": machine.model,
        "file_bytes": models.disk_bytes(folder),
        "versions": found,
        "questions": {
            name: None if reason else _fingerprint(part, rows)
            for part, rows, reason in _drawn(machine)
            for name in part.names
        },
    }
    kept = _kept(Path(out) / "base.json")
    if kept.get("key") == key:
        return kept
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
        "battery": battery(model, tokenizer, machine),
        "file_bytes": key["file_bytes"],
        "key": key,
    }
    results.write(made, out)
    return made


def _kept(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file, or an empty one where there is none: then it is measured anew."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


@dataclass(frozen=True)
class _Part:
    """Questions that give one score or two: `draw(machine, source)` gives rows, `measure` their scores in order."""

    names: tuple[str, ...]
    draw: Callable[["Profile", str], Any]
    measure: Callable[[Any, Any, Any], list[dict[str, Any]]]


def _drawn(machine: "Profile") -> list[tuple[_Part, Any, str]]:
    """Every part with its rows, or with the reason why they cannot be had."""
    parts = []
    for part in _PARTS:
        try:
            parts.append((part, part.draw(machine), ""))
        except CourseError as error:
            parts.append((part, None, str(error)))
    return parts


def _fingerprint(part: _Part, rows: Any) -> str:
    """Twelve hexadecimal digits that change with anything that is asked, expected, or done with it."""
    asked = rows if isinstance(rows, list) else rows.to_dict()
    text = json.dumps([VERSION, part.names, asked], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
