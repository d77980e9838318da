"""What a learner calls: an answer is checked and counted, and what was solved is shown, as text and as HTML."""

import html
import json
import re
from dataclasses import dataclass
from textwrap import indent

from unsloth_course.core.errors import CourseError
from unsloth_course.core.lessons import NAMES as LESSONS
from unsloth_course.lesson.exercises import cpt, dpo, full, grpo, lora
from unsloth_course.lesson.exercises.asking import Exercise, NotTried
from unsloth_course.lesson.exercises.record import Record, Tries

FOUND = [one for module in (lora, full, cpt, dpo, grpo) for one in vars(module).values() if isinstance(one, Exercise)]
ALL = {one.id: one for one in FOUND}
HINTS = 2  # after these, the solution


class Shown:
    """Text that a terminal prints and a notebook shows; subclasses say of which `_blocks` it consists.

    A block is a pair: "title", "text" or "code", and what it says. All of it is escaped in HTML.
    """

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
            found.setdefault(LESSONS[exercise.lesson], []).append(tries)
        return found

    def lines(self) -> list[str]:
        """A bar for each lesson, with a mark for each exercise; where details are wanted, a line for each of those."""
        width, lessons = max(map(len, LESSONS.values())), self.lessons()
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


def find(exercise: str) -> Exercise:
    """The exercise of this id. Raises CourseError, with the ids that there are, for any other."""
    if not isinstance(exercise, str) or exercise not in ALL:
        raise CourseError(f"There is no exercise {exercise!r}; the exercises are {', '.join(ALL)}.")
    return ALL[exercise]


def check(exercise: str, answer: object = None) -> Verdict:
    """Tests an answer, the function that the exercise asks for, and counts the attempt.

    The answer is called here, in this process, with inputs made from fixed seeds. None, `...` and a function that
    returns one of them are no attempt and change nothing. The verdict is true when the answer is right.
    Raises CourseError for an unknown id, and nothing for a wrong answer, whatever that answer raises.
    """
    found = find(exercise)
    try:
        fault = found.test(answer)
    except NotTried as reason:
        record = Record()
        return Verdict(found, "not tried", str(reason), record.tries(found.id), record.note)
    record = Record()
    tries = record.add(found.id, right=fault is None)
    members = [record.tries(one.id) for one in ALL.values() if one.lesson == found.lesson]
    lesson = LESSONS[found.lesson]
    right = f"Every property holds. {lesson[0].upper()}{lesson[1:]} {bar(members)} solved."
    return Verdict(found, "wrong" if fault else "right", fault or right, tries, record.note)


def progress(lesson: str | None = None) -> Progress:
    """What was solved so far: a bar for each lesson, or for one lesson a line for each of its exercises.

    Raises CourseError for an unknown lesson.
    """
    if lesson is not None and lesson not in LESSONS:
        raise CourseError(f"There is no lesson named {lesson!r}; the lessons with exercises are {', '.join(LESSONS)}.")
    record = Record()
    members = [(one, record.tries(one.id)) for one in ALL.values() if lesson in (None, one.lesson)]
    return Progress(members, lesson is not None, str(record.path), record.note)
