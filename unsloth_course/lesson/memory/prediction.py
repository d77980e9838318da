"""Memory of a training run, predicted from the architecture before it.

Four things fill memory during training: weights, gradients, optimizer state, activations. The first three are counts
of numbers times bytes per number. The fourth is what the forward pass keeps for the backward pass, so it follows from
what each layer of this implementation saves, token by token (`formulas`). All lessons show it beside the measured
peak; the LoRA lesson explains it.
"""

import sys
from dataclasses import dataclass, field

from unsloth_course.core import markup
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.memory.formulas import BYTES, Run, answers, dynamic, held, weights_of, workspace
from unsloth_course.lesson.memory.shape import GIB, METHODS, Shape, size

PARTS = ("weights", "gradients", "optimizer", "activations")
# Share of the usable memory that a prediction may fill; the rest is for fragmentation and the prediction's own error.
HEADROOM = 0.9
# How much more a training holds when its blocks are CUDA graphs, which keep inputs and outputs apart; measured too.
GRAPHS = 1.1
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

    def __repr__(self) -> str:
        return "\n".join(f"{part:<12}{amount:>12}  {why}" for part, amount, why in self._rows())

    def _repr_html_(self) -> str:
        return markup.table(self._rows(), ("part", "memory", "why"))


def predict(
    shape: Shape,
    *,
    method: str,
    micro_batch: int,
    length: int,
    rank: int = 16,
    dtype: str = "float32",
    checkpointing: bool = False,
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

    Raises CourseError for an unknown method or dtype, and for a length or a rank below 1. All lessons print it.
    """
    for name, value, known in (("method", method, METHODS), ("dtype", dtype, BYTES)):
        if value not in known:
            raise CourseError(f"Memory cannot be predicted for {name} {value!r}; choose one of {', '.join(known)}.")
    if length < 1:
        raise CourseError(f"The longest row has {length} tokens; give a whole number of at least 1.")
    if autocast is None:
        autocast = device == "cuda" or (dtype != "float32" and _bfloat16_here())
    run = Run(shape, method, rank, dtype, autocast, device, graphs)
    rows = micro_batch * (2 if method == "dpo" else 1)
    scored = rows * min(length, completion or max(1, length // 2)) if method in ("dpo", "grpo") else rows * length
    weights, why_weights = weights_of(run)
    states = 2 * run.gradients
    moment = dynamic(run, held(run, rows, length, scored), scored, checkpointing, accumulation)
    if device == "cuda":
        moment = max(moment, answers(run, rows * accumulation, length)) + workspace(run)
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


def _bfloat16_here() -> bool:
    """Whether this processor has bfloat16, as Unsloth found it: elsewhere it takes TRL's `bf16` back.

    Unsloth's file cannot be imported before Unsloth; until then nobody has asked, and bfloat16 is assumed.
    """
    runtime = sys.modules.get("unsloth_zoo.cpu.runtime")
    return runtime.cpu_bf16_supported() if runtime else True


def fits(prediction: Prediction, gpu: str | int) -> tuple[bool, str]:
    """Whether the predicted peak fits a GPU named in GPUS, or memory given in bytes (a CPU's available RAM).

    Returns the answer and a sentence with the numbers. Up to 90 % of the memory may be used; the rest is for what the
    allocator wastes. Raises CourseError for a GPU that is not listed.
    """
    if isinstance(gpu, str) and gpu not in GPUS:
        raise CourseError(f"No GPU named {gpu!r} is known; choose one of {', '.join(GPUS)}, or give its bytes.")
    usable = GPUS[gpu] if isinstance(gpu, str) else gpu
    where = f"usable on {gpu}" if isinstance(gpu, str) else "available"
    answer = prediction.total <= usable * HEADROOM
    verdict = "it fits" if answer else "it does not fit; take a smaller micro-batch, shorter rows, or checkpointing"
    share = f"{prediction.total / usable:.1%}"
    return answer, f"{size(prediction.total)} predicted, {share} of the {size(usable)} {where}: {verdict}"
