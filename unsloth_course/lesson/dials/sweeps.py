"""Dials over recorded sweeps: one knob at several values, each of them a whole training that was run beforehand.

Nobody can wait for seven trainings while turning a slider. So a script in `benchmarks/` ran them once, and what they
measured is shipped in `recorded/sweeps/`, with the device, the versions and the settings. The dial shows that record.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from unsloth_course.core import markup, places, writing
from unsloth_course.core.history import count
from unsloth_course.lesson.dials.dial import Dial, over
from unsloth_course.lesson.plots.style import BLUE, COLOURS, FAINT, GREY, MARKERS, Picture, empty, score_text, styled

RECORDED = places.RECORDED / "sweeps"
LAST = 0.1  # share of the logged losses that count as the end of a run


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    value: of the knob. loss: pairs (step, training loss) as logged. scores: by name, after training, the same names in
    every trial. seconds: of training. A loss or score that became infinite or not a number is nan.
    """

    value: float
    seed: int
    loss: list[tuple[int, float]]
    scores: dict[str, float]
    seconds: float

    @property
    def last_loss(self) -> float:
        """The mean of the last tenth of the logged losses, at least of five."""
        end = [loss for _, loss in self.loss][-max(5, round(LAST * len(self.loss))) :]
        return sum(end) / len(end)


@dataclass(frozen=True)
class Sweep:
    """A recorded sweep: a knob, and what was measured at each of its values.

    name: of the file, such as "full-learning-rate". knob: in words, such as "learning rate". metric: of the scores,
    "share" (0 to 1, higher is better) or "perplexity" (lower is better). before: the scores of the base model.
    settings: what all trials share.
    """

    name: str
    knob: str
    metric: str
    before: dict[str, float]
    device: str
    model: str
    versions: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        """The values of the knob, ascending."""
        return sorted({trial.value for trial in self.trials})

    @property
    def seeds(self) -> list[int]:
        """The seeds that were run, in the order of the record."""
        return list(dict.fromkeys(trial.seed for trial in self.trials))

    def at(self, value: float) -> list[Trial]:
        """The trials at one value, one for each seed."""
        return [trial for trial in self.trials if trial.value == value]

    def scores(self, name: str, value: float) -> list[float]:
        """One score at one value, seed by seed."""
        return [trial.scores[name] for trial in self.at(value)]

    def write(self, folder: Path = RECORDED) -> Path:
        """Writes the record as `<name>.json`; for the scripts that run sweeps."""
        path = folder / f"{self.name}.json"
        writing.write_text(path, json.dumps(writing.plain(asdict(self)), indent=1, allow_nan=False) + "\n")
        return path


def read(name: str, folder: Path = RECORDED) -> Sweep:
    """The recorded sweep of this name."""
    found = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    trials = [
        Trial(**trial | {"loss": [*_numbers(dict(trial["loss"])).items()], "scores": _numbers(trial["scores"])})
        for trial in found["trials"]
    ]
    return Sweep(**found | {"before": _numbers(found["before"]), "trials": trials})


def _numbers(found: Mapping[str, float | None]) -> dict[str, float]:
    """Scores; what JSON cannot say, nan or infinity, is written as null."""
    return {name: math.nan if value is None else value for name, value in found.items()}


@dataclass(frozen=True)
class SweepDial(Dial):
    """A recorded sweep to turn: loss curve and scores at each value of the knob.

    log: the knob's axis is logarithmic. mark: a value to point out in the picture, such as the lesson's own.
    """

    sweep: Sweep
    log: bool = False
    mark: float | None = None

    @styled
    def picture(self) -> Picture:
        """Scores, and below them the loss at the end of training, against the knob: a dot for each seed, a line of the
        means. Losses stand on a logarithmic axis, and so do perplexities; the mark is pointed out."""
        values, share = self.sweep.values, self.sweep.metric == "share"
        scores = {name: [self.sweep.scores(name, value) for value in values] for name in self.sweep.before}
        losses = [[trial.last_loss for trial in self.sweep.at(value)] for value in values]
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
            axes.set_xscale("log" if self.log else "linear")
            if self.log:
                axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(values, [f"{value:g}" for value in values])
            if self.mark is not None:
                axes.axvline(self.mark, color=GREY, linestyle=(0, (4, 3)), linewidth=2, zorder=1)
        below.set_xlabel(self.sweep.knob)
        figure.legend(loc="outside upper left", ncols=2)
        marked = [f"Dashed: the value of this lesson, {self.mark:g}."] if self.mark is not None else []
        figure.supxlabel("\n".join([*marked, self.about()]), fontsize=13, x=0.02, ha="left")
        means = {name: [_mean(seeds) for seeds in found] for name, found in scores.items()}
        figure.caption = " ".join(_sweep_in_words(name, values, found, not share) for name, found in means.items())
        return figure

    def curve(self, value: float) -> Picture:
        """The loss curves at one value, before those of all others."""
        curves = {other: [trial.loss for trial in self.sweep.at(other)] for other in self.sweep.values}
        return picked(curves, value, label=f"{self.sweep.knob} {value:g}")

    def table(self, value: float) -> str:
        """HTML of the scores at one value, as mean and range over the seeds, beside those of the base."""
        rows = (
            (name, self._number(was), self._number(*self.sweep.scores(name, value)))
            for name, was in self.sweep.before.items()
        )
        return markup.table(rows, ("", "before", "after")) + markup.paragraphs([self.about()])

    def about(self) -> str:
        """Where the record comes from, in a sentence."""
        seeds = self.sweep.seeds
        return (
            f"Recorded on {self.sweep.device}, model {self.sweep.model}, "
            f"{len(seeds)} seed{'s' * (len(seeds) > 1)}, unsloth {self.sweep.versions.get('unsloth', 'unknown')}."
        )

    def _number(self, *found: float) -> str:
        good = [value for value in found if math.isfinite(value)]
        if not good:
            return "not a number"
        shown = "{:.1f} %" if self.sweep.metric == "share" else "{:.2f}"
        low, mean, high = (
            shown.format(value * (100 if self.sweep.metric == "share" else 1))
            for value in (min(good), sum(good) / len(good), max(good))
        )
        return mean if low == high else f"{mean} ({low} to {high})"

    def widget(self) -> Any:
        """A slider over the recorded values, the scores, the curve."""
        values = self.sweep.values
        start = self.mark if self.mark in values else values[len(values) // 2]
        return over(values, start, self.sweep.knob, "{:g}", self.table, self.curve)


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


def learning_rate(mark: float | None = None) -> SweepDial:
    """The full fine-tuning lesson's dial: learning rates from far too low to far too high, on the pocket model.

    mark: the learning rate to point out. Taught in lesson colab1 (full fine-tuning).
    """
    return SweepDial(read("full-learning-rate"), log=True, mark=mark)


def replay(mark: float | None = None) -> SweepDial:
    """The continued-pretraining lesson's dial: shares of replay from none to half of all blocks, on the pocket model.

    mark: the share to point out. Taught in lesson colab5 (continued pretraining).
    """
    return SweepDial(read("cpt-replay"), mark=mark)
