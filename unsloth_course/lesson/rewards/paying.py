"""The reward functions of the lesson: each pays completions, as TRL calls it."""

import math
import operator
import re
from collections.abc import Sequence
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import problems

LONGEST = 100  # characters: from here on brevity pays nothing
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


def right_numbers(answer: Any, count: int) -> list[str | None]:
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
    right = right_numbers(answer, len(completions))
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
    right = right_numbers(answer, len(completions))
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
