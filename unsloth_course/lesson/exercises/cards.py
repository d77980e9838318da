"""What the exercises show: a task, a verdict, the progress; each as text in a terminal and as HTML in a notebook."""

import html
import json
import re
from dataclasses import dataclass, field
from typing import Any

from unsloth_course.lesson.exercises.exercise import Exercise
from unsloth_course.lesson.exercises.record import Tries

HINTS = 2  # after these, the solution


class Shown:
    """Text that a terminal prints and a notebook shows; subclasses say of which blocks it consists.

    A block is a pair: "title", "text" or "code", and what it says. All of it is escaped in HTML.
    """

    def _blocks(self) -> list[tuple[str, str]]:
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n\n".join(_indented(text) if kind == "code" else text for kind, text in self._blocks())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = []
        for kind, text in self._blocks():
            if kind == "code":
                parts.append(f"<pre>{html.escape(text)}</pre>")
            else:
                marked = re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
                parts.append(f"<p><b>{marked}</b></p>" if kind == "title" else f"<p>{marked}</p>")
        return "".join(parts)


def _indented(code: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in code.split("\n"))


def helped(exercise: Exercise, failed: int) -> list[tuple[str, str]]:
    """What a learner gets to read after so many failed attempts: hint, hint, solution."""
    hints = [("text", f"Hint {n}: {hint}") for n, hint in enumerate(exercise.hints, 1)]
    if failed > HINTS:
        return [
            ("text", "Here is a solution. Read it, then write your own without looking."),
            ("code", exercise.solution),
        ]
    return hints[:failed]


@dataclass(frozen=True, repr=False)
class Verdict(Shown):
    """What a check found.

    state: "right", "wrong" or "not tried". found: the sentence that says why, "" for a right answer.
    tries: the attempts so far, this one included. note: a sentence when progress could not be kept.
    """

    exercise: Exercise
    state: str
    found: str
    tries: Tries
    solved_in_lesson: str = ""
    note: str = ""

    @property
    def right(self) -> bool:
        """Whether the answer has every property."""
        return self.state == "right"

    def __bool__(self) -> bool:
        return self.right

    @property
    def hint(self) -> str:
        """The newest hint that this many failed attempts earn, "" before the first and beside the solution."""
        failed = self.tries.failed
        return self.exercise.hints[failed - 1] if self.state == "wrong" and failed <= HINTS else ""

    @property
    def solution(self) -> str:
        """The source text of a solution from the third failed attempt on, "" before."""
        return self.exercise.solution if self.state == "wrong" and self.tries.failed > HINTS else ""

    def _blocks(self) -> list[tuple[str, str]]:
        headline = f"{self.exercise.id} · {self.exercise.title}: {self.state}."
        if self.right:
            solved = self.solved_in_lesson
            body = [("text", f"Every property holds. {solved[:1].upper()}{solved[1:]}".strip())]
        else:
            body = [("text", self.found)]
        if self.state == "wrong":
            body += helped(self.exercise, self.tries.failed)
        return [("title", headline), *body, *([("text", self.note)] if self.note else [])]


@dataclass(frozen=True, repr=False)
class Progress(Shown):
    """How far a learner has come: every exercise with its tries, in the course's order."""

    exercises: list[tuple[Exercise, Tries]]
    details: bool = False
    file: str = ""
    note: str = ""
    names: dict[str, str] = field(default_factory=dict)

    @property
    def solved(self) -> int:
        """How many of them are solved."""
        return sum(tries.solved is not None for _, tries in self.exercises)

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.exercises)

    def lessons(self) -> list[tuple[str, list[tuple[Exercise, Tries]]]]:
        """The exercises of each lesson, under its full name."""
        found: dict[str, list[tuple[Exercise, Tries]]] = {}
        for exercise, tries in self.exercises:
            found.setdefault(self.names.get(exercise.lesson, exercise.lesson), []).append((exercise, tries))
        return list(found.items())

    def lines(self) -> list[str]:
        """One line per lesson, with a mark per exercise, and where details are wanted one per exercise."""
        width = max(map(len, ("all", *self.names.values())))
        lines = []
        for name, members in self.lessons():
            lines.append(f"{name:<{width}}  {bar([tries for _, tries in members])}")
            if self.details:
                lines += [f"  {one.id:<7} {one.title}: {described(tries)}" for one, tries in members]
        if len(self.lessons()) > 1:
            lines.append(f"{'all':<{width}}  {self.solved} of {self.total} solved")
        return lines

    def _blocks(self) -> list[tuple[str, str]]:
        legend = "# solved, - tried, . not tried"
        return [("code", "\n".join([*self.lines(), legend])), *([("text", self.note)] if self.note else [])]

    def to_dict(self) -> dict[str, Any]:
        """The progress as plain values, for JSON."""
        return {
            "solved": self.solved,
            "total": self.total,
            "file": self.file,
            "note": self.note,
            "exercises": [
                {
                    "id": one.id,
                    "lesson": one.lesson,
                    "title": one.title,
                    "solved": tries.solved is not None,
                    "attempts": tries.failed if tries.solved is None else tries.solved,
                }
                for one, tries in self.exercises
            ],
        }

    def to_json(self) -> str:
        """The progress as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def draw(self, console: Any = None) -> None:
        """Draws the bars in a terminal. console: a rich Console; else standard output."""
        from rich.console import Console
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        console = console or Console()
        table = Table.grid(padding=(0, 2))
        for name, members in self.lessons():
            done = sum(tries.solved is not None for _, tries in members)
            table.add_row(Text(name), ProgressBar(len(members), done, width=24), Text(f"{done} of {len(members)}"))
        if len(self.lessons()) > 1:
            table.add_row(
                Text("all"), ProgressBar(self.total, self.solved, width=24), Text(f"{self.solved} of {self.total}")
            )
        console.print(table)
        if self.details:
            for one, tries in self.exercises:
                console.print(Text(f"  {one.id:<7} {one.title}: {described(tries)}"), soft_wrap=True)
        if self.note:
            console.print(Text(self.note), soft_wrap=True)


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
