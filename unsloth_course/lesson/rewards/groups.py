"""What a group of rewards turns into: advantages, their spread, and what the group teaches."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from unsloth_course.core import markup
from unsloth_course.core.errors import CourseError
from unsloth_course.core.writing import cut, in_columns
from unsloth_course.lesson.rewards.paying import right_numbers

EPSILON = 1e-4  # TRL adds it to the standard deviation
NO_SPREAD = 1e-8  # TRL counts a smaller standard deviation as none
SPREAD = "reward_std_in_groups"  # in the log of a trainer that `diagnosis.watch` watches
SHOWN = 160  # characters of a completion in a table


def advantages(rewards: Sequence[float | None]) -> list[float]:
    """How much better each completion was than the others of its group, as TRL computes it.

    rewards: of one group, the completions of one prompt. Each becomes (reward - mean) / (standard deviation + 0.0001),
    the deviation with n - 1 as torch has it: outcome supervision of DeepSeekMath (Shao et al. 2024, section 4.1.2). A
    reward of None (not scored) has the advantage 0 and counts in neither. Taught in lesson colab4 (GRPO).
    """
    mean, deviation = _mean_and_deviation(rewards)
    flat = deviation < NO_SPREAD  # what is left then is rounding
    return [0.0 if flat or reward is None else (reward - mean) / (deviation + EPSILON) for reward in rewards]


def _mean_and_deviation(group: Sequence[float | None]) -> tuple[float, float]:
    scored = [float(reward) for reward in group if reward is not None]
    return fmean(scored or [0.0]), stdev(scored) if len(scored) > 1 else 0.0


def spread_in_groups(paid: Sequence[Sequence[float | None]], weights: Sequence[float], size: int) -> float:
    """The standard deviation of the rewards within a group of `size` completions, the mean over all groups.

    paid: for each reward function what every completion got, group after group. This is what GRPO learns from; TRL logs
    the spread over the whole batch.
    """
    unscored = [[None if one is None or math.isnan(one) else one for one in each] for each in paid]
    totals = [_weighted(scored, weights) for scored in zip(*unscored, strict=True)]
    groups = [totals[start : start + size] for start in range(0, len(totals), size)]
    return sum(_mean_and_deviation(group)[1] for group in groups) / len(groups)


@dataclass(frozen=True, repr=False)
class Group:
    """The completions of one prompt, what each reward function gave them, and the advantages that follow.

    `rewards` are the weighted sums; None is what no function scored. A table in a notebook, text elsewhere.
    """

    question: str
    answer: str
    completions: list[str]
    parts: dict[str, list[float | None]]
    rewards: list[float | None]
    advantages: list[float]

    def sentence(self) -> str:
        """What this group teaches, in words."""
        return lesson_of(self.rewards)

    def _rows(self) -> list[list[str]]:
        return [
            [
                _shown(text),
                *(_two_digits(values[number]) for values in self.parts.values()),
                _two_digits(self.rewards[number]),
                f"{self.advantages[number]:+.2f}",
            ]
            for number, text in enumerate(self.completions)
        ]

    def _head(self) -> list[str]:
        return ["completion", *self.parts, "reward", "advantage"]

    def __repr__(self) -> str:
        asked = f"{_shown(self.question, 400)} (right: {_shown(self.answer)})"
        return "\n".join([asked, in_columns([self._head(), *self._rows()]), self.sentence()])

    def _repr_html_(self) -> str:
        rows = []
        for (text, *numbers, last), advantage in zip(self._rows(), self.advantages, strict=True):
            colour = "rgba(46,160,67,.25)" if advantage > 0 else "rgba(248,81,73,.2)" if advantage < 0 else "none"
            last = markup.Html(f'<span style="background:{colour}">{markup.escaped(last)}</span>')
            rows.append([markup.code(text), *numbers, last])
        right = f"<b>Right: {markup.escaped(_shown(self.answer))}</b>"
        question = markup.Html(f"{markup.escaped(_shown(self.question, 400))} {right}")
        parts = markup.paragraphs([question]), markup.table(rows, self._head()), markup.paragraphs([self.sentence()])
        return "".join(parts)


def _two_digits(reward: float | None) -> str:
    return "-" if reward is None else f"{reward:.2f}"


def lesson_of(rewards: Sequence[float | None]) -> str:
    """What a group with these rewards teaches, in a sentence."""
    mean, deviation = _mean_and_deviation(rewards)
    if deviation < NO_SPREAD:
        return (
            f"All {len(rewards)} rewards are {mean:.2f}: the spread is 0, every advantage is 0, and there is nothing "
            "to learn from this group."
        )
    above = sum(reward is not None and reward > mean for reward in rewards)
    are, become = ("is", "becomes") if above == 1 else ("are", "become")
    return (
        f"Mean {mean:.2f}, spread {deviation:.2f}: {above} of {len(rewards)} completions {are} above the mean and "
        f"{become} more likely, the others less."
    )


def _shown(text: str, most: int = SHOWN) -> str:
    """A text on one line, with what cannot be seen made visible, cut to `most` characters."""
    return "".join(
        " ⏎ " if character == "\n" else character if character.isprintable() else f"<U+{ord(character):04X}>"
        for character in cut(text, most, "…")
    )


def group(
    row: Mapping[str, Any],
    completions: Sequence[str],
    functions: Sequence[Callable[..., list[float]]],
    weights: Sequence[float] | None = None,
) -> Group:
    """Scores the completions of one problem as the trainer would.

    row: a problem with a question and an answer, which is a number or a worked solution that ends in it. functions: the
    trainer's `reward_funcs`. weights: its `reward_weights`, 1.0 each if not given. Raises CourseError when a function
    gives back another number of rewards than there are completions. Taught in lesson colab4 (GRPO).
    """
    weights = [1.0] * len(functions) if weights is None else list(weights)
    turns = [[{"role": "assistant", "content": text}] for text in completions]
    asked = [[{"role": "user", "content": row["question"]}]] * len(turns)
    right = right_numbers([row["answer"]], 1)[0] or ""
    parts: dict[str, list[float | None]] = {}
    for function in functions:
        name = getattr(function, "__name__", type(function).__name__)
        given = function(prompts=asked, completions=turns, answer=[right] * len(turns))
        if len(given) != len(turns):
            raise CourseError(
                f"The reward function {name} gave {len(given)} rewards for {len(turns)} completions. It has to give "
                "exactly one for each, in their order."
            )
        parts[name if name not in parts else f"{name} {len(parts) + 1}"] = [
            None if reward is None else float(reward) for reward in given
        ]
    totals = [_weighted(scored, weights) for scored in zip(*parts.values(), strict=True)]
    return Group(row["question"], right, list(completions), parts, totals, advantages(totals))


def _weighted(scored: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """The weighted sum of what was scored, or None where no function scored this completion."""
    counted = [weight * reward for weight, reward in zip(weights, scored, strict=True) if reward is not None]
    return sum(counted) if counted else None
