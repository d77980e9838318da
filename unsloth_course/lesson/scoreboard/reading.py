"""Reading a folder of results files into a scoreboard: each file checked, each run held against the others."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data.rows import kind, quoted
from unsloth_course.lesson.profile import ENGLISH, HUB_DATA, POCKET, SMOLLM2
from unsloth_course.lesson.scoreboard.board import LESSONS, Row, Scoreboard
from unsloth_course.lesson.scoreboard.measuring import SCORES

VERDICTS = ("trained", "suspicious", "not trained")
BEYOND = 1e305  # a number from a file has to be smaller; JSON may hold integers that no float can


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
            rows.append(_row(lesson, json.loads(path.read_text(encoding="utf-8"))))
            continue
        except OSError as error:
            reason = f"it cannot be read ({error.strerror})"
        except _NotResults as error:
            reason = str(error)
        except (ValueError, RecursionError):
            reason = "it is not valid JSON"
        again = "Any lesson measures the base again." if lesson == "base" else "Run that lesson again."
        left_out.append(f"{path.name} is left out: {reason}. {again}")
    return Scoreboard(_compared(rows), missing, left_out)


class _NotResults(Exception):
    """A file is JSON, but not the results of the lesson; the message says what is wrong."""


def _row(lesson: str, found: Any) -> Row:
    if not isinstance(found, dict):
        raise _NotResults(f"it holds {kind(found)} where results are an object")
    take = _Taker(found)
    if take("lesson", str) != lesson:
        raise _NotResults(f"it holds the results of {quoted(found['lesson'])}")
    is_base = lesson == "base"
    verdict = None if is_base else take("receipt.verdict", str)
    if verdict not in (None, *VERDICTS):
        raise _NotResults(f"receipt.verdict is {quoted(verdict)}, which is none of {', '.join(VERDICTS)}")
    scores = take("battery", dict, None) or {}
    return Row(
        lesson=lesson,
        model=take("model", str),
        data=take("data", str),
        profile=take("profile", str),
        device=take("device", str),
        seed=None if is_base else take("seed", int),
        versions={_printable(n): _printable(str(v)) for n, v in take("versions", dict).items()},
        verdict=verdict,
        scores={name: _score(f"battery.{name}", scores[name], SCORES[name].share) for name in SCORES if name in scores},
        target=None if is_base else _target(take),
        peak_memory_bytes=0 if is_base else take("training.peak_memory_bytes", int),
        seconds=0.0 if is_base else float(take("training.seconds", float)),
        trainable=take("parameters.trainable", int),
        total=take("parameters.total", int),
        file_bytes=take("file_bytes", int, 0),
    )


_REQUIRED = object()


class _Taker:
    """Takes values out of nested JSON by dotted path, and says which is missing, of the wrong kind or not finite.

    Text is made safe to print. `inside` is the path of the object that is taken from, for what is said.
    """

    def __init__(self, found: Mapping[str, Any], inside: str = ""):
        self.found, self.inside = found, inside

    def __call__(self, path: str, wanted: type, otherwise: Any = _REQUIRED) -> Any:
        value: Any = self.found
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                if otherwise is _REQUIRED:
                    raise _NotResults(f"it has no {self.inside}{path}")
                return otherwise
            value = value[key]
        if value is None and otherwise is None:
            return None
        if wanted in (int, float):
            if _finite(self.inside + path, value, wanted) < 0:
                raise _NotResults(f"{self.inside}{path} is {value}, below 0")
        elif not isinstance(value, wanted):
            raise _NotResults(f"{self.inside}{path} is {kind(value)}")
        return _printable(value) if wanted is str else value


def _printable(text: str) -> str:
    """At most 300 characters of a text from a file, without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text[:300])


def _finite(path: str, value: Any, wanted: type = float) -> float:
    numbers = int if wanted is int else int | float
    if isinstance(value, bool) or not isinstance(value, numbers):
        raise _NotResults(f"{path} is {kind(value)}")
    if not abs(value) < BEYOND:
        raise _NotResults(f"{path} is not a finite number")
    return value


def _interval(path: str, value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 2:
        raise _NotResults(f"{path} is {kind(value)} where two numbers are wanted")
    low, high = (_finite(path, end) for end in value)
    if low > high:
        raise _NotResults(f"{path} begins after its end")
    return [low, high]


def _score(path: str, found: Any, share: bool) -> dict[str, Any]:
    """A score of the battery, checked: a value, its interval and its n, or the reason why it was not measured."""
    if not isinstance(found, dict):
        raise _NotResults(f"{path} is {kind(found)}")
    take = _Taker(found, f"{path}.")
    questions = take("questions", str, None)
    if found.get("value") is None:
        reason = take("reason", str, None) or "not measured"
        return {"value": None, "interval": None, "n": 0, "questions": questions, "reason": reason}
    value = float(take("value", float))
    if share and value > 1:
        raise _NotResults(f"{path}.value is {value:g}, and a share is at most 1")
    return {
        "value": value,
        "interval": _interval(f"{path}.interval", found.get("interval")),
        "n": take("n", int),
        "questions": questions,
    }


def _target(take: _Taker) -> dict[str, Any]:
    """The lesson's own score. One that is null, as when a loss was not a number, stays None."""
    found = {"metric": take("evaluation.metric", str), "n": take("evaluation.n", int)}
    for name in ("before", "after"):
        found[name] = take(f"evaluation.{name}", float, None)
    interval = take("evaluation.interval", list, None)
    known = interval is not None and None not in interval
    return {**found, "interval": _interval("evaluation.interval", interval) if known else None}


# Comparing


def _compared(rows: list[Row]) -> list[Row]:
    """The rows, each with what speaks against comparing it with the others in its notes."""
    runs = [row for row in rows if row.lesson != "base"]
    model = _commonest(row.model for row in rows)
    usual = _Usual(
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


@dataclass(frozen=True)
class _Usual:
    """What most rows have, against which each is held."""

    model: str | None
    profile: str | None
    device: str | None
    learned_from: str | None
    versions: dict[str, str]
    questions: dict[str, str | None]


def _questions(row: Row, name: str) -> str | None:
    return row.scores.get(name, {}).get("questions")


def _learned_from(row: Row) -> str:
    """What a run learned from. Each lesson has a set of its own, and those of all lessons go together."""
    own = {POCKET: POCKET, SMOLLM2: ENGLISH}.get(row.model) or HUB_DATA.get(row.lesson)
    return "the lesson's own data" if row.data == own else f"{row.data} data" if row.data == POCKET else row.data


def _noted(row: Row, usual: _Usual) -> Row:
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
