"""The GRPO lesson's dial: the rewards of one group, edited by hand, and the advantages that follow."""

from collections.abc import Mapping, Sequence
from typing import Any

from unsloth_course.core import markup
from unsloth_course.lesson import plots, rewards
from unsloth_course.lesson.dials.dial import Dial

MOST = 2.0  # the highest reward that can be set

EXAMPLES = {
    "1 of 8 is right": (1.0, *[0.0] * 7),
    "4 of 8 are right": (1.0, 0.0) * 4,
    "7 of 8 are right": (*[1.0] * 7, 0.0),
    "all 8 alike": (0.0,) * 8,
}
"""Rewards as in the lesson: 1.0 for the right number."""


class GroupDial(Dial):
    """The groups of `EXAMPLES`; the first is the one to begin with."""

    def picture(self) -> plots.Picture:
        """The static twin: the advantages of every group."""
        return plots.groups({name: self.pairs(group) for name, group in EXAMPLES.items()})

    def pairs(self, group: Sequence[float]) -> list[tuple[float, float]]:
        """A pair (reward, advantage) for each completion."""
        return [*zip(group, rewards.advantages(group), strict=True)]

    def table(self, group: Sequence[float]) -> str:
        """HTML of a group's advantages as bars to the left and to the right of zero, and what the group teaches."""
        rows = []
        tallest = max(1.0, *(abs(value) for _, value in self.pairs(group)))
        for number, (reward, advantage) in enumerate(self.pairs(group), 1):
            width = f"{100 * abs(advantage) / tallest:.0f}px"
            side, colour = ("right:50%", plots.ORANGE) if advantage < 0 else ("left:50%", plots.BLUE)
            bar = (
                '<div style="position:relative;width:210px;height:20px;background:linear-gradient(currentColor,'
                'currentColor) 50% 0/1px 100% no-repeat"><span style="position:absolute;top:4px;height:12px;'
                f'{side};width:{width};background:{colour}"></span></div>'
            )
            rows.append((str(number), f"{reward:.2f}", markup.Html(bar), f"{advantage:+.2f}"))
        middle = markup.Html('<div style="width:210px;text-align:center">less likely | more likely</div>')
        return markup.table(rows, ("", "reward", middle, "advantage")) + markup.paragraphs([rewards.lesson_of(group)])

    def widget(self) -> Any:
        """A list of groups to begin with, a slider per completion, the table."""
        import ipywidgets

        first = next(iter(EXAMPLES))
        chosen = ipywidgets.Dropdown(options=list(EXAMPLES), value=first, description="begin with")
        sliders = [
            ipywidgets.FloatSlider(value=reward, min=0.0, max=MOST, step=0.05, description=str(number))
            for number, reward in enumerate(EXAMPLES[first], 1)
        ]
        table = ipywidgets.HTML(self.table(EXAMPLES[first]))

        def turned(change: Any) -> None:
            table.value = self.table([slider.value for slider in sliders])

        def begin(change: Mapping[str, Any]) -> None:
            for slider, reward in zip(sliders, EXAMPLES[change["new"]], strict=True):
                slider.value = reward

        for slider in sliders:
            slider.observe(turned, names="value")
        chosen.observe(begin, names="value")
        # The table's head stands beside the list, and so each row beside its slider.
        return ipywidgets.HBox([ipywidgets.VBox([chosen, *sliders], layout={"flex": "0 0 auto"}), table])


def advantages() -> GroupDial:
    """The dial of the GRPO lesson: eight rewards to edit by hand, and the advantages that TRL makes of them.

    Nothing is measured: it is the arithmetic of `rewards.advantages`. Taught in lesson colab4 (GRPO).
    """
    return GroupDial()
