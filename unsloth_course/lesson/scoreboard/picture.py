"""Runs side by side: a small picture for each score and each cost."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.plots.style import DRAWN_UP_TO, WIDTH, Picture, styled


@dataclass(frozen=True)
class Panel:
    """One small picture of the scoreboard: a point for each run, by the run's name; None where it was not measured.

    A point is its value and the ends of its 95 % interval, or None for those. `kind` is "share" (a value from 0 to 1),
    "log" (such as a perplexity; lower is better) or "amount" (drawn as a bar from 0). `aims` are the runs that were
    trained for this; `labelled` writes a value, where its kind does not say how.
    """

    title: str
    kind: str
    points: Mapping[str, tuple[float, tuple[float, float] | None] | None]
    aims: Sequence[str] = ()
    labelled: Callable[[float], str] | None = None


@styled
def side_by_side(panels: Sequence[Panel], *, colours: Mapping[str, str], notes: Sequence[str] = ()) -> Picture:
    """Many runs in many small pictures, two abreast: each value with its interval, its number beside it.

    Every panel shows the runs of the first, in that order. colours: of the runs, by name. notes: sentences that stand
    below. Raises CourseError when there is no run.
    """
    runs = list(panels[0].points) if panels else []
    if not runs:
        raise CourseError("There is no run to draw: run a lesson first.")
    rows = -(-len(panels) // 2)
    lines = [line for note in notes for line in textwrap.wrap(note, 88)]
    figure = Picture(figsize=(WIDTH, 0.9 + rows * (1.05 + 0.3 * len(runs)) + 0.25 * len(lines)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.12)
    cells = figure.subplots(rows, 2, squeeze=False).flatten()
    for cell in cells[len(panels) :]:
        cell.set_axis_off()
    for axes, panel in zip(cells, panels, strict=False):
        ends = [_draw(axes, panel, run, place, colours[run]) for place, run in enumerate(runs)]
        axes.set_yticks(range(len(runs)), runs)
        axes.set_ylim(len(runs) - 0.4, -0.6)
        axes.grid(False)
        axes.set_title(panel.title + (" (lower is better)" if panel.kind == "log" else ""), fontsize=14)
        _panel_axis(axes, panel.kind, max(ends))
    figure.suptitle("All runs: the same questions for every model", fontsize=16, x=0.02, ha="left")
    key = "Bar through a point: 95% interval. Diamond: what that run was trained for."
    figure.supxlabel("\n".join([key, *lines]), fontsize=13, x=0.02, ha="left", parse_math=False)
    figure.caption = " ".join([*map(_panel_in_words, panels), *notes])
    return figure


def _draw(axes: Axes, panel: Panel, run: str, place: int, colour: str) -> float:
    """One run in its row, and its number behind it; returns where it ends."""
    point = panel.points.get(run)
    if point is None:
        words = "–" if panel.kind == "amount" else "not measured"
        axes.annotate(words, (0.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=13)
        return 0.0
    value, (low, high) = point[0], point[1] or (point[0], point[0])
    value, low, high = (min(number, DRAWN_UP_TO) for number in (value, low, high))
    if panel.kind == "amount":
        axes.barh(place, value, height=0.6, color=colour)
    else:
        marker = "D" if run in panel.aims else "o"
        errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar(value, place, xerr=errors, fmt=marker, color=colour, linewidth=2.4, markersize=9)
    end = max(value, high)
    axes.annotate(_label(panel, point[0]), (end, place), (8, 0), textcoords="offset points", va="center", fontsize=13)
    return end


def _label(panel: Panel, value: float) -> str:
    if panel.labelled:
        return panel.labelled(value)
    return f"{value:.0%}" if panel.kind == "share" else f"{value:.3g}"


def _panel_axis(axes: Axes, kind: str, end: float) -> None:
    """Shares from 0 to 100%; perplexities on a log axis from 1; amounts from 0, without ticks: each has its number."""
    if kind == "share":
        axes.set_xlim(-0.04, 1.3)
        axes.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
    elif kind == "log":
        axes.set_xscale("log")
        axes.set_xlim(0.9, max(10.0, end) ** 1.35)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 10k, 1M
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, 1.6 * end or 1)
        axes.set_xticks([])


def _panel_in_words(panel: Panel) -> str:
    values = [f"{run} {_label(panel, point[0])}" for run, point in panel.points.items() if point]
    return f"{panel.title}: {', '.join(values) or 'not measured'}."
