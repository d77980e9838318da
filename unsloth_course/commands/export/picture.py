"""The picture of an exported model's formats."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from unsloth_course.lesson.plots.style import BLUE, FAINT, GREY, ORANGE, SKY, WIDTH, Picture, styled


@styled
def formats(rows: Sequence[tuple[str, int, float]], *, score: str, within: float = 0.03) -> Picture:
    """An exported model's formats: sizes as bars, and beside them scores as dots.

    rows: name, size in bytes and score from 0 to 1 of each format; the first is the model that was exported. score:
    what the score is, in words. within: how far a score may be from the first one, drawn as a band.
    """
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
        beside = {"x": value - 0.06, "ha": "right"} if value > 0.7 else {"x": value + 0.06, "ha": "left"}
        right.text(y=place, s=f"{value:.1%}", va="center", fontsize=13, **beside)
    right.set_xlim(-0.03, 1.06)
    right.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
    right.set_title("Score")
    for half in (left, right):
        half.grid(False)
    left.set_yticks(places, names)
    left.invert_yaxis()
    words = f"Score: {score}. Shaded: within {100 * within:.0f} points of {names[0]}."
    figure.supxlabel("\n".join(textwrap.wrap(words, 88)), fontsize=13, x=0.02, ha="left", parse_math=False)
    each = "; ".join(f"{name} {size / 1e6:,.1f} MB, {value:.1%}" for name, size, value in rows)
    figure.caption = f"Size and score of each format: {each}. {words}"
    return figure
