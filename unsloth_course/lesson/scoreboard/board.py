"""All runs side by side: as a table in text and HTML, as JSON, as a picture and as a page."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from unsloth_course.core import lessons, markup
from unsloth_course.core.errors import CourseError
from unsloth_course.core.writing import write_text
from unsloth_course.lesson import plots, results
from unsloth_course.lesson.memory import size
from unsloth_course.lesson.scoreboard.measuring import SCORES
from unsloth_course.lesson.scoreboard.picture import Panel, side_by_side

LESSONS = ("base", *sorted(lessons.LESSONS, key=lessons.LESSONS.get))  # in the order of the notebooks
MARK = "†"  # beside the name of a row that something has to be said about
AIM = "*"  # beside a score that the lesson trained for
NOT_MEASURED = "–"


@dataclass(frozen=True)
class Row:
    """One run: its results, what speaks against comparing it with the others, and whether it can be compared."""

    found: results.Results
    notes: tuple[str, ...] = ()
    comparable: bool = True

    @property
    def lesson(self) -> str:
        return self.found.lesson

    @property
    def name(self) -> str:
        """The lesson, with a mark where the row has notes."""
        return self.lesson + (MARK if self.notes else "")

    @property
    def scores(self) -> dict[str, results.Answered]:
        """The scores of the battery that the results hold, by their names."""
        found = self.found.battery or {}
        return {name: found[name] for name in SCORES if name in found}

    def to_dict(self) -> dict[str, Any]:
        """The row of `scoreboard --json`; among the scores, `target` is the lesson's own."""
        found = msgspec.to_builtins(self.found)
        scores = {name: found["battery"][name] for name in self.scores}
        for score in scores.values():
            if score["value"] is not None:
                del score["reason"]
        return {
            **{name: found[name] for name in ("lesson", "model", "data", "profile", "device", "file_bytes", "seed")},
            "scores": scores | ({"target": found["evaluation"]} if found["evaluation"] else {}),
            **found["parameters"],
            "verdict": found["receipt"] and found["receipt"]["verdict"],
            **found["training"],
            "notes": self.notes,
            "comparable": self.comparable,
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

    def __repr__(self) -> str:
        parts = [_text(headers, rows) for headers, rows in self.tables()]
        return "\n\n".join([*parts, "\n".join([*self.key, *self.sentences])])

    def _repr_html_(self) -> str:
        tables = "".join(
            markup.table([[_two_lines(*cell) for cell in row] for row in rows], headers)
            for headers, rows in self.tables()
        )
        return tables + markup.paragraphs(self.key) + markup.points(self.sentences)

    def to_json(self) -> str:
        """`{"rows": [...], "not_run_yet": [...], "left_out": [...]}`; the rows as `Row.to_dict` gives them."""
        found = {
            "rows": [row.to_dict() for row in self.rows],
            "not_run_yet": self.missing,
            "left_out": self.left_out,
        }
        return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)

    def picture(self) -> plots.Picture:
        """Every score with its interval, and what each run cost: one small panel for each. See `picture.side_by_side`.

        Raises CourseError when there is no row.
        """
        panels = [
            Panel(
                title=measure.title,
                kind="share" if measure.share else "log",
                points={row.name: _point(row.scores.get(name)) for row in self.rows},
                aims=tuple(row.name for row in self.rows if row.lesson in measure.trained_by),
                labelled=None if measure.share else digits,
            )
            for name, measure in SCORES.items()
        ]
        panels += [
            Panel(
                title,
                "amount",
                {row.name: (amount, None) if (amount := attrgetter(place)(row.found)) else None for row in self.rows},
                labelled=label,
            )
            for title, place, label in (
                ("peak memory of training", "training.peak_memory_bytes", size),
                ("seconds of training", "training.seconds", "{:,.0f} s".format),
                ("trained parameters", "parameters.trainable", "{:,}".format),
                ("size of the file", "file_bytes", size),
            )
        ]
        colours = {row.name: plots.RUN_COLOURS[LESSONS.index(row.lesson)] for row in self.rows}
        return side_by_side(panels, colours=colours, notes=self.sentences)


def _point(score: results.Answered | None) -> tuple[float, tuple[float, float]] | None:
    return (score.value, score.interval) if score and score.value is not None else None


COSTS = ("lesson", "verdict", "its own test", "memory, time", "trained, file")


def _cell(row: Row, name: str) -> tuple[str, str]:
    """A score and its interval, as two lines."""
    point, measure = _point(row.scores.get(name)), SCORES[name]
    if point is None:
        return NOT_MEASURED, ""
    value, (low, high) = point
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
    found = row.found
    file = size(found.file_bytes) if found.file_bytes else NOT_MEASURED
    if row.lesson == "base":
        return [(NOT_MEASURED, ""), (NOT_MEASURED, ""), (NOT_MEASURED, ""), ("0", file)]
    costs = (size(found.training.peak_memory_bytes), f"{found.training.seconds:,.0f} s")
    trained = f"{found.parameters.trainable:,}"
    return [(found.receipt.verdict, ""), _own_test(found.evaluation), costs, (trained, file)]


def _own_test(target: results.OwnTest) -> tuple[str, str]:
    """The lesson's own held-out score before and after, and the interval of the change."""
    share = target.metric != "perplexity"

    def number(value: float | None) -> str:
        return NOT_MEASURED if value is None else f"{100 * value:.1f}" if share else digits(value)

    unit = " %" if share else ""
    name = target.metric.replace("_", " ")
    change = f"{name} {number(target.before)} → {number(target.after)}{unit}"
    if target.interval is None:
        return change, ""
    low, high = (f"{100 * end:+.1f}" if share else f"{end:+,.2f}" for end in target.interval)
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


def _two_lines(value: str, under: str) -> str:
    """A cell of a table in HTML."""
    return markup.Html(f"{html.escape(value)}<br><small>{html.escape(under)}</small>") if under else value


def page(board: Scoreboard, picture: plots.Picture | None = None) -> str:
    """The scoreboard as one HTML page that fetches nothing: tables, notes, and its picture, if not given drawn anew."""
    picture = picture or board.picture()
    return markup.page("Scoreboard", board._repr_html_(), picture._repr_png_(), picture.caption)


def write(board: Scoreboard, out: str | Path) -> list[Path]:
    """Writes `scoreboard.json`, `.html` and `.png` into a folder and returns their paths.

    Raises CourseError when one cannot be written, and when there is no row to draw.
    """
    json_path, page_path, png_path = (Path(out).expanduser() / f"scoreboard.{kind}" for kind in ("json", "html", "png"))
    picture = board.picture()
    write_text(json_path, board.to_json() + "\n")
    write_text(page_path, page(board, picture))
    try:
        png_path.write_bytes(picture._repr_png_())
    except OSError as error:
        raise CourseError(f"{png_path} cannot be written ({error.strerror}); choose another folder.") from None
    return [json_path, page_path, png_path]
