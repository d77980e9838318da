"""The DPO lesson's dial: what beta and two log-probabilities make of one pair."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unsloth_course.core import markup
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import plots
from unsloth_course.lesson.dials.dial import Dial, image

BETAS = (0.1, 0.5, 5.0)
SPAN = 10.0  # nats that either log-probability may have moved from the reference's
DRAWN = 5.0  # nats to either side in the picture
HIGHEST = 3.0  # nats of loss that the picture shows


@dataclass(frozen=True)
class Pair:
    """One pair in DPO (Rafailov et al. 2023, equations 5 to 7).

    beta: how strongly the policy is held to its reference. chosen, rejected: log-probability of each answer under the
    policy minus that under the reference, in nats: 0 is where training begins.
    """

    beta: float
    chosen: float = 0.0
    rejected: float = 0.0

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise CourseError(f"beta is {self.beta}; give a number above 0, such as 0.1.")

    @property
    def margin(self) -> float:
        """The reward of the chosen answer minus that of the rejected one; a reward is beta times the difference."""
        return self.beta * (self.chosen - self.rejected)

    @property
    def preference(self) -> float:
        """The chance, from 0 to 1, that the policy's rewards give to the chosen answer (Bradley and Terry 1952)."""
        return _sigmoid(self.margin)

    @property
    def loss(self) -> float:
        """-log of that chance, in nats: ln 2 = 0.6931 where policy and reference agree."""
        return max(-self.margin, 0.0) + math.log1p(math.exp(-abs(self.margin)))

    @property
    def weight(self) -> float:
        """How much the pair still counts in the gradient, from 0 to 1: the chance that it is taken the wrong way."""
        return _sigmoid(-self.margin)

    @property
    def pull(self) -> float:
        """How hard the loss pulls the two log-probabilities apart: the size of its slope in either of them."""
        return self.beta * self.weight


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _drawn(
    betas: Sequence[float], mark: tuple[float, str], span: float, quantities: Mapping[str, str]
) -> plots.Picture:
    """Properties of a pair, by title, against how far it is apart: a line for each beta. span: nats to each side."""
    apart = [2 * span * step / 100 - span for step in range(101)]
    pairs = {f"beta {beta:g}": [Pair(beta, nats, 0.0) for nats in apart] for beta in betas}
    return plots.curves(
        apart,
        {
            quantity: {name: [getattr(pair, read) for pair in line] for name, line in pairs.items()}
            for quantity, read in quantities.items()
        },
        xlabel="log-probability of chosen minus rejected, against the reference (nats)",
        mark=mark,
        top=HIGHEST,
    )


@dataclass(frozen=True)
class PreferenceDial(Dial):
    """Beta and the two log-probabilities to turn; `start` is where the dial stands at first."""

    start: Pair

    def picture(self) -> plots.Picture:
        """The static twin: loss and weight in the gradient against how far the pair is apart, for each beta."""
        begin = (0.0, "training begins here, with the loss at ln 2 and the weight at 0.5")
        return _drawn(BETAS, begin, DRAWN, {"loss (nats)": "loss", "weight in the gradient": "weight"})

    def at(self, pair: Pair) -> plots.Picture:
        """The loss for one beta, with one pair pointed out."""
        moved = pair.chosen - pair.rejected
        return _drawn((pair.beta,), (moved, "this pair"), max(DRAWN, abs(moved)), {"loss (nats)": "loss"})

    def table(self, pair: Pair) -> str:
        """HTML of what one setting gives."""
        rows = (
            ("reward of chosen", f"{pair.beta * pair.chosen:+.2f}"),
            ("reward of rejected", f"{pair.beta * pair.rejected:+.2f}"),
            ("margin", f"{pair.margin:+.2f}"),
            ("implied preference for chosen", f"{100 * pair.preference:.1f} %"),
            ("loss", f"{pair.loss:.4f} (ln 2 is {math.log(2):.4f})"),
            ("weight in the gradient", f"{pair.weight:.4f}"),
            ("pull of the gradient", f"{pair.pull:.4f}"),
        )
        return markup.table(rows) + markup.paragraphs([self.comment(pair)])

    def comment(self, pair: Pair) -> str:
        """What one setting means, in a sentence."""
        if pair.chosen < 0 and pair.margin > 0:
            return (
                "The loss is content, and yet the chosen answer became less likely than it was: the rejected one just "
                "fell further."
            )
        if pair.margin < 0:
            return "The pair stands the wrong way round: here the gradient pulls hardest."
        if pair.margin == 0:
            return "Policy and reference agree: nothing has been learned from this pair."
        return "The pair is told apart: the surer it is, the weaker the pull."

    def widget(self) -> Any:
        """Three sliders, what they give, and the picture."""
        import ipywidgets

        def slider(name: str, value: float, **span: float) -> Any:
            return ipywidgets.FloatSlider(
                value=value, description=name, style={"description_width": "150px"}, layout={"width": "480px"}, **span
            )

        # A slider clips what lies beyond its ends, and then it would not stand where the table does.
        beta = slider(
            "beta", self.start.beta, min=min(0.01, self.start.beta), max=max(10.0, self.start.beta), step=0.01
        )
        moved = {"min": -SPAN, "max": SPAN, "step": 0.25}
        chosen = slider("chosen - reference", self.start.chosen, **moved)
        rejected = slider("rejected - reference", self.start.rejected, **moved)
        table = ipywidgets.HTML(self.table(self.start))
        picture = image(self.at(self.start))

        def turned(_: Any) -> None:
            pair = Pair(beta.value, chosen.value, rejected.value)
            table.value = self.table(pair)
            picture.value = self.at(pair)._repr_png_()

        for each in (beta, chosen, rejected):
            each.observe(turned, names="value")
        return ipywidgets.VBox([beta, chosen, rejected, table, picture])


def preference(beta: float = 0.1, chosen: float = 0.0, rejected: float = 0.0) -> PreferenceDial:
    """The DPO lesson's dial, standing at one pair; see `Pair` for the three numbers. Taught in lesson colab3 (DPO)."""
    return PreferenceDial(Pair(beta, chosen, rejected))
