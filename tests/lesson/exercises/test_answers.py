"""All fifteen exercises: the solution passes, the stub is no attempt, and each of the 45 wrong answers is found out."""

import subprocess
import sys
import time

import pytest

from lesson.exercises.sources import ALL, WRONG, build
from unsloth_course import exercises
from unsloth_course.lesson.exercises.asking import NotTried

WIDTH = 76
by_id = pytest.mark.parametrize("one", ALL, ids=lambda one: one.id)
by_wrong = pytest.mark.parametrize(("one", "name"), WRONG, ids=lambda value: getattr(value, "id", value))


def test_there_are_three_for_each_lesson_and_45_wrong_answers():
    assert [one.id for one in ALL] == [f"{lesson}.{n}" for lesson in exercises.LESSONS for n in (1, 2, 3)]
    assert len(WRONG) == 45 and all(len(one.wrong) == 3 and len(one.hints) == 2 for one in ALL)
    assert len({one.function for one in ALL}) == len({one.title for one in ALL}) == 15


@by_id
def test_the_solution_passes(one):
    assert one.test(build(one, one.solution)) is None


@by_id
def test_the_stub_is_no_answer(one):
    with pytest.raises(NotTried, match=f"`{one.function}` still returns"):
        one.test(build(one, one.stub))


@by_wrong
def test_a_wrong_answer_is_found_out(one, name):
    found = one.test(build(one, one.wrong[name]))
    assert found is not None, "this wrong answer passes"
    assert found.startswith(f"{one.function}(") and found.endswith(".") and "\n" not in found
    # It is a wrong answer and not a broken one: it is refused for what it says, or where its fault is to raise.
    assert ("raised" in found) == (name in ("overflows", "raises where there is no number")), found


@by_wrong
def test_a_wrong_answer_is_a_plausible_one(one, name):
    """It answers the first question that is asked, so that a learner could believe in it."""

    class Answered(Exception):
        pass

    function = build(one, one.wrong[name])

    def first(*arguments, **keywords):
        assert function(*arguments, **keywords) is not None
        raise Answered

    assert "raised Answered" in one.test(first)


@by_id
def test_a_check_takes_less_than_a_second(one):
    function = build(one, one.solution)

    def seconds():
        started = time.perf_counter()
        one.test(function)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) < 1


@by_id
def test_a_check_says_the_same_every_time(one):
    for text in one.wrong.values():
        function = build(one, text)
        # Whoever draws from the global generator gets another list each time; what is wrong with it stays.
        first, second = (one.test(function) for _ in range(2))
        assert first == second or "random.sample(general" in text


def test_checking_all_needs_no_torch():
    """Nor Unsloth, nor a network: the exercises work where only numpy is installed."""
    code = (
        "import sys, socket\n"
        "socket.socket.connect = lambda *a: sys.exit('a check opened a connection')\n"
        "sys.path.insert(0, 'tests')\n"
        "from lesson.exercises.sources import ALL, build\n"
        "assert all(one.test(build(one, one.solution)) is None for one in ALL)\n"
        "print(sorted({'torch', 'unsloth', 'transformers', 'datasets', 'trl'} & sys.modules.keys()))"
    )
    root = __file__.rpartition("/tests/")[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# What is shown


@by_id
def test_texts_fit_a_notebook(one):
    for text in (one.prose, one.cell, one.solution, *one.wrong.values()):
        assert max(map(len, text.splitlines())) <= WIDTH
    assert len(one.prose.split()) <= 90
    assert len([line for line in one.cell.splitlines() if line]) <= 3


def test_source_texts_are_formatted_as_notebooks_are(tmp_path):
    for one in ALL:
        texts = {"stub": one.stub, "cell": one.cell, "solution": one.solution, **one.wrong}
        for number, text in enumerate(texts.values()):
            (tmp_path / f"{one.function}_{number}.py").write_text(text + "\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--diff",
        "--isolated",
        "--line-length",
        str(WIDTH),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@by_id
def test_the_stub_has_the_solutions_signature(one):
    def signature(text):
        (line,) = [line for line in text.splitlines() if line.startswith("def ")]
        return line

    assert signature(one.stub) == signature(one.solution)
    assert {signature(text) for text in one.wrong.values()} == {signature(one.stub)}


@by_id
def test_hints_are_sentences_and_only_the_second_gives_code(one):
    first, second = one.hints
    assert first != second and all(hint.strip() == hint and hint[-1] in ".?" for hint in one.hints)
    assert one.title[0].isupper() or one.title.startswith("pass@")


def test_tasks_hold_no_exclamation():
    said = " ".join(" ".join([one.prose, *one.hints]) for one in ALL)
    assert "!" not in said
