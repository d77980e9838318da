"""How every picture of the course looks, and what a notebook shows of it."""

import io
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The colour-blind-safe palette of Okabe and Ito (2008), without its yellow, which is lost on a projector.
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
COLOURS = [BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER]
GREY, FAINT = "#595959", "#A8A8A8"
RUN_COLOURS = [GREY, *COLOURS]  # the base first
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
WIDTH = 9.0  # inches


class Picture(Figure):
    """A matplotlib figure that a notebook can show without pyplot, with a caption in words."""

    caption: str = ""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def styled(draw: Callable[..., Picture]) -> Callable[..., Picture]:
    @wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Picture:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # a learner's own style, such as dark_background, must not mix with this one
            matplotlib.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return styled


def empty(height: float, rows: int = 1, ratios: Sequence[float] | None = None) -> tuple[Picture, list[Axes]]:
    """A picture of a height in inches, and its panels, one below the other. ratios: of their heights."""
    figure = Picture(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.14, h_pad=0.12)
    return figure, list(figure.subplots(rows, 1, squeeze=False, height_ratios=ratios)[:, 0])


def score_text(value: float, lower: bool) -> str:
    return f"{value:,.2f}" if lower else f"{value:.1%}"


def share_axis(axes: Axes, lower: bool, largest: float) -> None:
    """A share runs from 0 to 100%, whatever the scores, so that two pictures can be compared."""
    if lower:
        axes.set_xlim(0, 1.2 * largest or 1)
    else:
        axes.set_xlim(0, 1.12)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
