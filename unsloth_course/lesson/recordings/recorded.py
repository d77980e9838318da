"""Recorded runs of a lesson, the band that they give, and a run beside them.

The band at a step is `mean +- 4 s sqrt(1 + 1/n)` of the n smoothed curves: a new run scatters around their true mean by
s, and n runs say where that is to within s / sqrt(n). Three curves are few, so s is pooled over nine neighbouring
points. Smoothed neighbours are alike, which leaves about five independent values, and of these Student's t wants 4 for
99 %. A band narrower than 4 % of the height of the mean curve is widened to that: late in a run a single hard row makes
a spike, as a good run of the DPO lesson with a fourth seed showed. A run lies inside when nine of ten of its smoothed
points do. That says it learned as they did, and not by which method: LoRA and full fine-tuning on the same rows have
nearly the same curve.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, variance
from typing import Any, NamedTuple

from unsloth_course.core.history import series, smoothed
from unsloth_course.lesson.evaluation.scores import NOT_SHARES

SEEDS = 3  # fewer runs have no spread to speak of
SPREADS = 4.0  # half the band's width, in standard deviations of a new run
NEIGHBOURS = 4  # points on each side that the spread is pooled with
FLOOR = 0.04  # of the height of the mean curve
ENOUGH = 0.9  # share of the points that has to lie inside
SAME_RATE = 0.1  # two learning rates that differ by less are one; the log may just miss the highest of a schedule
WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}


@dataclass(frozen=True)
class Run:
    """One of the recorded runs.

    curves: by the name in the trainer's log, pairs (step, value). scores: by metric, before and after training.
    measures: each as `evaluation.Measure` has it, the judging one first; a record of older results has none. seconds:
    of training; wall_seconds of the whole lesson, 0 where it is not known.
    """

    seed: int
    curves: dict[str, list[tuple[int, float]]]
    scores: dict[str, tuple[float, float]]
    peak_memory_bytes: int
    seconds: float
    measures: tuple[dict[str, Any], ...] = ()
    wall_seconds: float = 0.0


class Band(NamedTuple):
    """Where a smoothed curve is expected, step by step: from `low` to `high`."""

    steps: list[int]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Recording:
    """Recorded runs of one lesson, alike in all but the seed; or, where there is none to compare with, `why`.

    learning_rate: the highest of the schedule; None where it is not known. samples: of the first seed, each with
    "prompt", "before" and "after", and "kind", "count" and "of" where they are known. fingerprint: as `fingerprint`
    gives it; empty in a record of older results. trained: the number of trained parameters. With a `why` it is false.
    """

    lesson: str
    profile: str
    device: str = ""
    model: str = ""
    data: str = ""
    date: str = ""
    steps: int = 0
    learning_rate: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    samples: tuple[dict[str, str], ...] = ()
    fingerprint: dict[str, dict[str, str]] = field(default_factory=dict)
    trained: int = 0
    why: str = ""

    def __bool__(self) -> bool:
        return not self.why

    @property
    def curve(self) -> str:
        """The curve that runs are compared by: the loss, but for GRPO, whose loss says nothing, the reward."""
        return "reward" if self.lesson == "grpo" else "loss"

    @property
    def banded(self) -> bool:
        """Whether there are runs enough for a band."""
        return len(self.runs) >= SEEDS

    @property
    def label(self) -> str:
        """What the band is, in a few words."""
        count = len(self.runs)
        runs = f"{WORDS.get(count, count)} recorded run{'s' if count > 1 else ''} on {self.device}"
        return f"band of {runs}" if self.banded else runs

    def band(self) -> Band:
        """The band of the smoothed curves, by the rule that stands at the top of this room."""
        curves = [run.curves[self.curve] for run in self.runs]
        smooth = [smoothed([value for _, value in curve]) for curve in curves]
        middle = [fmean(values) for values in zip(*smooth, strict=True)]
        spread = [variance(values) for values in zip(*smooth, strict=True)]
        least = FLOOR * (max(middle) - min(middle))
        wide = SPREADS * math.sqrt(1 + 1 / len(curves))
        found = Band([step for step, _ in curves[0]], [], [])
        for place, mean in enumerate(middle):
            near = spread[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]
            half = max(least, wide * math.sqrt(fmean(near)))
            found.low.append(mean - half)
            found.high.append(mean + half)
        return found

    def compare(self, history: Sequence[Mapping[str, Any]]) -> str:
        """Whether a run's smoothed curve lies inside the band of this recording, in a sentence.

        history: `trainer.state.log_history`. A point that is no finite number lies outside. Without a recording, or
        where steps or learning rate differ, the sentence says so. Taught in all five lessons.
        """
        if why := self.why_not(history):
            return why
        values = [value for _, value in series(history, self.curve)]
        band = self.band()
        # From the first number that is not finite on, the average is none either.
        places = zip(smoothed(values), band.low, band.high, strict=True)
        inside = [low <= value <= high for value, low, high in places]
        sentence = f"{sum(inside)} of {len(inside)} points of the smoothed {self.curve} lie inside the {self.label}"
        if sum(inside) >= ENOUGH * len(inside):
            return f"{sentence}: this run went as they did."
        sentence += f", and {math.ceil(ENOUGH * len(inside))} should: this run went another way"
        return f"{sentence}, first at step {band.steps[inside.index(False)]}."

    def why_not(self, history: Sequence[Mapping[str, Any]]) -> str:
        """Why a run with this log is not compared with the recording, in a sentence; empty where it is."""
        if self.why:
            return self.why
        logged = [step for step, _ in series(history, self.curve)]
        if not logged:
            return f"This run has logged no {self.curve}, so there is nothing to compare with the recorded runs."
        last = max([*logged, *(step for step, _ in series(history, "train_runtime"))])
        if last != self.steps:
            return (
                f"This run has {last:g} steps and the recorded ones have {self.steps}: they are not compared, since "
                "the learning rate follows another schedule."
            )
        if logged != [step for step, _ in self.runs[0].curves[self.curve]]:
            return (
                "This run logged its progress at other steps than the recorded ones, so they are not compared; "
                "logging_steps decides that."
            )
        mine = max((rate for _, rate in series(history, "learning_rate")), default=None)
        theirs = self.learning_rate
        if mine is None or theirs is None or abs(mine - theirs) <= SAME_RATE * abs(theirs):
            return ""
        return (
            f"This run's learning rate went up to {mine:.2g} and that of the recorded ones to {theirs:.2g}: they are "
            "not compared."
        )

    def measures(self) -> dict[str, "Measured"]:
        """Each measure over the runs, by its name in words, the judging one first; older records have none."""
        found: dict[str, list[dict[str, Any]]] = {}
        for run in self.runs:
            for measure in run.measures:
                found.setdefault(measure["name"], []).append(measure)
        return {name.replace("_", " "): Measured(name, each) for name, each in found.items()}

    def named(self, part: str, otherwise: str) -> str:
        """The "weights" or the "rows" in words, with what stands for their content."""
        found = self.fingerprint.get(part)
        if not found:
            return otherwise
        text = f"{found['name']} ({found['sha']})"
        return f"{text}, {rounded(found['from'])}" if found.get("from") else text

    def history(self) -> list[dict[str, float]]:
        """The log of the first recorded run, as `trainer.state.log_history` would have it."""
        rows = [{"step": step, key: value} for key, curve in self.runs[0].curves.items() for step, value in curve]
        return sorted(rows, key=lambda row: row["step"])


compare = Recording.compare


@dataclass(frozen=True)
class Measured:
    """One measure of several runs, each as `evaluation.Measure` has it, as a dictionary."""

    name: str
    each: Sequence[Mapping[str, Any]]

    def value(self, end: str) -> str:
        """ "before" or "after" of the runs, from the lowest to the highest."""
        return from_to([one[end] for one in self.each], partial(written, self.name))

    @property
    def interval(self) -> str:
        """From the lowest to the highest end of the runs' 95 % intervals of after minus before."""
        low, high = min(one["interval"][0] for one in self.each), max(one["interval"][1] for one in self.each)
        if self.name in NOT_SHARES:
            return f"{low:+.3g} to {high:+.3g}"
        return f"{100 * low:+.1f} to {100 * high:+.1f} points"

    @property
    def n(self) -> str:
        """How many rows it is of."""
        return from_to([one["n"] for one in self.each], "{:.0f}".format)

    @property
    def likelier(self) -> str:
        """How many of the rows became likelier, where the measure counts them."""
        counts = [one["likelier"] for one in self.each if one.get("likelier") is not None]
        return f"{from_to(counts, '{:.0f}'.format)} of {self.n} rows likelier" if counts else ""

    def __str__(self) -> str:
        parts = [f"95 % interval of the difference {self.interval}", f"n = {self.n}", self.likelier]
        return f"{self.value('before')} before, {self.value('after')} after ({', '.join(filter(None, parts))})"


def written(name: str, value: float) -> str:
    """A value of a measure as text: a share as a percentage, another number as it is."""
    if name not in NOT_SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def rounded(kind: str) -> str:
    """What it means that weights were rounded to a kind of llama.cpp's."""
    return (
        f"rounded to {kind}, about 4.5 bits a weight; part of a gain on general text may be the repair of the rounding"
    )


def from_to(values: Sequence[float], written: Any) -> str:
    low, high = written(min(values)), written(max(values))
    return low if low == high else f"{low} to {high}"
