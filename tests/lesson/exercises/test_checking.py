"""check and progress, as a learner calls them."""

import json

import pytest

from lesson.exercises.sources import ALL, solution
from lesson.pages import Page
from unsloth_course import exercises
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.exercises.record import Tries


def wrong(shapes, rank):
    return sum(rank * a * b for a, b in shapes)


def stub(*_, **__):
    return ...


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.id)
def test_hint_hint_solution(one):
    """The whole way of one exercise: untouched, four wrong answers, and then the right one."""
    assert exercises.check(one.id, stub).state == "not tried"
    verdicts = [exercises.check(one.id, lambda *_, **__: 0) for _ in range(4)]
    first, second, third, fourth = map(str, verdicts)
    assert one.hints[0] in first and one.hints[1] not in first and "def " not in first
    assert all(hint in second for hint in one.hints) and "def " not in second
    for shown in (third, fourth):
        assert all(line in shown for line in one.solution.splitlines()) and "Hint" not in shown
    assert not any(verdicts)
    right = exercises.check(one.id, solution(one.id))
    assert right and right.state == "right" and right.tries == Tries(4, 5)
    assert "1 of 3 solved" in str(right) and "Hint" not in str(right) and "def " not in str(right)
    assert str(right).rpartition("holds. ")[2][0].isupper()  # also of a lesson whose name begins with a small letter


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.id)
@pytest.mark.parametrize("nothing", [stub, None, ...])
def test_an_untouched_cell_counts_nothing_and_writes_nothing(one, nothing, file):
    for _ in range(5):
        verdict = exercises.check(one.id, nothing)
        assert not verdict and verdict.state == "not tried" and verdict.tries == Tries()
        assert "not tried" in str(verdict) and "Hint" not in str(verdict) and "othing was counted" in str(verdict)
    assert not file.exists()


def test_the_verdict_of_an_untouched_cell_does_not_depend_on_earlier_attempts():
    """So that stored outputs are the same on every machine."""
    before = str(exercises.check("lora.1"))
    exercises.check("lora.1", wrong)
    exercises.check("lora.1", solution("lora.1"))
    assert str(exercises.check("lora.1")) == before


def test_what_is_solved_stays_solved():
    assert exercises.check("lora.1", solution("lora.1")).tries == Tries(0, 1)
    assert exercises.check("lora.1", wrong).tries == Tries(1, 1)
    assert exercises.check("lora.1", solution("lora.1")).tries == Tries(1, 1)
    assert exercises.progress("lora").solved == 1


@pytest.mark.parametrize("name", ["lora.4", "lora", "", "LoRA.1", 3, None, ["lora.1"]])
def test_an_unknown_exercise_is_a_sentence_with_the_ids(name, file):
    for call in (exercises.check, exercises.find):
        with pytest.raises(CourseError, match=r"There is no exercise .*; the exercises are lora\.1, .*, grpo\.3\.$"):
            call(name)
    assert not file.exists()


def test_progress_is_a_bar_for_each_lesson():
    exercises.check("lora.1", solution("lora.1"))
    exercises.check("lora.3", solution("lora.3"))
    exercises.check("cpt.2", lambda *_: 0)
    exercises.check("grpo.1")
    assert str(exercises.progress()).splitlines() == [
        "    LoRA                   [#.#]  2 of 3",
        "    full fine-tuning       [...]  0 of 3",
        "    continued pretraining  [.-.]  0 of 3",
        "    DPO                    [...]  0 of 3",
        "    GRPO                   [...]  0 of 3",
        "    all                    2 of 15 solved",
        "    # solved, - tried, . not tried",
    ]


def test_progress_of_a_lesson_names_its_exercises():
    for _ in range(2):
        exercises.check("lora.1", wrong)
    for _ in range(3):
        exercises.check("lora.2", lambda *_: 0)
    exercises.check("lora.2", solution("lora.2"))
    lines = [line.strip() for line in str(exercises.progress("lora")).splitlines()]
    assert lines[1:4] == [
        "lora.1  What an adapter trains: tried 2 times",
        "lora.2  Merge: solved at attempt 4, after the solution was shown",
        "lora.3  Which tokens are trained: not tried",
    ]


def test_progress_as_json(file):
    exercises.check("full.3", solution("full.3"))
    exercises.check("full.2", lambda *_: 0)
    found = json.loads(exercises.progress("full").to_json())
    assert (found["solved"], found["total"], found["file"], found["note"]) == (1, 3, str(file), "")
    assert [(row["id"], row["solved"], row["attempts"]) for row in found["exercises"]] == [
        ("full.1", False, 0),
        ("full.2", False, 1),
        ("full.3", True, 1),
    ]
    assert {row["lesson"] for row in found["exercises"]} == {"full"}


def test_html_is_escaped():
    def evil(shapes, rank):
        raise ValueError("<script>alert(1)</script> & <b>`x`</b>")

    for _ in range(4):
        page = exercises.check("lora.1", evil)._repr_html_()
        assert "<script" not in page and "&lt;script&gt;" in page and "&amp;" in page
        assert "<code>x</code>" in page
    page = exercises.check("dpo.2", lambda a, b: "<img src=x onerror=alert(1)>")._repr_html_()
    assert "<img" not in page


def test_every_html_is_well_formed_and_every_text_plain():
    for one in ALL:
        for _ in range(4):
            shown = [exercises.check(one.id, lambda *_, **__: "a < b & c"), exercises.progress(one.lesson)]
            assert {tag for found in shown for tag, _ in Page(found._repr_html_()).tags} <= {"p", "b", "code", "pre"}
            assert set("".join(map(str, shown))) <= {*map(chr, range(128)), "·"}
