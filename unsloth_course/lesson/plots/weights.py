"""Pictures of what is inside the weights."""

import math
from collections.abc import Mapping, Sequence

from unsloth_course.core.history import count
from unsloth_course.lesson.lowrank import energy, rank_for
from unsloth_course.lesson.plots.style import COLOURS, FAINT, GREY, MARKERS, Picture, empty, styled


@styled
def layers(moved: Mapping[str, float]) -> Picture:
    """How far each projection of each layer moved, in percent of its weight: layers down, projections across.

    moved: shares by place, such as {"0.q_proj": 0.04}, as `lowrank.moved` gives them; other places are passed over.
    Taught in lesson colab1 (full fine-tuning).
    """
    cells = {tuple(place.split(".")): share for place, share in moved.items() if place.partition(".")[0].isdigit()}
    rows = sorted({int(layer) for layer, _ in cells})
    columns = list(dict.fromkeys(projection for _, projection in cells))
    shares = [[100 * cells.get((str(layer), column), math.nan) for column in columns] for layer in rows]
    few = len(rows) <= 12
    figure, (axes,) = empty(2.0 + 0.5 * len(rows) if few else 8.0)
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


@styled
def spectrum(spectra: Mapping[str, Sequence[float]], *, rank: int, share: float = 0.9) -> Picture:
    """How much of a change its strongest directions hold, against their number, on a logarithmic axis.

    spectra: for each change its singular values, largest first, as `lowrank.spectrum` gives them. rank: to point out,
    such as that of a LoRA adapter. share: to point out as well; where a line reaches it stands a mark. Taught in lesson
    colab1 (full fine-tuning).
    """
    figure, (axes,) = empty(5.4)
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
        reached.append(f"{name}: {count(range(needed), 'direction')} for {share:.0%}, {inside:.0%} in {rank}.")
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
