"""The package's own source texts as functions. Only tests execute them."""

from unsloth_course import exercises

ALL = list(exercises.ALL.values())
WRONG = [(one, name) for one in ALL for name in one.wrong]


def build(exercise, text):
    """The function that a source text of this exercise defines."""
    names = {}
    exec(compile(text, f"<{exercise.id}>", "exec"), names)
    return names[exercise.function]


def solution(name):
    """The solution of the exercise with this id, as a function."""
    found = exercises.find(name)
    return build(found, found.solution)
