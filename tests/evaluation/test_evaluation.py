"""Marks, intervals, chance, and the skills behind them: arithmetic first, the model last."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import evaluation, models, profile
from unsloth_course.data import general
from unsloth_course.evaluation import Answers, interval, is_exact, luck
from unsloth_course.pocket import datasets, skills


def answers(given, expected, skills=()):
    right = [is_exact(mine, theirs) for mine, theirs in zip(given, expected, strict=True)]
    return Answers([f"question {n}" for n in range(len(given))], list(expected), list(given), right, list(skills))


# Exact match


@pytest.mark.parametrize("given", ["58", " 58", "58\n", "\t58 "])
def test_white_space_around_an_answer_does_not_count(given):
    assert is_exact(given, "58")


@pytest.mark.parametrize(
    "given", ["", "5", "58.", "58 58", "58\nQuestion:", "58<|endoftext|>", "The sum is 58", "５８", "Rome "]
)
def test_everything_else_does(given):
    assert not is_exact(given, "58")


def test_capitals_count():
    assert not is_exact("rome", "Rome")


def test_an_answer_that_does_not_stop_is_wrong(monkeypatch):
    """The model's text is marked as far as it wrote, and not only its beginning."""
    from datasets import Dataset

    rows = Dataset.from_list([{"instruction": "What is 1 plus 1?", "input": "", "output": "2"}] * 2)
    monkeypatch.setattr(models, "answer", lambda model, tokenizer, questions, limit: ["2", "2\nQuestion:"])
    found = evaluation.ask(None, None, rows)
    assert found.right == [True, False]
    assert (found.share, str(found)) == (0.5, "1 of 2 right (50.0 %)")


def test_the_input_is_part_of_the_question(monkeypatch):
    from datasets import Dataset

    asked = []
    monkeypatch.setattr(models, "answer", lambda model, tokenizer, questions, limit: asked.extend(questions) or ["7"])
    rows = Dataset.from_list([{"instruction": "Add the two numbers.", "input": "3 and 4", "output": "7"}])
    found = evaluation.ask(None, None, rows)
    assert asked == found.questions == ["Add the two numbers.\n\n3 and 4"]
    assert found.skills == ["add"] and found.by_skill == {"add": 1.0}


def test_shares_by_skill():
    found = answers("aabb", "abbb", ["b", "b", "a", None])
    assert found.by_skill == {"a": 1.0, "b": 0.5}
    assert list(found.by_skill) == ["a", "b"]
    assert answers("ab", "ab").by_skill == {}
    assert answers("ab", "ab", [None, None]).by_skill == {}


# The interval


def test_no_change_has_no_width():
    assert interval([0, 1, 0, 1], [0, 1, 0, 1]) == (0.0, 0.0)


def test_the_same_change_everywhere_has_no_width():
    assert interval([0] * 50, [1] * 50) == (1.0, 1.0)
    assert interval([1] * 50, [0] * 50) == (-1.0, -1.0)


def test_it_is_paired():
    """The same shares, 50 % each: with the pairs kept there is nothing to doubt, with others there is."""
    before, swapped = [0, 1] * 50, [1, 0] * 50
    assert interval(before, before) == (0.0, 0.0)
    low, high = interval(before, swapped)
    assert low < -0.15 and high > 0.15


def test_it_agrees_with_the_normal_approximation():
    """A share of 0.3 of 400: standard error sqrt(0.3 * 0.7 / 400) = 0.0229, so 0.255 to 0.345."""
    after = [1] * 120 + [0] * 280
    low, high = interval([0] * 400, after)
    assert low == pytest.approx(0.3 - 1.96 * 0.0229, abs=0.005)
    assert high == pytest.approx(0.3 + 1.96 * 0.0229, abs=0.005)


def test_it_gives_the_same_numbers_twice_and_takes_booleans():
    before, after = [False, True, False, False, True] * 8, [True, True, False, True, True] * 8
    assert interval(before, after) == interval(before, after) == interval(list(map(int, before)), list(map(int, after)))
    spread = [number / 7 for number in range(40)]
    assert interval([0] * 40, spread, seed=1) != interval([0] * 40, spread, seed=2)


def test_it_covers_the_truth_about_as_often_as_it_says(monkeypatch):
    """200 simulated evaluations of 100 questions, each right with 0.4 before and 0.6 after: the change is 0.2."""
    monkeypatch.setattr(evaluation.scores, "RESAMPLES", 1000)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        before, after = rng.random(100) < 0.4, rng.random(100) < 0.6
        low, high = interval(before, after)
        covered += low <= 0.2 <= high
    assert 0.90 <= covered / 200 <= 0.99


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_it_is_around_the_mean_and_within_bounds(pairs):
    before, after = zip(*pairs, strict=True)
    low, high = interval(before, after)
    mean = np.mean(after) - np.mean(before)
    assert -1 <= low <= mean + 1e-9 and mean - 1e-9 <= high <= 1


def test_other_numbers_of_questions_do_not_fit():
    with pytest.raises(ValueError):
        interval([0, 1], [1])
    with pytest.raises(ValueError):
        interval([1], [0, 1])
    with pytest.raises(ValueError, match="at least one question"):
        interval([], [])


# Chance


def test_luck_is_the_share_of_the_other_questions_that_an_answer_fits():
    found = answers(["odd", "odd", "odd", "7"], ["odd", "odd", "even", "even"])
    assert luck(found) == [1 / 3, 1 / 3, 2 / 3, 0.0]


def test_luck_stays_within_a_skill():
    found = answers(["odd", "odd", "red", "red"], ["odd", "even", "red", "odd"], ["even", "even", "colour", "colour"])
    assert luck(found) == [0.0, 1.0, 0.0, 1.0]


def test_a_skill_with_one_question_is_compared_with_all():
    found = answers(["red", "odd", "odd"], ["red", "odd", "red"], ["colour", "even", "even"])
    assert luck(found) == [1 / 2, 0.0, 1.0]


def test_one_question_alone_has_no_luck():
    assert luck(answers(["red"], ["red"])) == [0.0]


def test_answers_dealt_out_at_random_are_right_as_often_as_luck_says():
    rng = random.Random(0)
    wanted = [rng.choice(["odd", "even", "red", "blue", "7"]) for _ in range(2000)]
    dealt = wanted[:]
    rng.shuffle(dealt)
    found = answers(dealt, wanted)
    assert sum(luck(found)) / 2000 == pytest.approx(0.2, abs=0.02)
    assert found.share == pytest.approx(0.2, abs=0.03)
    low, high = interval(luck(found), found.right)
    assert low < 0 < high


def test_a_score_holds_both_comparisons():
    before = answers(["x"] * 100, [str(n) for n in range(100)])
    after = answers([str(n) for n in range(80)] + ["x"] * 20, [str(n) for n in range(100)])
    kept = answers("aaab", "aaaa"), answers("aabb", "aaaa")
    score = evaluation.score(before, after, kept)
    assert (score.metric, score.n, score.before, score.after) == ("exact_match", 100, 0.0, 0.8)
    assert score.interval == interval(before.right, after.right)
    assert score.interval[0] < 0.8 < score.interval[1]
    assert score.retention == evaluation.Retention("exact_match", 0.75, 0.5)
    assert score.chance == 0.0 and score.above_chance == score.interval
    assert evaluation.score(before, after).retention is None


# Recall


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" Paris.", "Paris"),
        ("Paris, the city of light", "Paris"),
        ("the city of Paris.", "Paris"),
        ("paris", "Paris"),
        ("\n\nParis\nThe capital of Italy is Rome", "Paris"),
        ("65<|endoftext|>Question:", "65"),
        ("82 minus 17 is 65.", "65"),
        ("H2O.", "H2O"),
        ("made of (ice)", "ice"),
        ('the "East"!', "east"),
    ],
)
def test_an_answer_alone_or_at_the_end_of_a_sentence_is_recalled(text, answer):
    assert evaluation._recalled(text, answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "Paris"),
        ("   \n ", "Paris"),
        ("<|endoftext|>Paris", "Paris"),
        ("Rome\nParis", "Paris"),
        ("Parisian", "Paris"),
        ("not the Paris that we know", "Paris"),
        ("655", "65"),
        ("165", "65"),
        ("65a", "65"),
        ("rice", "ice"),
        ("AxB", "A.B"),
        ("(", "("),
    ],
)
def test_anything_else_is_not(text, answer):
    assert not evaluation._recalled(text, answer)


@given(st.text(), st.text(min_size=1))
def test_no_text_breaks_it(text, answer):
    assert evaluation._recalled(text, answer) in (True, False)


# Probes


def test_the_bundled_model_is_probed_on_skills_that_no_lesson_trains():
    found = evaluation.probes(profile.decide(CPU))
    assert set(found["skill"]) == {skill.name for skill in skills.UNTOUCHED}
    assert all(found["skill"].count(skill.name) == evaluation.PROBES_EACH for skill in skills.UNTOUCHED)
    assert found["prompt"] == evaluation.probes(profile.decide(CPU))["prompt"]


def test_a_hub_model_is_probed_on_general_knowledge():
    found = evaluation.probes(profile.decide(CPU, model=profile.HUB_MODEL))
    assert list(zip(found["prompt"], found["answer"], strict=True)) == list(general.FACTS)
    assert set(found["skill"]) == {"general"}


CPU = profile.Machine(None, 0, False, 2, 8 * 1024**3, False)


def test_the_general_facts_are_sixty_plain_ones():
    assert len(general.FACTS) == 60
    assert len({prompt for prompt, _ in general.FACTS}) == 60
    for prompt, answer in general.FACTS:
        assert prompt == prompt.strip() and answer == answer.strip() and answer
        assert not prompt.endswith("."), "a finished sentence leaves nothing to say"
        assert answer.lower() not in prompt.lower().split(), "the answer is in the question"
        assert evaluation._recalled(f" {answer}.", answer)


# What changed


def test_changed_gives_first_what_came_and_then_what_went():
    before, after = answers("abcdxx", "abxxxx"), answers("axxxbx", "abxxxx")
    assert evaluation.changed(before, after, {True: 3, False: 3}) == [
        ("question 2", "x", "c", "x"),
        ("question 3", "x", "d", "x"),
        ("question 1", "b", "b", "x"),
        ("question 4", "x", "x", "b"),
    ]
    assert evaluation.changed(before, after, {True: 1}) == [("question 2", "x", "c", "x")]
    assert evaluation.changed(before, after, {False: 1}) == [("question 1", "b", "b", "x")]
    assert evaluation.changed(before, before, {True: 3, False: 3}) == []


# The model itself


def test_the_base_fails_in_chat_and_recalls_what_it_read(load, machine):
    model, tokenizer = load()
    asked = evaluation.ask(model, tokenizer, datasets.instructions(48, held_out=True, seed=5))
    kept = evaluation.recall(model, tokenizer, datasets.probes(12, seed=5))
    assert asked.share <= 0.05
    assert kept.share >= 0.9
    assert set(asked.by_skill) == {skill.name for skill in skills.TAUGHT}
    assert set(kept.by_skill) == {skill.name for skill in skills.UNTOUCHED}


def test_a_short_run_is_better_than_chance(healthy):
    score = evaluation.score(healthy.before, healthy.after)
    assert score.after > 0.7
    assert score.chance < 0.25 and score.above_chance[0] > 0.4
