"""What memory depends on in a Llama-style model, and counts of its parameters."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from unsloth_course.core.errors import CourseError

METHODS = ("full", "lora", "qlora", "dpo", "grpo", "cpt")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GIB = 1024**3
LARGEST = 10**8
"""Above every size in a model's config."""


@dataclass(frozen=True)
class Shape:
    """What memory depends on in a Llama-style model: sizes of hidden, layers, heads, MLP, vocabulary."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool
    head_dim: int | None = None

    @classmethod
    def of(cls, model_or_config: Any) -> Shape:
        """Reads the shape from a transformers model (also one with an adapter), its config or a read config.json.

        Raises CourseError when the config lacks a size that a Llama-style model has.
        """
        config = getattr(model_or_config, "config", model_or_config)
        read = config.get if isinstance(config, dict) else lambda key: getattr(config, key, None)
        sizes = {name: read(key) for name, key in _CONFIG_KEYS.items()}
        sizes["kv_heads"] = sizes["kv_heads"] or sizes["heads"]
        kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        missing = [_CONFIG_KEYS[name] for name, value in sizes.items() if not isinstance(value, int)]
        if missing:
            raise CourseError(
                f"The model config of type {kind} has no {', '.join(missing)}; memory is predicted "
                "for Llama-style models, so choose one such as HuggingFaceTB/SmolLM2-135M-Instruct."
            )
        tied = bool(read("tie_word_embeddings"))
        return cls(**sizes, tied=tied, head_dim=read("head_dim"))

    @classmethod
    def checked(cls, config: dict[str, Any]) -> Shape:
        """The shape in a config that may be anybody's. Raises CourseError as `of` does, and for sizes of no model."""
        shape = cls.of(config)
        sizes = {name: value for name, value in asdict(shape).items() if name != "tied" and value is not None}
        for name, value in sizes.items():
            if not isinstance(value, int) or not 1 <= value <= LARGEST:
                raise CourseError(
                    f"config.json says that {name} is {value!r}, which no model has: fetch the model again."
                )
        return shape

    @property
    def attention(self) -> int:
        """Width of all query heads together (equals `hidden` in a Llama)."""
        return self.heads * (self.head_dim or self.hidden // self.heads)

    @property
    def kv(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.attention // self.heads * self.kv_heads

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Input and output width of each projection of a layer."""
        return {
            "q_proj": (self.hidden, self.attention),
            "k_proj": (self.hidden, self.kv),
            "v_proj": (self.hidden, self.kv),
            "o_proj": (self.attention, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }


_CONFIG_KEYS = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "intermediate": "intermediate_size",
    "vocabulary": "vocab_size",
}


def parameters(shape: Shape) -> int:
    """Number of parameters of a Llama of this shape; SmolLM2-135M has 134,515,008."""
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    return embeddings + shape.layers * (linear_parameters(shape) + 2 * shape.hidden) + shape.hidden


def linear_parameters(shape: Shape) -> int:
    return sum(inputs * outputs for inputs, outputs in shape.linears.values())


def lora_parameters(shape: Shape, rank: int) -> int:
    """Number of parameters that LoRA of this rank trains on the seven projections (Hu et al. 2021).

    A projection of n inputs and m outputs gets A (rank x n) and B (m x rank): rank * (n + m) numbers.
    Raises CourseError for a rank below 1.
    """
    if rank < 1:
        raise CourseError(f"The LoRA rank is {rank}; give a whole number of at least 1, such as 16.")
    return shape.layers * rank * sum(inputs + outputs for inputs, outputs in shape.linears.values())


def size(amount: float) -> str:
    """Bytes as people read them: `13.4 KiB`, `124.0 MiB`, `1.25 GiB`."""
    if amount >= GIB:
        return f"{amount / GIB:.2f} GiB"
    if amount >= 1024**2:
        return f"{amount / 1024**2:.1f} MiB"
    return f"{amount / 1024:.1f} KiB"
