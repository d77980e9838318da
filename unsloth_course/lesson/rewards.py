"""Reward functions for GRPO, each a plain function with TRL's signature, and what a group of rewards turns into.

TRL hands a reward function the `prompts`, the `completions` and every other column of the data set, each as a list, and
wants one number per completion back. A completion is text, or a list of chat turns when the prompts are. What a model
writes is any text at all: nothing here evaluates it, and nothing raises on it. Taught in lesson colab4 (GRPO).
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unsloth_course.core import markup
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import problems

LONGEST = 100  # characters: from here on brevity pays nothing
EPSILON = 1e-4  # TRL adds it to the standard deviation
NO_SPREAD = 1e-8  # TRL counts a smaller standard deviation as none
SPREAD = "reward_std_in_groups"  # in the log of a trainer that `diagnosis.watch` watches
SHOWN = 160  # characters of a completion in a table
MISSED = 0.1  # a fall of the verified answers up to here may be chance

# One step on a line of its own, such as "12 + 56 = 68". Longer numbers are no numbers of a word problem.
_STEP = re.compile(r"^[ \t]*(-?[0-9]{1,9}) ?([-+*]) ?(-?[0-9]{1,9}) ?= ?(-?[0-9]{1,9})[ \t]*$", re.MULTILINE)
_WHOLE = re.compile(r"(?<![0-9])[0-9]{1,9}(?![0-9])")
_RESULT = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def text_of(message: Any) -> str:
    """The text of a prompt or completion: itself, or the content of its last chat turn; "" for anything else."""
    if isinstance(message, list | tuple):
        message = message[-1] if message else None
    if isinstance(message, dict):
        message = message.get("content")
    return message if isinstance(message, str) else ""


def _answers(answer: Any, count: int) -> list[str | None]:
    """The right numbers in one spelling. A whole worked solution is taken by its final number."""
    if answer is None:
        raise CourseError(
            "This reward compares with the right answer, and the rows have no column 'answer'. Make them with "
            "data.problems.to_grpo, or leave this reward out."
        )
    if len(answer) != count:
        raise CourseError(f"There are {count:,} completions and {len(answer):,} answers; each completion needs one.")
    texts = [str(one) for one in answer]
    return [problems.final(text if problems.MARK in text else f"{problems.MARK} {text}") for text in texts]


def exact(completions: Sequence[Any], answer: Sequence[Any] | None = None, **kwargs: Any) -> list[float]:
    """1.0 for a completion whose number behind the last `####` is the right one, else 0.0.

    answer: the data set's column of right numbers, as text. This is the accuracy reward of DeepSeek-R1 (2025, section
    2.2.2): a rule, and no model that could be flattered. Raises CourseError without a column `answer`.
    """
    right = _answers(answer, len(completions))
    given = [problems.final(text_of(completion)) for completion in completions]
    return [float(mine is not None and mine == theirs) for mine, theirs in zip(given, right, strict=True)]


def form(completions: Sequence[Any], **kwargs: Any) -> list[float]:
    """1.0 for a completion that says `####` once and ends in a number behind it, else 0.0, right or wrong.

    The format reward of DeepSeek-R1 (2025, section 2.2.2). It makes the answers readable for a program, and it is
    earned by any number at all: beside right answers that are rare it teaches to guess.
    """
    found = []
    for completion in completions:
        text = text_of(completion)
        end = text[text.rindex(problems.MARK) :] if text.count(problems.MARK) == 1 else ""
        found.append(float(problems.final(end) is not None and end.rstrip()[-1] in "0123456789"))
    return found


def steps(completions: Sequence[Any], prompts: Sequence[Any] | None = None, **kwargs: Any) -> list[float]:
    """Partial credit for the way: the share, from 0 to 1, of the steps on lines of their own that are right.

    A step such as "12 + 56 = 68" is right when the sum is, and when both numbers come from the problem or from a step
    before it: otherwise "1 + 1 = 2" would earn as much as a solution. A completion without a step gets 0.0. A rule-made
    stand-in for the process supervision of DeepSeekMath (Shao et al. 2024, section 4.1.3).
    """
    found = []
    for number, completion in enumerate(completions):
        question = text_of(prompts[number]) if prompts is not None and number < len(prompts) else None
        known = {int(digits) for digits in _WHOLE.findall(question)} if question is not None else None
        marks = []
        for first, sign, second, result in _STEP.findall(text_of(completion)):
            numbers = int(first), int(second)
            grounded = known is None or known.issuperset(numbers)
            marks.append(grounded and _RESULT[sign](*numbers) == int(result))
            if known is not None and marks[-1]:
                known.add(int(result))
        found.append(sum(marks) / len(marks) if marks else 0.0)
    return found


def close(completions: Sequence[Any], answer: Sequence[Any] | None = None, **kwargs: Any) -> list[float]:
    """Partial credit for being near: 1.0 for the right number, 0.5 when it is 1 off, 1 / (1 + distance) in general.

    A reward that is 0 for almost every completion has no spread to learn from; this one tells wrong from more wrong.
    It also pays for a guess: look whether it makes the model calculate, or estimate. Raises CourseError without a
    column `answer`.
    """
    right = _answers(answer, len(completions))
    given = [problems.final(text_of(completion)) for completion in completions]
    return [_nearness(mine, theirs) for mine, theirs in zip(given, right, strict=True)]


def _nearness(given: str | None, right: str | None) -> float:
    if given is None or right is None:
        return 0.0
    if given == right:
        return 1.0
    # A number of thousands of digits becomes infinite as a float, and the nearness 0.
    distance = abs(float(given) - float(right))
    return 1 / (1 + distance) if math.isfinite(distance) else 0.0


def brevity(completions: Sequence[Any], **kwargs: Any) -> list[float]:
    """From 1.0 for an empty completion down to 0.0 at 100 characters and beyond.

    Length rewards like this one are meant to save tokens (Kimi k1.5, 2025, section 2.3.3). Alone, it pays most for
    saying nothing: the GRPO lesson shows what a model makes of it.
    """
    return [max(0.0, 1 - len(text_of(completion)) / LONGEST) for completion in completions]


def advantages(rewards: Sequence[float | None], size: int | None = None) -> list[float]:
    """How much better each completion was than the others of its group, as TRL computes it.

    rewards: of one group, or of several, one after the other, each of `size` completions of one prompt. Each becomes
    (reward - mean) / (standard deviation + 0.0001), both of its own group, the deviation with n - 1 as torch has it:
    outcome supervision of DeepSeekMath (Shao et al. 2024, section 4.1.2). A reward of None (not scored) has the
    advantage 0 and counts in neither. Raises CourseError when the rewards are not whole groups. Taught in lesson colab4
    (GRPO).
    """
    size = len(rewards) if size is None else size
    if not len(rewards) or size < 1 or len(rewards) % size:
        raise CourseError(
            f"{len(rewards):,} rewards are not whole groups of {size:,}. Give as many as there are tries."
        )
    found = []
    for start in range(0, len(rewards), size):
        group = rewards[start : start + size]
        mean, deviation = _mean_and_deviation(group)
        flat = deviation < NO_SPREAD  # what is left then is rounding
        found += [0.0 if flat or reward is None else (reward - mean) / (deviation + EPSILON) for reward in group]
    return found


def _mean_and_deviation(group: Sequence[float | None]) -> tuple[float, float]:
    scored = [float(reward) for reward in group if reward is not None]
    if not scored:
        return 0.0, 0.0
    mean = sum(scored) / len(scored)
    if len(scored) < 2:
        return mean, 0.0
    return mean, math.sqrt(sum((reward - mean) ** 2 for reward in scored) / (len(scored) - 1))


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

    `rewards` are the weighted sums; None is what a function did not score. Shown as a table in a notebook, as text
    elsewhere.
    """

    question: str
    answer: str
    completions: list[str]
    parts: dict[str, list[float | None]]
    rewards: list[float | None]
    advantages: list[float]

    @property
    def spread(self) -> float:
        """The standard deviation of the rewards."""
        return _mean_and_deviation(self.rewards)[1]

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

    def __str__(self) -> str:
        rows = [self._head(), *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        first, *others = widths
        lines = [f"{_shown(self.question, 400)} (right: {_shown(self.answer)})"]
        for text, *numbers in rows:
            right = "".join(f"  {number:>{width}}" for number, width in zip(numbers, others, strict=True))
            lines.append(f"{text:<{first}}{right}")
        return "\n".join([*lines, self.sentence()])

    __repr__ = __str__

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
    text = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(
        " ⏎ " if character == "\n" else character if character.isprintable() else f"<U+{ord(character):04X}>"
        for character in text
    )


def group(
    row: Mapping[str, Any],
    completions: Sequence[str],
    functions: Sequence[Callable[..., list[float]]],
    weights: Sequence[float] | None = None,
) -> Group:
    """Scores the completions of one problem as the trainer would.

    row: a problem with a question and an answer, which is a number or a worked solution that ends in it. functions: the
    trainer's `reward_funcs`. weights: its `reward_weights`, 1.0 each if not given. Raises CourseError when there is no
    completion, when the weights are not as many as the functions, and when a function gives back another number of
    rewards than there are completions. Taught in lesson colab4 (GRPO).
    """
    weights = [1.0] * len(functions) if weights is None else list(weights)
    if not completions or not functions or len(weights) != len(functions):
        raise CourseError(
            f"A group needs completions, reward functions and a weight for each; got {len(completions)} completions, "
            f"{len(functions)} functions, {len(weights)} weights."
        )
    turns = [[{"role": "assistant", "content": text}] for text in completions]
    asked = [[{"role": "user", "content": row["question"]}]] * len(turns)
    right = _answers([row["answer"]], 1)[0] or ""
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

    def __str__(self) -> str:
        table = self._table()
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        return "\n".join([*lines, *(run.sentence() for run in self.runs)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = self._table()
        return markup.table(body, head) + markup.points(run.sentence() for run in self.runs)


def payoffs(runs: Mapping[str, tuple[Any, Any]], before: Any) -> Payoffs:
    """Lays runs with different rewards side by side: what each paid, and what became of the verified answers.

    runs: by name, a finished GRPO trainer and the held-out answers (`evaluation.solve`) that its model gave. before:
    the answers to the same problems, or to those and more, before these runs. Raises CourseError for a trainer that
    logged no reward. Taught in lesson colab4 (GRPO).
    """
    return Payoffs([_payoff(name, trainer, answers, before) for name, (trainer, answers) in runs.items()])


def _payoff(name: str, trainer: Any, answers: Any, before: Any) -> Payoff:
    log = [row for row in trainer.state.log_history if "reward" in row]
    if not log:
        raise CourseError(f"The run {name} logged no reward: train it first, with logging_steps=1.")
    third = max(1, len(log) // 3)
    paid = [float(row["reward"]) for row in log]
    lengths = [float(row.get("completions/mean_length", math.nan)) for row in log[-third:]]
    asked = len(answers.right)
    return Payoff(
        name=name,
        first=sum(paid[:third]) / third,
        last=sum(paid[-third:]) / third,
        tokens=sum(lengths) / third,
        before=sum(before.right[:asked]) / len(before.right[:asked]),
        after=answers.share,
    )
