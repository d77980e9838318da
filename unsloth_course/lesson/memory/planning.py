"""A plan for the batch, from predicted memory, in place of a copied default.

Public notebooks copy 2 rows x 4 accumulation steps with gradient checkpointing from one another, whatever the model and
the GPU. A model of 135 million parameters leaves most of a GPU waiting with that: a step costs what it takes to launch
its kernels, and that setting launches them four times, and a third more to compute each layer twice. `plan` picks what
launches least and still fits. The LoRA lesson prints one; `benchmarks/README.md` has what it gains.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from unsloth_course.core import markup
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.memory.guard import Pace, divisors, start_over_smaller
from unsloth_course.lesson.memory.prediction import Prediction, fits, predict
from unsloth_course.lesson.memory.shape import Shape, parameters, size
from unsloth_course.lesson.profile import Choice, lined_up

# For comparing ways to go through the same rows, not for telling the time: seconds to launch a forward pass, and
# multiplications and additions a second, as measured on an H200 at the shape of SmolLM2-135M.
LAUNCH_SECONDS = 0.015
ARITHMETIC = 2e14
STEP = 64  # rows are padded to a multiple of this, so that the lengths that a GPU sees are few


@dataclass(frozen=True, repr=False)
class Plan:
    """How an update goes through the model: `rows` = `micro_batch` x `accumulation` x `processes`.

    `arguments` are those of the profile with the plan's own: pass them to `SFTConfig`, `DPOConfig`, `GRPOConfig` or
    `UnslothTrainingArguments`. `prediction` is the predicted peak, `fits` whether it is within the memory, and
    `reasons` holds a Choice for each decision.
    """

    method: str
    micro_batch: int
    accumulation: int
    checkpointing: bool
    processes: int
    arguments: dict[str, Any]
    prediction: Prediction
    fits: bool
    reasons: tuple[Choice, ...]

    @property
    def rows(self) -> int:
        """Rows of one update, in all processes together: the effective batch."""
        return self.micro_batch * self.accumulation * self.processes

    def __repr__(self) -> str:
        return f"{lined_up(self.reasons)}\n\n{self.prediction}"

    def _repr_html_(self) -> str:
        decisions = markup.table(((r.what, r.value, r.why) for r in self.reasons), ("decision", "value", "why"))
        return decisions + self.prediction._repr_html_()

    def guard(self, trainer: Any) -> None:
        """Has `trainer.train()` start over, with a smaller micro-batch, whenever it runs out of memory.

        And say so when it slows down instead, as where a driver pages a full GPU (`Pace`). The effective
        batch, the order of the rows and the weights that the training began with stay the same, so only time is lost.
        With one row at a time it raises CourseError. Taught in lesson colab2 (LoRA).
        """
        trainer.add_callback(Pace())
        start_over_smaller(trainer)


@dataclass(frozen=True)
class _Ground:
    """What a plan is made on: the run and the machine. Sizes in rows, tokens and bytes."""

    shape: Shape
    method: str
    length: int
    budget: int
    processes: int
    sizes: dict[str, Any]  # further arguments of `predict`
    together: Callable[[int], int] | None  # tokens of so many rows, where they are not padded


class _Way(NamedTuple):
    """One way through the rows of an update, its predicted peak, and whether that is within the budget."""

    micro: int
    accumulation: int
    checkpointing: bool
    prediction: Prediction
    fits: bool


def plan(
    model: Any,
    machine: Any,
    method: str,
    *,
    longest: int,
    rows: int | None = None,
    rank: int = 16,
    completion: int | None = None,
    together: Callable[[int], int] | None = None,
    processes: int = 1,
    micro_batch: int | None = None,
) -> Plan:
    """Picks micro-batch, accumulation, checkpointing and padding for a lesson's training.

    model: the model to train, loaded; or a Shape. machine: the profile. longest: tokens of the longest row (of a GRPO
    run: prompt and completion), which is cut at the profile's `max_length`. rows: of one update, the effective batch;
    without it the profile's. rank, completion: as for `predict`. together: tokens of the largest batch of so many rows
    strung together; without it all rows count as the longest, also where Unsloth does not pad. `Lengths.sizes` has
    longest and together. processes: how many share the rows of an update, one for each GPU. micro_batch: rows at a
    time, in place of the plan's own choice.

    Raises CourseError when the rows cannot be shared evenly, and as `predict` does. Taught in lesson colab2 (LoRA).
    """
    shape = model if isinstance(model, Shape) else Shape.of(model)
    on_gpu = machine.name == "gpu"
    rows = rows or machine.arguments["per_device_train_batch_size"] * machine.arguments["gradient_accumulation_steps"]
    if rows < 1 or processes < 1 or rows % processes:
        raise CourseError(
            f"{rows} rows cannot be shared evenly by {processes} processes; give a number of rows that is a multiple "
            "of the number of processes."
        )
    length = min(longest, machine.max_length) if method != "grpo" else longest
    # Rows are strung together with answers to learn, where Unsloth compiles no blocks.
    if method not in ("full", "lora", "qlora") or machine.environment.get("UNSLOTH_BLOCK_COMPILE") != "0":
        together = None
    settings, padding = _padding(machine, method, length, together)
    graphs = on_gpu and machine.graphs and method != "grpo"  # also where a profile is made for another lesson
    sizes = {
        "rank": rank,
        "completion": completion,
        "device": "cuda" if on_gpu else "cpu",
        "dtype": _dtype(model, machine, method),
        "graphs": graphs,
    }
    padded = settings.get("pad_to_multiple_of", length)
    ground = _Ground(shape, method, padded, machine.memory_bytes, processes, sizes, together)
    reason = Choice("rows of an update", str(rows), "as asked for; the plan keeps them")
    if micro_batch:
        if rows // processes % micro_batch:
            raise CourseError(
                f"{rows // processes} rows of an update cannot be taken {micro_batch} at a time; give a --micro-batch "
                "that divides them, or another number of rows (--batch)."
            )
        way = _way(ground, rows // processes, micro_batch, False)
        reasons = [reason, *padding, Choice("micro-batch", f"{way.micro} x {way.accumulation}", "as asked for")]
    else:
        way = _split(ground, rows // processes)
        reasons = [reason, *_why(ground, rows, way), *padding]
    arguments = machine.arguments | settings
    arguments |= {
        "per_device_train_batch_size": way.micro,
        "gradient_accumulation_steps": way.accumulation,
        "gradient_checkpointing": way.checkpointing,
    }
    return Plan(method, *way[:3], processes, arguments, *way[3:], tuple(reasons))


def _dtype(model: Any, machine: Any, method: str) -> str:
    """Of the weights: the model's, or the one that Unsloth loads them in."""
    found = getattr(model, "dtype", None)
    if found is not None:
        return str(found).removeprefix("torch.")
    if method == "full" and machine.mixed_precision:
        return "float32"
    if machine.dtype:
        return machine.dtype
    if machine.bfloat16:
        return "bfloat16"
    return "float32" if method == "full" else "float16"  # trained weights are not kept in float16


def _padding(
    machine: Any, method: str, length: int, together: Callable[[int], int] | None
) -> tuple[dict[str, Any], list[Choice]]:
    """Trainer arguments on padding, and why. A CPU pads every batch to its longest row, as TRL does."""
    if machine.name != "gpu":
        if machine.bundled or method not in ("full", "lora", "qlora"):
            return {}, []
        why = "a step on a CPU takes as long as its rows, padding included, so rows of about one length go together"
        return {"train_sampling_strategy": "group_by_length"}, [Choice("order of rows", "by length", why)]
    fused = {"optim": "adamw_torch_fused"}
    if method == "grpo":
        return fused, []
    if together:
        why = "Unsloth strings the rows of a batch together where it compiles no blocks; predicted for a large batch"
        return fused, [Choice("padding", "none", why)]
    if not machine.graphs:
        why = (
            "not measured on this kind of GPU (benchmarks/speed.py does it; send its speed.json in); where Unsloth "
            "strings rows together, the peak is below the predicted"
        )
        return fused, [Choice("padding", "Unsloth's choice", why)]
    padded = -(-length // STEP) * STEP
    why = (
        "all batches have one shape, so that the blocks can be compiled and recorded as CUDA graphs; Unsloth leaves "
        "that away for padding-free batches, its own choice on this GPU"
    )
    reasons = [Choice("padding", f"to {padded} tokens", why)]
    settings = fused | {"pad_to_multiple_of": padded}
    if method == "dpo":
        settings["precompute_ref_log_probs"] = True
        why = "the reference never changes: once over the data, and every update is spared a forward pass"
        reasons.append(Choice("reference", "computed beforehand", why))
    else:
        settings["padding_free"] = False
    return settings, reasons


def _predicted(ground: _Ground, micro: int, accumulation: int, checkpointing: bool) -> Prediction:
    # Checkpointing computes layers again in the backward pass, which Unsloth does without its compiled blocks.
    sizes = ground.sizes | ({"graphs": False} if checkpointing else {})
    rows, length = (1, ground.together(micro)) if ground.together else (micro, ground.length)
    return predict(
        ground.shape,
        method=ground.method,
        micro_batch=rows,
        accumulation=accumulation,
        checkpointing=checkpointing,
        length=length,
        **sizes,
    )


def _seconds(ground: _Ground, micro: int, accumulation: int, checkpointing: bool) -> float:
    """A rough cost of an update: a backward pass costs two forward passes, checkpointing one more."""
    rows = micro * (2 if ground.method == "dpo" else 1)
    forward = max(LAUNCH_SECONDS, 2 * parameters(ground.shape) * rows * ground.length / ARITHMETIC)
    return accumulation * (4 if checkpointing else 3) * forward


def _way(ground: _Ground, rows: int, micro: int, checkpointing: bool) -> _Way:
    prediction = _predicted(ground, micro, rows // micro, checkpointing)
    return _Way(micro, rows // micro, checkpointing, prediction, fits(prediction, ground.budget)[0])


def _split(ground: _Ground, rows: int) -> _Way:
    """The cheapest way through `rows` rows that fits the budget; if none does, the one that needs least."""
    ways = [_way(ground, rows, micro, on) for micro in divisors(rows) for on in (False, True)]
    fitting = [way for way in ways if way.fits]
    if not fitting:
        return min(ways, key=lambda way: way.prediction.total)
    return min(fitting, key=lambda way: _seconds(ground, *way[:3]))


def _why(ground: _Ground, rows: int, way: _Way) -> Iterator[Choice]:
    own = rows // ground.processes
    share = f"{size(way.prediction.total)} predicted, of {size(ground.budget)}"
    if not way.fits:
        why = f"the least that is possible, and still too much: {share}; shorten the rows or take a smaller model"
    elif way.accumulation == 1:
        why = f"all of them at once: {share}"
    else:
        why = f"{size(_predicted(ground, own, 1, False).total)} for all of them at once; {share}"
    each = f", {own} in each of {ground.processes} processes" if ground.processes > 1 else ""
    yield Choice("micro-batch", f"{way.micro} x {way.accumulation}{each}", why)
    if way.checkpointing:
        most = next((micro for micro in divisors(own) if _way(ground, own, micro, False).fits), 0)
        why = "each layer is computed twice, and only its input is kept: "
        why += f"without it, {most} at a time would fit" if most else "without it, not one row fits"
        yield Choice("checkpointing", "on", why)
    else:
        saved = way.prediction.total - _predicted(ground, way.micro, way.accumulation, True).total
        why = f"it would save {size(max(0, saved))} that is not short, and compute each layer twice"
        yield Choice("checkpointing", "off", why)
