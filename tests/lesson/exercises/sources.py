"""The solutions as functions. Only tests execute them."""

from unsloth_course import exercises

ALL = list(exercises.ALL.values())


def solution(name):
    """The solution of the exercise with this id, as a function."""
    found, names = exercises.find(name), {}
    exec(compile(found.solution, f"<{name}>", "exec"), names)
    return names[found.function]
