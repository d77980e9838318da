"""Held-out marks and what follows from them: intervals, luck, and the score of a run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

RESAMPLES = 10_000


@dataclass(frozen=True)
class Answers:
    """What a model answered: the questions, the expected answers, its answers, and which of them are right."""

    questions: list[str]
    expected: list[str]
    given: list[str]
    right: list[bool]
    skills: list[str | None] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share that is right, from 0 to 1."""
        return sum(self.right) / len(self.right)

    @cached_property
    def by_skill(self) -> dict[str, float]:
        """The share right of each skill, where the rows have one."""
        marks: dict[str, list[bool]] = {}
        for skill, right in zip(self.skills, self.right, strict=bool(self.skills)):
            if skill:
                marks.setdefault(skill, []).append(right)
        return {skill: sum(found) / len(found) for skill, found in sorted(marks.items())}

    def __str__(self) -> str:
        return f"{sum(self.right)} of {len(self.right)} right ({100 * self.share:.1f} %)"

    __repr__ = __str__


@dataclass(frozen=True)
class Retention:
    """The score on skills that the run did not train, before and after, from 0 to 1."""

    metric: str
    before: float
    after: float


@dataclass(frozen=True)
class Score:
    """A held-out score before and after. `interval` is the 95 % bootstrap interval of after minus before.

    `chance` is the score that the answers given after training would have on each other's questions (see `luck`), and
    `above_chance` the 95 % interval of after minus that; None where a metric has no such thing. `correctness` is the
    share of right answers, where `before` and `after` measure how they are written.
    """

    metric: str
    n: int
    before: float
    after: float
    interval: tuple[float, float]
    retention: Retention | None = None
    chance: float | None = None
    above_chance: tuple[float, float] | None = None
    correctness: Retention | None = None


def interval(before: Sequence[float], after: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of mean(after) - mean(before), by the paired percentile bootstrap (Efron 1979).

    The two hold one mark per question, in the same order; questions are drawn anew 10,000 times, each with both of
    its marks. Raises ValueError when there is no question, or when the two differ in length. Taught in lesson colab2
    (LoRA).
    """
    import numpy as np

    if len(before) != len(after):
        raise ValueError(f"There are {len(before)} marks before and {len(after)} after; each question needs both.")
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if not len(change):
        raise ValueError("An interval needs at least one question.")
    drawn = np.random.default_rng(seed).integers(0, len(change), size=(RESAMPLES, len(change)))
    low, high = np.percentile(change[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def luck(answers: Answers) -> list[float]:
    """How often each answer would be right, from 0 to 1, if it had been given to another question of the same skill.

    A model that learned only what answers look like is right this often: it says "odd" of every number, and some are.
    A skill with one question is compared with all questions. The idea is that of a permutation test (Fisher 1935).
    """
    skills = answers.skills or [None] * len(answers.given)
    wanted: dict[str | None, Counter[str]] = {}
    for skill, expected in zip(skills, answers.expected, strict=True):
        wanted.setdefault(skill, Counter())[expected.strip()] += 1
    everything = sum(wanted.values(), Counter())
    shares = []
    for skill, given, expected in zip(skills, answers.given, answers.expected, strict=True):
        group = wanted[skill] if wanted[skill].total() > 1 else everything
        shares.append((group[given.strip()] - (given.strip() == expected.strip())) / max(1, group.total() - 1))
    return shares


def score(before: Answers, after: Answers, retained: tuple[Answers, Answers] | None = None) -> Score:
    """The comparison of a model's answers before and after training, with its intervals and what was forgotten."""
    lucky = luck(after)
    return Score(
        metric="exact_match",
        n=len(after.right),
        before=before.share,
        after=after.share,
        interval=interval(before.right, after.right),
        retention=Retention("exact_match", retained[0].share, retained[1].share) if retained else None,
        chance=sum(lucky) / len(lucky),
        above_chance=interval(lucky, after.right),
    )


def changed(before: Answers, after: Answers, wanted: Mapping[bool, int]) -> list[tuple[str, str, str, str]]:
    """Questions whose mark changed: up to `wanted[True]` newly right, then `wanted[False]` newly wrong.

    Each as (question, expected, before, after).
    """
    found = []
    for now_right in (True, False):
        moved = [
            (question, expected, old, new)
            for question, expected, old, new, was, is_now in zip(
                before.questions, before.expected, before.given, after.given, before.right, after.right, strict=True
            )
            if was != is_now and is_now == now_right
        ]
        found += moved[: wanted.get(now_right, 0)]
    return found
