"""Solved problems: the estimate of pass@k, samples that follow a seed, and answers verified by their number."""

import itertools

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import evaluation
from unsloth_course.evaluation import Answers, Attempts, accuracy_score, is_solved, pass_at, sample

tries = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5)


@given(tries, st.integers(1, 4))
def test_pass_at_k_is_the_mean_over_all_choices_of_k_tries(right, k):
    chosen = [[any(pick) for pick in itertools.combinations(row, k)] for row in right]
    assert pass_at(k, right) == pytest.approx(sum(sum(row) / len(row) for row in chosen) / len(chosen))


@pytest.mark.parametrize(("k", "right"), [(1, []), (3, [[True, False]]), (0, [[True]])])
def test_pass_at_k_of_too_few_tries_is_refused(k, right):
    with pytest.raises(ValueError, match="pass@"):
        pass_at(k, right)


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
    assert (found.metric, found.before, found.after, found.interval) == ("accuracy", 0.0, 1.0, (1.0, 1.0))


def test_samples_follow_the_seed_and_leave_the_random_state_alone(load):
    import torch

    model, tokenizer = load()
    questions = ["What is 20 plus 30?", "Reverse the code ABC."]
    state = torch.random.get_rng_state()
    first = sample(model, tokenizer, questions, times=3, max_new_tokens=6, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert [len(row) for row in first] == [3, 3]
    assert first == sample(model, tokenizer, questions, times=3, max_new_tokens=6, seed=1)
    assert first != sample(model, tokenizer, questions, times=3, max_new_tokens=6, seed=2)


def test_solving_marks_each_problem(load):
    model, tokenizer = load()
    rows = Dataset.from_list([{"question": "What is 2 plus 2?", "answer": "2 + 2 = 4\n#### 4"}] * 2)
    found = evaluation.solve(model, tokenizer, rows, max_new_tokens=4)
    assert found.right == [is_solved(text, "#### 4") for text in found.given]
    assert found.expected == rows["answer"]


def test_attempts_are_samples_with_a_mark_for_each(load):
    model, tokenizer = load()
    rows = Dataset.from_list([{"question": f"What is {n} plus 2?", "answer": f"#### {n + 2}"} for n in (2, 30)])
    found = evaluation.attempt(model, tokenizer, rows, times=3, max_new_tokens=6, seed=1)
    assert found.given == sample(model, tokenizer, rows["question"], times=3, max_new_tokens=6, seed=1)
    assert found.right == [
        [is_solved(text, row["answer"]) for text in texts] for texts, row in zip(found.given, rows, strict=True)
    ]
    assert (found.questions, found.expected) == (rows["question"], rows["answer"])


def test_attempts_in_numbers_and_words():
    found = Attempts(
        ["a", "b"],
        ["#### 1"] * 2,
        [["#### 1"] * 4, ["1 = 1\n#### 1", "#### 1", "#### 2", "#### 2"]],
        [[True] * 4, [True, True, False, False]],
    )
    assert (found.pass_at(1), found.pass_at(4), found.worked, found.mixed) == (0.75, 1.0, 0.125, 1)
    assert str(found) == "pass@1 75.0 %, pass@4 100.0 % of 2 problems; 12.5 % of the tries show steps"


def test_where_no_problem_is_mixed_the_first_one_is_shown():
    marks = [[True] * 4, [True, False, False, False]]
    assert Attempts(["a"] * 2, ["#### 1"] * 2, [["#### 1"] * 4] * 2, marks).mixed == 0


def test_of_the_mixed_problems_the_one_with_most_steps_is_shown():
    marks = [True, True, False, False]
    bare, worked = ["#### 1"] * 4, ["1 = 1\n#### 1", *["#### 1"] * 3]
    found = Attempts(["a"] * 4, ["#### 1"] * 4, [bare, worked, worked, ["1 = 1"] * 4], [marks] * 3 + [[True] * 4])
    assert found.mixed == 1
