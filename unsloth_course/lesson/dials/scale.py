"""The LoRA lesson's dial: how much of the adapter is added to the base."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsloth_course.core import markup
from unsloth_course.lesson import evaluation, models, plots
from unsloth_course.lesson.dials.dial import Dial, over

if TYPE_CHECKING:
    from datasets import Dataset

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


@dataclass(frozen=True)
class Setting:
    """What the model does at one position of the dial.

    Shares from 0 to 1: `likelier`, of the known answers those that it finds likelier than the base does; `score`, of
    the short ones those that it gives to the letter (not a number where none is short); `retention`, of the probes. And
    its answers to some questions.
    """

    factor: float
    likelier: float
    score: float
    retention: float
    answers: list[tuple[str, str]]


@dataclass(frozen=True)
class AdapterDial(Dial):
    """The scale of a LoRA adapter, from 0 (the base) to 2 (twice what was learned), measured beforehand."""

    settings: list[Setting]

    def picture(self, factor: float = 1.0) -> plots.Picture:
        """The static twin: the shares against the scale. factor: the position to point out."""
        shares = {
            "answers likelier": [setting.likelier for setting in self.settings],
            "exact match": [setting.score for setting in self.settings],
            "untouched skills": [setting.retention for setting in self.settings],
        }
        shares = {name: values for name, values in shares.items() if not math.isnan(values[0])}
        factors = [setting.factor for setting in self.settings]
        return plots.curve(factors, shares, xlabel="scale of the adapter", ylabel="share", mark=factor)

    def table(self, factor: float) -> str:
        """HTML of the answers at one position. Model output is escaped."""
        setting = min(self.settings, key=lambda one: abs(one.factor - factor))
        rows = ((question, markup.code(answer)) for question, answer in setting.answers)
        exact = "" if math.isnan(setting.score) else f"{100 * setting.score:.0f} % given to the letter, "
        said = (
            f"Held-out answers {100 * setting.likelier:.0f} % likelier than at 0, {exact}"
            f"untouched skills {100 * setting.retention:.0f} % right"
        )
        return markup.paragraphs([said]) + markup.table(rows)

    def widget(self) -> Any:
        """A slider, what the model answers there, the picture."""
        factors = [setting.factor for setting in self.settings]
        start = min(factors, key=lambda factor: abs(factor - 1))
        return over(factors, start, "scale", "{:.2f}", self.table, self.picture)


def adapter(
    model: Any,
    tokenizer: Any,
    rows: "Dataset",
    probes: "Dataset",
    factors: Sequence[float] = FACTORS,
    length: int = 512,
) -> AdapterDial:
    """Measures a model at each scale of its adapter.

    rows: held-out instruction rows, read up to `length` tokens. probes: as `evaluation.probes` gives them. The first
    three questions' answers are kept to look at. Taught in lesson colab2 (LoRA).
    """

    def at(factor: float) -> tuple[evaluation.Answered, evaluation.Answers]:
        with models.adapter_scaled(model, factor):
            return (
                evaluation.answered(model, tokenizer, rows, length),
                evaluation.recall(model, tokenizer, probes),
            )

    base, settings = at(0.0), []
    for factor in factors:
        found, kept = at(factor) if factor else base
        likelier = found.likelihood.likelier(base[0].likelihood) / len(found.likelihood.losses)
        shown = [*zip(found.questions[:3], found.given[:3], strict=True)]
        settings.append(Setting(factor, likelier, found.asked.share, kept.share, shown))
    return AdapterDial(settings)
