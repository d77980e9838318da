"""Solved problems: the estimate of pass@k, samples that follow a seed, and answers verified by their number."""

import itertools
import re
from contextlib import nullcontext

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import evaluation
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.evaluation import Answers, accuracy_score, intervals
from unsloth_course.lesson.evaluation.solving import Attempts, is_solved, pass_at

tries = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5)


@given(tries, st.integers(1, 4))
def test_pass_at_k_is_the_mean_over_all_choices_of_k_tries(right, k):
    chosen = [[any(pick) for pick in itertools.combinations(row, k)] for row in right]
    assert pass_at(k, right) == pytest.approx(sum(sum(row) / len(row) for row in chosen) / len(chosen))


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("3 * 4 = 12\n#### 12", True),
        ("#### 12", True),
        ("12", False),
        ("#### 13", False),
        ("", False),
        ("#### 12\n#### 13", False),
    ],
)
def test_an_answer_is_verified_by_its_final_number(given, right):
    assert is_solved(given, "6 * 2 = 12\n#### 12") is right


def test_the_score_of_verified_answers():
    before, after = (Answers(["q"] * 40, ["#### 1"] * 40, ["x"] * 40, [mark] * 40) for mark in (False, True))
    found = accuracy_score(before, after)
    assert (found.metric, found.before, found.after, found.judge.name) == ("accuracy", 0.0, 1.0, "accuracy")
    assert found.interval == found.judge.interval == pytest.approx((0.876, 1.0), abs=0.001)


def tried(*problems):
    """Tries of problems whose answer is 1: "=" shows steps, "!" does not end, and what is not 1 is wrong."""
    given = [[text.rstrip("!") for text in texts] for texts in problems]
    right = [[is_solved(text, "#### 1") for text in texts] for texts in given]
    ended = [[not text.endswith("!") for text in texts] for texts in problems]
    return Attempts(["q"] * len(problems), ["#### 1"] * len(problems), given, right, ended)


WORKED, BARE, WRONG, RAMBLING = "0 + 1 = 1\n#### 1", "#### 1", "1 + 1 = 2\n#### 2", "0 + 1 = 1\n#### 1!"


def test_tries_with_and_without_steps_are_counted_apart():
    found = tried([WORKED, BARE, WRONG, RAMBLING], ["#### 2", "none", WORKED + "\n#### 1", WRONG])
    assert (found.worked, found.ends, found.worked_ends) == (5 / 8, 5 / 8, 3 / 5)
    assert (found.accuracy_of(True), found.accuracy_of(False)) == ((3, 5), (1, 3))


def test_what_tries_show_is_measured_by_the_problem():
    before, after = tried(*[[BARE, "none", WRONG, "none"]] * 20), tried(*[[WORKED, WORKED, WRONG, "#### 2"]] * 20)
    asked = Answers(["q"] * 20, ["#### 1"] * 20, ["x"] * 20, [False] * 20)
    found = {measure.name: measure for measure in accuracy_score(asked, asked, tries=(before, after)).measures}
    assert list(found) == [
        "accuracy",
        "pass_at_1",
        "pass_at_4",
        "worked",
        "accuracy_with_steps",
        "accuracy_without_steps",
    ]
    assert [(one.before, one.after, one.n) for one in found.values()][1:] == [
        (0.25, 0.5, 20),
        (1.0, 1.0, 20),
        (0.25, 0.75, 20),
        (0.0, 2 / 3, 60),
        (pytest.approx(1 / 3), 0.0, 20),
    ]
    assert found["pass_at_1"].interval == (0.25, 0.25) and found["accuracy_with_steps"].interval[0] > 0.4
    low, high = found["pass_at_4"].interval
    assert low < -0.1 and high > 0.1, "solved at the first and at the second time, and not without doubt"
    only_bare = accuracy_score(asked, asked, tries=(tried([BARE, BARE]), tried([WORKED, BARE]))).measures
    assert "accuracy_with_steps" not in {measure.name for measure in only_bare}


def test_two_tries_show_little():
    before, after = (
        tried(*[[BARE, "none", "none", WORKED]] * 20),
        tried([BARE + "2", BARE, WORKED, WORKED], *[[WORKED] * 4] * 19),
    )
    asked = Answers(["q"] * 20, ["#### 1"] * 20, ["x"] * 20, [False] * 20)
    found = {measure.name: measure for measure in accuracy_score(asked, asked, tries=(before, after)).measures}
    low, high = found["accuracy_without_steps"].interval
    assert found["accuracy_without_steps"].n == 2 and low < -0.2 and high > 0.5
    # The published example: 56 of 70 and 48 of 80.
    assert intervals.apart((48, 80), (56, 70)) == pytest.approx((0.0524, 0.3339), abs=1e-4)


@pytest.mark.parametrize(
    ("problem", "opened", "words"),
    [
        ([WORKED, *[WRONG] * 7], True, "The gate is open: 100% of the tries with steps end as they should, and there"),
        ([BARE, *["#### 2"] * 7], False, "No try shows a step. Mix more worked rows into the warm-up"),
        ([*[RAMBLING] * 3, *[WRONG] * 5], False, "Only 62% of the tries with steps end by themselves"),
        ([WORKED] * 8, False, "little left to sort (pass@1 100%, pass@8 100%). Take harder problems."),
        ([WRONG] * 8, False, "hardly ever right (pass@1 0%, pass@8 0%)"),
    ],
)
def test_the_gate_says_what_to_change(problem, opened, words):
    found = evaluation.gate(tried(*[problem] * 5))
    assert found.open is opened and words in str(found) == found.text
    with nullcontext() if opened else pytest.raises(CourseError, match=re.escape(words)):
        found.require()


def test_solving_marks_each_problem(load):
    model, tokenizer = load()
    rows = Dataset.from_list([{"question": "What is 2 plus 2?", "answer": "2 + 2 = 4\n#### 4"}] * 2)
    found = evaluation.solve(model, tokenizer, rows, max_new_tokens=4)
    assert found.right == [is_solved(text, "#### 4") for text in found.given]
    assert found.expected == rows["answer"]


def test_attempts_follow_the_seed_leave_the_random_state_alone_and_are_marked(load):
    import torch

    model, tokenizer = load()
    rows = Dataset.from_list([{"question": f"What is {n} plus 2?", "answer": f"#### {n + 2}"} for n in (2, 30)])
    state = torch.random.get_rng_state()
    found, again, other = (
        evaluation.attempt(model, tokenizer, rows, times=3, max_new_tokens=6, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert found == again and found.given != other.given and [len(row) for row in found.given] == [3, 3]
    assert found.right == [
        [is_solved(text, row["answer"]) for text in texts] for texts, row in zip(found.given, rows, strict=True)
    ]
    assert (found.questions, found.expected) == (rows["question"], rows["answer"])
    assert [len(marks) for marks in found.ended] == [3, 3] and not any(map(any, found.ended)), (
        "six tokens are no answer"
    )


def test_attempts_in_numbers_and_words():
    found = Attempts(
        ["a", "b"],
        ["#### 1"] * 2,
        [["#### 1"] * 4, ["1 = 1\n#### 1", "#### 1", "#### 2", "#### 2"]],
        [[True] * 4, [True, True, False, False]],
    )
    assert (found.worked, found.mixed) == (0.125, 1)
    assert str(found).splitlines() == [
        "pass@1 75.0 %, pass@4 100.0 % of 2 problems",
        "100.0 % of the tries end by themselves with one `#### number`",
        "12.5 % show steps: 1 of 1 are right; without steps 5 of 7",
    ]


def test_of_the_mixed_problems_the_one_with_most_steps_is_shown_and_without_one_the_first():
    marks = [True, True, False, False]
    bare, worked = ["#### 1"] * 4, ["1 = 1\n#### 1", *["#### 1"] * 3]
    found = Attempts(["a"] * 4, ["#### 1"] * 4, [bare, worked, worked, ["1 = 1"] * 4], [marks] * 3 + [[True] * 4])
    assert found.mixed == 1
    marks = [[True] * 4, [True, False, False, False]]
    assert Attempts(["a"] * 2, ["#### 1"] * 2, [["#### 1"] * 4] * 2, marks).mixed == 0
