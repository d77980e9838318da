"""Shapes of models that others have published: counted as they count, and said where they are not understood."""

import pytest

from unsloth_course import memory
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.memory.shape import known

PUBLISHED = {
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "unsloth/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "qwen/qwen3-4b": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "google/gemma-3-1b-it": 999_885_952,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
}


def sizes(hidden, intermediate, layers, heads=None, kv_heads=None, **more):
    """The sizes of a config.json, with what is as usual left out."""
    found = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers}
    found |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads} if heads else {}
    return found | more


def of_experts(kind, vocabulary, *shape, **more):
    about = {"model_type": kind, "vocab_size": vocabulary, "tie_word_embeddings": False}
    return about | sizes(*shape, **more)


def gemma(*shape, **more):
    """As its config.json has it: nested."""
    return {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", **sizes(*shape, **more)}}


LLAMA = {"model_type": "llama", "vocab_size": 100, "tie_word_embeddings": True} | sizes(64, 128, 2, 4, 2)
MIXTRAL = of_experts("mixtral", 32000, 4096, 14336, 32, 32, 8, num_local_experts=8, num_experts_per_tok=2)
ROUTED = {"moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}
QWEN3_MOE = of_experts("qwen3_moe", 151936, 2048, 6144, 48, 32, 4, head_dim=128, **ROUTED)
# The text part of Gemma 3 as its report counts it: embeddings and the rest.
GEMMA_4B = gemma(2560, 10240, 34)
GEMMA_12B = gemma(3840, 15360, 48, 16, 8)
GEMMA_27B = gemma(5376, 21504, 62, 32, 16, head_dim=128)


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_models_that_many_take_are_known_without_the_hub(name, count):
    assert memory.parameters(memory.Shape.checked(known(name))) == pytest.approx(count, rel=0.001)


def test_other_names_are_not_known():
    assert known("someone/Llama-3.2-1B-poet") is None and known("") is None


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (MIXTRAL, 46_702_792_704),
        (QWEN3_MOE, 30_532_122_624),
        (GEMMA_4B, 675e6 + 3_209e6),
        (GEMMA_12B, 1_012e6 + 10_759e6),
        (GEMMA_27B, 1_416e6 + 25_600e6),
    ],
)
def test_experts_and_nested_configs_are_counted_as_published(config, count):
    assert memory.parameters(memory.Shape.checked(config)) == pytest.approx(count, rel=0.01)


def test_a_token_goes_through_some_of_the_experts_and_all_are_held():
    shape = memory.Shape.checked(MIXTRAL)
    assert (shape.intermediate, shape.held) == (2 * 14336, 8 * 14336)


@pytest.mark.parametrize("key", ["kv_lora_rank", "n_routed_experts", "shared_expert_intermediate_size"])
def test_a_shape_that_is_not_understood_is_said(key):
    with pytest.raises(CourseError, match=rf"type llama has {key}; memory is predicted for Llama-style models"):
        memory.Shape.of(LLAMA | {key: 512})
