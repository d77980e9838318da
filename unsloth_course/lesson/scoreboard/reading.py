"""Reading a folder of results files into a scoreboard: each file checked, each run held against the others."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
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
        except ValueError as error:
            again = "Any lesson measures the base again." if lesson == "base" else "Run that lesson again."
            left_out.append(f"{path.name} is left out: {error}. {again}")
    return Scoreboard([_noted(row, rows) for row in rows], missing, left_out)


def _row(lesson: str, path: Path) -> Row:
    """A results file as a row. Raises ValueError, in words, for what is none."""
    kind = results.Results if lesson == "base" else results.Run
    found = msgspec.convert(_printable(msgspec.to_builtins(results.read(path, kind))), kind)
    if found.lesson != lesson:
        raise ValueError(f"it holds the results of {quoted(found.lesson)}")
    row = Row(found)
    for name, score in row.scores.items():
        if SCORES[name].share and (score.value or 0) > 1:
            raise ValueError(f"{name} is {score.value:g}, and a share is at most 1")
    return row


def _printable(found: Any) -> Any:
    """The same with at most 300 characters of each text, and without what would steer a terminal."""
    if isinstance(found, dict):
        return {_printable(key): _printable(value) for key, value in found.items()}
    if isinstance(found, str):
        return "".join(letter if letter.isprintable() else "�" for letter in found[:300])
    return found


def _most(values: Iterable[Any]) -> Any:
    """The value that occurs most often, the first such one; None where there is none."""
    found = Counter(value for value in values if value is not None).most_common(1)
    return found[0][0] if found else None


def _questions(row: Row, name: str) -> str | None:
    return row.scores[name].questions if name in row.scores else None


def _learned_from(found: results.Results) -> str:
    """What a run learned from. Each lesson has a set of its own, and those of all lessons go together."""
    own = {POCKET: POCKET, SMOLLM2: ENGLISH}.get(found.model) or HUB_DATA.get(found.lesson)
    return (
        "the lesson's own data" if found.data == own else f"{found.data} data" if found.data == POCKET else found.data
    )


def _noted(row: Row, rows: list[Row]) -> Row:
    """The row with its notes: what of it is not as in most rows."""
    found, against, notes = row.found, [], []
    runs = [one for one in rows if one.lesson != "base"]
    model, profile = _most(one.found.model for one in rows), _most(one.found.profile for one in rows)
    alike = [one for one in rows if one.found.model == model]
    run = row.lesson != "base"
    if found.model != model:
        against.append(f"not comparable: its model is {found.model}, that of most rows is {model}.")
    else:
        usual = {name: _most(_questions(one, name) for one in alike) for name in SCORES}
        other = [SCORES[name].title for name in SCORES if _questions(row, name) not in (None, usual[name])]
        if other:
            against.append(f"not comparable in {', '.join(other)}: it was asked other questions than most rows.")
        theirs = _most(_learned_from(one.found) for one in alike if one in runs)
        if run and _learned_from(found) != theirs:
            against.append(f"not comparable: it learned from {_learned_from(found)}, most others from {theirs}.")
    if found.profile != profile:
        against.append(f"not comparable: its profile is {found.profile}, that of most rows is {profile}.")
    if run and found.device != (device := _most(one.found.device for one in runs)):
        notes.append(f"memory and seconds are those of another machine, {found.device}; most others: {device}.")
    usual = {name: _most(one.found.versions.get(name) for one in rows) for name in found.versions}
    if changed := [name for name, version in found.versions.items() if version != usual[name]]:
        mine, theirs = (", ".join(f"{name} {by[name]}" for name in changed) for by in (found.versions, usual))
        notes.append(f"it ran with {mine}; most rows with {theirs}.")
    if run and found.receipt.verdict != "trained":
        notes.append(f'the verdict on its run is "{found.receipt.verdict}".')
    if not row.scores:
        notes.append("its results file holds no battery, so its scores are not known. Run it again.")
    reasons: dict[str, list[str]] = {}
    for name, score in row.scores.items():
        if score.value is None:
            reasons.setdefault(score.reason, []).append(SCORES[name].title)
    notes += [f"{', '.join(titles)}: {reason}" for reason, titles in reasons.items()]
    return replace(row, notes=(*against, *notes), comparable=not against)
