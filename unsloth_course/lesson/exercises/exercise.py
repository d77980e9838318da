"""What an exercise is: a task, a function to write, two hints, and properties that the function must have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from textwrap import dedent

from unsloth_course.lesson.exercises.asking import Learner, Wrong


@dataclass(frozen=True, repr=False)
class Exercise:
    """One exercise.

    id: the lesson's name and a number, such as "lora.2".
    task: what to write, as Markdown: paragraphs, `code`, and indented lines of code.
    function: the name of the function to write.
    stub, solution: source text of that function, before and after. `stub` returns `...`.
    hints: the first points at the idea, the second nearly gives the answer.
    wrong: three plausible wrong answers, by name, as source text; the tests prove that each is found out.
    properties: asks the learner's function and raises `Wrong` with a sentence at the first property that it lacks.
    """

    id: str
    title: str
    task: str
    function: str
    stub: str
    solution: str
    hints: tuple[str, str]
    wrong: Mapping[str, str]
    properties: Callable[[Learner], None]

    def __repr__(self) -> str:
        return f"<exercise {self.id}: {self.title}>"

    @property
    def lesson(self) -> str:
        """The lesson's name, such as "lora"."""
        return self.id.partition(".")[0]

    @property
    def prose(self) -> str:
        """The Markdown cell of the lesson: title and task."""
        return f"**{self.id} · {self.title}**\n\n{self.task}"

    @property
    def cell(self) -> str:
        """The code cell of the lesson: the stub, and the call that checks it."""
        return f'{self.stub}\n\n\nexercises.check("{self.id}", {self.function})'

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


def source(text: str) -> str:
    """A piece of source text or prose, without the indentation that it has inside a module."""
    return dedent(text).strip()
