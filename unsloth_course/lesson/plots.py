"""The course's pictures: loss, memory, scores before and after, and the curves behind the dials.

Every function returns a figure that is registered nowhere, so a notebook cell that ends with it shows it once, and
nothing needs closing. `figure.caption` says in one sentence what the picture shows.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import evaluation as measuring
from unsloth_course.lesson.lowrank import energy, rank_for
from unsloth_course.lesson.memory import size

if TYPE_CHECKING:
    from unsloth_course.lesson.recordings import Recording

# The colour-blind-safe palette of Okabe and Ito (2008), without its yellow, which is lost on a projector.
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
COLOURS = [BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER]
GREY, FAINT = "#595959", "#A8A8A8"
RUN_COLOURS = [GREY, *COLOURS]  # the base first
FAR_APART = 20  # perplexities that differ by more than this factor are drawn on a logarithmic axis
DRAWN_UP_TO = 1e15  # a broken model's perplexity has no end, and an axis has one
MARKERS = "os^DvP"
DASHES = ("-", (0, (6, 2)), (0, (6, 2, 1, 2)), (0, (2, 2)))  # of lines that have no markers
STYLE = {
    "figure.facecolor": "white",  # opaque, so that the picture is the same in a dark theme
    "figure.dpi": 100,
    "savefig.facecolor": "white",
    "font.size": 14,
    "font.family": "sans-serif",
    "text.color": "black",
    "axes.facecolor": "white",
    "axes.edgecolor": GREY,
    "axes.labelcolor": "black",
    "axes.labelsize": 14,
    "axes.titlesize": 16,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "xtick.labelsize": 13,
    "ytick.labelsize": 13,
    "legend.fontsize": 13,
    "legend.frameon": False,
    "lines.linewidth": 2.8,
    "lines.markersize": 8,
}
NAMES = {  # of metrics in TRL's logs whose key is no plain word
    "reward_std": "spread of the rewards over the whole batch",
    "reward_std_in_groups": "spread of the rewards within groups",
    "frac_reward_zero_std": "share of groups without spread",
    "completions/mean_length": "tokens per completion",
    "rewards/exact/mean": "share of completions that are right",
}
LOWER_IS_BETTER = measuring.LOWER_IS_BETTER | {"loss"}
WIDTH = 9.0  # inches


class Picture(Figure):
    """A matplotlib figure that a notebook can show without pyplot, with a caption in words."""

    caption: str = ""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def _styled(draw: Callable[..., Picture]) -> Callable[..., Picture]:
    @wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Picture:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # a learner's own style, such as dark_background, must not mix with this one
            matplotlib.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return styled


def _picture(height: float, rows: int = 1) -> tuple[Picture, list[Axes]]:
    figure = Picture(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.14, h_pad=0.12)
    return figure, list(figure.subplots(rows, 1, squeeze=False)[:, 0])


# ---------------------------------------------------------------------------------------------------------------------
# From a trainer's log


@_styled
def loss(
    history: Sequence[Mapping[str, Any]],
    *,
    evaluation: Sequence[tuple[float, float]] | None = None,
    reference: float | tuple[float, str] | None = None,
    title: str = "Loss while training",
    band: Recording | None = None,
) -> Picture:
    """The training loss of every logged step, smoothed, with the evaluation losses.

    history: `trainer.state.log_history` of any trainer; rows without "loss" are passed over.
    evaluation: pairs (step, loss) on unseen data; left out, the rows with "eval_loss" are used.
    reference: a value to compare with, or a pair (value, label), drawn as a dashed line.
    band: a recording, as `recordings.find` gives it, whose band is drawn behind the smoothed line; the caption says
    whether the line lies inside, or why there is no band.
    The smoothed line is an exponential moving average, drawn from 5 points on. A loss that is not a finite number is
    marked at the bottom and said in words.
    Raises CourseError when nothing in the history can be drawn. Taught in lesson colab2 (LoRA).
    """
    points = _series(history, "loss")
    held_out = _series(history, "eval_loss") if evaluation is None else [(float(s), float(v)) for s, v in evaluation]
    held_out = [(step, value) for step, value in held_out if math.isfinite(value)]
    if not points and not held_out:
        raise CourseError(_nothing_logged(history, ["loss"]))

    figure, (axes,) = _picture(4.8)
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    broken = [step for step, value in points if not math.isfinite(value)]
    compared = _band(axes, band, "loss", history)
    _trace(axes, finite, "training loss", BLUE)
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o--", color=ORANGE, label="evaluation loss (unseen data)")
    if reference is not None:
        value, label = reference if isinstance(reference, tuple) else (reference, f"{reference:.3g}")
        axes.axhline(value, color=GREY, linestyle=(0, (4, 3)), linewidth=2, label=label)
    if broken:
        axes.plot(
            broken,
            [0.03] * len(broken),
            "X",
            color="black",
            transform=axes.get_xaxis_transform(),
            linestyle="none",
            label=f"not a finite number: {_count(broken, 'step')}, first at {broken[0]:g}",
        )
    if not finite and not held_out and reference is None:
        axes.set_yticks([])
    axes.set(title=title, xlabel="step", ylabel="loss")
    _whole_steps(axes, [step for step, _ in points + held_out])
    axes.legend()
    figure.caption = " ".join(filter(None, [_loss_in_words(finite, held_out, broken), compared]))
    return figure


@_styled
def traces(
    history: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    *,
    labels: Mapping[str, str] | None = None,
    title: str = "",
    band: Recording | None = None,
) -> Picture:
    """One small picture per metric of a trainer's log, one below the other, over the same steps.

    history: `trainer.state.log_history`. keys: names of metrics in it, such as "rewards/margins".
    labels: what to call a metric, by its key; some have a name already. Keys that the log lacks are left out, and named
    below. band: as in `loss`; it is drawn in the panel of the metric that runs are compared by.
    Raises CourseError when the log has none of them. Taught in the lessons on DPO and GRPO.
    """
    names = NAMES | dict(labels or {})
    found = {key: _series(history, key) for key in dict.fromkeys(keys)}
    missing = [key for key, points in found.items() if not points]
    drawn = {key: points for key, points in found.items() if points}
    if not drawn:
        raise CourseError(_nothing_logged(history, keys))

    figure, panels = _picture(0.9 + 2.1 * len(drawn), rows=len(drawn))
    notes, said = [f"Not in this log: {', '.join(missing)}."] if missing else [], []
    for position, (axes, (key, points)) in enumerate(zip(panels, drawn.items(), strict=True)):
        name = names.get(key, key)
        finite = [(step, value) for step, value in points if math.isfinite(value)]
        if compared := _band(axes, band, key, history):
            said.append(compared)
            if axes.collections:
                notes.append(f"Shaded: {band.label}.")
        _trace(axes, finite, name, COLOURS[position % len(COLOURS)])
        axes.set_title(name, fontsize=14)
        if broken := [step for step, value in points if not math.isfinite(value)]:
            notes.append(f"{name}: not a finite number in {_count(broken, 'step')}, first at step {broken[0]:g}.")
        if axes is not panels[-1]:
            axes.tick_params(labelbottom=False)
        axes.margins(y=0.15)
    steps = [step for points in drawn.values() for step, _ in points]
    for axes in panels:
        axes.set_xlim(min(steps) - 0.5, max(steps) + 0.5)
    _whole_steps(panels[-1], steps)
    panels[-1].set_xlabel("step")
    below = [
        "Faint: every step. Strong: moving average.",
        *(line for note in notes for line in textwrap.wrap(note, 88)),
    ]
    figure.supxlabel("\n".join(below), fontsize=13, x=0.02, ha="left", parse_math=False)
    if title:
        figure.suptitle(title, fontsize=16, x=0.02, ha="left")
    figure.caption = " ".join([f"{', '.join(names.get(key, key) for key in drawn)} over the steps.", *notes, *said])
    return figure


def _band(axes: Axes, recording: Recording | None, key: str, history: Sequence[Mapping[str, Any]]) -> str:
    """Draws the band of a recording in the panel of the metric that it compares; what came of it, in words."""
    if recording is None or key != recording.curve:
        return ""
    if not recording.why_not(history):
        band = recording.band()
        # The device's name comes from a file: no formulas, and no leading underscore, which would hide the label.
        label = textwrap.fill(recording.label.replace("$", r"\$"), 54)
        low = [max(0.0, value) for value in band.low] if key == "loss" else band.low  # no loss of tokens lies below
        axes.fill_between(band.steps, low, band.high, color=SKY, alpha=0.35, linewidth=0, label=label)
    return str(recording.compare(history))


def _series(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Pairs (step, value) of one metric, in the order logged; a row without a step counts as one."""
    if not isinstance(history, Sequence):
        raise CourseError(f"The history wants trainer.state.log_history, and got {type(history).__name__}.")
    points: list[tuple[float, float]] = []
    for row in history:
        value = _number(row.get(key)) if isinstance(row, Mapping) else None
        if value is not None:
            step = _number(row.get("step"))
            points.append((len(points) + 1 if step is None or not math.isfinite(step) else step, value))
    return points


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _nothing_logged(history: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    wanted = ", ".join(keys)
    if not len(history):
        return f"The log history is empty, so there is no {wanted} to draw: train first, with logging_steps=1."
    logged = sorted({key for row in history if isinstance(row, Mapping) for key in row})
    return (
        f"The log history has {_count(history, 'row')} and none with {wanted}; it holds {', '.join(logged)}. "
        "Train with logging_steps=1, so that each step is logged."
    )


def _count(things: Sequence[Any], noun: str) -> str:
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"


def _trace(axes: Axes, points: list[tuple[float, float]], name: str, colour: str) -> None:
    """A faint raw line under its moving average; from fewer than 5 points, the points themselves."""
    if not points:
        return
    steps, values = zip(*points, strict=True)
    if len(points) < 5:
        axes.plot(steps, values, "o-", color=colour, label=name)
        return
    axes.plot(steps, values, color=colour, alpha=0.3, linewidth=1.6, label=name)
    axes.plot(steps, smoothed(values), color=colour, label=f"smoothed (moving average, span {_span(values)})")


def smoothed(values: Sequence[float]) -> list[float]:
    """The strong line of the pictures: the moving average over about a tenth of the values, at least three of them."""
    return _moving_average(values, _span(values))


def _span(values: Sequence[float]) -> int:
    return max(3, round(len(values) / 10))


def _moving_average(values: Sequence[float], span: int) -> list[float]:
    """Exponential moving average with weight 2 / (span + 1).

    Divided by the weights seen so far, as Adam does (Kingma and Ba, 2015, section 3), so that it starts without a bias.
    """
    keep = 1 - 2 / (span + 1)
    averages, total, weights = [], 0.0, 0.0
    for value in values:
        total, weights = keep * total + value, keep * weights + 1
        averages.append(total / weights)
    return averages


def _whole_steps(axes: Axes, steps: Sequence[float]) -> None:
    if all(step == int(step) for step in steps):
        axes.xaxis.get_major_locator().set_params(integer=True)
    if min(steps) == max(steps):
        axes.set_xlim(steps[0] - 1, steps[0] + 1)


def _loss_in_words(finite: list[tuple[float, float]], held_out: list[tuple[float, float]], broken: list[float]) -> str:
    words = []
    if finite:
        (first, start), (last, end) = finite[0], finite[-1]
        words.append(f"Training loss {start:.3f} at step {first:g}, {end:.3f} at step {last:g}.")
    if held_out:
        words.append(f"Evaluation loss {held_out[-1][1]:.3f} at step {held_out[-1][0]:g}.")
    if broken:
        words.append(
            f"The loss is not a finite number in {_count(broken, 'step')}, first at step {broken[0]:g}: "
            "lower the learning rate, and look at the rows of that step."
        )
    return " ".join(words)


@_styled
def groups(advantages: Mapping[str, Sequence[tuple[float, float]]]) -> Picture:
    """The advantages of groups of completions, one panel below the other: up is made more likely, down less.

    advantages: for each group, by its name, a pair (reward, advantage) per completion. Raises CourseError when there is
    no group. Taught in lesson colab4 (GRPO).
    """
    if not advantages or not all(len(pairs) for pairs in advantages.values()):
        raise CourseError("There is no group to draw: pass the rewards and advantages of at least one completion each.")
    figure, panels = _picture(0.8 + 1.7 * len(advantages), rows=len(advantages))
    tallest = max(1.0, *(abs(value) for pairs in advantages.values() for _, value in pairs))
    words = []
    for axes, (name, pairs) in zip(panels, advantages.items(), strict=True):
        values = [value for _, value in pairs]
        bars = axes.bar(range(len(pairs)), values, color=[BLUE if value > 0 else ORANGE for value in values])
        axes.bar_label(bars, [f"{value:+.2f}" if abs(value) >= 0.005 else "0" for value in values], padding=3)
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set_ylim(-1.8 * tallest, 1.8 * tallest)
        axes.set_xticks(range(len(pairs)), [f"{reward:g}" for reward, _ in pairs])
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(bottom=False)
        axes.grid(False)
        axes.set_title(name, fontsize=14)
        words.append(f"{name}: advantages {min(values):+.2f} to {max(values):+.2f}.")
    panels[-1].set_xlabel("reward of each completion; the bar is its advantage")
    figure.caption = " ".join(words)
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Memory


@_styled
def memory(predicted: Mapping[str, int], measured: int | Mapping[str, int] | None = None) -> Picture:
    """Predicted memory, part by part, beside what was measured.

    predicted: bytes by part, such as {"weights": 6_000_000, "activations": 2_000_000}.
    measured: the peak in bytes, or bytes by part.
    Raises CourseError when a figure is missing, negative or not a number. Taught in lesson colab2 (LoRA).
    """
    bars = {"predicted": dict(predicted)}
    if measured is not None:
        bars["measured"] = dict(measured) if isinstance(measured, Mapping) else {"measured": measured}
    for name, parts in bars.items():
        amounts = [_number(amount) for amount in parts.values()]
        if not amounts or not all(amount is not None and 0 <= amount < math.inf for amount in amounts):
            raise CourseError(f"The {name} memory wants bytes of 0 or more for each part, and got {parts}.")

    totals = {name: sum(parts.values()) for name, parts in bars.items()}
    unit, scale = ("GiB", 2**30) if max(totals.values()) >= 2**30 else ("MiB", 2**20)
    figure, (axes,) = _picture(1.9 + 0.85 * len(bars))
    colours = dict(zip(predicted, COLOURS * (1 + len(predicted) // len(COLOURS)), strict=False))
    for name, parts in bars.items():
        left = 0.0
        for part, amount in parts.items():
            shown = None if part == "measured" else f"{part} {size(amount)}"
            if name == "measured" and part in predicted:
                shown = None  # its colour is in the legend already
            colour = colours.get(part, GREY)
            edge = {"edgecolor": "white", "linewidth": 0.5}  # a thicker one would hide a thin part
            axes.barh(name, amount / scale, left=left, height=0.6, color=colour, label=shown, **edge)
            left += amount / scale
        axes.annotate(_total(name, totals), (left, name), (8, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.grid(False)
    axes.set(xlim=(0, 1.45 * max(totals.values()) / scale or 1), xlabel=unit)
    axes.set_title("Memory while training")
    figure.legend(loc="outside lower left", ncols=2)
    figure.caption = "Memory: " + ", ".join(f"{name} {_total(name, totals)}" for name in bars) + "."
    return figure


def _total(name: str, totals: Mapping[str, float]) -> str:
    text = size(totals[name])
    if name == "predicted" or not totals["predicted"]:
        return text
    change = totals["measured"] / totals["predicted"] - 1
    return f"{text} ({abs(change):.0%} {'more' if change > 0 else 'less'})"


# ---------------------------------------------------------------------------------------------------------------------
# Scores


@_styled
def before_after(score: Any) -> Picture:
    """A score before and after training, with the interval of the difference in words.

    score: an object or a mapping with `before`, `after`, `interval` (low and high of after minus before), `metric`
        and `n`, and maybe `measures`, such as the "evaluation" part of a results file.
    The bars are those of the measure that judges, and the other measures stand below. Perplexity and loss are better
    when lower, every other measure when higher; the length of an answer is neither. Raises CourseError when a value is
    missing. Taught in lesson colab2 (LoRA).
    """
    judge, *others = _measures(score)
    low, high = judge.interval
    lower = judge.name in LOWER_IS_BETTER
    share = judge.is_share and not lower
    verdict = _verdict(low, high, lower)
    scale, digits, unit = (100, 1, " points") if share else (1, 2, "")
    change, low, high = (f"{scale * value:+.{digits}f}" for value in (judge.after - judge.before, low, high))
    words = f"after minus before: {change}{unit}, 95% interval {low} to {high}: {verdict}"
    before, after = judge.before, judge.after
    if judge.likelier is not None:
        words += f"\n{judge.likelier:,} of {judge.n:,} became likelier"
    figure, (axes, *below) = _two_panels(len(others)) if others else _picture(3.2)
    first = "a coin" if judge.name == "preference_accuracy" else "before"
    bars = axes.barh([first, "after"], [before, after], height=0.6, color=[FAINT, BLUE])
    axes.bar_label(bars, [_score(before, lower), _score(after, lower)], padding=8, fontsize=16)
    axes.invert_yaxis()
    axes.grid(False)
    direction = "lower is better" if lower else "higher is better"
    tested = f", n = {judge.n:,}" if below else f" on {judge.n:,} unseen examples"
    axes.set_title(f"{judge.title}{tested} ({direction})")
    shown = words.replace(", 95%", ",\n95%") if below else words  # the names of the others take their room
    axes.set_xlabel(shown[0].upper() + shown[1:], loc="left")
    if lower and judge.name != "loss" and 1 <= min(before, after) < max(before, after) / FAR_APART:
        # From 1, where nothing is surprising: on this axis a bar is as long as the loss.
        axes.set_xscale("log")
        axes.set_xlim(1, min(DRAWN_UP_TO, max(before, after)) ** 1.35)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        _share_axis(axes, lower, max(before, after))
    said = f"{judge.title}: {_score(before, lower)} before, {_score(after, lower)} after; {words}.".replace("\n", "; ")
    if below:
        said += f" Beside it: {_beside(below[0], others)}."
    figure.caption = said
    return figure


def _two_panels(lines: int) -> tuple[Picture, list[Axes]]:
    """A panel for the score that judges, and one for so many measures beside it."""
    figure = Picture(figsize=(WIDTH, 4.2 + 0.42 * lines), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.14, h_pad=0.12)
    return figure, list(figure.subplots(2, 1, height_ratios=[2.6, 0.5 + 0.42 * lines]))


def _measures(score: Any) -> list[Any]:
    """The measures of a score, the one that judges first; of older results its own metric alone."""
    before, after, interval, metric, n = (
        _field(score, name) for name in ("before", "after", "interval", "metric", "n")
    )
    found = score.get("measures") if isinstance(score, Mapping) else getattr(score, "measures", ())
    known = [field.name for field in fields(measuring.Measure)]
    made = [
        measuring.Measure(**{name: one[name] for name in known if name in one}) if isinstance(one, Mapping) else one
        for one in found or ()
    ]
    numbers = [one for one in made if all(isinstance(end, int | float) for end in (one.before, one.after))]
    return measuring.Score(metric, n, before, after, interval, measures=tuple(numbers)).all


def _beside(axes: Axes, measures: Sequence[Any]) -> str:
    """Draws measures on one axis of shares, each from before to after; what is no share is said in numbers alone."""
    said = []
    for row, one in enumerate(measures):
        share = one.is_share and one.name not in LOWER_IS_BETTER
        if share:
            axes.plot([one.before, one.after], [row, row], color=FAINT, linewidth=4, zorder=1)
            axes.scatter([one.before, one.after], [row, row], color=[GREY, BLUE], s=60, zorder=2)
        text = f"{_score(one.before, not share)} → {_score(one.after, not share)}"
        axes.text(1.03, row, text, va="center", fontsize=13, clip_on=False)
        said.append(f"{one.title} {text} (n = {one.n:,})")
    axes.set_yticks(range(len(measures)), [f"{one.title}, n = {one.n:,}" for one in measures])
    axes.set_ylim(len(measures) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.42)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_title("and the other measures, before (grey) and after", fontsize=14)
    return "; ".join(said)


def _field(score: Any, name: str) -> Any:
    value = score.get(name) if isinstance(score, Mapping) else getattr(score, name, None)
    if value is None:
        raise CourseError(f"The score has no {name}: pass the result of the evaluation before and after training.")
    return value


def _verdict(low: float, high: float, lower: bool) -> str:
    if low <= 0 <= high:
        return "no change shown"
    return "better" if (high < 0) == lower else "worse"


def _score(value: float, lower: bool) -> str:
    return f"{value:,.2f}" if lower else f"{value:.1%}"


def _share_axis(axes: Axes, lower: bool, largest: float) -> None:
    """A share runs from 0 to 100%, whatever the scores, so that two pictures can be compared."""
    if lower:
        axes.set_xlim(0, 1.2 * largest or 1)
    else:
        axes.set_xlim(0, 1.12)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])


@_styled
def by_skill(before: Mapping[str, float], after: Mapping[str, float]) -> Picture:
    """The score of each skill before and after, as shares from 0 to 1; a skill measured once has one bar.

    Raises CourseError when there is no skill. Taught in lesson colab2 (LoRA).
    """
    skills = list(dict.fromkeys([*before, *after]))
    if not skills:
        raise CourseError("There is no skill to draw: pass the scores by skill of an evaluation.")
    figure, (axes,) = _picture(1.6 + 0.62 * len(skills))
    for offset, colour, label, scores in ((-0.2, FAINT, "before", before), (0.2, BLUE, "after", after)):
        measured = [(place, scores[skill]) for place, skill in enumerate(skills) if skill in scores]
        if measured:
            bars = axes.barh(
                [place + offset for place, _ in measured],
                [value for _, value in measured],
                0.38,
                color=colour,
                label=label,
            )
            axes.bar_label(bars, [f"{value:.0%}" for _, value in measured], padding=5, fontsize=13)
    axes.set_yticks(range(len(skills)), [skill.replace("_", " ") for skill in skills])
    axes.invert_yaxis()
    axes.grid(False)
    _share_axis(axes, False, 1.0)
    axes.set_title("Score by skill")
    figure.legend(loc="outside lower left", ncols=2)
    both = [skill for skill in skills if skill in before and skill in after]
    fallen = [skill for skill in both if after[skill] < before[skill]]
    figure.caption = (
        f"{_count(both, 'skill')} measured before and after; lower after in: {', '.join(fallen) or 'none'}."
    )
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Curves


@_styled
def curve(
    xs: Sequence[float],
    ys: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    mark: float | tuple[float, str] | None = None,
    evenly: bool = False,
    markers: bool = True,
) -> Picture:
    """Lines over the same x values, each named at its end; the static twin of a dial.

    ys: the values of each line by its name, as many as `xs`.
    mark: an x value to point out, or a pair (x, label), drawn as a dashed upright line.
    evenly: the x values stand side by side at equal distances, as ranks of 1, 4, 16 and 64 want it.
    markers: a mark at each value, which says that it was measured; a formula's line has none.
    Raises CourseError when a line has another length. Taught in lesson colab2 (LoRA).
    """
    if not len(xs) or not ys:
        raise CourseError("There is nothing to draw: curve() wants x values and at least one line.")
    for name, values in ys.items():
        if len(values) != len(xs):
            raise CourseError(f'The line "{name}" has {len(values)} values for {len(xs)} x values: give one each.')

    places = range(len(xs)) if evenly else xs
    figure, (axes,) = _picture(4.6)
    for position, (name, values) in enumerate(ys.items()):
        style = {"marker": MARKERS[position % len(MARKERS)]} if markers else {"linestyle": _dashes(position)}
        axes.plot(places, values, color=COLOURS[position % len(COLOURS)], label=name, **style)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if evenly:
        axes.set_xticks(places, [f"{x:g}" for x in xs])
    if mark is not None:
        x, label = mark if isinstance(mark, tuple) else (mark, f"{mark:g}")
        x = places[list(xs).index(x)] if evenly and x in xs else x
        axes.axvline(x, color=GREY, linestyle=(0, (4, 3)), linewidth=2, zorder=1)
        axes.annotate(
            label, (x, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center"
        )
    _name_lines(axes, places, ys)
    figure.caption = " ".join(f"{name}: {values[0]:g} to {values[-1]:g}." for name, values in ys.items())
    return figure


@_styled
def curves(
    xs: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    xlabel: str,
    mark: tuple[float, str] | None = None,
    top: float | None = None,
) -> Picture:
    """The lines of several formulas over the same x values, a panel for each quantity, one below the other.

    panels: by the name of the quantity, the values of each line by its name, as many as `xs`. mark: an x value to point
    out, with its label. top: the largest y value that is shown; a line that goes higher leaves the picture.
    Raises CourseError when a line has another length. Taught in lesson colab3 (DPO).
    """
    if not len(xs) or not panels or not all(panels.values()):
        raise CourseError("There is nothing to draw: curves() wants x values and at least one line in each panel.")
    figure, drawn = _picture(0.9 + 2.9 * len(panels), rows=len(panels))
    for axes, (quantity, lines) in zip(drawn, panels.items(), strict=True):
        for position, (name, values) in enumerate(lines.items()):
            if len(values) != len(xs):
                raise CourseError(f'The line "{name}" has {len(values)} values for {len(xs)} x values: give one each.')
            style = {"color": COLOURS[position % len(COLOURS)], "linestyle": _dashes(position)}
            axes.plot(xs, values, label=name, **style)
        axes.set_title(quantity, fontsize=14)
        low, high = axes.get_ylim()
        axes.set_ylim(low if top is None else max(low, -0.05 * top), high if top is None else min(high, top))
        if mark is not None:
            axes.axvline(mark[0], color=GREY, linestyle=(0, (4, 3)), linewidth=2, zorder=1)
        if axes is not drawn[-1]:
            axes.tick_params(labelbottom=False)
        _name_lines(axes, xs, lines)
    drawn[-1].set_xlabel(xlabel)
    if mark is not None:
        figure.supxlabel(f"Dashed: {mark[1]}.", fontsize=13, x=0.02, ha="left")
    figure.caption = " ".join(
        f"{quantity}, {name}: {values[0]:.3g} to {values[-1]:.3g}."
        for quantity, lines in panels.items()
        for name, values in lines.items()
    )
    return figure


def _dashes(position: int) -> Any:
    """A line's dashes, by its position: with them it is told from the others without its colour."""
    return DASHES[position % len(DASHES)]


def _name_lines(axes: Axes, xs: Sequence[float], ys: Mapping[str, Sequence[float]]) -> None:
    """Each line's name to the right of its end, pushed apart where ends lie close together, and not above the axes."""
    low, high = axes.get_ylim()
    inches = axes.get_position().height * axes.figure.get_figheight()
    gap = 0.28 / inches * (high - low)
    last = max(range(len(xs)), key=lambda index: xs[index])
    ends = [(values[last], position, name) for position, (name, values) in enumerate(ys.items())]
    place = -math.inf
    for above, (value, position, name) in zip(reversed(range(len(ends))), sorted(ends), strict=True):
        place = max(value if math.isfinite(value) else low, place + gap)
        axes.annotate(
            name,
            (1.02, min(place, high - above * gap)),
            xycoords=("axes fraction", "data"),
            color=COLOURS[position % len(COLOURS)],
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )
    axes.set_ylim(low, high)


# ---------------------------------------------------------------------------------------------------------------------
# Recorded sweeps


@_styled
def sweep(
    values: Sequence[float],
    scores: Mapping[str, Sequence[Sequence[float]]],
    losses: Sequence[Sequence[float]],
    *,
    xlabel: str,
    metric: str = "share",
    log: bool = False,
    mark: float | None = None,
    about: str = "",
) -> Picture:
    """Scores, and below them the loss at the end of training, against a knob: a dot for each seed, a line of the means.

    values: of the knob, ascending. scores: for each name, and at each value, one score per seed. losses: the same.
    metric: "share" (0 to 1) or "perplexity". mark: a value to point out. about: a sentence for below.
    Raises CourseError when there is no value, or not one group of seeds for each. Taught in colab1 and colab5.
    """
    if not len(values) or any(len(found) != len(values) for found in (losses, *scores.values())):
        raise CourseError(f"A sweep over {len(values)} values wants the scores and losses of each value.")
    figure, (above, below) = _picture(7.6, rows=2)
    for position, (name, found) in enumerate(scores.items()):
        _dots(above, values, found, COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)], name)
    _dots(below, values, losses, GREY, "o")
    if metric == "share":
        above.set_ylim(-0.04, 1.06)
        above.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    else:
        _log_scale(above)
    above.set_title("Scores after training" if metric == "share" else "Perplexity after training (lower is better)")
    _log_scale(below)
    below.set_title("Loss at the end of training (lower is better)")
    for axes in (above, below):
        axes.set_xscale("log" if log else "linear")
        if log:
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(values, [f"{value:g}" for value in values])
        if mark is not None:
            axes.axvline(mark, color=GREY, linestyle=(0, (4, 3)), linewidth=2, zorder=1)
    below.set_xlabel(xlabel)
    means = {name: [_mean(seeds) for seeds in found] for name, found in scores.items()}
    figure.legend(loc="outside upper left", ncols=2)
    notes = ([f"Dashed: the value of this lesson, {mark:g}."] if mark is not None else []) + ([about] if about else [])
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=13, x=0.02, ha="left")
    figure.caption = " ".join(_sweep_in_words(name, values, found, metric) for name, found in means.items())
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


def _sweep_in_words(name: str, values: Sequence[float], means: Sequence[float], metric: str) -> str:
    lower = metric in LOWER_IS_BETTER
    finite = [(mean, value) for mean, value in zip(means, values, strict=True) if math.isfinite(mean)]
    if not finite:
        return f"{name}: never a finite number."
    best, at = (min if lower else max)(finite, key=lambda pair: pair[0])
    return f"{name}: best at {at:g} ({_score(best, lower)})."


@_styled
def picked(curves: Mapping[float, Sequence[Sequence[tuple[float, float]]]], value: float, *, label: str) -> Picture:
    """The training losses of a sweep: those of one value strong, those of all others faint behind them.

    curves: for each value of the knob, one curve per seed, of pairs (step, loss). label: what the value is called.
    Raises CourseError when the value is none of the sweep. Taught in lessons colab1 and colab5.
    """
    if value not in curves:
        known = ", ".join(f"{known:g}" for known in curves)
        raise CourseError(f"The sweep holds no curve for {value:g}; choose one of {known}.")
    figure, (axes,) = _picture(4.4)
    for other, seeds in [*((key, found) for key, found in curves.items() if key != value), (value, curves[value])]:
        style = {"color": BLUE, "zorder": 3} if other == value else {"color": FAINT, "alpha": 0.5, "linewidth": 1.4}
        for points in seeds:
            axes.plot(*zip(*[(step, loss) for step, loss in points if math.isfinite(loss)], strict=True), **style)
    _log_scale(axes)
    axes.set(title=f"Training loss at {label}", xlabel="step", ylabel="loss")
    ends = [points[-1][1] for points in curves[value] if points]
    figure.caption = f"{label}: loss {_mean(ends):.3f} at the last logged step; {_count(curves, 'value')} in the sweep."
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Inside the weights


@_styled
def layers(moved: Mapping[str, float]) -> Picture:
    """How far each projection of each layer moved, in percent of its weight: layers down, projections across.

    moved: shares by place, such as {"0.q_proj": 0.04}, as `lowrank.moved` gives them; other places are passed over.
    Raises CourseError when there is no projection among them. Taught in lesson colab1 (full fine-tuning).
    """
    cells = {tuple(place.split(".")): share for place, share in moved.items() if place.partition(".")[0].isdigit()}
    if not cells:
        raise CourseError("There is no layer to draw: pass the result of lowrank.moved.")
    rows = sorted({int(layer) for layer, _ in cells})
    columns = list(dict.fromkeys(projection for _, projection in cells))
    shares = [[100 * cells.get((str(layer), column), math.nan) for column in columns] for layer in rows]
    few = len(rows) <= 12
    figure, (axes,) = _picture(2.0 + 0.5 * len(rows) if few else 8.0)
    most = max(share for row in shares for share in row if not math.isnan(share))
    image = axes.imshow(shares, cmap="Blues", aspect="auto", vmin=0, vmax=most or 1)
    axes.grid(False)
    axes.set_xticks(range(len(columns)), [column.removesuffix("_proj") for column in columns])
    axes.set_yticks(range(len(rows)), rows) if few else axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set(ylabel="layer", title="How far each matrix moved, in % of its size")
    for row, found in enumerate(shares if few else []):
        for column, share in enumerate(found):
            dark = share > 0.75 * most
            axes.text(column, row, f"{share:.1f}", ha="center", va="center", color="white" if dark else "black")
    figure.colorbar(image, ax=axes, label="%")
    by_size = sorted(cells, key=cells.get)
    least, most_moved = (f"{projection} of layer {layer}" for layer, projection in (by_size[0], by_size[-1]))
    figure.caption = (
        f"Moved most: {most_moved} ({100 * cells[by_size[-1]]:.1f} %). "
        f"Moved least: {least} ({100 * cells[by_size[0]]:.1f} %)."
    )
    return figure


@_styled
def spectrum(spectra: Mapping[str, Sequence[float]], *, rank: int, share: float = 0.9) -> Picture:
    """How much of a change its strongest directions hold, against their number, on a logarithmic axis.

    spectra: for each change its singular values, largest first, as `lowrank.spectrum` gives them. rank: to point out,
    such as that of a LoRA adapter. share: to point out as well; where a line reaches it stands a mark.
    Raises CourseError when there is nothing to draw. Taught in lesson colab1 (full fine-tuning).
    """
    if not spectra or not all(len(values) for values in spectra.values()):
        raise CourseError(
            "There is no spectrum to draw: pass the singular values that lowrank.spectrum gives, by name."
        )
    figure, (axes,) = _picture(5.4)
    reached = []
    for position, (name, values) in enumerate(spectra.items()):
        colour, held, needed = COLOURS[position % len(COLOURS)], energy(values), rank_for(values, share)
        if not needed:
            axes.plot([], [], color=colour, label=f"{name}: no change")
            reached.append(f"{name}: no change.")
            continue
        mark = {"marker": MARKERS[position % len(MARKERS)], "markevery": [needed - 1]}
        axes.plot(range(1, len(held) + 1), held, color=colour, label=name, **mark)
        inside = held[min(rank, len(held)) - 1]
        reached.append(f"{name}: {_count(range(needed), 'direction')} for {share:.0%}, {inside:.0%} in {rank}.")
    axes.axhline(share, color=FAINT, linewidth=1.5, linestyle=(0, (2, 2)), zorder=1)
    axes.axvline(rank, color=GREY, linestyle=(0, (4, 3)), linewidth=2, zorder=1)
    axes.annotate(f"rank {rank}", (rank, 0), (6, 6), textcoords="offset points", color=GREY)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(ylim=(0, 1.04), xlabel="strongest directions kept", title="Share of the change that they hold")
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    figure.legend(loc="outside lower left", ncols=2)
    figure.caption = " ".join(reached)
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Runs side by side


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


@_styled
def scoreboard(
    panels: Sequence[Panel], *, colours: Mapping[str, str] | None = None, notes: Sequence[str] = ()
) -> Picture:
    """Many runs in many small pictures, two abreast: each value with its interval, its number beside it.

    Every panel shows the runs of the first, in that order. colours: of the runs, by name. notes: sentences that stand
    below. Raises CourseError when there is no run. Taught in all five lessons.
    """
    runs = list(panels[0].points) if panels else []
    if not runs:
        raise CourseError("There is no run to draw: run a lesson first.")
    rows = -(-len(panels) // 2)
    colours = dict(zip(runs, RUN_COLOURS * len(runs), strict=False)) | dict(colours or {})
    lines = [line for note in notes for line in textwrap.wrap(note, 88)]
    figure = Picture(figsize=(WIDTH, 0.9 + rows * (1.05 + 0.3 * len(runs)) + 0.25 * len(lines)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.12)
    cells = figure.subplots(rows, 2, squeeze=False).flatten()
    for cell in cells[len(panels) :]:
        cell.set_axis_off()
    for axes, panel in zip(cells, panels, strict=False):
        _panel(axes, panel, runs, colours)
    figure.suptitle("All runs: the same questions for every model", fontsize=16, x=0.02, ha="left")
    key = "Bar through a point: 95% interval. Diamond: what that run was trained for."
    figure.supxlabel("\n".join([key, *lines]), fontsize=13, x=0.02, ha="left", parse_math=False)
    figure.caption = " ".join([*map(_panel_in_words, panels), *notes])
    return figure


def _panel(axes: Axes, panel: Panel, runs: Sequence[str], colours: Mapping[str, str]) -> None:
    ends = [_draw(axes, panel, run, place, colours[run]) for place, run in enumerate(runs)]
    axes.set_yticks(range(len(runs)), runs)
    axes.set_ylim(len(runs) - 0.4, -0.6)
    axes.grid(False)
    axes.set_title(panel.title + (" (lower is better)" if panel.kind == "log" else ""), fontsize=14)
    _panel_axis(axes, panel.kind, max(ends))


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


# ---------------------------------------------------------------------------------------------------------------------
# Formats of an exported model


@_styled
def formats(rows: Sequence[tuple[str, int, float]], *, score: str, within: float = 0.03) -> Picture:
    """An exported model's formats: sizes as bars, and beside them scores as dots.

    rows: name, size in bytes and score from 0 to 1 of each format; the first is the model that was exported. score:
    what the score is, in words. within: how far a score may be from the first one, drawn as a band. Raises CourseError
    when there is no format. Taught at the end of lesson colab2 (LoRA).
    """
    if not rows:
        raise CourseError("There is no format to draw: export a model first.")
    names, sizes, scores = zip(*rows, strict=True)
    figure = Picture(figsize=(WIDTH, 1.7 + 0.5 * len(rows)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.14, h_pad=0.12)
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    bars = left.barh(places, [size / 1e6 for size in sizes], height=0.6, color=[FAINT, *[BLUE] * (len(rows) - 1)])
    left.bar_label(bars, [f"{size / 1e6:,.1f} MB" for size in sizes], padding=6, fontsize=13)
    left.set_xlim(0, 1.45 * max(sizes) / 1e6 or 1)
    left.set_xticks([])
    left.set_title("Size of the weights")
    right.axvspan(scores[0] - within, scores[0] + within, color=SKY, alpha=0.25, linewidth=0)
    for place, value in zip(places, scores, strict=True):
        right.plot(value, place, "o", color=ORANGE if place else GREY, markersize=10)
        side = (-12, "right") if value > 0.7 else (12, "left")
        right.annotate(
            f"{value:.1%}",
            (value, place),
            (side[0], 0),
            textcoords="offset points",
            ha=side[1],
            va="center",
            fontsize=13,
        )
    right.set_xlim(-0.03, 1.06)
    right.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
    right.set_title("Score")
    right.grid(False)
    left.grid(False)
    left.set_yticks(places, names)
    left.invert_yaxis()
    words = f"Score: {score}. Shaded: within {100 * within:.0f} points of {names[0]}."
    figure.supxlabel("\n".join(textwrap.wrap(words, 88)), fontsize=13, x=0.02, ha="left", parse_math=False)
    each = "; ".join(f"{name} {size / 1e6:,.1f} MB, {value:.1%}" for name, size, value in rows)
    figure.caption = f"Size and score of each format: {each}. {words}"
    return figure
