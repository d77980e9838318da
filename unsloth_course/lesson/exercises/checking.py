"""What a learner calls: an answer is checked and counted, and what was solved is shown."""

from unsloth_course.core.errors import CourseError
from unsloth_course.core.lessons import NAMES as LESSONS
from unsloth_course.lesson.exercises import cpt, dpo, full, grpo, lora
from unsloth_course.lesson.exercises.asking import Exercise, NotTried
from unsloth_course.lesson.exercises.cards import Progress, Verdict, bar
from unsloth_course.lesson.exercises.record import Record

FOUND = [one for module in (lora, full, cpt, dpo, grpo) for one in vars(module).values() if isinstance(one, Exercise)]
ALL = {one.id: one for one in FOUND}


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
