"""What an exercise is, and how a learner's function is asked: every fault becomes a sentence.

The task and the cell to fill in stand in the lesson's notebook.
"""

import copy
import inspect
import linecache
import math
import reprlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np


class Wrong(Exception):
    """A property that an answer lacks, in words."""


class NotTried(Exception):
    """There is no answer yet, in words."""


class _Brief(reprlib.Repr):
    """Values as they fit into a sentence: long ones are shortened, arrays are given by their shape."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60

    def repr1(self, x: Any, level: int) -> str:
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 6 if level == self.maxlevel else 4
        shape = getattr(x, "shape", None)
        if isinstance(shape, tuple) and hasattr(x, "tolist"):
            if len(shape):
                return f"<{' x '.join(map(str, shape))} array>"
            x = x.tolist()
        return super().repr1(x, level)

    def repr_float(self, x: float, level: int) -> str:
        return f"{x:.6g}"

    def repr_Generator(self, x: Any, level: int) -> str:
        return "rng"


brief = _Brief().repr


@dataclass(frozen=True)
class Given:
    """What a function gave back.

    asked: the call as text. before, after: what its positional arguments held before the call and after it.
    """

    asked: str
    value: Any
    before: tuple[Any, ...]
    after: tuple[Any, ...]

    def wrong(self, reason: str) -> NoReturn:
        """Raises `Wrong`: the call, what came back, and the reason why that cannot be."""
        raise Wrong(f"{self.asked} gave {brief(self.value)}, {reason}.")

    def number(self) -> float:
        """The value as a number; a torch or numpy scalar is one too."""
        if not isinstance(self.value, str):
            try:
                return float(self.value)
            except (TypeError, ValueError, OverflowError):
                pass
        self.wrong("and one number is wanted")

    def items(self) -> list[Any]:
        """The value as a list; tuples, arrays and tensors are lists too, also inside it."""
        found = _plain(self.value)
        if not isinstance(found, list):
            self.wrong("and a list is wanted")
        return found

    def numbers(self, count: int) -> list[float]:
        """The value as a list of `count` numbers."""
        items = self.items()
        if len(items) != count:
            self.wrong(f"that is {len(items)} numbers, and {count} are wanted")
        return [replace(self, value=item).number() for item in items]

    def array(self, shape: tuple[int, ...]) -> Any:
        """The value as a float array of this shape."""
        try:
            found = None if np.iscomplexobj(self.value) else np.asarray(self.value, dtype=float)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # the last for a tensor with a gradient
            found = None
        if found is None:
            self.wrong("and an array of numbers is wanted")
        if found.shape != shape:
            self.wrong(f"and {' x '.join(map(str, shape))} is wanted")
        return found

    def unchanged(self, position: int, name: str, why: str) -> None:
        """Raises `Wrong` when the function changed its argument at this position."""
        if not np.array_equal(self.before[position], self.after[position]):
            raise Wrong(f"{self.asked} changed `{name}` itself, {why}.")

    def expect(self, wanted: float, reason: str, tolerance: float = 1e-6) -> None:
        """Raises `Wrong` unless the value is this number, up to rounding."""
        if not math.isclose(self.number(), wanted, rel_tol=tolerance, abs_tol=tolerance):
            self.wrong(reason)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


class Learner:
    """A learner's function; calling it gives a `Given`, or raises `Wrong` or `NotTried`."""

    def __init__(self, answer: object, name: str) -> None:
        if answer is None or answer is ...:
            raise NotTried(f"Write `{name}` and run the cell again. Nothing was counted.")
        if not callable(answer):
            raise Wrong(
                f"The check was given {brief(answer)}, and it wants the function itself: `{name}`, without brackets."
            )
        self._answer, self._name, self._calls = answer, name, 0

    def __call__(self, *arguments: Any, **keywords: Any) -> Given:
        """Calls the function with copies, so that one which changes its arguments spoils nothing but them.

        None or `...` from the first call means that the function is still the stub, so an exercise must not begin with
        a question whose right answer is None.
        """
        shown = [brief(value) for value in arguments] + [f"{key}={brief(value)}" for key, value in keywords.items()]
        asked = f"{self._name}({', '.join(shown)})"
        own, named = copy.deepcopy((arguments, keywords))
        try:
            value = self._answer(*own, **named)
        except Exception as error:  # whatever a learner's function raises becomes a sentence
            raise Wrong(f"{asked} raised {self._described(error)}.") from None
        self._calls += 1
        if self._calls == 1 and (value is None or value is ...):
            if value is ...:
                raise NotTried(
                    f"`{self._name}` still returns `...`. Write it and run the cell again; nothing was counted."
                )
            raise NotTried(
                f"`{self._name}` returned None: it is not written yet, or its `return` is missing. Nothing was counted."
            )
        return Given(asked, value, arguments, own)

    def _described(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        name = type(error).__name__
        line = self._line(error)
        return name + (f" ({text[:120]})" if text else "") + (f" in its line `{line}`" if line else "")

    def _line(self, error: Exception) -> str:
        """The line of the learner's own code that raised, where its source is at hand (it is, in a notebook)."""
        file = getattr(getattr(self._answer, "__code__", None), "co_filename", None)
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        return linecache.getline(file, own[-1].lineno or 0).strip()[:80] if own else ""


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    id: the lesson's name and a number, such as "lora.2".
    solved: a function that solves it; its source text is shown, and it is never called.
    hints: the first points at the idea, the second nearly gives the answer.
    properties: asks the learner's function and raises `Wrong` with a sentence at the first property that it lacks.
    """

    id: str
    title: str
    solved: Callable[..., Any]
    hints: tuple[str, ...]
    properties: Callable[[Learner], None]

    @property
    def lesson(self) -> str:
        """The lesson's name, such as "lora"."""
        return self.id.partition(".")[0]

    @property
    def function(self) -> str:
        """The name of the function to write."""
        return self.solved.__name__

    @property
    def solution(self) -> str:
        """The source text of a function that solves it."""
        return inspect.getsource(self.solved).rstrip()

    def test(self, answer: object) -> str | None:
        """The first property that the answer lacks, as a sentence, or None when it has them all.

        Nothing is executed but the answer itself. Raises `NotTried` as `Learner` does.
        """
        try:
            self.properties(Learner(answer, self.function))
        except Wrong as found:
            return str(found)
        return None


def exercise(id: str, title: str, solved: Callable[..., Any], *hints: str) -> Callable[..., Exercise]:
    """Makes an exercise of the function below, which asks the learner's function for its properties."""
    return lambda properties: Exercise(id, title, solved, hints, properties)
