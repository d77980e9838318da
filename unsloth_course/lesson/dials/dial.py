"""What the dials have in common: a widget for a person, a picture elsewhere."""

from collections.abc import Callable, Sequence
from typing import Any

from unsloth_course.core import frontend
from unsloth_course.lesson import plots


class Dial:
    """Something to turn: its `widget()` is an ipywidgets box (7.7 and 8), and its `picture()` the static twin."""

    def show(self) -> Any:
        """The dial as a widget where a person can turn it, and its picture elsewhere."""
        return self.widget() if frontend.is_interactive() else self.picture()


def image(picture: plots.Picture) -> Any:
    """A picture as a part of a widget. Left to itself, the box would stretch it to its own width."""
    import ipywidgets

    return ipywidgets.Image(value=picture._repr_png_(), format="png", layout={"align_self": "flex-start"})


def over(
    values: Sequence[float],
    start: float,
    name: str,
    written: str,
    table: Callable[[float], str],
    draw: Callable[[float], plots.Picture],
) -> Any:
    """A widget: a slider over some values, and the table (HTML) and the picture of the value at which it stands.

    written: how a value is formatted, such as "{:g}".
    """
    import ipywidgets

    slider = ipywidgets.SelectionSlider(
        options=[(written.format(value), value) for value in values],
        value=start,
        description=name,
        style={"description_width": "initial"},
    )
    said, drawn = ipywidgets.HTML(table(start)), image(draw(start))

    def turned(change: Any) -> None:
        said.value, drawn.value = table(change["new"]), draw(change["new"])._repr_png_()

    slider.observe(turned, names="value")
    return ipywidgets.VBox([slider, said, drawn])
