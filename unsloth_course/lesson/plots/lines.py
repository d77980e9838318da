"""Curves behind the dials, and the advantages of groups."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from unsloth_course.lesson.plots.style import BLUE, COLOURS, DASHES, GREY, MARKERS, ORANGE, Picture, empty, styled


@styled
def groups(advantages: Mapping[str, Sequence[tuple[float, float]]]) -> Picture:
    """The advantages of groups of completions, one panel below the other: up is made more likely, down less.

    advantages: for each group, by its name, a pair (reward, advantage) per completion.
    """
    figure, panels = empty(0.8 + 1.7 * len(advantages), rows=len(advantages))
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


@styled
def curve(
    xs: Sequence[float],
    ys: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    mark: float | None = None,
    evenly: bool = False,
) -> Picture:
    """Lines over the same x values, each named at its end; the static twin of a dial.

    ys: the values of each line by its name, as many as `xs`.
    mark: an x value to point out, drawn as a dashed upright line.
    evenly: the x values stand side by side at equal distances, as ranks of 1, 4, 16 and 64 want it.
    Taught in lesson colab1 (full fine-tuning).
    """
    places = range(len(xs)) if evenly else xs
    figure, (axes,) = empty(4.6)
    _draw_lines(axes, places, ys, measured=True)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if evenly:
        axes.set_xticks(places, [f"{x:g}" for x in xs])
    if mark is not None:
        x = places[list(xs).index(mark)] if evenly and mark in xs else mark
        axes.axvline(x, color=GREY, linestyle=(0, (4, 3)), linewidth=2, zorder=1)
        axes.annotate(
            f"{mark:g}", (x, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center"
        )
    _name_lines(axes, places, ys)
    figure.caption = " ".join(f"{name}: {values[0]:g} to {values[-1]:g}." for name, values in ys.items())
    return figure


@styled
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
    """
    figure, drawn = empty(0.9 + 2.9 * len(panels), rows=len(panels))
    for axes, (quantity, lines) in zip(drawn, panels.items(), strict=True):
        _draw_lines(axes, xs, lines, measured=False)
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


def _draw_lines(axes: Axes, xs: Sequence[float], ys: Mapping[str, Sequence[float]], measured: bool) -> None:
    """Each line in its colour; told apart without it by a mark at each measured value, or by a formula's dashes."""
    for position, (name, values) in enumerate(ys.items()):
        style = {"color": COLOURS[position % len(COLOURS)], "linestyle": DASHES[position % len(DASHES)]}
        if measured:
            style |= {"linestyle": "-", "marker": MARKERS[position % len(MARKERS)]}
        axes.plot(xs, values, label=name, **style)


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
