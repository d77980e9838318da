"""Memory of a training run, predicted from the architecture before it.

Four things fill memory during training: weights, gradients, optimizer state, activations. The first three are counts
of numbers times bytes per number. The fourth is what the forward pass keeps for the backward pass, so it follows from
what each layer of this implementation saves, token by token. All lessons show it beside the
measured peak; the LoRA lesson explains it.
"""

from __future__ import annotations

import html
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from unsloth_course.core.errors import CourseError

METHODS = ("full", "lora", "qlora", "dpo", "grpo", "cpt")
PARTS = ("weights", "gradients", "optimizer", "activations")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GIB = 1024**3
LARGEST = 10**8
"""Above every size in a model's config."""

# NF4 with double quantization: 4 bits per weight, a byte per block of 64, four bytes per 256 blocks (QLoRA, section 3).
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# Unsloth's CPU backend and TRL compute the logits in blocks of at most this many numbers.
LOGIT_BLOCK = 16 * 1024 * 1024
# Share of the usable memory that a prediction may fill; the rest is for fragmentation and the prediction's own error.
HEADROOM = 0.9
# Measured on an H200 with torch 2.11, from 3 to 362 million parameters: bytes of workspaces beside the tensors of
# SmolLM2-135M, of which half are there for a model of any size and half grow with it; and how much more a training
# holds when its blocks are CUDA graphs, which keep their inputs and outputs apart.
WORKSPACE = 256 * 1024**2
SMOLLM2 = 134_515_008
GRAPHS = 1.1
# Completions of a prompt (the lesson's, and TRL's default), and the share of its tokens that must be spared before
# Unsloth passes a shared prompt through the model once.
GROUP = 8
SHARED = 1.3
# Memory that the driver reports to programs, in GiB; a card's box says more.
GPUS = {
    name: int(gib * GIB)
    for name, gib in {
        "T4": 14.7,
        "V100": 15.8,
        "L4": 22.0,
        "A10G": 22.1,
        "A100 40GB": 39.4,
        "A100 80GB": 79.1,
        "H100": 79.1,
        "H200": 139.7,
        "RTX 3060": 11.7,
        "RTX 4070 Ti": 11.7,
        "RTX 4080": 15.7,
        "RTX 3090": 23.6,
        "RTX 4090": 23.6,
        "RTX 5090": 31.3,
    }.items()
}


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
        sizes = {}
        for name, key in _CONFIG_KEYS.items():
            sizes[name] = read(key)
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
    return embeddings + shape.layers * (_linear_parameters(shape) + 2 * shape.hidden) + shape.hidden


def _linear_parameters(shape: Shape) -> int:
    return sum(inputs * outputs for inputs, outputs in shape.linears.values())


def lora_parameters(shape: Shape, rank: int, targets: tuple[str, ...] = PROJECTIONS) -> int:
    """Number of parameters that LoRA of this rank trains on the target projections (Hu et al. 2021).

    A projection of n inputs and m outputs gets A (rank x n) and B (m x rank): rank * (n + m) numbers.
    Raises CourseError for a rank below 1 or a target that is no projection of the layer.
    """
    if rank < 1:
        raise CourseError(f"The LoRA rank is {rank}; give a whole number of at least 1, such as 16.")
    unknown = [target for target in targets if target not in shape.linears]
    if unknown:
        raise CourseError(f"{', '.join(unknown)} is no projection of a layer; choose from {', '.join(PROJECTIONS)}.")
    return shape.layers * sum(rank * sum(shape.linears[target]) for target in set(targets))


@dataclass(frozen=True, repr=False)
class Prediction:
    """Predicted peak memory of a training run, in bytes; `parts` add up to `total`, `reasons` explains each part."""

    method: str
    parts: dict[str, int]
    reasons: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Predicted peak in bytes."""
        return sum(self.parts.values())

    def _rows(self) -> list[tuple[str, str, str]]:
        rows = [(part, size(self.parts[part]), why) for part, why in zip(PARTS, self.reasons, strict=True)]
        return [*rows, ("total", size(self.total), f"predicted peak for method {self.method}")]

    def __str__(self) -> str:
        return "\n".join(f"{part:<12}{amount:>12}  {why}" for part, amount, why in self._rows())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cell = '<td style="text-align:left;padding:2px 10px">'
        body = "".join(
            f"<tr>{cell}{part}</td>"
            f'<td style="text-align:right;padding:2px 10px;white-space:nowrap">{amount}</td>'
            f"{cell}{html.escape(why)}</td></tr>"
            for part, amount, why in self._rows()
        )
        head = "".join(
            f'<th style="text-align:{side}">{name}</th>'
            for name, side in (("part", "left"), ("memory", "right"), ("why", "left"))
        )
        return f"<table><tr>{head}</tr>{body}</table>"


def size(amount: float) -> str:
    """Bytes as people read them: `13.4 KiB`, `124.0 MiB`, `1.25 GiB`."""
    if amount >= GIB:
        return f"{amount / GIB:.2f} GiB"
    if amount >= 1024**2:
        return f"{amount / 1024**2:.1f} MiB"
    return f"{amount / 1024:.1f} KiB"


def predict(
    shape: Shape,
    *,
    method: str,
    micro_batch: int,
    length: int,
    rank: int = 16,
    dtype: str = "float32",
    checkpointing: bool = False,
    optimizer: str = "adamw_torch",
    accumulation: int = 1,
    completion: int | None = None,
    autocast: bool | None = None,
    device: str = "cpu",
    graphs: bool = False,
) -> Prediction:
    """Predicts the peak memory of one training run with Unsloth and TRL.

    `micro_batch` rows of `length` tokens (the longest row in the data, since shorter ones are padded to it) go through
    the model at once; `dpo` doubles the rows, one chosen and one rejected. `completion` is the longest completion in
    tokens, for `dpo` and `grpo` (half the row if not given). `dtype` is that of the model's weights; `autocast` says
    whether matrix products run in 16 bits (TRL's `bf16`/`fp16`), by default where Unsloth has it so: on a GPU, and on a
    processor with bfloat16 when the weights are not float32. `cpt` trains the embeddings and the head beside LoRA.
    `device` is "cpu" or "cuda", which keep different tensors. `graphs` says that Unsloth's blocks are compiled and
    recorded as CUDA graphs (padded batches on a GPU). Both devices were checked by measurement: `benchmarks/README.md`
    has the GPU's fifteen points.

    Raises CourseError for an unknown method, dtype, device or optimizer and for sizes below 1. All lessons print it.
    """
    _check(method, dtype, device, optimizer, micro_batch, length, accumulation)
    if autocast is None:
        autocast = device == "cuda" or (dtype != "float32" and _bfloat16_here())
    run = _Run(shape, method, rank, dtype, autocast, device, graphs)
    rows = micro_batch * (2 if method == "dpo" else 1)
    scored = rows * min(length, completion or max(1, length // 2)) if method in ("dpo", "grpo") else rows * length
    weights, why_weights = _weights(run)
    per_parameter = OPTIMIZERS[optimizer if device == "cuda" else "adamw_torch"]
    states = run.trained * per_parameter if per_parameter else 2 * run.gradients
    moment = _dynamic(run, _held(run, rows, length, scored), scored, checkpointing, accumulation)
    if device == "cuda":
        moment = max(moment, _answers(run, rows * accumulation, length)) + _workspace(run)
    activations = max(0, moment - run.gradients)
    if graphs:
        activations = int(activations * GRAPHS)
    reasons = [
        why_weights,
        f"{run.trained:,} trained parameters x {run.gradients / run.trained:g} bytes",
        f"two moving averages of AdamW for each of them, {states / run.trained:g} bytes together",
        f"{rows} row{'s' * (rows > 1)} x {length} tokens x {size(activations / rows / length)} per token: "
        + f"what {shape.layers} layers "
        + ("recompute one at a time (checkpointing)" if checkpointing else "keep for the backward pass")
        + ", and the loss"
        + (", with what CUDA graphs keep beside them" if graphs else ""),
    ]
    parts = dict(zip(PARTS, (weights, run.gradients, states, activations), strict=True))
    return Prediction(method, parts, reasons)


def predict_run(model: Any, machine: Any, method: str, longest: int, **how: Any) -> Prediction:
    """The same for a run as the profile has it: sizes, number type and device are those of the model and the profile.

    longest: the longest row of the data in tokens; longer ones than the profile's `max_length` are cut. how: further
    arguments of `predict`, which go before the profile's. Raises CourseError as `predict` does. Taught in colab1.
    """
    arguments = machine.arguments
    sizes = {
        "micro_batch": arguments["per_device_train_batch_size"],
        "accumulation": arguments["gradient_accumulation_steps"],
        "checkpointing": arguments["gradient_checkpointing"],
        "length": min(longest, machine.max_length),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
    }
    return predict(Shape.of(model), method=method, **(sizes | how))


def _bfloat16_here() -> bool:
    """Whether this processor has bfloat16, as Unsloth found it: elsewhere it takes TRL's `bf16` back.

    Unsloth's file cannot be imported before Unsloth; until then nobody has asked, and bfloat16 is assumed.
    """
    runtime = sys.modules.get("unsloth_zoo.cpu.runtime")
    return runtime.cpu_bf16_supported() if runtime else True


# Bytes of optimizer state per parameter; None means two numbers in the parameter's own dtype. Unsloth's CPU backend
# replaces every 8-bit optimizer by AdamW.
OPTIMIZERS = {
    "adamw_torch": None,
    "adamw_torch_fused": None,
    "adamw_8bit": 2,
    "adamw_bnb_8bit": 2,
    "paged_adamw_8bit": 2,
}


def _check(method, dtype, device, optimizer, micro_batch, length, accumulation) -> None:
    for name, value, known in (
        ("method", method, METHODS),
        ("dtype", dtype, BYTES),
        ("device", device, ("cpu", "cuda")),
        ("optimizer", optimizer, OPTIMIZERS),
    ):
        if value not in known:
            raise CourseError(f"Memory cannot be predicted for {name} {value!r}; choose one of {', '.join(known)}.")
    for name, value in (("micro_batch", micro_batch), ("length", length), ("accumulation", accumulation)):
        if value < 1:
            raise CourseError(f"{name} is {value}; give a whole number of at least 1.")


@dataclass(frozen=True)
class _Run:
    """What the formulas need to know of a run, sizes in bytes per number."""

    shape: Shape
    method: str
    rank: int
    dtype: str
    autocast: bool
    device: str
    compiled: bool = False

    @property
    def weight(self) -> int:
        return BYTES[self.dtype]

    @property
    def compute(self) -> int:
        """Bytes of a number that comes out of a matrix product."""
        return 2 if self.autocast else self.weight

    @property
    def adapter(self) -> int:
        """PEFT keeps LoRA in float32 whatever the model's dtype; TRL turns it to bfloat16 on a 4-bit model."""
        return 2 if self.method == "qlora" else 4

    @property
    def embedding(self) -> int:
        """Trained embeddings stay in the model's dtype."""
        return self.weight

    @property
    def lora(self) -> int:
        return 0 if self.method == "full" else lora_parameters(self.shape, self.rank)

    @property
    def trained_embeddings(self) -> int:
        """Numbers in embeddings and head that get a gradient of their own."""
        if self.method not in ("full", "cpt"):
            return 0
        return self.shape.vocabulary * self.shape.hidden * (1 if self.shape.tied else 2)

    @property
    def trained(self) -> int:
        return parameters(self.shape) if self.method == "full" else self.lora + self.trained_embeddings

    @property
    def gradients(self) -> int:
        """Bytes of all gradients: each has the dtype of its parameter."""
        if self.method == "full":
            return self.trained * self.weight
        return self.lora * self.adapter + self.trained_embeddings * self.embedding


def _weights(run: _Run) -> tuple[int, str]:
    total = parameters(run.shape)
    if run.method == "full":
        products = "; products in 16 bits" if run.compute < run.weight else ""
        return total * run.weight, f"{total:,} parameters x {run.weight} bytes ({run.dtype}{products})"
    extra = run.lora * run.adapter * (2 if run.method == "dpo" else 1) + run.trained_embeddings * run.embedding
    why = f"{run.lora:,} of LoRA x {run.adapter} bytes"
    if run.method == "dpo":
        why += ", twice, since the reference keeps a copy"
    if run.method == "cpt":
        why += f", {run.trained_embeddings:,} of trained embeddings x {run.embedding} bytes"
    if run.method != "qlora":
        return total * run.weight + extra, f"{total:,} frozen parameters x {run.weight} bytes ({run.dtype}), {why}"
    packed = run.shape.layers * _linear_parameters(run.shape)
    base = int(packed * NF4_BYTES) + (total - packed) * run.weight
    return base + extra, f"{packed:,} frozen parameters in 4 bits, {total - packed:,} x {run.weight} bytes, {why}"


def _held(run: _Run, rows: int, length: int, scored: int) -> int:
    """Tokens whose activations are there at once: all of the rows, and with GRPO on a GPU often more.

    Unsloth strings the rows of GRPO together, and where many tokens are those of a prompt that several answers share,
    it passes the prompt through the model once. In the first update, and whenever an answer is longer than all before,
    it does both and compares. What the first pass holds is then still there (measured: the sum of both).
    """
    tokens = rows * length
    if run.method != "grpo" or run.device != "cuda" or rows < GROUP:
        return tokens
    shared = rows // GROUP * (length - scored // rows) + scored
    return tokens + shared if tokens >= SHARED * shared else tokens


def _dynamic(run: _Run, tokens: int, scored: int, checkpointing: bool, accumulation: int) -> int:
    """Most bytes that gradients and activations hold together during a step.

    Gradients grow while activations are released, so this is the larger of two moments, not a sum: the start of the
    backward pass, where all activations are there, and its end, where all gradients are. With accumulation the
    gradients of earlier micro-batches are there all along.
    """
    shape, gradients = run.shape, run.gradients
    carried = gradients if accumulation > 1 else 0
    layer = tokens * _layer(run) + _casts(run)
    working = tokens * _working(run)
    kept_by_loss, loss = _loss(run, tokens, scored)
    # The reference of DPO runs while the policy's activations are held; one layer of it holds about this much.
    reference = tokens * 4 * (shape.intermediate + shape.hidden) * run.compute if run.method == "dpo" else 0
    if not checkpointing:
        start = shape.layers * layer + tokens * _ends(run) + kept_by_loss + max(loss, working, reference)
        return max(start + carried, gradients)
    inputs = tokens * shape.hidden * run.weight
    forward = shape.layers * inputs + tokens * shape.hidden * 4 + kept_by_loss + max(loss, reference)
    head = run.trained_embeddings * run.embedding
    first = shape.layers * inputs + layer + working + head
    last = inputs + layer + working + gradients - (gradients - head) // shape.layers
    return max(forward + carried, first + carried, last, gradients)


def _layer(run: _Run) -> int:
    """Bytes per token that one layer keeps for the backward pass."""
    shape, compute = run.shape, run.compute
    if run.compiled:
        # q, k, v, the attention's output and log-sum-exp, gate, up, and the product of the two; and the input, in the
        # embeddings' dtype.
        kept = 2 * shape.attention + 2 * shape.kv + 3 * shape.intermediate
        if run.method == "full":
            kept += 2 * shape.hidden  # the inputs of the projections, for the gradients of their weights
        return shape.hidden * run.weight + kept * compute + 4 * shape.heads
    if run.device == "cuda" and run.method != "full":
        # Unsloth's kernels recompute the MLP product and keep each projection's input once; GRPO's rows, strung
        # together, turn the queries in a copy.
        queries = 3 if run.method == "grpo" else 2
        attention = (queries * shape.attention + 2 * shape.kv) * compute + 4 * shape.heads
        return attention + (4 * shape.hidden + 2 * shape.intermediate) * compute + 8
    # q, k, v, output, and the log-sum-exp in float32. A batch with padding brings a mask, and with a mask transformers
    # repeats keys and values for all heads.
    attention = 4 * shape.attention * compute + 4 * shape.heads
    norms = 2 * (shape.hidden + 1) * 4  # RMSNorm computes in float32
    mlp = 3 * shape.intermediate * compute  # gate, its SiLU, up
    if run.method == "full":
        norms += 2 * shape.hidden * run.weight  # the norm's weight is trained, so its input is kept too
        copies = 2 if run.weight == compute else 5  # autocast casts a float32 input once for each projection
        return norms + attention + mlp + (copies * shape.hidden + shape.intermediate) * compute
    adapter = compute if run.autocast else run.adapter
    inputs = 5 * shape.hidden + shape.attention + shape.intermediate  # one copy for each LoRA A
    if _one_dtype(run):
        inputs = 2 * shape.hidden + shape.intermediate  # no cast, so the projections share their input
    return norms + attention + mlp + (inputs + len(PROJECTIONS) * run.rank) * adapter


def _one_dtype(run: _Run) -> bool:
    return run.weight == run.compute == run.adapter


def _answers(run: _Run, rows: int, length: int) -> int:
    """Bytes that a GPU holds while GRPO's answers to an update are written: keys and values of all of them.

    Unsloth's generation makes room for them in steps of 512 tokens, one step ahead.
    """
    if run.method != "grpo":
        return 0
    return rows * 512 * (-(-length // 512) + 1) * run.shape.layers * 2 * run.shape.kv * run.compute


def _workspace(run: _Run) -> int:
    """Bytes that libraries take beside the tensors of the model; half as many where no graphs are recorded."""
    return int(WORKSPACE * (1 + parameters(run.shape) / SMOLLM2) / 2) // (1 if run.compiled else 2)


def _casts(run: _Run) -> int:
    """Bytes of the 16-bit copies of float32 weights that autocast keeps for one layer."""
    if not run.autocast:
        return 0
    linears = 0 if run.weight == 2 or run.method == "qlora" else _linear_parameters(run.shape)
    adapters = run.lora // run.shape.layers if run.adapter == 4 else 0
    return 2 * (linears + adapters)


def _working(run: _Run) -> int:
    """Bytes per token that the backward pass through one layer needs for a moment, as measured on the CPU backend."""
    working = run.shape.intermediate * run.compute + 3 * run.shape.hidden * 4
    return working if run.method == "full" or _one_dtype(run) else working + run.shape.intermediate * run.adapter


def _ends(run: _Run) -> int:
    """Bytes per token kept around the layers, beyond the two norm inputs that every layer is charged."""
    hidden = run.shape.hidden
    if run.compiled:
        return 9 * hidden * run.compute  # measured: embeddings, the last norm in float32, gradients of both
    if run.method == "full":
        return hidden * 4 + hidden * run.weight
    # The final norm keeps its input. LoRA does not keep the first norm's, as no gradient goes on to the embeddings.
    return hidden * 4 if run.method == "cpt" else 0


def _loss(run: _Run, tokens: int, scored: int) -> tuple[int, int]:
    """Bytes that the loss keeps for the backward pass, and that it needs for a moment.

    The logits are never all there: the loss is computed in blocks of rows, gradient included, and only the gradient
    of the last hidden state is kept (cut cross-entropy, Wijmans et al. 2024, is the same idea).
    """
    shape = run.shape
    # Unsloth's loss on a GPU goes through the tokens in eight pieces, of 512 tokens and up to 2 GiB each.
    counted = scored if run.method == "grpo" else tokens
    piece = min(2 * GIB, max(512, counted // 8) * shape.vocabulary * 8)
    if run.compiled:
        return (shape.vocabulary * shape.hidden * 4 if run.trained_embeddings else 0), piece
    kept = scored * shape.hidden * run.weight + (shape.vocabulary * shape.hidden * 4 if run.trained_embeddings else 0)
    preference = run.method in ("dpo", "grpo")
    if preference:
        kept += scored * shape.hidden * run.weight  # log-probabilities keep their hidden state too
    if run.method == "grpo" and run.device == "cuda":
        return kept, piece
    block = min(scored, max(16, LOGIT_BLOCK // shape.vocabulary))
    copies = 2 if preference else 1  # the entropy in TRL's log needs logits and probabilities
    numbers = 4 * copies + (2 if run.compute == 2 else 0)
    return kept, block * shape.vocabulary * numbers + 3 * tokens * shape.hidden * run.weight


def fits(prediction: Prediction, gpu: str | int) -> tuple[bool, str]:
    """Whether the predicted peak fits a GPU named in GPUS, or memory given in bytes (a CPU's available RAM).

    Returns the answer and a sentence with the numbers. Up to 90 % of the memory may be used; the rest is for what the
    allocator wastes. Raises CourseError for a GPU that is not listed or a size below 1.
    """
    if isinstance(gpu, str) and gpu not in GPUS:
        raise CourseError(f"No GPU named {gpu!r} is known; choose one of {', '.join(GPUS)}, or give its bytes.")
    usable = GPUS[gpu] if isinstance(gpu, str) else gpu
    if usable < 1:
        raise CourseError(f"The memory is {usable} bytes; give the bytes that are available, at least 1.")
    where = f"usable on {gpu}" if isinstance(gpu, str) else "available"
    answer = prediction.total <= usable * HEADROOM
    verdict = "it fits" if answer else "it does not fit; take a smaller micro-batch, shorter rows, or checkpointing"
    share = f"{prediction.total / usable:.1%}"
    return answer, f"{size(prediction.total)} predicted, {share} of the {size(usable)} {where}: {verdict}"
