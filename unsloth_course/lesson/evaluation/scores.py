"""Held-out marks and what follows from them: intervals, luck, samples, and the score of a run."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

RESAMPLES = 10_000
Z = 1.959964  # of 95 %
LEVEL = 0.05
FEW = 50  # rows: below that a score says what it cannot show
FEWEST = 5  # rows that all changed the same way: of fewer a coin would do as much in more than 1 of 20 cases
LOWER_IS_BETTER = {
    "perplexity",
    "answer_perplexity",
    "chosen_perplexity",
    "bits_per_character",
    "chat_perplexity",
    "unread_perplexity",
}
"""Names of measures and metrics whose lower value is better."""
NOT_SHARES = LOWER_IS_BETTER | {"margin", "length"}
KINDS = ("newly right", "still wrong", "newly wrong", "still right")
"""What became of a question whose answers before and after are marked, in the order in which samples are shown."""
SHOWN = {"newly right": 3, "still wrong": 3, "newly wrong": 3}
SHOWN_CHARACTERS = 300  # of a text among the samples; answers can be essays


@dataclass(frozen=True)
class Answers:
    """What a model answered: the questions, the expected answers, its answers, and which of them are right.

    `right` is empty where nothing can be marked, as of essays.
    """

    questions: list[str]
    expected: list[str]
    given: list[str]
    right: list[bool]
    skills: list[str | None] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share that is right, from 0 to 1; not a number where nothing is marked."""
        return sum(self.right) / len(self.right) if self.right else math.nan

    @cached_property
    def by_skill(self) -> dict[str, float]:
        """The share right of each skill, where the rows have one."""
        marks: dict[str, list[bool]] = {}
        for skill, right in zip(self.skills, self.right, strict=bool(self.skills)):
            if skill:
                marks.setdefault(skill, []).append(right)
        return {skill: sum(found) / len(found) for skill, found in sorted(marks.items())}

    def __str__(self) -> str:
        if not self.right:
            return f"{len(self.given)} answers, none of which can be marked"
        return f"{sum(self.right)} of {len(self.right)} right ({100 * self.share:.1f} %)"

    __repr__ = __str__


@dataclass(frozen=True)
class Retention:
    """The score on skills that the run did not train, before and after, from 0 to 1."""

    metric: str
    before: float
    after: float


@dataclass(frozen=True)
class Measure:
    """One measure before and after. `interval` is the 95 % interval of after minus before, on n rows.

    judges: whether the verdict follows this one. likelier: of a likelihood, how many of the n rows became likelier.
    """

    name: str
    before: float
    after: float
    interval: tuple[float, float]
    n: int
    judges: bool = False
    likelier: int | None = None

    @property
    def lower(self) -> bool:
        """Whether a lower value is better."""
        return self.name in LOWER_IS_BETTER

    @property
    def better(self) -> tuple[float, float]:
        """The interval, turned so that more is better."""
        low, high = self.interval
        return (-high, -low) if self.lower else (low, high)

    @property
    def is_share(self) -> bool:
        """Whether it is a share of the rows, from 0 to 1."""
        return self.name not in NOT_SHARES

    @property
    def title(self) -> str:
        """Its name in words."""
        return self.name.replace("_", " ")

    def __str__(self) -> str:
        low, high = self.interval
        text = f"{self.before:,.3f} before, {self.after:,.3f} after (95 % interval {low:+,.3f} to {high:+,.3f})"
        return text if self.likelier is None else f"{text}; {self.likelier} of {self.n} became likelier"


@dataclass(frozen=True)
class Score:
    """A held-out score before and after. `interval` is the 95 % interval of after minus before.

    `chance` is the score that the answers given after training would have on each other's questions (see `luck`), and
    `above_chance` the 95 % interval of after minus that; None where a metric has no such thing. `correctness` is the
    share of right answers, where `before` and `after` measure how they are written. `measures` are those beside it; the
    verdict on a run follows the one that judges.
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
    measures: tuple[Measure, ...] = ()

    @property
    def own(self) -> Measure:
        """The metric of the score itself as a measure."""
        return Measure(self.metric, self.before, self.after, tuple(self.interval), self.n)

    @property
    def judge(self) -> Measure:
        """The measure that the verdict follows: the one that judges, or the metric of the score itself."""
        return next((found for found in self.measures if found.judges), self.own)

    @property
    def all(self) -> list[Measure]:
        """All measures, the one that judges first, and the metric of the score itself."""
        judge = self.judge
        others = [one for one in self.measures if not one.judges]
        twice = (self.before, self.after) == (judge.before, judge.after) and self.n == judge.n
        return [judge, *others] if twice else [judge, self.own, *others]

    def values(self, end: str = "after") -> dict[str, float]:
        """All measures by their names, "before" or "after", and the share of right answers: a column of a table."""
        right = {"right": getattr(self.correctness, end)} if self.correctness else {}
        return {found.title: getattr(found, end) for found in self.all} | right

    @property
    def few(self) -> str:
        """What so few rows cannot show, as a sentence; "" where they are not few."""
        counts = [found.n for found in (self.judge, self.own) if found.n < FEW]
        return smallest_change(min(counts)) if counts else ""

    def __str__(self) -> str:
        lines = [(f"{found.title}, n = {found.n:,}", str(found)) for found in self.all]
        width = max(len(name) for name, _ in lines)
        return "\n".join([*(f"{name:<{width}}  {text}" for name, text in lines), *filter(None, [self.few])])


def interval(before: Sequence[float], after: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of mean(after) - mean(before), of one mark per question, in the same order.

    Where all marks are true or false (or 1 and 0, as whole numbers) it is the paired score interval (Newcombe 1998,
    Statistics in Medicine 17:2635, method 10), which has a width at 0 of 25 and at 2 of 2, too; elsewhere the paired
    percentile bootstrap (Efron 1979): questions are drawn anew 10,000 times, each with both of its marks. So that no
    two lucky questions make an effect, it reaches 0 where McNemar's test (mid-p, Fagerland et al. 2013) takes the
    changed marks for a coin's, and of fewer than 5 questions always. Raises ValueError when there is no question, or
    when the two differ in length.
    """
    import numpy as np

    if len(before) != len(after):
        raise ValueError(f"There are {len(before)} marks before and {len(after)} after; each question needs both.")
    if not len(before):
        raise ValueError("An interval needs at least one question.")
    if set(before) | set(after) <= {0, 1} and not any(isinstance(mark, float) for mark in (*before, *after)):
        return newcombe([(bool(was), bool(now)) for was, now in zip(before, after, strict=True)])
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(change), size=(RESAMPLES, len(change)))
    low, high = np.percentile(change[drawn].mean(axis=1), [2.5, 97.5])
    return of_few(float(low), float(high), len(change))


def of_few(low: float, high: float, count: int) -> tuple[float, float]:
    """An interval that was drawn from so many rows; of very few it reaches 0."""
    return (min(low, 0.0), max(high, 0.0)) if count < FEWEST else (low, high)


def wilson(right: float, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share, `right` of `count` (Wilson 1927, JASA 22).

    Unlike the bootstrap it does not shrink to nothing when all answers, or none, are right.
    """
    middle = (right + Z**2 / 2) / (count + Z**2)
    half = Z / (count + Z**2) * math.sqrt(right * (count - right) / count + Z**2 / 4)
    return max(0.0, round(middle - half, 9)), min(1.0, round(middle + half, 9))


def share_above_a_coin(share: float, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share of so many, less the half that a coin gives; of very few it reaches 0."""
    low, high = wilson(share * count, count)
    return of_few(low - 0.5, high - 0.5, count)


def newcombe(pairs: Sequence[tuple[bool, bool]]) -> tuple[float, float]:
    """The paired score interval of `interval`, of marks (before, after)."""
    table, count = Counter(pairs), len(pairs)
    both, lost, won, none = (table[key] for key in ((True, True), (True, False), (False, True), (False, False)))
    first, second = (both + lost) / count, (both + won) / count
    (low_1, high_1), (low_2, high_2) = wilson(both + lost, count), wilson(both + won, count)
    # How much the two shares go together, from -1 to 1, corrected for continuity.
    product = both * none - lost * won
    product = max(0.0, product - count / 2) if product > 0 else product
    sides = (both + lost) * (won + none) * (both + won) * (lost + none)
    phi = product / math.sqrt(sides) if sides else 0.0

    def together(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))

    change = second - first
    low, high = change - together(second - low_2, high_1 - first), change + together(high_2 - second, first - low_1)
    if mid_p(won, lost) > LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    return max(-1.0, low), min(1.0, high)


def apart(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float]:
    """The 95 % score interval of the second share minus the first, of other rows each: (right, count) of both.

    Newcombe 1998, Statistics in Medicine 17:873, method 10.
    """
    one, other = first[0] / first[1], second[0] / second[1]
    (low_1, high_1), (low_2, high_2) = wilson(*first), wilson(*second)
    change = other - one
    return change - math.hypot(other - low_2, high_1 - one), change + math.hypot(high_2 - other, one - low_1)


def mid_p(won: int, lost: int) -> float:
    """McNemar's test, mid-p: how often a coin would part the changed marks as unevenly (Fagerland et al. 2013)."""
    changed, fewer = won + lost, min(won, lost)
    ways = [math.comb(changed, number) for number in range(fewer + 1)]
    return (2 * sum(ways) - ways[-1]) / 2**changed


def smallest_change(n: int) -> str:
    """What n questions, marked right or wrong, can show, as a sentence.

    The change is the smallest number of newly right answers, with none newly wrong, whose `interval` is clear of 0.
    """
    for right in range(1, n + 1):
        if newcombe([(False, True)] * right + [(False, False)] * (n - right))[0] > 0:
            return f"n = {n} can only show changes of {100 * right / n:.0f} points or more."
    return f"n = {n} is too few to show any change: a coin would do as much."


def ratio_interval(
    first: tuple[Sequence[float], Sequence[float]],
    second: tuple[Sequence[float], Sequence[float]],
    of: Callable[[Any], Any] = lambda ratio: ratio,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval of the second ratio minus the first, rows drawn anew (paired percentile bootstrap).

    A ratio is that of two sums over the rows, such as nats and tokens; `of` is applied to it. Raises ValueError unless
    both are of the same number of rows.
    """
    import numpy as np

    count = len(first[0])
    if count != len(second[0]):
        raise ValueError(f"There are {count} texts and {len(second[0])}; both must be the same ones.")
    drawn = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))

    def drawn_anew(above: Sequence[float], below: Sequence[float]) -> Any:
        with np.errstate(all="ignore"):  # a draw may hold none of what is divided by
            return of(np.asarray(above, float)[drawn].sum(axis=1) / np.asarray(below, float)[drawn].sum(axis=1))

    change = drawn_anew(*second) - drawn_anew(*first)
    known = change[~np.isnan(change)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (math.nan, math.nan)
    return of_few(float(low), float(high), count)


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
        retention=kept("exact_match", retained),
        chance=sum(lucky) / len(lucky),
        above_chance=interval(lucky, after.right),
    )


def kept(metric: str, retained: tuple[Answers, Answers] | None) -> Retention | None:
    """What was asked beside the lesson, before and after, as the score's Retention."""
    return Retention(metric, retained[0].share, retained[1].share) if retained else None


@dataclass(frozen=True)
class Changed:
    """What became of the answers: how many are of each of `KINDS`, and some of them to read.

    `counts` is empty where nothing could be marked. `shown` holds (kind, question, expected, before, after).
    """

    counts: dict[str, int]
    shown: list[tuple[str, str, str, str, str]]

    @property
    def total(self) -> str:
        """The counts in words."""
        return ", ".join(f"{kind} {self.counts[kind]}" for kind in KINDS if kind in self.counts)

    def lines(self) -> list[str]:
        """The samples, one line each."""
        return [
            f"{kind + ': ' if kind else ''}{question!r}: {old!r} -> {new!r} (expected {expected!r})"
            for kind, question, expected, old, new in self.shown
        ]

    def __str__(self) -> str:
        return "\n".join([*filter(None, [self.total]), *self.lines()])

    __repr__ = __str__


def changed(before: Answers, after: Answers, wanted: Mapping[str, int] = SHOWN) -> Changed:
    """Samples that do not flatter: newly right, still wrong and newly wrong, each with its count.

    wanted: how many of each kind to show. Where nothing is marked the first few are shown, of no kind. Taught in lesson
    colab3 (DPO).
    """
    columns = (before.questions, before.expected, before.given, after.given)
    texts = list(zip(*([_cut(text) for text in column] for column in columns), strict=True))
    if not after.right:
        return Changed({}, [("", *text) for text in texts[: max(wanted.values(), default=0)]])
    marks = zip(before.right, after.right, strict=True)
    kinds = [KINDS[(0 if now else 1) if not was else (3 if now else 2)] for was, now in marks]
    counts = {kind: kinds.count(kind) for kind in KINDS}
    shown = []
    for kind in KINDS:
        found = [(kind, *text) for own, text in zip(kinds, texts, strict=True) if own == kind]
        shown += found[: wanted.get(kind, 0)]
    return Changed(counts, shown)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def one_answer(answers: Answers) -> tuple[str, int, int] | None:
    """The text that was given to more than half of at least 8 questions with different answers: it, how often, of what.

    None where there is none, and where at least half as many questions have that answer.
    """
    given = Counter(text.strip() for text in answers.given)
    expected = Counter(text.strip() for text in answers.expected)
    text, times = given.most_common(1)[0] if given else ("", 0)
    many = len(answers.given) >= 8 and 2 * times > len(answers.given)
    return (text, times, len(answers.given)) if many and 2 * expected[text] <= times else None
