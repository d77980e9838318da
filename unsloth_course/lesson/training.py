"""Recipes of lessons as functions, for trainings that are needed and are not the lesson.

A lesson shows its own trainer in full. What it builds on, such as the supervised warm-up before DPO and GRPO, was
taught in the LoRA lesson and is called from here; so are the recipes of the command `finetune`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

    from unsloth_course.lesson.profile import Profile


def supervised(*lesson: Any, watched: bool = False, **recipe: Any) -> Any:
    """Trains as `supervised_trainer` says, with its arguments, and returns the trainer.

    watched: the receipt's watch is put on it, as `trainer.watching`. Taught in lesson colab2 (LoRA).
    """
    return _run(supervised_trainer(*lesson, **recipe), watched)


def supervised_trainer(
    model: Any,
    tokenizer: Any,
    rows: "Dataset",
    machine: "Profile",
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    out: str | Path,
    held_out: "Dataset | None" = None,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> Any:
    """TRL's SFTTrainer for prompt/completion rows, as in the LoRA lesson.

    rows: TRL's conversational columns prompt and completion. steps: optimizer updates, of
    `machine.arguments["per_device_train_batch_size"]` rows each. out: folder of the trainer. held_out: rows of the same
    columns, whose loss is measured at the start and at each quarter of the way. callbacks: more of them for the
    trainer. settings: more arguments of `SFTConfig`, which go before the recipe's own. What is trained is what the
    model leaves trainable: its adapter, or all of it. Taught in lesson colab2 (LoRA).
    """
    import unsloth  # noqa: F401 -- before trl, which it speeds up
    from trl import SFTConfig, SFTTrainer

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
    return SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=rows,
        eval_dataset=held_out,
        callbacks=list(callbacks),
        args=SFTConfig(**{**machine.arguments, **recipe, **settings}),
    )


def continued(*lesson: Any, watched: bool = False, **recipe: Any) -> Any:
    """Trains as `continued_trainer` says, with its arguments, and returns the trainer.

    watched: as for `supervised`. Taught in lesson colab5 (continued pretraining).
    """
    return _run(continued_trainer(*lesson, **recipe), watched)


def continued_trainer(
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
    held_out: "Dataset | None" = None,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> Any:
    """UnslothTrainer for blocks of raw text, as in the lesson on continued pretraining.

    blocks: column input_ids, all rows of one length, as `corpus.blocks` and `corpus.mix` make them. The learning rates
    are that of the adapter and that of the embeddings. The other arguments are those of `supervised_trainer`, and
    `settings` those of `UnslothTrainingArguments`. Taught in lesson colab5 (continued pretraining).
    """
    from unsloth import UnslothTrainer, UnslothTrainingArguments

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
    return UnslothTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=blocks,
        eval_dataset=held_out,
        callbacks=list(callbacks),
        args=UnslothTrainingArguments(**{**machine.arguments, **recipe, **settings}),
    )


def preference_trainer(
    model: Any,
    tokenizer: Any,
    pairs: "Dataset",
    machine: "Profile",
    *,
    beta: float,
    steps: int,
    learning_rate: float,
    seed: int,
    out: str | Path,
    held_out: "Dataset | None" = None,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> Any:
    """TRL's DPOTrainer for pairs, as in its lesson: the model without its adapter is the reference.

    pairs: TRL's conversational columns prompt, chosen and rejected. beta: the price of leaving the reference. The
    other arguments are those of `supervised_trainer`, and `settings` those of `DPOConfig`. Follows Rafailov et al.
    2023. Taught in lesson colab3 (DPO).
    """
    import unsloth  # noqa: F401 -- before trl
    from trl import DPOConfig, DPOTrainer

    recipe = {
        "beta": beta,
        "max_steps": steps,
        "learning_rate": learning_rate,
        "warmup_steps": min(5, steps // 4),
        "lr_scheduler_type": "cosine",
        "max_length": machine.max_length,
        "logging_steps": 2,
        "seed": seed,
        "output_dir": str(out),
    }
    return DPOTrainer(
        model=model,
        ref_model=None,
        processing_class=tokenizer,
        train_dataset=pairs,
        eval_dataset=held_out,
        callbacks=list(callbacks),
        args=DPOConfig(**{**machine.arguments, **recipe, **settings}),
    )


def reward_trainer(
    model: Any,
    tokenizer: Any,
    prompts: "Dataset",
    machine: "Profile",
    *,
    generations: int,
    completion: int,
    steps: int,
    learning_rate: float,
    seed: int,
    out: str | Path,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> Any:
    """TRL's GRPOTrainer for problems with a verifiable answer, as in its lesson: the right number is paid.

    prompts: columns prompt (turns) and answer (the number as text). generations: completions of each prompt, of at most
    `completion` tokens. The other arguments are those of `supervised_trainer`, and `settings` those of `GRPOConfig`.
    Follows Shao et al. 2024. Taught in lesson colab4 (GRPO).
    """
    import unsloth  # noqa: F401 -- before trl
    from trl import GRPOConfig, GRPOTrainer

    from unsloth_course.lesson import rewards

    recipe = {
        "num_generations": generations,
        "max_completion_length": completion,
        "temperature": 1.0,
        "reward_weights": [1.0, 0.0],  # `form` also pays a bare wrong number: it is logged and not paid
        "beta": 0.0,
        "loss_type": "bnpo",
        "max_steps": steps,
        "learning_rate": learning_rate,
        "warmup_steps": min(3, steps),
        "lr_scheduler_type": "constant_with_warmup",
        "logging_steps": 1,
        "seed": seed,
        "output_dir": str(out),
    }
    return GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=[rewards.exact, rewards.form],
        train_dataset=prompts,
        callbacks=list(callbacks),
        args=GRPOConfig(**{**machine.arguments, **recipe, **settings}),
    )


def _run(trainer: Any, watched: bool) -> Any:
    from transformers import PrinterCallback

    from unsloth_course.core import progress
    from unsloth_course.lesson import diagnosis

    if watched:
        trainer.watching = diagnosis.watch(trainer)
    else:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(progress.shown())
    trainer.train()
    return trainer
