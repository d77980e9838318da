"""Runs with different rewards side by side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from unsloth_course.core import markup
from unsloth_course.core.errors import CourseError
from unsloth_course.core.writing import in_columns

MISSED = 0.1  # a fall of the verified answers up to here may be chance


@dataclass(frozen=True)
class Payoff:
    """What one training run did with its reward: the reward itself and the verified answers, both before and after.

    first, last: the mean reward of the first and the last third of the run. tokens: the mean length of the completions
    in its last third. before, after: the shares of held-out problems solved, from 0 to 1.
    """

    name: str
    first: float
    last: float
    tokens: float
    before: float
    after: float

    @property
    def loophole(self) -> bool:
        """Whether the reward rose while the verified answers fell by more than `MISSED`."""
        return self.last > self.first and round(self.before - self.after, 9) > MISSED

    def sentence(self) -> str:
        """What happened, in words."""
        reward = "rose" if self.last > self.first else "did not rise"
        answers = f"verified answers went from {100 * self.before:.0f} % to {100 * self.after:.0f} %"
        verdict = "a loophole was found" if self.loophole else "no loophole was found"
        return f"{self.name}: the reward {reward}, {answers}: {verdict}."


@dataclass(frozen=True, repr=False)
class Payoffs:
    """Runs with different rewards side by side. Shown as a table in a notebook, as text elsewhere."""

    runs: list[Payoff]

    def _table(self) -> list[list[str]]:
        head = ["reward", "paid at first", "paid at last", "tokens at last", "solved before", "solved after"]
        return [head] + [
            [
                run.name,
                f"{run.first:.2f}",
                f"{run.last:.2f}",
                f"{run.tokens:.0f}",
                f"{100 * run.before:.0f} %",
                f"{100 * run.after:.0f} %",
            ]
            for run in self.runs
        ]

    def __repr__(self) -> str:
        return "\n".join([in_columns(self._table()), *(run.sentence() for run in self.runs)])

    def _repr_html_(self) -> str:
        head, *body = self._table()
        return markup.table(body, head) + markup.points(run.sentence() for run in self.runs)


def payoffs(runs: Mapping[str, tuple[Any, Any]], before: Any) -> Payoffs:
    """Lays runs with different rewards side by side: what each paid, and what became of the verified answers.

    runs: by name, a finished GRPO trainer and the held-out answers (`evaluation.solve`) that its model gave. before:
    the answers to the same problems, or to those and more, before these runs. Raises CourseError for a trainer that
    logged no reward. Taught in lesson colab4 (GRPO).
    """
    found = []
    for name, (trainer, answers) in runs.items():
        log = [row for row in trainer.state.log_history if "reward" in row]
        if not log:
            raise CourseError(f"The run {name} logged no reward: train it first, with logging_steps=1.")
        third, asked = max(1, len(log) // 3), len(answers.right)
        paid = [float(row["reward"]) for row in log]
        lengths = [float(row.get("completions/mean_length", math.nan)) for row in log[-third:]]
        first, last, tokens = (fmean(values) for values in (paid[:third], paid[-third:], lengths))
        found.append(Payoff(name, first, last, tokens, fmean(before.right[:asked]), answers.share))
    return Payoffs(found)
