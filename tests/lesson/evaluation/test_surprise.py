"""Perplexity against direct computation, in any batch, and its intervals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course.lesson.evaluation import Answers, Surprise, perplexity, perplexity_score, shuffled, side_by_side
from unsloth_course.lesson.evaluation.surprise import each_answer, perplexity_interval

TEXTS = ["It was a sunny morning in Ravenna.", "The market was full of people.\n", "What is 20 plus 30?", "def f(x):"]


def test_it_is_the_exponential_of_the_mean_loss(load):
    import torch

    model, tokenizer = load()
    found = perplexity(model, tokenizer, TEXTS, 128)
    for text, loss, count in zip(TEXTS, found.losses, found.tokens, strict=True):
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            own = model(input_ids=ids, labels=ids).loss
        assert count == ids.shape[1] - 1
        assert loss == pytest.approx(float(own) * count, rel=1e-4)
    assert found.perplexity == pytest.approx(math.exp(sum(found.losses) / sum(found.tokens)))
    alone = [perplexity(model, tokenizer, [text], 128).losses[0] for text in TEXTS]
    assert found.losses == pytest.approx(alone, rel=1e-4), "padding must not count"


def test_rows_of_any_length_come_back_in_their_order(load, monkeypatch):
    """They go through the model by their length; what is too long to begin an answer has no figures."""
    from unsloth_course.lesson.evaluation import surprise

    model, tokenizer = load()
    monkeypatch.setattr(surprise, "TEXTS_AT_ONCE", 3)
    texts = [TEXTS[n % 4] * (1 + 5 * (n % 3)) for n in range(10)]
    alone = [perplexity(model, tokenizer, [text], 128).losses[0] for text in texts]
    assert perplexity(model, tokenizer, texts, 128).losses == pytest.approx(alone, rel=1e-4)
    asked = [[{"role": "user", "content": text}] for text in ("Why?", "Why? " * 200, "How?")]
    rows = [{"prompt": turns, "completion": [{"role": "assistant", "content": "So."}]} for turns in asked]
    found = each_answer(model, tokenizer, rows, 64)
    assert found[1] is None and found[2] == pytest.approx(each_answer(model, tokenizer, rows[2:], 64)[0], rel=1e-4)


def test_what_is_too_short_is_left_out_and_what_is_too_long_is_cut(load):
    model, tokenizer = load()
    found = perplexity(model, tokenizer, ["", "a b c d e f g h"], 4)
    assert found.tokens == [3]
    with pytest.raises(ValueError, match="at least one text"):
        perplexity(model, tokenizer, ["", ""], 4)


def test_a_long_text_is_read_in_windows_of_what_the_model_takes(load):
    import torch

    model, tokenizer = load()
    text = " ".join(TEXTS * 8)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert model.max_seq_length == 128 and len(ids) > 300
    found = perplexity(model, tokenizer, ["short one", text], 300)
    by_hand = 0.0
    for window in (ids[:128], ids[128:256], ids[256:300]):
        rows = torch.tensor([window])
        with torch.no_grad():
            by_hand += float(model(input_ids=rows, labels=rows).loss) * (len(window) - 1)
    assert found.tokens[1] == 127 + 127 + 43
    assert found.losses[1] == pytest.approx(by_hand, rel=1e-4)
    assert len(found.losses) == len(found.characters) == 2


def test_control_tokens_in_a_text_are_read_as_characters(load):
    model, tokenizer = load()
    assert perplexity(model, tokenizer, ["<|im_end|>"], 64).tokens[0] > 3


@given(st.lists(st.text(), max_size=5))
def test_shuffling_keeps_the_characters(texts):
    assert [sorted(text) for text in shuffled(texts)] == [sorted(text) for text in texts]
    assert shuffled(texts, 1) == shuffled(texts, 1)


def made(losses):
    return Surprise(losses, [10] * len(losses), [30] * len(losses))


def test_the_score_says_lower_is_better():
    before, after, chance = (made(losses * 2) for losses in ([40.0, 42.0, 39.0], [10.0, 9.0, 11.0], [30.0, 29.0, 31.0]))
    found = perplexity_score(before, after, (made([5.0] * 3), made([6.0] * 3)), chance)
    assert found.metric == "perplexity" and found.after == pytest.approx(math.e)
    assert found.interval[1] < 0 and found.above_chance[1] < 0
    assert found.retention.after == pytest.approx(math.exp(0.6))
    assert found.chance == pytest.approx(math.exp(3))


def test_what_stands_beside_the_domain_is_measured_too():
    before, after, steady = made([40.0 + n for n in range(9)]), made([10.0 + n for n in range(9)]), made([20.0] * 9)
    facts = [Answers([], [], [], [True] * 9)] * 2
    beside = {"unread_perplexity": (before, after), "chat_perplexity": (steady, steady)}
    found = {one.name: one for one in perplexity_score(before, after, beside=beside, facts=facts).measures}
    assert list(found) == ["perplexity", "bits_per_character", *beside, "facts"]
    assert [one.name for one in found.values() if one.judges] == ["perplexity"]
    assert (found["perplexity"].likelier, found["chat_perplexity"].likelier, found["facts"].after) == (9, 0, 1.0)
    assert found["bits_per_character"].interval == pytest.approx((-1 / math.log(2),) * 2)
    assert found["chat_perplexity"].interval == (0.0, 0.0)
    assert all(one.better[0] > 0 for name, one in found.items() if name in ("perplexity", "unread_perplexity"))


@pytest.mark.filterwarnings("error")
def test_a_broken_model_is_worse_or_no_number_without_a_warning():
    well, nan, endless = made([1.0] * 9), made([math.nan] * 9), made([1e9] * 9)
    assert perplexity_interval(well, endless)[0] > 1e300 and perplexity_interval(endless, endless) == (0.0, 0.0)
    assert all(map(math.isnan, perplexity_interval(well, nan)))


def test_runs_side_by_side_are_compared_with_the_first():
    def leg(domain, general, right):
        return {"domain": made([domain]), "general": made([general]), "skills": Answers([], [], [], right)}

    table = side_by_side({"before": leg(80.0, 5.0, [True] * 4), "after": leg(10.0, 6.0, [True, True, True, False])})
    assert list(table.columns) == ["before", "after"]
    assert list(table["before"]) == ["2,980.96", "1.65", "+0.0%", "100.0%"]
    assert list(table["after"]) == ["2.72", "1.82", "+10.5%", "75.0%"]
