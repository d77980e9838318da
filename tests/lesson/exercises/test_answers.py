"""All fifteen exercises: the solution passes, in less than a second, and the texts are sentences and notebook code."""

import subprocess
import sys
import time

import pytest

from lesson.exercises.sources import ALL, solution
from unsloth_course import exercises

by_id = pytest.mark.parametrize("one", ALL, ids=lambda one: one.id)


def test_there_are_three_for_each_lesson():
    assert [one.id for one in ALL] == [f"{lesson}.{n}" for lesson in exercises.LESSONS for n in (1, 2, 3)]
    assert len({one.function for one in ALL}) == len({one.title for one in ALL}) == 15


@by_id
def test_a_check_takes_less_than_a_second(one):
    function = solution(one.id)

    def seconds():
        started = time.process_time()
        one.test(function)
        return time.process_time() - started

    assert min(seconds() for _ in range(3)) < 1


def test_checking_all_needs_no_torch():
    """Nor Unsloth, nor a network: the exercises work where only numpy is installed."""
    code = (
        "import sys, socket\n"
        "socket.socket.connect = lambda *a: sys.exit('a check opened a connection')\n"
        "sys.path.insert(0, 'tests')\n"
        "from lesson.exercises.sources import ALL, solution\n"
        "assert all(one.test(solution(one.id)) is None for one in ALL)\n"
        "print(sorted({'torch', 'unsloth', 'transformers', 'datasets', 'trl'} & sys.modules.keys()))"
    )
    root = __file__.rpartition("/tests/")[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_solutions_are_formatted_as_notebooks_are(tmp_path):
    for one in ALL:
        (tmp_path / f"{one.function}.py").write_text(one.solution + "\n", encoding="utf-8")
    command = ["ruff", "format", "--diff", "--isolated", "--line-length", "76", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert all(len(line) <= 76 for one in ALL for line in one.solution.splitlines())


@by_id
def test_hints_are_two_sentences(one):
    first, second = one.hints
    assert first != second and all(hint.strip() == hint and hint[-1] in ".?" and "!" not in hint for hint in one.hints)
    assert one.title[0].isupper() or one.title.startswith("pass@")
