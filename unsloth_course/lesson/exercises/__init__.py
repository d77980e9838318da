"""Exercises that check themselves: three for each lesson, offline, with no account.

A lesson shows a function whose body is `...`; its last line is `exercises.check("lora.2", merge)`. The check asks the
function about inputs that the learner has not seen and tests properties of what comes back, never one stored answer. A
wrong answer gets a first hint, the next a second one, and from the third on a solution stands beside the verdict.

One module per lesson holds its exercises; `exercise` says what an exercise is.
"""

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.exercises import cpt, dpo, full, grpo, lora
from unsloth_course.lesson.exercises.asking import NotTried
from unsloth_course.lesson.exercises.cards import Card, Progress, Verdict, bar
from unsloth_course.lesson.exercises.exercise import Exercise
from unsloth_course.lesson.exercises.record import Record

__all__ = ["ALL", "LESSONS", "Exercise", "check", "find", "progress", "reset", "show"]

LESSONS = {  # in learning order
    "lora": "LoRA",
    "full": "full fine-tuning",
    "cpt": "continued pretraining",
    "dpo": "DPO",
    "grpo": "GRPO",
}
ALL: dict[str, Exercise] = {
    exercise.id: exercise for module in (lora, full, cpt, dpo, grpo) for exercise in module.EXERCISES
}


def find(exercise: str) -> Exercise:
    """The exercise of this id. Raises CourseError, with the ids that there are, for any other."""
    if not isinstance(exercise, str) or exercise not in ALL:
        raise CourseError(f"There is no exercise {exercise!r}; the exercises are {', '.join(ALL)}.")
    return ALL[exercise]


def show(exercise: str) -> Card:
    """The task of an exercise, the cell to begin with, and the hints that were earned so far.

    Raises CourseError for an unknown id.
    """
    found = find(exercise)
    record = Record()
    return Card(found, record.tries(found.id), record.note)


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
        return Verdict(found, "not tried", str(reason), record.tries(found.id), note=record.note)
    record = Record()
    tries = record.add(found.id, right=fault is None)
    members = [record.tries(one.id) for one in ALL.values() if one.lesson == found.lesson]
    solved = f"{LESSONS[found.lesson]} {bar(members)} solved."
    return Verdict(found, "wrong" if fault else "right", fault or "", tries, solved, record.note)


def progress(lesson: str | None = None) -> Progress:
    """What was solved so far: a bar for each lesson, or for one lesson a line for each of its exercises.

    Raises CourseError for an unknown lesson.
    """
    record = Record()
    members = [(one, record.tries(one.id)) for one in _chosen(lesson)]
    return Progress(members, lesson is not None, str(record.path or ""), record.note, LESSONS)


def reset(what: str | None = None) -> Progress:
    """Forgets the attempts at one exercise ("lora.2"), at one lesson ("lora"), or at all of them.

    Raises CourseError for a name that is neither.
    """
    forgotten = [find(what)] if what is not None and "." in str(what) else _chosen(what)
    Record().forget({one.id for one in forgotten})
    return progress(None if what is None else forgotten[0].lesson)


def _chosen(lesson: str | None) -> list[Exercise]:
    if lesson is not None and lesson not in LESSONS:
        raise CourseError(f"There is no lesson named {lesson!r}; the lessons with exercises are {', '.join(LESSONS)}.")
    return [one for one in ALL.values() if lesson in (None, one.lesson)]
