"""What an exercise is: a solution, two hints, and properties that a learner's function must have.

The task and the cell to fill in stand in the lesson's notebook.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unsloth_course.lesson.exercises.asking import Learner, Wrong


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

        Nothing is executed but the answer itself: no source text, neither the learner's nor the solution's.
        Raises `NotTried` for None, `...`, and a function that returns one of them when it is first called.
        """
        try:
            self.properties(Learner(answer, self.function))
        except Wrong as found:
            return str(found)
        return None


def exercise(id: str, title: str, solved: Callable[..., Any], *hints: str) -> Callable[..., Exercise]:
    """Makes an exercise of the function below, which asks the learner's function for its properties."""
    return lambda properties: Exercise(id, title, solved, hints, properties)
