"""What the full fine-tuning lesson relies on in Unsloth."""

from unsloth_course import memory, models
from unsloth_course.lesson import smollm2


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

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**smollm2.CONFIG))
    assert models.require_full(model) == models.Count(134_515_008, 134_515_008)
    assert memory.parameters(memory.Shape.of(model)) == 134_515_008
    model.get_input_embeddings().weight.requires_grad_(False)
    assert models.count(model).trainable == 106_203_456
