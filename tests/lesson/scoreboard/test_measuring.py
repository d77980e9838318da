"""The battery: the same questions for every model, scores with intervals, and the base measured once."""

import json
import math
import random

import pytest
import torch
from conftest import TWO_CORES
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import evaluation, models, profile, results, scoreboard
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import sources
from unsloth_course.lesson.evaluation import asking
from unsloth_course.lesson.scoreboard import SCORES, measuring


@pytest.fixture(scope="module")
def small():
    """A battery of fewer questions, for speed; the questions are those that the whole one begins with."""
    with pytest.MonkeyPatch.context() as patch:
        for name, rows in {"ANSWERS": 24, "PREFERENCES": 24, "PROBLEMS": 12, "TEXTS": 12}.items():
            patch.setattr(measuring, name, rows)
        patch.setattr(asking, "PROBES_EACH", 6)
        yield


@pytest.fixture(scope="module")
def pocket(load):
    return load()


@pytest.fixture(scope="module")
def scores(small, pocket, machine):
    return scoreboard.battery(*pocket, machine)


def value(scores, name):
    return scores[name]["value"]


def test_every_score_has_a_value_in_its_interval_and_what_was_asked(scores):
    assert list(scores) == list(SCORES)
    for name, score in scores.items():
        low, high = score["interval"]
        assert low <= score["value"] <= high, name
        assert score["n"] >= 12 and len(score["questions"]) == 12
        if SCORES[name].share:
            assert 0 <= low < high <= 1
        else:
            assert 1 < low < high
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_the_scores_of_the_base_are_what_its_card_says(scores):
    """It answers nothing in chat, knows its skills in plain text, seldom shows its steps, and can read a story."""
    assert value(scores, "answers") == 0
    assert value(scores, "retention") >= 0.95
    assert value(scores, "preference") < 0.6
    assert value(scores, "format") < 0.5
    assert value(scores, "perplexity_general") < 2 < value(scores, "perplexity_domain")


def test_a_trained_model_is_asked_the_same_and_scores_otherwise(small, scores, healthy, machine):
    before = healthy.model.training
    trained = scoreboard.battery(healthy.model, healthy.tokenizer, machine)
    assert healthy.model.training == before
    for name in SCORES:
        assert trained[name]["questions"] == scores[name]["questions"]
    assert value(trained, "answers") > 0.3
    assert value(trained, "perplexity_general") != value(scores, "perplexity_general")


def test_other_questions_have_another_fingerprint(small, scores, machine, monkeypatch):
    def marks():
        drawn = measuring._drawn(machine)
        return {name: measuring._fingerprint(names, rows) for names, rows in drawn.items() for name in names}

    assert marks() == {name: score["questions"] for name, score in scores.items()}
    monkeypatch.setattr(measuring, "ANSWERS", 25)
    changed = {name for name, mark in marks().items() if mark != scores[name]["questions"]}
    assert changed == {"answers"}
    monkeypatch.setattr(measuring, "VERSION", measuring.VERSION + 1)
    assert all(mark != scores[name]["questions"] for name, mark in marks().items())


def test_a_set_that_cannot_be_had_is_said_and_the_rest_is_measured(small, scores, pocket, machine, monkeypatch):
    def gone(*_, **__):
        raise CourseError("The Hub cannot be reached.")

    monkeypatch.setattr(sources, "problems", gone)
    found = scoreboard.battery(*pocket, machine)
    reason = "not measured: The Hub cannot be reached."
    unknown = {"value": None, "interval": None, "n": 0, "reason": reason, "questions": None}
    assert found == scores | {"format": unknown, "accuracy": unknown}


@pytest.mark.parametrize(("losses", "known"), [([math.nan, 1.0], False), ([5e4, 4e4], True)])
def test_a_loss_that_is_no_number_gives_no_perplexity_and_a_huge_one_a_number(pocket, monkeypatch, losses, known):
    monkeypatch.setattr(evaluation, "perplexity", lambda *_: evaluation.Surprise(losses, [5, 5], [20, 20]))
    (score,) = measuring._perplexity(*pocket, {"text": ["a", "b"]})
    if known:
        assert all(map(math.isfinite, [score["value"], *score["interval"]]))
    else:
        assert score["value"] is None and "not a number" in score["reason"]


@pytest.mark.parametrize(
    ("model", "data", "own"),
    [
        (None, None, profile.POCKET),
        (None, "mine.json", profile.POCKET),
        (profile.HUB_MODEL, "pocket", None),
        (profile.HUB_MODEL, None, None),
        (profile.HUB_MODEL, "mine.json", None),
        (profile.SMOLLM2, None, profile.ENGLISH),
        (profile.SMOLLM2, "mine.json", profile.ENGLISH),
    ],
)
def test_each_model_is_asked_the_questions_that_suit_it(monkeypatch, model, data, own):
    asked = {}

    def draw(shape):
        def drawn(source, train, held_out, seed):
            asked[shape] = source
            raise CourseError("Not now.")

        return drawn

    for shape in ("instructions", "preferences", "problems", "corpus"):
        monkeypatch.setattr(sources, shape, draw(shape))
    measuring._drawn(profile.decide(TWO_CORES, model=model, data=data))
    lessons = {"instructions": "lora", "preferences": "dpo", "problems": "grpo", "corpus": "cpt"}
    assert asked == {shape: own or profile.HUB_DATA[lesson] for shape, lesson in lessons.items()}


def test_only_questions_that_exact_match_can_mark_are_asked(monkeypatch):
    for model, asked in ((profile.POCKET, measuring.ANSWERS), (profile.SMOLLM2, measuring.ANSWERS // 4)):
        rows = measuring._marked(profile.decide(TWO_CORES, model=model))
        assert len(rows) == asked and max(map(len, rows["output"])) <= 24
    monkeypatch.setattr(measuring, "is_short", lambda answer: False)
    with pytest.raises(CourseError, match="No held-out question"):
        measuring._marked(profile.decide(TWO_CORES))


@pytest.mark.parametrize(
    ("right", "n", "interval"),
    [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (5, 10, (0.2366, 0.7634)), (95, 100, (0.8882, 0.9785))],
)
def test_wilson_s_interval(right, n, interval):
    """Expected values: Wilson's formula, as in Newcombe 1998 (Statistics in Medicine 17, method 3)."""
    assert measuring.wilson(right, n) == pytest.approx(interval, abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_shrinks_with_more_questions(drawn):
    right, n = drawn
    low, high = measuring.wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    more_low, more_high = measuring.wilson(4 * right, 4 * n)
    assert more_high - more_low < high - low


@pytest.mark.parametrize(
    ("given", "worked"),
    [
        ("3 * 5 = 15\n8 + 15 = 23\n#### 23", True),
        ("She has 3 x 5 apples = 15 apples.\n#### 15\n", True),
        ("12 / 4 = 3\n#### -3", True),
        ("#### 23", False),
        ("23", False),
        ("", False),
        ("3 * 5 = 15\n23", False),
        ("3 * 5 = 15\n#### ", False),
        ("3 * 5 = 15\n#### 15\nQuestion:", False),
        ("3 * 5 = 15 #### 15", True),
        ("#### 3 * 5 = 15", False),
        ("3 * 5 = 15\n#### 15\n#### 16", False),
        ("I think so\n#### 15", False),
        ("= 15\n#### 15", False),
        ("\n" * 5000 + "#### 1", False),
    ],
)
def test_what_counts_as_worked(given, worked):
    assert measuring.is_worked(given) == worked


@given(st.text())
def test_any_text_can_be_judged(text):
    assert measuring.is_worked(text) in (True, False)


@pytest.fixture
def loads(monkeypatch, pocket):
    """Counts how often a model is loaded; hands out the pocket model."""
    import unsloth

    counted = []

    def load(**arguments):
        counted.append(arguments["model_name"])
        return pocket

    monkeypatch.setattr(unsloth.FastLanguageModel, "from_pretrained", load)
    return counted


def test_the_base_is_measured_once_alike_whatever_was_drawn_between_and_kept(small, scores, loads, machine, tmp_path):
    random.seed(5)
    torch.manual_seed(5)
    made = scoreboard.base(machine, tmp_path)
    kept = json.loads((tmp_path / "base.json").read_text())
    assert kept == made and made["battery"] == scores
    assert (made["lesson"], made["model"], made["profile"]) == ("base", "pocket", "cpu")
    assert made["parameters"] == {"total": 3_410_176, "trainable": 0}
    assert made["file_bytes"] == models.disk_bytes(models.folder("pocket"))
    assert scoreboard.base(machine, str(tmp_path)) == made
    assert loads == [models.folder("pocket")]
    assert [row.lesson for row in scoreboard.read(tmp_path).rows] == ["base"]


def test_the_base_is_measured_again_when_something_changed(small, loads, machine, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_measured", lambda model, tokenizer, drawn: {"answers": len(drawn["answers",])})
    scoreboard.base(machine, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(results, "versions", lambda: {"unsloth": "2027.1.1"})
        assert scoreboard.base(machine, tmp_path)["versions"] == {"unsloth": "2027.1.1"}
    scoreboard.base(machine, tmp_path)
    monkeypatch.setattr(measuring, "ANSWERS", 12)
    assert scoreboard.base(machine, tmp_path)["battery"]["answers"] == 12
    assert len(loads) == 4


@pytest.mark.parametrize("text", ["{", "[]", "null", "[" * 100_000, '{"key": 5}'], ids=range(5))
def test_a_damaged_file_of_the_base_is_measured_again(small, loads, machine, tmp_path, monkeypatch, text):
    monkeypatch.setattr(measuring, "_measured", lambda *_: {})
    (tmp_path / "base.json").write_text(text)
    assert scoreboard.base(machine, tmp_path)["lesson"] == "base"
    assert len(loads) == 1
