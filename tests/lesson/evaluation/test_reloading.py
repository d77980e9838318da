"""Is it the same model again? Near ties may go either way; other weights are told as such."""

import pytest
import torch

from unsloth_course import data, evaluation, models

QUESTIONS = [f"What is {n} plus {n + 3}?" for n in range(6)]


@pytest.fixture(scope="module")
def trained(with_adapter):
    """An adapter that changes the answers to ones that the model is not sure of."""
    model, tokenizer = with_adapter()
    torch.manual_seed(3407)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    return model, tokenizer


def test_a_saved_adapter_is_the_same_again_and_its_base_is_not(trained, load, tmp_path):
    model, tokenizer = trained
    saved = models.save_adapter(model, tokenizer, tmp_path / "adapter", base="pocket")
    again, tokens = models.load_adapter(saved, dtype=torch.float32)
    found = evaluation.same_answers(model, again, tokens, QUESTIONS)
    assert (found.same, found.gaps, found.close) == (6, [], True) and found.drift < 1e-5
    assert str(found) == "6 of 6 answers are the same as before saving."
    rounded = evaluation.same_answers(model, models.load_adapter(saved, dtype=torch.bfloat16)[0], tokens, QUESTIONS)
    assert rounded.close and rounded.drift > 0 and len(rounded.gaps) == 6 - rounded.same
    base = evaluation.same_answers(model, load()[0], tokens, QUESTIONS)
    assert not base.close and base.drift > 0.05 and "this is not the same model" in str(base)


@pytest.mark.parametrize(
    ("gaps", "drift", "words"),
    [
        ([0.04], 0.001, "; 1 differs first where two tokens are nearly as likely (largest gap 0.04 nats)"),
        ([0.2, 0.1], 0.01, "; 2 differ first where two tokens are nearly as likely (largest gap 0.20 nats)"),
        ([0.6], 0.001, "the largest gap between tokens that differ is 0.60 nats, where it explains 0.5."),
        ([], 0.2, "this is not the same model: it is 0.200 nats a token apart, where rounding explains 0.015;"),
    ],
)
def test_what_rounding_explains_is_told_from_other_weights(gaps, drift, words):
    found = evaluation.Reloaded(20, 20 - len(gaps), gaps, drift)
    told = f"{20 - len(gaps)} of 20 answers are the same as before saving"
    assert str(found).startswith(told) and words in str(found)


def test_conversations_are_asked_as_they_are(trained):
    model, tokenizer = trained
    rows = data.sources.preferences("pocket", train=1, held_out=2, seed=1)[1]
    assert evaluation.same_answers(model, model, tokenizer, rows["prompt"], 8).same == 2
