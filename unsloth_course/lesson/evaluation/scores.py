"""Held-out marks and what follows from them: intervals, luck, samples, and the score of a run."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from unsloth_course.core.writing import cut
from unsloth_course.lesson.evaluation.intervals import interval, smallest_change

FEW = 50  # rows: below that a score says what it cannot show
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
    """What a model answered: the questions, the expected answers, its answers, and which of them are right; none where
    nothing can be marked, as of essays.
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

    def __repr__(self) -> str:
        if not self.right:
            return f"{len(self.given)} answers, none of which can be marked"
        return f"{sum(self.right)} of {len(self.right)} right ({100 * self.share:.1f} %)"


@dataclass(frozen=True)
class Retention:
    """The score on skills that the run did not train, before and after, from 0 to 1."""

    metric: str
    before: float
    after: float


@dataclass(frozen=True)
class Measure:
    """One measure before and after, on n rows. `interval` is the 95 % interval of after minus before. judges: whether
    the verdict follows this one. likelier: of a likelihood, how many of the rows became likelier.
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
    `above_chance` the 95 % interval of after minus that, where a metric has such a thing. `correctness` is the share of
    right answers, where `before` and `after` measure how they are written. `measures` are those beside it; the verdict
    follows the one that judges.
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


def luck(answers: Answers) -> list[float]:
    """How often each answer would be right, from 0 to 1, if it had been given to another question of the same skill.

    So often is right who learned only what answers look like, and says "odd" of every number. A skill with one question
    is compared with all questions. The idea is that of a permutation test (Fisher 1935).
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
    lucky, change = luck(after), interval(before.right, after.right)
    own = Measure("exact_match", before.share, after.share, change, len(after.right))
    chance = {"chance": sum(lucky) / len(lucky), "above_chance": interval(lucky, after.right)}
    return score_of(own, retained, **chance)


def score_of(own: Measure, retained: tuple[Answers, Answers] | None = None, **more: Any) -> Score:
    """The score whose metric is this measure. retained: what was asked beside the lesson, before and after."""
    retention = Retention("exact_match", retained[0].share, retained[1].share) if retained else None
    return Score(own.name, own.n, own.before, own.after, own.interval, retention, **more)


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

    def __repr__(self) -> str:
        return "\n".join([*filter(None, [self.total]), *self.lines()])


def changed(before: Answers, after: Answers, wanted: Mapping[str, int] = SHOWN) -> Changed:
    """Samples that do not flatter: newly right, still wrong and newly wrong, each with its count.

    wanted: how many of each kind to show; where nothing is marked the first few are. Taught in lesson colab3 (DPO).
    """
    columns = (before.questions, before.expected, before.given, after.given)
    texts = list(zip(*([cut(text, SHOWN_CHARACTERS) for text in column] for column in columns), strict=True))
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


def one_answer(answers: Answers) -> tuple[str, int, int] | None:
    """The text that was given to more than half of at least 8 questions: it, how often, of how many. None where there
    is none, and where at least half as many questions have that answer.
    """
    given = Counter(text.strip() for text in answers.given)
    expected = Counter(text.strip() for text in answers.expected)
    text, times = given.most_common(1)[0] if given else ("", 0)
    many = len(answers.given) >= 8 and 2 * times > len(answers.given)
    return (text, times, len(answers.given)) if many and 2 * expected[text] <= times else None
