"""Memory of a training run, measured while it runs."""

import time
from typing import Any

from unsloth_course.core.callback import Callback
from unsloth_course.lesson.memory.prediction import PARTS


class Meter(Callback):
    """Trainer callback that measures the peak memory of a training run; it changes nothing in the run.

    Pass it as `SFTTrainer(..., callbacks=[meter])`. After training `peak_bytes` is the peak in bytes, and `parts` the
    same four parts as in a Prediction. `step_seconds` holds the time from the end of each step to the end of the next;
    the first steps may have to compile.

    On CUDA the peak is torch's own counter, without what else lay on the GPU when the training began, such as another
    model of the same notebook, and with the memory pools of CUDA graphs, which that counter leaves out: all of them, as
    a training takes over those of the trainings before it, also where they are larger than it needs.

    A CPU has no such counter, and resident memory is mostly libraries at this size, so weights, gradients and optimizer
    state are counted from the live tensors, and the rest is read from the allocations that torch.profiler records. That
    costs milliseconds, so only steps with a batch larger than every batch before are recorded: the longest batch
    decides the peak. In every part `activations` is what the peak holds beyond the other three.
    """

    MOST_RECORDED_STEPS = 16
    RECORDING_STEPS = 3

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.parts = dict.fromkeys(PARTS, 0)
        self._reset()

    def _reset(self) -> None:
        self._gradients = self._dynamic = self._recorded = self._others = self._early = 0
        self._largest = (0, False)
        self._hook = self._profiler = None
        self.step_seconds: list[float] = []
        self._step_ended: float | None = None

    def on_train_begin(self, *_: Any, model: Any, optimizer: Any = None, **more: Any) -> None:
        self._release()
        self._reset()
        if _on_cuda(model):
            import torch

            torch.cuda.reset_peak_memory_stats()
            own = _weight_bytes(model) + _gradient_bytes(model) + _optimizer_bytes(optimizer)
            self._others = max(0, torch.cuda.memory_allocated() - own)
        else:
            self._hook = model.register_forward_pre_hook(self._before_forward, with_kwargs=True)

    def _before_forward(self, model: Any, inputs: tuple, named: dict) -> None:
        import torch

        tokens = named.get("input_ids", inputs[0] if inputs else None)
        if tokens is None or self._profiler or not torch.is_grad_enabled() or not model.training:
            return
        held = _gradient_bytes(model)
        # A batch of equal size that meets gradients of an earlier micro-batch needs more than one that does not.
        batch = (tokens.numel(), held > 0)
        if batch <= self._largest or self._recorded >= self.MOST_RECORDED_STEPS:
            return
        self._largest, self._held = batch, held
        self._start()

    def _start(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        try:
            profiler.start()
        except RuntimeError:  # somebody's own profiler is running: activations are not measured then
            self._recorded = self.MOST_RECORDED_STEPS
        else:
            self._profiler = profiler

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._gradients = max(self._gradients, _gradient_bytes(model))
        if self._profiler:
            profiler, self._profiler = self._profiler, None
            profiler.stop()
            self._dynamic = max(self._dynamic, self._held + _peak_of(profiler))
            self._recorded += 1

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        now = time.perf_counter()
        if self._step_ended is not None:
            self.step_seconds.append(now - self._step_ended)
        self._step_ended = now
        # The first steps run without graphs and then record them: their tensors lie outside the pools, and are gone
        # when the pools are filled.
        if state.global_step == self.RECORDING_STEPS and _on_cuda(model) and graph_bytes():
            import torch

            self._early = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()

    def on_train_end(self, *_: Any, model: Any, optimizer: Any = None, **more: Any) -> None:
        self._release()
        weights, states = _weight_bytes(model), _optimizer_bytes(optimizer)
        if _on_cuda(model):
            import torch

            peak = max(self._early, torch.cuda.max_memory_allocated() + graph_bytes()) - self._others
        else:
            peak = weights + states + max(self._dynamic, self._gradients)
        rest = max(0, peak - weights - states - self._gradients)
        self.parts = dict(zip(PARTS, (weights, self._gradients, states, rest), strict=True))
        self.peak_bytes = peak

    def _release(self) -> None:
        """Also after a training that broke off, so that no hook and no profiler stays behind."""
        if self._hook:
            self._hook.remove()
        if self._profiler:
            self._profiler.stop()
        self._hook = self._profiler = None


def _on_cuda(model: Any) -> bool:
    return next(model.parameters()).device.type == "cuda"


def graph_bytes() -> int:
    """Bytes of the memory pools that CUDA graphs keep for themselves; the counters of allocated memory miss them."""
    import torch

    segments = torch.cuda.memory_snapshot()
    return sum(segment["total_size"] for segment in segments if tuple(segment["segment_pool_id"]) != (0, 0))


def _gradient_bytes(model: Any) -> int:
    return sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)


def _weight_bytes(model: Any) -> int:
    """Bytes of all parameters and buffers, a tied one once, with the scales of 4-bit weights."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        tensors += _scales(getattr(parameter, "quant_state", None))
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _scales(state: Any) -> list:
    if state is None:
        return []
    return [t for t in (state.absmax, state.code) if t is not None] + _scales(state.state2)


def _optimizer_bytes(optimizer: Any) -> int:
    if optimizer is None:
        return 0
    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.nbytes for value in values if hasattr(value, "nbytes"))


def _peak_of(profiler: Any) -> int:
    """Highest running total of what torch allocated and freed on the CPU while the profiler ran, in bytes."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    running = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        running += event.nbytes()
        peak = max(peak, running)
    return peak
