"""Bytes of the parts of a training run, from what each layer of this implementation saves, token by token."""

from dataclasses import dataclass

from unsloth_course.lesson.memory.shape import GIB, PROJECTIONS, Shape, linear_parameters, lora_parameters, parameters

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# NF4 with double quantization: 4 bits per weight, a byte per block of 64, four bytes per 256 blocks (QLoRA, section 3).
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# Unsloth's CPU backend and TRL compute the logits in blocks of at most this many numbers.
LOGIT_BLOCK = 16 * 1024 * 1024
# Measured on an H200 with torch 2.11, from 3 to 362 million parameters: bytes of workspaces beside the tensors of
# SmolLM2-135M, of which half are there for a model of any size and half grow with it.
WORKSPACE = 256 * 1024**2
SMOLLM2 = 134_515_008
# Completions of a prompt (the lesson's, and TRL's default), and the share of its tokens that must be spared before
# Unsloth passes a shared prompt through the model once.
GROUP = 8
SHARED = 1.3


@dataclass(frozen=True)
class Run:
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
        """Bytes of all gradients: each has the dtype of its parameter, and trained embeddings that of the model."""
        if self.method == "full":
            return self.trained * self.weight
        return self.lora * self.adapter + self.trained_embeddings * self.weight


def weights_of(run: Run) -> tuple[int, str]:
    total = parameters(run.shape)
    if run.method == "full":
        products = "; products in 16 bits" if run.compute < run.weight else ""
        return total * run.weight, f"{total:,} parameters x {run.weight} bytes ({run.dtype}{products})"
    extra = run.lora * run.adapter * (2 if run.method == "dpo" else 1) + run.trained_embeddings * run.weight
    why = f"{run.lora:,} of LoRA x {run.adapter} bytes"
    if run.method == "dpo":
        why += ", twice, since the reference keeps a copy"
    if run.method == "cpt":
        why += f", {run.trained_embeddings:,} of trained embeddings x {run.weight} bytes"
    if run.method != "qlora":
        return total * run.weight + extra, f"{total:,} frozen parameters x {run.weight} bytes ({run.dtype}), {why}"
    packed = run.shape.layers * linear_parameters(run.shape)
    base = int(packed * NF4_BYTES) + (total - packed) * run.weight
    return base + extra, f"{packed:,} frozen parameters in 4 bits, {total - packed:,} x {run.weight} bytes, {why}"


def held(run: Run, rows: int, length: int, scored: int) -> int:
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


def dynamic(run: Run, tokens: int, scored: int, checkpointing: bool, accumulation: int) -> int:
    """Most bytes that gradients and activations hold together during a step.

    Gradients grow while activations are released, so this is the larger of two moments, not a sum: the start of the
    backward pass, where all activations are there, and its end, where all gradients are. With accumulation the
    gradients of earlier micro-batches are there all along.
    """
    shape, gradients = run.shape, run.gradients
    carried = gradients if accumulation > 1 else 0
    layer = tokens * layer_bytes(run) + _casts(run)
    working = tokens * _working(run)
    kept_by_loss, loss = _loss(run, tokens, scored)
    # The reference of DPO runs while the policy's activations are held; one layer of it holds about this much.
    reference = tokens * 4 * (shape.intermediate + shape.hidden) * run.compute if run.method == "dpo" else 0
    if not checkpointing:
        start = shape.layers * layer + tokens * _ends(run) + kept_by_loss + max(loss, working, reference)
        return max(start + carried, gradients)
    inputs = tokens * shape.hidden * run.weight
    forward = shape.layers * inputs + tokens * shape.hidden * 4 + kept_by_loss + max(loss, reference)
    head = run.trained_embeddings * run.weight
    first = shape.layers * inputs + layer + working + head
    last = inputs + layer + working + gradients - (gradients - head) // shape.layers
    return max(forward + carried, first + carried, last, gradients)


def layer_bytes(run: Run) -> int:
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


def _one_dtype(run: Run) -> bool:
    return run.weight == run.compute == run.adapter


def answers(run: Run, rows: int, length: int) -> int:
    """Bytes that a GPU holds while GRPO's answers to an update are written: keys and values of all of them.

    Unsloth's generation makes room for them in steps of 512 tokens, one step ahead.
    """
    if run.method != "grpo":
        return 0
    return rows * 512 * (-(-length // 512) + 1) * run.shape.layers * 2 * run.shape.kv * run.compute


def workspace(run: Run) -> int:
    """Bytes that libraries take beside the tensors of the model; half as many where no graphs are recorded."""
    return int(WORKSPACE * (1 + parameters(run.shape) / SMOLLM2) / 2) // (1 if run.compiled else 2)


def _casts(run: Run) -> int:
    """Bytes of the 16-bit copies of float32 weights that autocast keeps for one layer."""
    if not run.autocast:
        return 0
    linears = 0 if run.weight == 2 or run.method == "qlora" else linear_parameters(run.shape)
    adapters = run.lora // run.shape.layers if run.adapter == 4 else 0
    return 2 * (linears + adapters)


def _working(run: Run) -> int:
    """Bytes per token that the backward pass through one layer needs for a moment, as measured on the CPU backend."""
    working = run.shape.intermediate * run.compute + 3 * run.shape.hidden * 4
    return working if run.method == "full" or _one_dtype(run) else working + run.shape.intermediate * run.adapter


def _ends(run: Run) -> int:
    """Bytes per token kept around the layers, beyond the two norm inputs that every layer is charged."""
    hidden = run.shape.hidden
    if run.compiled:
        return 9 * hidden * run.compute  # measured: embeddings, the last norm in float32, gradients of both
    if run.method == "full":
        return hidden * 4 + hidden * run.weight
    # The final norm keeps its input. LoRA does not keep the first norm's, as no gradient goes on to the embeddings.
    return hidden * 4 if run.method == "cpt" else 0


def _loss(run: Run, tokens: int, scored: int) -> tuple[int, int]:
    """Bytes that the loss keeps for the backward pass, and that it needs for a moment.

    The logits are never all there: the loss is computed in blocks of rows, gradient included, and only the gradient
    of the last hidden state is kept (cut cross-entropy, Wijmans et al. 2024, is the same idea).
    """
    shape = run.shape
    table = shape.vocabulary * shape.hidden * 4 if run.trained_embeddings else 0
    # Unsloth's loss on a GPU goes through the tokens in eight pieces, of 512 tokens and up to 2 GiB each.
    counted = scored if run.method == "grpo" else tokens
    piece = min(2 * GIB, max(512, counted // 8) * shape.vocabulary * 8)
    if run.compiled:
        return table, piece
    kept = scored * shape.hidden * run.weight + table
    preference = run.method in ("dpo", "grpo")
    if preference:
        kept += scored * shape.hidden * run.weight  # log-probabilities keep their hidden state too
    if run.method == "grpo" and run.device == "cuda":
        return kept, piece
    block = min(scored, max(16, LOGIT_BLOCK // shape.vocabulary))
    copies = 2 if preference else 1  # the entropy in TRL's log needs logits and probabilities
    numbers = 4 * copies + (2 if run.compute == 2 else 0)
    return kept, block * shape.vocabulary * numbers + 3 * tokens * shape.hidden * run.weight
