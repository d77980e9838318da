"""Recipes of lessons as functions, for trainings that are needed and are not the lesson.

A lesson shows its own trainer in full. What it builds on, such as the supervised warm-up before DPO and GRPO, was
taught in the LoRA lesson and is called from here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

    from unsloth_course.profile import Profile


def supervised(
    model: Any,
    tokenizer: Any,
    rows: "Dataset",
    machine: "Profile",
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    out: str | Path,
    watched: bool = False,
    held_out: "Dataset | None" = None,
    callbacks: Sequence[Any] = (),
    guard: Callable[[Any], None] | None = None,
    **settings: Any,
) -> Any:
    """Trains a model on prompt/completion rows with TRL's SFTTrainer, as the LoRA lesson does, and returns the trainer.

    rows: TRL's conversational columns prompt and completion. steps: optimizer updates, of
    `machine.arguments["per_device_train_batch_size"]` rows each. out: folder of the trainer. watched: the receipt's
    watch is put on it, as `trainer.watching`. held_out: rows of the same columns, whose loss is measured at the start
    and at each quarter of the way. callbacks: more of them for the trainer. guard: `plan.guard` of a memory plan.
    settings: more arguments of `SFTConfig`, which go before the recipe's own. What is trained is what the model leaves
    trainable: its adapter, or all of it. Taught in lesson colab2 (LoRA).
    """
    import unsloth  # noqa: F401 -- before trl, which it speeds up
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from unsloth_course import diagnosis, progress

    recipe = {
        "max_steps": steps,
        "learning_rate": learning_rate,
        "warmup_steps": min(10, steps // 5),
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.01,
        "max_length": machine.max_length,
        "logging_steps": 5,
        "seed": seed,
        "output_dir": str(Path(out) / "supervised"),
    }
    if held_out is not None:
        recipe |= {"eval_strategy": "steps", "eval_steps": max(1, steps // 4), "eval_on_start": True}
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=rows,
        eval_dataset=held_out,
        callbacks=list(callbacks),
        args=SFTConfig(**{**machine.arguments, **recipe, **settings}),
    )
    if watched:
        trainer.watching = diagnosis.watch(trainer)
    else:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(progress.Line())
    if guard is not None:
        guard(trainer)
    trainer.train()
    return trainer


def continued(
    model: Any,
    tokenizer: Any,
    blocks: "Dataset",
    machine: "Profile",
    *,
    steps: int,
    learning_rate: float,
    embedding_learning_rate: float,
    seed: int,
    out: str | Path,
    watched: bool = False,
    **settings: Any,
) -> Any:
    """Goes on pretraining a model on blocks of raw text with UnslothTrainer, as its lesson does; returns the trainer.

    blocks: column input_ids, all rows of one length, as `corpus.blocks` and `corpus.mix` make them. The learning rates
    are that of the adapter and that of the embeddings. The other arguments are those of `supervised`, and `settings`
    those of `UnslothTrainingArguments`. Taught in lesson colab5 (continued pretraining).
    """
    from unsloth import UnslothTrainer, UnslothTrainingArguments  # isort: skip -- before transformers
    from transformers import PrinterCallback

    from unsloth_course import diagnosis, progress

    recipe = {
        "max_steps": steps,
        "learning_rate": learning_rate,
        "embedding_learning_rate": embedding_learning_rate,
        "warmup_steps": min(5, steps // 5),
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.01,
        "max_length": len(blocks[0]["input_ids"]),
        "logging_steps": 5,
        "seed": seed,
        "output_dir": str(Path(out) / "continued"),
    }
    trainer = UnslothTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=blocks,
        args=UnslothTrainingArguments(**{**machine.arguments, **recipe, **settings}),
    )
    if watched:
        trainer.watching = diagnosis.watch(trainer)
    else:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(progress.Line())
    trainer.train()
    return trainer
