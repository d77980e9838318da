"""The comparison that a round trip ends with, and its sentences; no model is needed."""

import copy

import pytest

from unsloth_course.errors import CourseError
from unsloth_course.export import proof


def reading(count: int = 60) -> dict:
    return {
        "prompts": [f"<user>{n}<end>" for n in range(count)],
        "prompt_tokens": [[5, n, 6] for n in range(count)],
        "stop": {"id": 2, "text": "<end>"},
        "answers": [{"tokens": [n, n + 1], "text": str(n), "stopped": True} for n in range(count)],
    }


EXPECTED = [str(n) for n in range(60)]


def changed(change) -> dict:
    made = copy.deepcopy(reading())
    change(made)
    return made


def test_the_same_reading_has_no_difference():
    assert proof.first_difference(reading(), reading()) == ""
    assert proof.same_answers(reading(), reading()) == 50
    assert proof.score(reading(), EXPECTED) == 1.0
    proof.require_same("it", "merged", reading(), reading(), EXPECTED)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r["prompts"].__setitem__(1, "<user>1</s>"), "prompt 2 differs at character 9, 'end>' became '/s>'"),
        (lambda r: r["prompt_tokens"][2].insert(0, 1), "prompt 3 is split otherwise: token 1, 5 became 1"),
        (lambda r: r["prompt_tokens"][2].pop(), "token 3, 6 became the end"),
        (lambda r: r["stop"].update(id=0, text="<x>"), "stop token is another one: '<end>' (2) became '<x>' (0)"),
        (lambda r: r["answers"][7]["tokens"].__setitem__(1, 99), "prompt 8 differs at token 2: 8 became 99"),
        (lambda r: r["answers"][7].update(stopped=False), "prompt 8 no longer stops by itself"),
    ],
)
def test_the_first_difference_is_named(change, sentence):
    assert sentence in proof.first_difference(reading(), changed(change))
    with pytest.raises(CourseError, match=r"The round trip of model\.f16\.gguf failed: "):
        proof.require_same("model.f16.gguf", "f16", reading(), changed(change), EXPECTED)


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_a_small_quant_may_answer_otherwise_within_three_points_of_score(wrong):
    def worse(made):
        for row in made["answers"][:wrong]:
            row.update(text="?", tokens=[row["tokens"][0]])

    found = changed(worse)
    if wrong < 2:  # 1 of 60 is 1.7 points, 2 are 3.3
        proof.require_same("it", "q4_k_m", reading(), found, EXPECTED)
    else:
        with pytest.raises(
            CourseError, match=r"it scores 96\.7 % .* 100\.0 %; 3 points .* prompt 1 differs at token 2"
        ):
            proof.require_same("it", "q4_k_m", reading(), found, EXPECTED)


def test_a_small_quant_must_have_template_and_stop_token_too():
    with pytest.raises(CourseError, match="stop token"):
        proof.require_same("it", "q4_k_m", reading(), changed(lambda r: r["stop"].update(id=7)), EXPECTED)


def test_an_answer_that_does_not_stop_is_not_exact():
    assert proof.score(changed(lambda r: r["answers"][0].update(stopped=False)), EXPECTED) == pytest.approx(59 / 60)


def test_where_llama_cpp_stops_at_a_token_of_its_own_the_answers_are_compared_up_to_there():
    ours = changed(lambda r: r["answers"][0].update(tokens=[9, 0, 7, 7], stopped=False))
    theirs = changed(lambda r: r["answers"].__setitem__(0, proof._answer([9, 0], "x", True, stop=2)))
    assert proof.first_difference(ours, theirs) == "" and proof.same_answers(ours, theirs) == 50
    assert proof.score(theirs, EXPECTED) == proof.score(ours, EXPECTED) == pytest.approx(59 / 60)
    assert proof._answer([9, 2], "x", True, stop=2)["tokens"] == [9]
    theirs["answers"][0]["tokens"] = [9, 1]
    assert "prompt 1 differs at token 2: 0 became 1" in proof.first_difference(ours, theirs)


@pytest.mark.parametrize(("lead", "holds"), [(0.05, True), (0.5, False)])
def test_a_tie_that_rounding_decides_is_shown_but_no_failure(lead, holds):
    ours = changed(lambda r: r["answers"][3].update(leads=[9.0, lead, 9.0]))
    theirs = changed(lambda r: r["answers"][3].update(tokens=[3, 77], text="?"))
    assert "prompt 4 differs at token 2" in proof.first_difference(ours, theirs)
    assert proof.same_answers(ours, theirs) == 49
    if holds:
        proof.require_same("it", "merged", ours, theirs, EXPECTED)
    else:
        with pytest.raises(CourseError, match="prompt 4 differs at token 2"):
            proof.require_same("it", "merged", ours, theirs, EXPECTED)
