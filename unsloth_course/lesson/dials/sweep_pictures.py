"""The pictures of a recorded sweep: scores against the knob, and the losses of one value before all others."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from unsloth_course.core.history import count
from unsloth_course.lesson.plots.style import BLUE, COLOURS, FAINT, GREY, MARKERS, Picture, empty, score_text, styled

if TYPE_CHECKING:
    from unsloth_course.lesson.dials.sweeps import SweepDial


@styled
def sweep(dial: "SweepDial") -> Picture:
    """Scores, and below them the loss at the end of training, against a knob: a dot for each seed, a line of the means.

    Losses stand on a logarithmic axis, and so do perplexities; the dial's mark is pointed out.
    """
    values, share = dial.sweep.values, dial.sweep.metric == "share"
    scores = {name: [dial.sweep.scores(name, value) for value in values] for name in dial.sweep.before}
    losses = [[trial.last_loss for trial in dial.sweep.at(value)] for value in values]
    figure, (above, below) = empty(7.6, rows=2)
    for position, (name, found) in enumerate(scores.items()):
        _dots(above, values, found, COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)], name)
    _dots(below, values, losses, GREY, "o")
    if share:
        above.set_ylim(-0.04, 1.06)
        above.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    else:
        _log_scale(above)
    above.set_title("Scores after training" if share else "Perplexity after training (lower is better)")
    _log_scale(below)
    below.set_title("Loss at the end of training (lower is better)")
    for axes in (above, below):
        axes.set_xscale("log" if dial.log else "linear")
        if dial.log:
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(values, [f"{value:g}" for value in values])
        if dial.mark is not None:
            axes.axvline(dial.mark, color=GREY, linestyle=(0, (4, 3)), linewidth=2, zorder=1)
    below.set_xlabel(dial.sweep.knob)
    figure.legend(loc="outside upper left", ncols=2)
    marked = [f"Dashed: the value of this lesson, {dial.mark:g}."] if dial.mark is not None else []
    figure.supxlabel("\n".join([*marked, dial.about()]), fontsize=13, x=0.02, ha="left")
    means = {name: [_mean(seeds) for seeds in found] for name, found in scores.items()}
    figure.caption = " ".join(_sweep_in_words(name, values, found, not share) for name, found in means.items())
    return figure


def _log_scale(axes: Axes) -> None:
    """A logarithmic y axis for what is drawn, labelled in plain numbers: matplotlib's own labels read 6 x 10^0."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(
        LogLocator(subs=(1,) if high > 500 * low else (1, 2, 5) if high > 10 * low else range(1, 10))
    )
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _mean(numbers: Sequence[float]) -> float:
    """The mean of the finite ones; nan when there is none."""
    finite = [number for number in numbers if math.isfinite(number)]
    return sum(finite) / len(finite) if finite else math.nan


def _dots(
    axes: Axes,
    values: Sequence[float],
    found: Sequence[Sequence[float]],
    colour: str,
    marker: str,
    name: str | None = None,
) -> None:
    for value, seeds in zip(values, found, strict=True):
        axes.plot([value] * len(seeds), seeds, marker, color=colour, alpha=0.45, markersize=7, markeredgewidth=0)
    axes.plot(values, [_mean(seeds) for seeds in found], marker=marker, color=colour, label=name)


def _sweep_in_words(name: str, values: Sequence[float], means: Sequence[float], lower: bool) -> str:
    finite = [(mean, value) for mean, value in zip(means, values, strict=True) if math.isfinite(mean)]
    if not finite:
        return f"{name}: never a finite number."
    best, at = (min if lower else max)(finite, key=lambda pair: pair[0])
    return f"{name}: best at {at:g} ({score_text(best, lower)})."


@styled
def picked(curves: Mapping[float, Sequence[Sequence[tuple[float, float]]]], value: float, *, label: str) -> Picture:
    """The training losses of a sweep: those of one value strong, those of all others faint behind them.

    curves: for each value of the knob, one curve per seed, of pairs (step, loss). label: what the value is called.
    """
    figure, (axes,) = empty(4.4)
    for other, seeds in [*((key, found) for key, found in curves.items() if key != value), (value, curves[value])]:
        style = {"color": BLUE, "zorder": 3} if other == value else {"color": FAINT, "alpha": 0.5, "linewidth": 1.4}
        for points in seeds:
            axes.plot(*zip(*[(step, loss) for step, loss in points if math.isfinite(loss)], strict=True), **style)
    _log_scale(axes)
    axes.set(title=f"Training loss at {label}", xlabel="step", ylabel="loss")
    ends = [points[-1][1] for points in curves[value] if points]
    figure.caption = f"{label}: loss {_mean(ends):.3f} at the last logged step; {count(curves, 'value')} in the sweep."
    return figure
