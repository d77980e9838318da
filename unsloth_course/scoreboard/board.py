"""All runs of a results folder side by side, as a table, as JSON and as a picture, with what cannot be compared."""

import base64
import html
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unsloth_course import plots
from unsloth_course.data.files import kind, quoted
from unsloth_course.errors import CourseError
from unsloth_course.memory import size
from unsloth_course.profile import HUB_DATA, POCKET
from unsloth_course.results import write_text
from unsloth_course.scoreboard.measuring import SCORES

LESSONS = ("base", "full", "lora", "dpo", "grpo", "cpt")
VERDICTS = ("trained", "suspicious", "not trained")
MARK = "†"  # beside the name of a row that something has to be said about
AIM = "*"  # beside a score that the lesson trained for
NOT_MEASURED = "–"
BEYOND = 1e305  # a number from a file has to be smaller; JSON may hold integers that no float can


@dataclass(frozen=True)
class Row:
    """One run as the scoreboard shows it.

    `scores` holds for each name of the battery value, interval and n, as `battery` gives them; `target` the lesson's
    own held-out score (metric, n, before, after, and the interval of the difference), None for the base. Memory and
    file in bytes, time in seconds of training. `notes` says what speaks against comparing it with the others.
    """

    lesson: str
    model: str
    data: str
    profile: str
    device: str
    seed: int | None
    versions: dict[str, str]
    verdict: str | None
    scores: dict[str, dict[str, Any]]
    target: dict[str, Any] | None
    peak_memory_bytes: int
    seconds: float
    trainable: int
    total: int
    file_bytes: int
    notes: tuple[str, ...] = ()
    comparable: bool = True

    @property
    def name(self) -> str:
        """The lesson, with a mark where the row has notes."""
        return self.lesson + (MARK if self.notes else "")

    def to_dict(self) -> dict[str, Any]:
        """The row of `scoreboard --json`; among the scores, `target` is the lesson's own."""
        scores = {**self.scores, **({"target": self.target} if self.target else {})}
        return {
            "lesson": self.lesson,
            "scores": scores,
            "peak_memory_bytes": self.peak_memory_bytes,
            "seconds": self.seconds,
            "trainable": self.trainable,
            "total": self.total,
            "file_bytes": self.file_bytes,
            "verdict": self.verdict,
            "model": self.model,
            "data": self.data,
            "profile": self.profile,
            "device": self.device,
            "seed": self.seed,
            "comparable": self.comparable,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, repr=False)
class Scoreboard:
    """The rows of the runs that were found, the lessons not run yet, and a sentence for each file left out.

    A notebook shows it as a table, `print` as text, `picture()` as a picture.
    """

    rows: list[Row]
    missing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        """What the table's marks mean and what is not in it, in words."""
        said = [f"{MARK} {row.lesson}: {note}" for row in self.rows for note in row.notes]
        if self.missing:
            said.append(f"Not run yet: {', '.join(self.missing)}.")
        return said + self.left_out

    @property
    def key(self) -> list[str]:
        """How to read the table: what each score is, and the marks."""
        return [
            "; ".join(f"{measure.title}: {measure.meaning}" for measure in SCORES.values()) + ".",
            f"Shares in %, under each value its 95 % interval. {AIM} marks what a lesson trains for. "
            "Every model was asked the same questions, where no note says otherwise.",
        ]

    def tables(self) -> list[tuple[list[str], list[list[tuple[str, str]]]]]:
        """The scores and the costs, as headers and rows; a cell is its value and the line under it."""
        scores = [[(row.name, ""), *(_cell(row, name) for name in SCORES)] for row in self.rows]
        costs = {row.lesson: [(row.name, ""), *_costs(row)] for row in self.rows}
        costs |= {lesson: [(lesson, ""), ("not run yet", "")] for lesson in self.missing}
        titles = ["lesson", *(measure.title for measure in SCORES.values())]
        shown = [(titles, scores)] if scores else []
        return [*shown, (list(COSTS), [costs[lesson] for lesson in LESSONS if lesson in costs])]

    def __str__(self) -> str:
        parts = [_text(headers, rows) for headers, rows in self.tables()]
        return "\n\n".join([*parts, "\n".join([*self.key, *self.sentences])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = "".join(_html(headers, rows) for headers, rows in self.tables())
        key = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in self.key)
        said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.sentences)
        return tables + key + (f"<ul>{said}</ul>" if said else "")

    def to_json(self) -> str:
        """`{"rows": [...], "not_run_yet": [...], "left_out": [...]}`; the rows as `Row.to_dict` gives them."""
        found = {
            "rows": [row.to_dict() for row in self.rows],
            "not_run_yet": self.missing,
            "left_out": self.left_out,
        }
        return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)

    def picture(self) -> plots.Picture:
        """Every score with its interval, and what each run cost: one small panel for each. See `plots.scoreboard`.

        Raises CourseError when there is no row.
        """
        panels = [
            plots.Panel(
                title=measure.title,
                kind="share" if measure.share else "log",
                points={row.name: _point(row.scores.get(name)) for row in self.rows},
                aims=tuple(row.name for row in self.rows if row.lesson in measure.trained_by),
                labelled=None if measure.share else digits,
            )
            for name, measure in SCORES.items()
        ]
        panels += [
            plots.Panel(title, "amount", {row.name: _amount(row, name) for row in self.rows}, labelled=label)
            for title, name, label in (
                ("peak memory of training", "peak_memory_bytes", size),
                ("seconds of training", "seconds", "{:,.0f} s".format),
                ("trained parameters", "trainable", "{:,}".format),
                ("file of what was learned", "file_bytes", size),
            )
        ]
        colours = {row.name: plots.RUN_COLOURS[LESSONS.index(row.lesson)] for row in self.rows}
        return plots.scoreboard(panels, colours=colours, notes=self.sentences)


def _amount(row: Row, name: str) -> tuple[float, None] | None:
    value = getattr(row, name)
    return (value, None) if value else None


def _point(score: Mapping[str, Any] | None) -> tuple[float, tuple[float, float] | None] | None:
    if score is None or score["value"] is None:
        return None
    return score["value"], tuple(score["interval"]) if score["interval"] else None


# Reading


def read(out: str | Path) -> Scoreboard:
    """The scoreboard of the results files `<lesson>.json` in a folder.

    A file that is damaged, or holds something else than that lesson's results, is named in `left_out`. Rows made with
    another model, on other data, on another machine, with other package versions or by a run that is not "trained"
    say so in their notes; they are held against the base's row, or where there is none against the commonest. Raises
    CourseError when there is no such folder. Taught in all five lessons.
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
        except OSError as error:
            left_out.append(f"{path.name} is left out: it cannot be read ({error.strerror}).")
        except _NotResults as error:
            left_out.append(f"{path.name} is left out: {error}. Run that lesson again.")
        except (ValueError, RecursionError):
            left_out.append(f"{path.name} is left out: it is not valid JSON. Run that lesson again.")
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
        scores={name: _score(f"battery.{name}", scores[name]) for name in SCORES if name in scores},
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


def _score(path: str, found: Any) -> dict[str, Any]:
    """A score of the battery, checked: a value, its interval and its n, or the reason why it was not measured."""
    if not isinstance(found, dict):
        raise _NotResults(f"{path} is {kind(found)}")
    take = _Taker(found, f"{path}.")
    questions = take("questions", str, None)
    if found.get("value") is None:
        reason = take("reason", str, None) or "not measured"
        return {"value": None, "interval": None, "n": 0, "questions": questions, "reason": reason}
    return {
        "value": float(take("value", float)),
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
    own = POCKET if row.model == POCKET else HUB_DATA.get(row.lesson)
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


# Showing

COSTS = ("lesson", "verdict", "its own test", "memory, time", "trained, file")


def _cell(row: Row, name: str) -> tuple[str, str]:
    """A score and its interval, as two lines."""
    score, measure = row.scores.get(name), SCORES[name]
    if score is None or score["value"] is None:
        return NOT_MEASURED, ""
    value, (low, high) = score["value"], score["interval"]
    aim = AIM if row.lesson in measure.trained_by else ""
    if measure.share:
        return f"{100 * value:.1f}{aim}", f"{100 * low:.0f}–{100 * high:.0f}"
    return f"{digits(value)}{aim}", f"{digits(low)}–{digits(high)}"


def digits(value: float) -> str:
    """A perplexity with about three digits, as a power of ten where it is beyond all measure."""
    if value >= 1e6:
        return f"{value:.0e}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _costs(row: Row) -> list[tuple[str, str]]:
    """Verdict, own test, memory and time, trained parameters and file, each as two lines."""
    file = size(row.file_bytes) if row.file_bytes else NOT_MEASURED
    if row.lesson == "base":
        return [(NOT_MEASURED, ""), (NOT_MEASURED, ""), (NOT_MEASURED, ""), ("0", file)]
    costs = (size(row.peak_memory_bytes), f"{row.seconds:,.0f} s")
    return [(row.verdict, ""), _own_test(row.target), costs, (f"{row.trainable:,}", file)]


def _own_test(target: Mapping[str, Any]) -> tuple[str, str]:
    """The lesson's own held-out score before and after, and the interval of the change."""
    share = target["metric"] != "perplexity"

    def number(value: float | None) -> str:
        return NOT_MEASURED if value is None else f"{100 * value:.1f}" if share else digits(value)

    unit = " %" if share else ""
    name = target["metric"].replace("_", " ")
    change = f"{name} {number(target['before'])} → {number(target['after'])}{unit}"
    if target["interval"] is None:
        return change, ""
    low, high = (f"{100 * end:+.1f}" if share else f"{end:+,.2f}" for end in target["interval"])
    return change, f"change {low} to {high}"


def _text(headers: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    """An aligned table in plain text, two lines a row; the last cell of a short row runs on."""
    heads = [(head.partition(", ")[0], head.partition(", ")[2]) for head in headers]
    widths = [
        max(len(line) for row in (heads, *rows) if len(row) == len(heads) for line in row[n])
        for n, _ in enumerate(heads)
    ]
    lines = []
    for row in (heads, *rows):
        for line in (0, 1):
            cells = [f"{cell[line]:<{width}}" for cell, width in zip(row, widths, strict=False)]
            lines.append("  ".join(cells).rstrip())
    return "\n".join(filter(None, lines))


def _html(headers: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    left = ' style="text-align:left;vertical-align:top;padding:2px 8px"'
    head = "".join(f"<th{left}>{html.escape(header)}</th>" for header in headers)
    body = ""
    for row in rows:
        cells = [
            html.escape(value) + (f"<br><small>{html.escape(under)}</small>" if under else "") for value, under in row
        ]
        wide = len(headers) - len(cells) + 1  # "not run yet" goes on to the end
        body += "<tr>" + "".join(f"<td{left}>{cell}</td>" for cell in cells[:-1])
        body += f'<td colspan="{wide}"{left}>{cells[-1]}</td></tr>'
    return f"<table><tr>{head}</tr>{body}</table>"


# A page shows what it carries, and nothing else: no script runs, nothing is fetched.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(board: Scoreboard) -> str:
    """The scoreboard as one HTML page that fetches nothing: tables, notes and picture."""
    picture = board.picture()
    png = base64.b64encode(picture._repr_png_()).decode()
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>Scoreboard</title></head>'
        f'<body style="font-family:sans-serif"><h1>Scoreboard</h1>{board._repr_html_()}'
        f'<img style="max-width:100%" alt="{html.escape(picture.caption)}" src="data:image/png;base64,{png}">'
        "</body></html>\n"
    )


def write(board: Scoreboard, out: str | Path) -> list[Path]:
    """Writes `scoreboard.json`, `.html` and `.png` into a folder and returns their paths.

    Raises CourseError when one cannot be written, and when there is no row to draw.
    """
    folder = Path(out).expanduser()
    paths = [folder / f"scoreboard.{ending}" for ending in ("json", "html", "png")]
    write_text(paths[0], board.to_json() + "\n")
    write_text(paths[1], page(board))
    try:
        paths[2].write_bytes(board.picture()._repr_png_())
    except OSError as error:
        raise CourseError(f"{paths[2]} cannot be written ({error.strerror}); choose another folder.") from None
    return paths


def show(board: Scoreboard) -> None:
    """Prints the tables to the terminal with rich, and the sentences under them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for headers, rows in board.tables():
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for header in headers:
            table.add_column(Text(header.replace(", ", "\n")), overflow="fold")
        for row in rows:
            table.add_row(*(Text(f"{value}\n{under}" if under else value) for value, under in row))
        console.print(table, "")
    for sentence in (*board.key, *board.sentences):
        console.print(sentence, markup=False, highlight=False)
