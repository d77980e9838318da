"""A training that runs out of memory starts over with a smaller micro-batch; one that slows down says why.

Windows' display driver moves a part of a full GPU into system memory rather than let a program fail, and a step of one
second then takes eighty. Nothing says so; `Pace` does. It compares each step with the median of those before, and looks
at how full the memory is.
"""

import gc
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from unsloth_course.core.callback import Callback
from unsloth_course.core.errors import CourseError

TIMES = 8.0  # as long as the median before: what no longer batch explains, in rows of at most a few lengths
STEADY = 5  # steps before, whose median means something
IN_A_ROW = 2  # slow steps; a single one may be a garbage collection, or a virus scanner
FULL = 0.95  # share of the memory in use from which paging is the likely cause


def divisors(rows: int) -> Iterator[int]:
    """The whole numbers that divide `rows`, the largest first."""
    return (n for n in range(rows, 0, -1) if rows % n == 0)


def start_over_smaller(trainer: Any) -> None:
    """What `Plan.guard` does to a trainer."""
    import torch

    train = trainer.train
    began = {name: p.detach().to("cpu", copy=True) for name, p in trainer.model.named_parameters() if p.requires_grad}

    def guarded(*args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                return train(*args, **kwargs)
            except torch.OutOfMemoryError:
                micro = trainer.args.per_device_train_batch_size
                smaller = next((n for n in divisors(micro) if n < micro), 0)
                if not smaller:
                    raise CourseError(
                        "The GPU ran out of memory with one row at a time. Close what else uses it (nvidia-smi lists "
                        "it), shorten the rows (max_length), or switch gradient checkpointing on."
                    ) from None
            # Outside the except block, so that the tensors of the failed step are let go first.
            print(
                f"Out of memory with {micro} rows at a time. Starting over with {smaller} x {micro // smaller} times "
                "the accumulation: the same rows in every update, from the same weights.",
                flush=True,
            )
            _shrink(trainer, smaller)
            named = dict(trainer.model.named_parameters())
            with torch.no_grad():
                for name, values in began.items():
                    named[name].copy_(values)

    trainer.train = guarded


def _shrink(trainer: Any, micro: int) -> None:
    """Gives a trainer that has failed a smaller micro-batch and as much more accumulation, as if it were new."""
    import torch

    more = trainer.args.per_device_train_batch_size // micro
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = micro
    trainer.args.gradient_accumulation_steps *= more
    trainer.accelerator.gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    if getattr(trainer.args, "steps_per_generation", None):  # GRPO: one generation still serves one update
        trainer.args.steps_per_generation *= more
        trainer._buffered_inputs, trainer._step = None, 0
    trainer.optimizer = trainer.lr_scheduler = None
    for parameter in trainer.model.parameters():
        parameter.grad = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def slowed(seconds: Sequence[float], full: Sequence[float], left: int = 0) -> str:
    """Whether the last steps are slow beside those before: what happened, why, and what helps, first things first.

    seconds: of each step. full: shares of the memory in use after it, from 0 to 1. left: steps that are still to be
    done. Empty while there is nothing to say.
    """
    before, last = seconds[:-IN_A_ROW], seconds[-IN_A_ROW:]
    usual = median(before) if len(before) >= STEADY else 0
    if usual <= 0 or min(last) < TIMES * usual:
        return ""
    share = max(full[-IN_A_ROW:])
    found = (
        f"Step {len(seconds)} took {_span(last[-1])}, {last[-1] / usual:.0f} times the median before it "
        f"({_span(usual)}), and {share:.0%} of the GPU's memory is in use. "
    )
    if share < FULL:
        return found + (
            "So memory is not the cause: look for another program on the GPU (nvidia-smi), a laptop that saves "
            "power or is too hot, and data on a slow disk."
        )
    end = f", in about {_span(left * last[-1])} at this pace" if left else ""
    return found + (
        "The driver now keeps a part of it in the computer's memory, as Windows does instead of failing. What "
        "helps: (1) interrupt, restart the kernel, and take fewer rows at a time with as much more accumulation; "
        "(2) close what else draws on the GPU: browser, editor, chat programs; (3) shorter rows (max_length) or "
        f"gradient checkpointing; (4) or leave it: it will end{end}."
    )


class Pace(Callback):
    """Trainer callback that prints once when a training has slowed down, and keeps it as `said`; it changes nothing.

    Evaluations between steps are not timed. Put on by `plan.guard`.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seconds: list[float] = []
        self._full: list[float] = []
        self.said = ""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seconds.append(time.perf_counter() - self._began)
        self._full.append(in_use())
        left = max(0, state.max_steps - state.global_step)
        if not self.said and (said := slowed(self._seconds, self._full, left)):
            self.said = said
            print(said)


def in_use() -> float:
    """Share of the GPU's memory that is in use, by whatever program; 0 without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return 1 - free / total


def _span(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} hours"
    if seconds >= 120:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds:.3g} s"
