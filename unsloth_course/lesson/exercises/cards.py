"""What the exercises show: a verdict, the progress; each as text in a terminal and as HTML in a notebook."""

import html
import json
import re
from dataclasses import dataclass
from textwrap import indent

from unsloth_course.core.lessons import NAMES
from unsloth_course.lesson.exercises.asking import Exercise
from unsloth_course.lesson.exercises.record import Tries

HINTS = 2  # after these, the solution


class Shown:
    """Text that a terminal prints and a notebook shows; subclasses say of which blocks it consists.

    A block is a pair: "title", "text" or "code", and what it says. All of it is escaped in HTML.
    """

    def _blocks(self) -> list[tuple[str, str]]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n\n".join(indent(text, "    ") if kind == "code" else text for kind, text in self._blocks())

    def _repr_html_(self) -> str:
        parts = []
        for kind, text in self._blocks():
            if kind == "code":
                parts.append(f"<pre>{html.escape(text)}</pre>")
            else:
                marked = re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
                parts.append(f"<p><b>{marked}</b></p>" if kind == "title" else f"<p>{marked}</p>")
        return "".join(parts)


def helped(exercise: Exercise, failed: int) -> list[tuple[str, str]]:
    """What a learner gets to read after so many failed attempts: hint, hint, solution."""
    if failed > HINTS:
        return [
            ("text", "Here is a solution. Read it, then write your own without looking."),
            ("code", exercise.solution),
        ]
    return [("text", f"Hint {n}: {hint}") for n, hint in enumerate(exercise.hints[:failed], 1)]


@dataclass(frozen=True, repr=False)
class Verdict(Shown):
    """What a check found.

    state: "right", "wrong" or "not tried". found: the sentence that says why, or what is solved by a right answer.
    tries: the attempts so far, this one included. note: a sentence when progress could not be kept. True when right.
    """

    exercise: Exercise
    state: str
    found: str
    tries: Tries
    note: str = ""

    def __bool__(self) -> bool:
        return self.state == "right"

    def _blocks(self) -> list[tuple[str, str]]:
        headline = f"{self.exercise.id} · {self.exercise.title}: {self.state}."
        body = [("text", self.found)]
        if self.state == "wrong":
            body += helped(self.exercise, self.tries.failed)
        return [("title", headline), *body, *([("text", self.note)] if self.note else [])]


@dataclass(frozen=True, repr=False)
class Progress(Shown):
    """How far a learner has come: every exercise with its tries, in the course's order.

    details: whether each exercise has a line of its own. file: where it is kept. note: a sentence where it is not.
    """

    exercises: list[tuple[Exercise, Tries]]
    details: bool = False
    file: str = ""
    note: str = ""

    @property
    def solved(self) -> int:
        """How many of them are solved."""
        return sum(tries.solved is not None for _, tries in self.exercises)

    def lessons(self) -> dict[str, list[Tries]]:
        """The tries at each lesson's exercises, under its full name."""
        found: dict[str, list[Tries]] = {}
        for exercise, tries in self.exercises:
            found.setdefault(NAMES[exercise.lesson], []).append(tries)
        return found

    def lines(self) -> list[str]:
        """A bar for each lesson, with a mark for each exercise; where details are wanted, a line for each of those."""
        width, lessons = max(map(len, NAMES.values())), self.lessons()
        lines = [f"{name:<{width}}  {bar(tries)}" for name, tries in lessons.items()]
        if self.details:
            lines += [f"  {one.id:<7} {one.title}: {described(tries)}" for one, tries in self.exercises]
        if len(lessons) > 1:
            lines.append(f"{'all':<{width}}  {self.solved} of {len(self.exercises)} solved")
        return [*lines, "# solved, - tried, . not tried"]

    def _blocks(self) -> list[tuple[str, str]]:
        return [("code", "\n".join(self.lines())), *([("text", self.note)] if self.note else [])]

    def to_json(self) -> str:
        """The progress as JSON text."""
        each = [
            {
                "id": one.id,
                "lesson": one.lesson,
                "title": one.title,
                "solved": tries.solved is not None,
                "attempts": tries.failed if tries.solved is None else tries.solved,
            }
            for one, tries in self.exercises
        ]
        counts = {"solved": self.solved, "total": len(self.exercises), "file": self.file, "note": self.note}
        return json.dumps({**counts, "exercises": each}, indent=2)


def bar(tries: list[Tries]) -> str:
    """`[#-.]  1 of 3`: a mark for each exercise."""
    marks = "".join("#" if one.solved else "-" if one.failed else "." for one in tries)
    return f"[{marks}]  {marks.count('#')} of {len(marks)}"


def described(tries: Tries) -> str:
    """The tries at one exercise in words."""
    if tries.solved:
        after = ", after the solution was shown" if tries.solved > HINTS + 1 else ""
        return f"solved at attempt {tries.solved}{after}"
    if tries.failed:
        return f"tried {tries.failed} time{'s' * (tries.failed > 1)}"
    return "not tried"
