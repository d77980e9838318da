"""Recipes of lessons as functions, for trainings that are needed and are not the lesson.

A lesson shows its own trainer in full. What it builds on, such as the supervised warm-up before DPO and GRPO, was
taught in the LoRA lesson and is called from here; so are the recipes of the command `finetune`.

Each function takes `model, tokenizer, rows, machine` and by name: steps (optimizer updates), learning_rate, seed, out
(folder of the trainer), and maybe held_out (rows of the same columns), callbacks (more of them for the trainer), and
more arguments of the trainer's config, which go before the recipe's own. What is trained is what the model leaves
trainable: its adapter, or all of it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsloth_course.lesson.profile import Profile

if TYPE_CHECKING:
    from datasets import Dataset


def _trainer(
    kind: type,
    config: type,
    recipe: dict[str, Any],
    model: Any,
    tokenizer: Any,
    rows: "Dataset",
    machine: Profile,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    out: str | Path,
    held_out: "Dataset | None" = None,
    callbacks: Sequence[Any] = (),
    more: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """A trainer of a kind. recipe: arguments of its config that are the method's own, one of them warmup_steps.

    more: further arguments of the trainer; the others as the room's docstring has them.
    """
    shared = {"max_steps": steps, "learning_rate": learning_rate, "seed": seed, "output_dir": str(out)}
    return kind(
        model=model,
        processing_class=tokenizer,
        train_dataset=rows,
        eval_dataset=held_out,
        callbacks=list(callbacks),
        args=config(**{**machine.arguments, "lr_scheduler_type": "cosine", **shared, **recipe, **settings}),
        **(more or {}),
    )


def supervised(*lesson: Any, watched: bool = False, **how: Any) -> Any:
    """Trains as `supervised_trainer` says, with its arguments, and returns the trainer.

    watched: the receipt's watch is put on it, as `trainer.watching`.
    """
    return _run(supervised_trainer(*lesson, **how), watched)


def supervised_trainer(model: Any, tokenizer: Any, rows: "Dataset", machine: Profile, **how: Any) -> Any:
    """TRL's SFTTrainer for prompt/completion rows, as in the LoRA lesson.

    rows: TRL's conversational columns prompt and completion. The loss of held_out is measured at the start and at each
    quarter of the way.
    """
    import unsloth  # noqa: F401 -- before trl, which it speeds up
    from trl import SFTConfig, SFTTrainer

    steps, out = how["steps"], Path(how.pop("out")) / "supervised"
    recipe = {
        "warmup_steps": min(10, steps // 5),
        "weight_decay": 0.01,
        "max_length": machine.max_length,
        "logging_steps": 5,
    }
    if how.get("held_out") is not None:
        recipe |= {"eval_strategy": "steps", "eval_steps": max(1, steps // 4), "eval_on_start": True}
    return _trainer(SFTTrainer, SFTConfig, recipe, model, tokenizer, rows, machine, out=out, **how)


def continued(*lesson: Any, watched: bool = False, **how: Any) -> Any:
    """Trains as `continued_trainer` says, with its arguments, and returns the trainer.

    watched: as for `supervised`. Taught in lesson colab5 (continued pretraining).
    """
    return _run(continued_trainer(*lesson, **how), watched)


def continued_trainer(model: Any, tokenizer: Any, blocks: "Dataset", machine: Profile, **how: Any) -> Any:
    """UnslothTrainer for blocks of raw text, as in the lesson on continued pretraining.

    blocks: column input_ids, all rows of one length, as `corpus.blocks` and `corpus.mix` make them. The learning rate
    is that of the adapter; embedding_learning_rate, by name too, is that of the embeddings.
    """
    from unsloth import UnslothTrainer, UnslothTrainingArguments

    out = Path(how.pop("out")) / "continued"
    recipe = {
        "warmup_steps": min(5, how["steps"] // 5),
        "weight_decay": 0.01,
        "max_length": len(blocks[0]["input_ids"]),
        "logging_steps": 5,
    }
    lesson = model, tokenizer, blocks, machine
    return _trainer(UnslothTrainer, UnslothTrainingArguments, recipe, *lesson, out=out, **how)


def preference_trainer(model: Any, tokenizer: Any, pairs: "Dataset", machine: Profile, **how: Any) -> Any:
    """TRL's DPOTrainer for pairs, as in its lesson: the model without its adapter is the reference.

    pairs: TRL's conversational columns prompt, chosen and rejected. beta, by name too: the price of leaving the
    reference. Follows Rafailov et al. 2023.
    """
    import unsloth  # noqa: F401 -- before trl
    from trl import DPOConfig, DPOTrainer

    recipe = {"warmup_steps": min(5, how["steps"] // 4), "max_length": machine.max_length, "logging_steps": 2}
    lesson = model, tokenizer, pairs, machine
    return _trainer(DPOTrainer, DPOConfig, recipe, *lesson, more={"ref_model": None}, **how)


def reward_trainer(
    model: Any, tokenizer: Any, prompts: "Dataset", machine: Profile, *, generations: int, completion: int, **how: Any
) -> Any:
    """TRL's GRPOTrainer for problems with a verifiable answer, as in its lesson: the right number is paid.

    prompts: columns prompt (turns) and answer (the number as text). generations: completions of each prompt, of at most
    `completion` tokens. Follows Shao et al. 2024.
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
        "warmup_steps": min(3, how["steps"]),
        "lr_scheduler_type": "constant_with_warmup",
        "logging_steps": 1,
    }
    paid = {"reward_funcs": [rewards.exact, rewards.form]}
    return _trainer(GRPOTrainer, GRPOConfig, recipe, model, tokenizer, prompts, machine, more=paid, **how)


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
