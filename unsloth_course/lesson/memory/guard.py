"""A training that runs out of memory starts over with a smaller micro-batch."""

from collections.abc import Iterator
from typing import Any

from unsloth_course.core.errors import CourseError


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
    import gc

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
