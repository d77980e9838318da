"""The full fine-tuning lesson itself: a run of it that cannot learn, and what it relies on in Unsloth.

That the unchanged lesson trains on the bundled model is what nbmake runs.
"""

import re

import pytest
from lesson_runs import Finished, with_knobs

from unsloth_course import memory, models


@pytest.fixture(scope="module")
def without_a_learning_rate(tmp_path_factory):
    knobs = {"LEARNING_RATE": 0, "STEPS": 15, "HELD_OUT": 24}
    return Finished("full", tmp_path_factory.mktemp("sick"), with_knobs("full", knobs))


def test_a_lesson_that_did_not_learn_says_so(without_a_learning_rate):
    run = without_a_learning_rate
    assert run.errors == []
    assert run.results["receipt"]["verdict"] == "not trained"
    names = {finding["name"] for finding in run.results["receipt"]["findings"]}
    assert {"learning rate 0", "weights unchanged"} <= names
    assert "full.json written: This run did not train." in run.outputs
    assert "Not trained." in run.page


def test_it_ends_with_status_1_and_a_sentence(without_a_learning_rate):
    run = without_a_learning_rate
    assert run.status == 1
    assert "its verdict is 'not trained'" in run.complained
    assert "All 38 trainable tensors have the values that they had before training" in run.complained
    assert "Traceback" not in run.complained


def test_its_deep_dive_finds_no_change_and_claims_nothing(without_a_learning_rate):
    said = without_a_learning_rate.outputs
    assert "The change gained nothing, so nothing can be said about the rank that it needs." in said
    assert "embeddings moved by 0.00%" in said
    assert re.search(r"q_proj +0 to +0 of 256", said)
    assert "low rank suffices" not in said


def test_its_comparison_trained_the_adapter_for_itself(without_a_learning_rate):
    """The learning rate of the whole model is not that of the adapter, which moved."""
    found = without_a_learning_rate.results
    assert found["parameters"] == {"total": 3_410_176, "trainable": 3_410_176}
    assert found["file_bytes"] > 12 * 2**20 and found["training"]["steps"] == 15
    said = without_a_learning_rate.outputs
    assert "311,296 (8.4%)" in said and "3,410,176 (100.0%)" in said


# What the lesson relies on


def checkpointing(model):
    return {bool(getattr(module, "gradient_checkpointing", False)) for module in model.model.layers}


def test_unsloth_checkpoints_a_whole_model_unless_it_is_told_not_to(load):
    """The pitfall that the lesson names: the trainer's own setting, off, comes too late."""
    assert checkpointing(load(full_finetuning=True)[0]) == {True}
    assert checkpointing(load(full_finetuning=True, use_gradient_checkpointing=False)[0]) == {False}


def test_smollm2_has_the_counts_that_the_lesson_names():
    """With the shape of SmolLM2-135M and no weights: all of it, and all but the embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        vocab_size=49_152,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert models.require_full(model) == models.Count(134_515_008, 134_515_008)
    assert memory.parameters(memory.Shape.of(model)) == 134_515_008
    model.get_input_embeddings().weight.requires_grad_(False)
    assert models.count(model).trainable == 106_203_456
