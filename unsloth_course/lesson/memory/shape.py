"""What memory depends on in a Llama-style model, and counts of its parameters."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import RECORDED

METHODS = ("full", "lora", "qlora", "dpo", "grpo", "cpt")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GIB = 1024**3
LARGEST = 10**8  # above every size in a model's config


@dataclass(frozen=True)
class Shape:
    """What memory depends on in a Llama-style model: sizes of hidden, layers, heads, MLP, vocabulary.

    A mixture of experts has `intermediate` for the experts that one token goes through, and `held` for all of them.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool
    head_dim: int | None = None
    held: int | None = None

    @classmethod
    def of(cls, model_or_config: Any) -> "Shape":
        """Reads the shape from a transformers model (also one with an adapter), its config or a read config.json.

        Of a model that reads pictures too, it is that of the part for text. Raises CourseError when the config lacks a
        size that a Llama-style model has, or has parts whose memory is not predicted.
        """
        read = _reader(getattr(model_or_config, "config", model_or_config))
        sizes = {name: read(key) for name, key in _CONFIG_KEYS.items()}
        sizes["kv_heads"] = sizes["kv_heads"] or sizes["heads"]
        advice = (
            "memory is predicted for Llama-style models and plain mixtures of experts, so choose one such as "
            "HuggingFaceTB/SmolLM2-135M-Instruct."
        )
        if odd := [key for key in _NOT_PREDICTED if read(key)]:
            raise CourseError(f"The model config of type {read('model_type')} has {odd[0]}; {advice}")
        if missing := [_CONFIG_KEYS[name] for name, value in sizes.items() if not isinstance(value, int)]:
            raise CourseError(f"The model config of type {read('model_type')} has no {', '.join(missing)}; {advice}")
        held = None
        if experts := read("num_local_experts") or read("num_experts"):
            each = read("moe_intermediate_size") or sizes["intermediate"]
            held, sizes["intermediate"] = experts * each, (read("num_experts_per_tok") or experts) * each
        return cls(**sizes, tied=bool(read("tie_word_embeddings")), head_dim=read("head_dim"), held=held)

    @classmethod
    def checked(cls, config: dict[str, Any]) -> "Shape":
        """The shape in a config that may be anybody's. Raises CourseError as `of` does, and for sizes of no model."""
        shape = cls.of(config)
        sizes = {name: value for name, value in asdict(shape).items() if name != "tied" and value is not None}
        for name, value in sizes.items():
            if not isinstance(value, int) or not 1 <= value <= LARGEST:
                raise CourseError(f"config.json says that {name} is {value!r}, which no model has: fetch it again.")
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
        """Input and output width of each projection of a layer, all experts together."""
        return {
            "q_proj": (self.hidden, self.attention),
            "k_proj": (self.hidden, self.kv),
            "v_proj": (self.hidden, self.kv),
            "o_proj": (self.attention, self.hidden),
            "gate_proj": (self.hidden, self.held or self.intermediate),
            "up_proj": (self.hidden, self.held or self.intermediate),
            "down_proj": (self.held or self.intermediate, self.hidden),
        }


_CONFIG_KEYS = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "intermediate": "intermediate_size",
    "vocabulary": "vocab_size",
}
_NOT_PREDICTED = ("kv_lora_rank", "n_routed_experts", "shared_expert_intermediate_size", "mamba_d_state")


def _reader(config: Any) -> Callable[[str], Any]:
    """What reads a key of a config, of its part for text where it has one, with the defaults of its type."""
    if not isinstance(config, dict):
        config = getattr(config, "text_config", config)
        return lambda key: getattr(config, key, None)
    config = config.get("text_config") or config
    if {*_CONFIG_KEYS.values(), "tie_word_embeddings"} <= set(config):
        return config.get
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    defaults = CONFIG_MAPPING[kind]() if kind in CONFIG_MAPPING else None
    return lambda key: config.get(key, getattr(defaults, key, None))


def known(name: str) -> dict[str, Any] | None:
    """The config of a model that many take, with or without its owner's name; None for a name that is not known here.

    As published on the Hub, so that a run can be planned without it.
    """
    last = name.rpartition("/")[2].casefold()
    shapes = json.loads((RECORDED / "shapes.json").read_text(encoding="utf-8"))
    return next((one["config"] for one in shapes if last in map(str.casefold, one["names"])), None)


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
