"""How sure a difference is: intervals of 95 %, and what a coin would do."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

RESAMPLES = 10_000
Z = 1.959964  # of 95 %
LEVEL = 0.05
FEWEST = 5  # rows that all changed the same way: of fewer a coin would do as much in more than 1 of 20 cases


def interval(before: Sequence[float], after: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of mean(after) - mean(before), of one mark per question, in the same order.

    Where all marks are true or false (or 1 and 0, as whole numbers) it is the paired score interval (Newcombe 1998,
    Statistics in Medicine 17:2635, method 10), which has a width at 0 of 25 and at 2 of 2, too; elsewhere the paired
    percentile bootstrap (Efron 1979): questions are drawn anew 10,000 times, each with both of its marks. It reaches 0
    where McNemar's test (mid-p, Fagerland et al. 2013) takes the changed marks for a coin's, and of fewer than 5.
    """
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

    A ratio is that of two sums over the rows, such as nats and tokens; `of` is applied to it.
    """
    change = of(ratios_drawn(*second, seed)) - of(ratios_drawn(*first, seed))
    known = change[~np.isnan(change)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (math.nan, math.nan)
    return of_few(float(low), float(high), len(first[0]))


def ratios_drawn(above: Sequence[float], below: Sequence[float], seed: int = 0) -> Any:
    """The ratio of two sums over the rows, for 10,000 draws of as many rows as there are, as a numpy array."""
    drawn = np.random.default_rng(seed).integers(0, len(above), size=(RESAMPLES, len(above)))
    with np.errstate(all="ignore"):  # a draw may hold none of what is divided by
        return np.asarray(above, float)[drawn].sum(axis=1) / np.asarray(below, float)[drawn].sum(axis=1)
