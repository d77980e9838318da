"""Answers in the preferred way: likeness, ties, and being right."""

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import evaluation
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.evaluation import Surprise, preference_score
from unsloth_course.lesson.evaluation.preferring import (
    ALIKE,
    PairLikelihood,
    Preferred,
    is_correct,
    is_preferred,
    likeness,
)

SENTENCE = "The last letter of ADSP is P."


@pytest.mark.parametrize(
    ("given", "preferred", "correct"),
    [
        (SENTENCE, True, True),
        ("The last letter of ADSP is Q.", True, False),
        ("P", False, True),
        ("P.", False, True),
        ("Q", False, False),
        ("", False, False),
        ("The last letter of ADSP is P. The last", True, False),
        ("The last letter of ADSP is P.\nIt is P", True, False),
        ("ADSPP in alphabetical order is ADPPS.", False, False),
        ("P\\n\\nQuestion:\\nWhat is the letter of the code?\\nAnswer:\\nThe last", False, False),
        ("ADSP ends with P.", False, True),
    ],
)
def test_the_way_and_the_truth_are_marked_apart(given, preferred, correct):
    assert is_preferred(given, SENTENCE, "P", at_least=ALIKE) is preferred
    assert is_correct(given, "P") is correct


@given(st.text(), st.text())
def test_likeness_is_a_share_and_a_text_is_most_like_itself(first, second):
    assert 0 <= likeness(first, second) <= 1
    assert not is_preferred(first, second, second)
    assert not is_preferred(first, "", first)


@given(st.text(), st.text(max_size=20))
def test_any_text_can_be_marked(text, short):
    assert is_correct(text, short) in (True, False)


def made(preferred, correct):
    count = len(preferred)
    return Preferred(["q"] * count, ["c"] * count, ["r"] * count, ["g"] * count, preferred, correct)


def test_the_score_holds_the_interval_and_what_became_of_being_right():
    before, after = made([False] * 40, [True] * 40), made([True] * 30 + [False] * 10, [True] * 20 + [False] * 20)
    found = preference_score(before, after)
    assert (found.metric, found.before, found.after) == ("preference_rate", 0.0, 0.75)
    assert 0.55 < found.interval[0] < 0.75 < found.interval[1] < 0.9
    assert (found.correctness.before, found.correctness.after) == (1.0, 0.5)
    assert "30 of 40 in the preferred way (75.0 %), 20 right (50.0 %)" in str(after)
    assert found.values() == {"preference rate": 0.75, "length": 1.0, "right": 0.5}
    assert found.values("before") == {"preference rate": 0.0, "length": 1.0, "right": 1.0}


def nats(*losses):
    return Surprise(list(losses), [10] * len(losses), [30] * len(losses))


def test_preference_accuracy_is_what_the_chosen_answers_gained():
    before = PairLikelihood(nats(*[40.0] * 10), nats(*[30.0] * 10))
    gained = PairLikelihood(nats(*[30.0] * 9, 46.0), nats(*[35.0] * 10))
    lost = PairLikelihood(nats(*[50.0] * 10), nats(*[20.0] * 10))
    written = made([False] * 10, [])

    def measured(now):
        score = preference_score(written, written, likelihood=(before, now), beta=0.1)
        return score.judge, {one.name: one for one in score.measures}

    judge, measures = measured(gained)
    assert (judge.name, judge.before, judge.after, judge.n) == ("preference_accuracy", 0.5, 0.9, 10)
    assert judge.interval == pytest.approx((0.5958 - 0.5, 0.9821 - 0.5), abs=1e-3)  # Wilson's, of 9 of 10
    assert list(measures) == ["preference_accuracy", "margin", "chosen_perplexity", "length"]
    assert measures["margin"].after == pytest.approx(0.1 * (9 * 15 - 1) / 10) and measures["margin"].interval[0] > 0
    assert (measures["chosen_perplexity"].likelier, measures["length"].after) == (9, 1.0)
    assert measured(lost)[0].better[1] < 0, "swapped: clearly below the coin"
    same = measured(before)[0]
    assert same.after == 0.5 and same.better[0] < 0 < same.better[1], "an untrained model is a coin"
    assert preference_score(written, written).judge.name == "preference_rate"


def test_the_likelihood_of_pairs_leaves_out_what_is_cut_on_one_side(load):
    model, tokenizer = load()
    asked = [[{"role": "user", "content": text}] for text in ("What is 2 plus 2?", "Why? " * 300)]
    rows = Dataset.from_list([{"prompt": turns, "chosen": "It is 4.", "rejected": "4"} for turns in asked])
    found = evaluation.pair_likelihood(model, tokenizer, rows, 64)
    assert len(found.chosen.losses) == len(found.rejected.losses) == 1
    spoken = [{"prompt": asked[0], "completion": [{"role": "assistant", "content": "4"}]}]
    assert found.rejected.losses == pytest.approx(
        evaluation.answer_perplexity(model, tokenizer, spoken, 64).losses, rel=1e-4
    )
    with pytest.raises(CourseError, match=r"Of 1 held-out rows none .* Raise --max-length"):
        evaluation.pair_likelihood(model, tokenizer, rows.select([1]), 64)


def test_an_essay_that_was_cut_off_is_compared_with_beginnings(monkeypatch, load):
    """Beside whole texts the shorter one would always be nearer, whatever is written."""
    from unsloth_course import models

    good = "Water boils at one hundred degrees because its vapour then presses as hard as the air around it does."
    bad = "The answer depends on many things and I cannot say."
    begun = {"good": "Water boils at one hundred degrees", "bad": "The answer depends on many things"}
    _, tokenizer = load()
    rows = [
        {"prompt": [{"role": "user", "content": "Why?"}], "chosen": text, "rejected": other}
        for text, other in ((good, bad), (good, bad), (bad, good), (bad, good), (good, bad))
    ]
    given = [begun["good"], begun["bad"], begun["good"], begun["bad"], ""]
    monkeypatch.setattr(models, "complete", lambda *arguments: given)
    found = evaluation.prefer(None, tokenizer, Dataset.from_list(rows))
    assert found.preferred == [True, False, False, True, False]
    assert found.correct == []


def test_essays_have_no_correctness(load):
    model, tokenizer = load()
    row = {"prompt": [{"role": "user", "content": "What is 2 plus 2?"}], "chosen": "Four.", "rejected": "long " * 20}
    found = evaluation.prefer(model, tokenizer, Dataset.from_list([row] * 2), max_new_tokens=4)
    assert found.correct == [] and found.correctness is None
    assert found.preferred == [is_preferred(text, "Four.", "long " * 20) for text in found.given]
    assert preference_score(found, found).correctness is None
