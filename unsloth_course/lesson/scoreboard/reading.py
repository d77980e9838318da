"""Reading a folder of results files into a scoreboard: each file checked, each run held against the others."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import results
from unsloth_course.lesson.data.rows import quoted
from unsloth_course.lesson.profile import ENGLISH, HUB_DATA, POCKET, SMOLLM2
from unsloth_course.lesson.scoreboard.board import LESSONS, Row, Scoreboard
from unsloth_course.lesson.scoreboard.measuring import SCORES


def read(out: str | Path) -> Scoreboard:
    """The scoreboard of the results files `<lesson>.json` in a folder.

    A file that is damaged, or holds something else than that lesson's results, is named in `left_out`. Rows made with
    another model, on other data, on another machine, with other package versions or by a run that is not "trained"
    say so in their notes: each row is held against what most rows have. Raises CourseError when there is no such
    folder. Taught in all five lessons.
    """
    folder = Path(out).expanduser()
    if not folder.is_dir():
        raise CourseError(
            f"There is no results folder {out}. Run a lesson first, `python -m unsloth_course run lora --out {out}`, "
            "or name the folder that a notebook wrote to."
        )
    rows, missing, left_out = [], [], []
    for lesson in LESSONS:
        path = folder / f"{lesson}.json"
        if not path.exists():
            missing.append(lesson)
            continue
        try:
            rows.append(_row(lesson, path))
            continue
        except ValueError as error:
            reason = str(error)
        again = "Any lesson measures the base again." if lesson == "base" else "Run that lesson again."
        left_out.append(f"{path.name} is left out: {reason}. {again}")
    return Scoreboard(_compared(rows), missing, left_out)


def _row(lesson: str, path: Path) -> Row:
    """A results file as a row. Raises ValueError, in words, for what is none."""
    is_base = lesson == "base"
    found = results.read(path, results.Results if is_base else results.Run)
    if found.lesson != lesson:
        raise ValueError(f"it holds the results of {quoted(found.lesson)}")
    scores = {name: found.battery[name] for name in SCORES if name in (found.battery or {})}
    for name, score in scores.items():
        if SCORES[name].share and score.value is not None and score.value > 1:
            raise ValueError(f"{name} is {score.value:g}, and a share is at most 1")
    own = {}
    if not is_base:
        target = msgspec.to_builtins(found.evaluation)
        known = None if None in (target["interval"] or [None]) else target["interval"]
        own = {
            "seed": found.seed,
            "verdict": found.receipt.verdict,
            "target": target | {"metric": _printable(target["metric"]), "interval": known},
            "peak_memory_bytes": found.training.peak_memory_bytes,
            "seconds": found.training.seconds,
        }
    return Row(
        lesson=lesson,
        **{name: _printable(getattr(found, name)) for name in ("model", "data", "profile", "device")},
        versions={_printable(name): _printable(version) for name, version in found.versions.items()},
        scores={name: _score(score) for name, score in scores.items()},
        trainable=found.parameters.trainable,
        total=found.parameters.total,
        file_bytes=found.file_bytes,
        **own,
    )


def _printable(text: str) -> str:
    """At most 300 characters of a text from a file, without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text[:300])


def _score(score: results.Answered) -> dict[str, Any]:
    """A score of the battery as a row holds it: without a value, with the reason."""
    questions = score.questions and _printable(score.questions)
    found = {"value": score.value, "interval": None, "n": 0, "questions": questions}
    if score.value is None:
        return found | {"reason": _printable(score.reason or "not measured")}
    return found | {"interval": msgspec.to_builtins(score.interval), "n": score.n}


# Comparing


def _compared(rows: list[Row]) -> list[Row]:
    """The rows, each with what speaks against comparing it with the others in its notes."""
    runs = [row for row in rows if row.lesson != "base"]
    model = _commonest(row.model for row in rows)
    usual = SimpleNamespace(
        model=model,
        profile=_commonest(row.profile for row in rows),
        device=_commonest(row.device for row in runs),
        learned_from=_commonest(_learned_from(row) for row in runs if row.model == model),
        versions={
            name: _commonest(row.versions[name] for row in rows if name in row.versions)
            for name in dict.fromkeys(name for row in rows for name in row.versions)
        },
        questions={
            name: _commonest(_questions(row, name) for row in rows if row.model == model and _questions(row, name))
            for name in SCORES
        },
    )
    return [_noted(row, usual) for row in rows]


def _commonest(values: Iterable[Any]) -> Any:
    """The value that occurs most often, the first such one; None where there is none."""
    found = Counter(values).most_common(1)
    return found[0][0] if found else None


def _questions(row: Row, name: str) -> str | None:
    return row.scores.get(name, {}).get("questions")


def _learned_from(row: Row) -> str:
    """What a run learned from. Each lesson has a set of its own, and those of all lessons go together."""
    own = {POCKET: POCKET, SMOLLM2: ENGLISH}.get(row.model) or HUB_DATA.get(row.lesson)
    return "the lesson's own data" if row.data == own else f"{row.data} data" if row.data == POCKET else row.data


def _noted(row: Row, usual: SimpleNamespace) -> Row:
    """The row with its notes: what of it is not as in most rows, `usual`."""
    against, notes, run = [], [], row.lesson != "base"
    if row.model != usual.model:
        against.append(f"not comparable: its model is {row.model}, that of most rows is {usual.model}.")
    else:
        other = [name for name in SCORES if _questions(row, name) not in (None, usual.questions[name])]
        if other:
            titles = ", ".join(SCORES[name].title for name in other)
            against.append(f"not comparable in {titles}: it was asked other questions than most rows.")
        if run and _learned_from(row) != usual.learned_from:
            theirs = usual.learned_from
            against.append(f"not comparable: it learned from {_learned_from(row)}, most others from {theirs}.")
    if row.profile != usual.profile:
        against.append(f"not comparable: its profile is {row.profile}, that of most rows is {usual.profile}.")
    if run and row.device != usual.device:
        notes.append(f"memory and seconds are those of another machine, {row.device}; most others: {usual.device}.")
    changed = [name for name, version in row.versions.items() if version != usual.versions[name]]
    if changed:
        mine, theirs = (
            ", ".join(f"{name} {found[name]}" for name in changed) for found in (row.versions, usual.versions)
        )
        notes.append(f"it ran with {mine}; most rows with {theirs}.")
    if run and row.verdict != "trained":
        notes.append(f'the verdict on its run is "{row.verdict}".')
    if not row.scores:
        notes.append("its results file holds no battery, so its scores are not known. Run it again.")
    reasons: dict[str, list[str]] = {}
    for name, score in row.scores.items():
        if score.get("reason"):
            reasons.setdefault(score["reason"], []).append(SCORES[name].title)
    notes += [f"{', '.join(titles)}: {reason}" for reason, titles in reasons.items()]
    return replace(row, notes=(*against, *notes), comparable=not against)
