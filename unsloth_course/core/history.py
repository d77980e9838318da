"""What a trainer's log holds: the series of a metric, and the moving average that smooths it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unsloth_course.core.errors import CourseError


def series(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Pairs (step, value) of one metric, in the order logged; a row without a step counts as one."""
    if not isinstance(history, Sequence):
        raise CourseError(f"The history wants trainer.state.log_history, and got {type(history).__name__}.")
    points: list[tuple[float, float]] = []
    for row in history:
        value = number(row.get(key)) if isinstance(row, Mapping) else None
        if value is not None:
            step = number(row.get("step"))
            points.append((len(points) + 1 if step is None or not math.isfinite(step) else step, value))
    return points


def number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def nothing_logged(history: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    wanted = ", ".join(keys)
    if not len(history):
        return f"The log history is empty, so there is no {wanted} to draw: train first, with logging_steps=1."
    logged = sorted({key for row in history if isinstance(row, Mapping) for key in row})
    return (
        f"The log history has {count(history, 'row')} and none with {wanted}; it holds {', '.join(logged)}. "
        "Train with logging_steps=1, so that each step is logged."
    )


def count(things: Sequence[Any], noun: str) -> str:
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"


def smoothed(values: Sequence[float]) -> list[float]:
    """The strong line of the pictures: the moving average over about a tenth of the values, at least three of them."""
    return moving_average(values, span(values))


def span(values: Sequence[float]) -> int:
    return max(3, round(len(values) / 10))


def moving_average(values: Sequence[float], span: int) -> list[float]:
    """Exponential moving average with weight 2 / (span + 1).

    Divided by the weights seen so far, as Adam does (Kingma and Ba, 2015, section 3), so that it starts without a bias.
    """
    keep = 1 - 2 / (span + 1)
    averages, total, weights = [], 0.0, 0.0
    for value in values:
        total, weights = keep * total + value, keep * weights + 1
        averages.append(total / weights)
    return averages
