"""Pictures of a trainer's log: the loss, and metrics one below the other."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes

from unsloth_course.core.errors import CourseError
from unsloth_course.core.history import count, nothing_logged, series, smoothed, span
from unsloth_course.lesson.plots.style import BLUE, COLOURS, GREY, ORANGE, SKY, Picture, empty, styled

if TYPE_CHECKING:
    from unsloth_course.lesson.recordings import Recording

NAMES = {  # of metrics in TRL's logs whose key is no plain word
    "reward_std": "spread of the rewards over the whole batch",
    "reward_std_in_groups": "spread of the rewards within groups",
    "frac_reward_zero_std": "share of groups without spread",
    "completions/mean_length": "tokens per completion",
    "rewards/exact/mean": "share of completions that are right",
}


@styled
def loss(
    history: Sequence[Mapping[str, Any]],
    *,
    reference: tuple[float, str] | None = None,
    title: str = "Loss while training",
    band: "Recording | None" = None,
) -> Picture:
    """The training loss of every logged step, smoothed, with the evaluation losses.

    history: `trainer.state.log_history` of any trainer; of its rows those with "loss" and "eval_loss" are drawn.
    reference: a value to compare with, and its label, drawn as a dashed line.
    band: a recording, as `recordings.find` gives it, whose band is drawn behind the smoothed line; the caption says
    whether the line lies inside, or why there is no band.
    The smoothed line is an exponential moving average, drawn from 5 points on. A loss that is not a finite number is
    marked at the bottom and said in words.
    Raises CourseError when nothing in the history can be drawn. Taught in lesson colab2 (LoRA).
    """
    points = series(history, "loss")
    held_out = [(step, value) for step, value in series(history, "eval_loss") if math.isfinite(value)]
    if not points and not held_out:
        raise CourseError(nothing_logged(history, ["loss"]))

    figure, (axes,) = empty(4.8)
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    broken = [step for step, value in points if not math.isfinite(value)]
    compared = _band(axes, band, "loss", history)
    _trace(axes, finite, "training loss", BLUE)
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o--", color=ORANGE, label="evaluation loss (unseen data)")
    if reference is not None:
        axes.axhline(reference[0], color=GREY, linestyle=(0, (4, 3)), linewidth=2, label=reference[1])
    if broken:
        axes.plot(
            broken,
            [0.03] * len(broken),
            "X",
            color="black",
            transform=axes.get_xaxis_transform(),
            linestyle="none",
            label=f"not a finite number: {count(broken, 'step')}, first at {broken[0]:g}",
        )
    if not finite and not held_out and reference is None:
        axes.set_yticks([])
    axes.set(title=title, xlabel="step", ylabel="loss")
    _whole_steps(axes, [step for step, _ in points + held_out])
    axes.legend()
    figure.caption = " ".join(filter(None, [_loss_in_words(finite, held_out, broken), compared]))
    return figure


@styled
def traces(
    history: Sequence[Mapping[str, Any]], keys: Sequence[str], *, title: str = "", band: "Recording | None" = None
) -> Picture:
    """One small picture per metric of a trainer's log, one below the other, over the same steps.

    history: `trainer.state.log_history`. keys: names of metrics in it, such as "rewards/margins"; those that the log
    lacks are left out, and named below. band: as in `loss`; it is drawn in the panel of the metric that runs are
    compared by.
    Raises CourseError when the log has none of them. Taught in lessons colab3 (DPO) and colab4 (GRPO).
    """
    found = {key: series(history, key) for key in dict.fromkeys(keys)}
    missing = [key for key, points in found.items() if not points]
    drawn = {key: points for key, points in found.items() if points}
    if not drawn:
        raise CourseError(nothing_logged(history, keys))

    figure, panels = empty(0.9 + 2.1 * len(drawn), rows=len(drawn))
    notes, said = [f"Not in this log: {', '.join(missing)}."] if missing else [], []
    for position, (axes, (key, points)) in enumerate(zip(panels, drawn.items(), strict=True)):
        name = NAMES.get(key, key)
        finite = [(step, value) for step, value in points if math.isfinite(value)]
        if compared := _band(axes, band, key, history):
            said.append(compared)
            if axes.collections:
                notes.append(f"Shaded: {band.label}.")
        _trace(axes, finite, name, COLOURS[position % len(COLOURS)])
        axes.set_title(name, fontsize=14)
        if broken := [step for step, value in points if not math.isfinite(value)]:
            notes.append(f"{name}: not a finite number in {count(broken, 'step')}, first at step {broken[0]:g}.")
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
    figure.caption = " ".join([f"{', '.join(NAMES.get(key, key) for key in drawn)} over the steps.", *notes, *said])
    return figure


def _band(axes: Axes, recording: "Recording | None", key: str, history: Sequence[Mapping[str, Any]]) -> str:
    """Draws the band of a recording in the panel of the metric that it compares; what came of it, in words."""
    if recording is None or key != recording.curve:
        return ""
    if not recording.why_not(history):
        band = recording.band()
        # The device's name comes from a file: no formulas, and no leading underscore, which would hide the label.
        label = textwrap.fill(recording.label.replace("$", r"\$"), 54)
        low = [max(0.0, value) for value in band.low] if key == "loss" else band.low  # no loss of tokens lies below
        axes.fill_between(band.steps, low, band.high, color=SKY, alpha=0.35, linewidth=0, label=label)
    return recording.compare(history)


def _trace(axes: Axes, points: list[tuple[float, float]], name: str, colour: str) -> None:
    """A faint raw line under its moving average; from fewer than 5 points, the points themselves."""
    if not points:
        return
    steps, values = zip(*points, strict=True)
    if len(points) < 5:
        axes.plot(steps, values, "o-", color=colour, label=name)
        return
    axes.plot(steps, values, color=colour, alpha=0.3, linewidth=1.6, label=name)
    axes.plot(steps, smoothed(values), color=colour, label=f"smoothed (moving average, span {span(values)})")


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
            f"The loss is not a finite number in {count(broken, 'step')}, first at step {broken[0]:g}: "
            "lower the learning rate, and look at the rows of that step."
        )
    return " ".join(words)
