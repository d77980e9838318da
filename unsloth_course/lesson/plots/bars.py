"""Bars: memory predicted and measured, scores before and after."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from unsloth_course.core.history import count
from unsloth_course.lesson.evaluation.scores import Measure, Score
from unsloth_course.lesson.memory import size
from unsloth_course.lesson.plots.style import (
    BLUE,
    COLOURS,
    DRAWN_UP_TO,
    FAINT,
    GREY,
    Picture,
    empty,
    score_text,
    share_axis,
    styled,
)

FAR_APART = 20  # perplexities that differ by more than this factor are drawn on a logarithmic axis


@styled
def memory(predicted: Mapping[str, int], measured: Mapping[str, int]) -> Picture:
    """Predicted memory, part by part, beside what was measured.

    Both are bytes by part, such as {"weights": 6_000_000, "activations": 2_000_000}. Taught in lesson colab2 (LoRA).
    """
    before, after = sum(predicted.values()), sum(measured.values())
    unit, scale = ("GiB", 2**30) if max(before, after) >= 2**30 else ("MiB", 2**20)
    change = f" ({abs(after / before - 1):.0%} {'more' if after > before else 'less'})" if before else ""
    totals = {"predicted": size(before), "measured": size(after) + change}
    figure, (axes,) = empty(3.6)
    for name, parts in (("predicted", predicted), ("measured", measured)):
        left = 0.0
        for (part, amount), colour in zip(parts.items(), COLOURS, strict=False):
            shown = f"{part} {size(amount)}" if name == "predicted" else None  # a colour is named once
            edge = {"edgecolor": "white", "linewidth": 0.5}  # a thicker one would hide a thin part
            axes.barh(name, amount / scale, left=left, height=0.6, color=colour, label=shown, **edge)
            left += amount / scale
        axes.annotate(totals[name], (left, name), (8, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.grid(False)
    axes.set(xlim=(0, 1.45 * max(before, after) / scale or 1), xlabel=unit)
    axes.set_title("Memory while training")
    figure.legend(loc="outside lower left", ncols=2)
    figure.caption = f"Memory: {', '.join(f'{name} {total}' for name, total in totals.items())}."
    return figure


@styled
def before_after(score: Score) -> Picture:
    """A score before and after training, with the interval of the difference in words.

    The bars are those of the measure that judges, and the other measures stand below. Perplexity is better when lower,
    every other measure when higher; the length of an answer is neither. Taught in lesson colab2 (LoRA).
    """
    judge, *others = score.all
    (low, high), better, lower = judge.interval, judge.better, judge.lower
    verdict = "better" if better[0] > 0 else "worse" if better[1] < 0 else "no change shown"
    scale, digits, unit = (100, 1, " points") if judge.is_share else (1, 2, "")
    change, low, high = (f"{scale * value:+.{digits}f}" for value in (judge.after - judge.before, low, high))
    words = f"after minus before: {change}{unit}, 95% interval {low} to {high}: {verdict}"
    before, after = judge.before, judge.after
    if judge.likelier is not None:
        words += f"\n{judge.likelier:,} of {judge.n:,} became likelier"
    more = 0.42 * len(others)
    figure, (axes, *below) = empty(4.2 + more, 2, [2.6, 0.5 + more]) if others else empty(3.2)
    first = "a coin" if judge.name == "preference_accuracy" else "before"
    bars = axes.barh([first, "after"], [before, after], height=0.6, color=[FAINT, BLUE])
    axes.bar_label(bars, [score_text(before, lower), score_text(after, lower)], padding=8, fontsize=16)
    axes.invert_yaxis()
    axes.grid(False)
    direction = "lower is better" if lower else "higher is better"
    tested = f", n = {judge.n:,}" if below else f" on {judge.n:,} unseen examples"
    axes.set_title(f"{judge.title}{tested} ({direction})")
    shown = words.replace(", 95%", ",\n95%") if below else words  # the names of the others take their room
    axes.set_xlabel(shown[0].upper() + shown[1:], loc="left")
    if lower and 1 <= min(before, after) < max(before, after) / FAR_APART:
        # From 1, where nothing is surprising: on this axis a bar is as long as the loss.
        axes.set_xscale("log")
        axes.set_xlim(1, min(DRAWN_UP_TO, max(before, after)) ** 1.35)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        share_axis(axes, lower, max(before, after))
    words = words.replace("\n", "; ")
    said = f"{judge.title}: {score_text(before, lower)} before, {score_text(after, lower)} after; {words}."
    figure.caption = said + (f" Beside it: {_beside(below[0], others)}." if below else "")
    return figure


def _beside(axes: Axes, measures: Sequence[Measure]) -> str:
    """Draws measures on one axis of shares, each from before to after; what is no share is said in numbers alone."""
    said = []
    for row, one in enumerate(measures):
        if one.is_share:
            axes.plot([one.before, one.after], [row, row], color=FAINT, linewidth=4, zorder=1)
            axes.scatter([one.before, one.after], [row, row], color=[GREY, BLUE], s=60, zorder=2)
        text = " → ".join(score_text(end, not one.is_share) for end in (one.before, one.after))
        axes.text(1.03, row, text, va="center", fontsize=13, clip_on=False)
        said.append(f"{one.title} {text} (n = {one.n:,})")
    axes.set_yticks(range(len(measures)), [f"{one.title}, n = {one.n:,}" for one in measures])
    axes.set_ylim(len(measures) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.42)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_title("and the other measures, before (grey) and after", fontsize=14)
    return "; ".join(said)


@styled
def by_skill(before: Mapping[str, float], after: Mapping[str, float]) -> Picture:
    """The score of each skill before and after, as shares from 0 to 1; a skill measured once has one bar.

    Taught in lesson colab2 (LoRA).
    """
    skills = list(dict.fromkeys([*before, *after]))
    figure, (axes,) = empty(1.6 + 0.62 * len(skills))
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
    share_axis(axes, False, 1.0)
    axes.set_title("Score by skill")
    figure.legend(loc="outside lower left", ncols=2)
    both = [skill for skill in skills if skill in before and skill in after]
    fallen = [skill for skill in both if after[skill] < before[skill]]
    figure.caption = f"{count(both, 'skill')} measured before and after; lower after in: {', '.join(fallen) or 'none'}."
    return figure
