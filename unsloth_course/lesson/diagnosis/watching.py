"""What is noted before a training and looked at after it."""

import math
import re
from collections.abc import Mapping
from typing import Any

from unsloth_course.core import progress
from unsloth_course.core.callback import Callback
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import evaluation, memory, results, rewards
from unsloth_course.lesson.diagnosis.judging import Evidence, judge
from unsloth_course.lesson.diagnosis.receipts import Receipt
from unsloth_course.lesson.fingerprint import data_hash
from unsloth_course.lesson.xray.checking import collated

SAMPLED_ROWS = 256
ROUNDING = 1e-6  # a spread of rewards below this is none


class Watch:
    """What has to be noted before training: see `watch`."""

    def __init__(self, trainer: Any):
        if not len(trainer.train_dataset):
            raise CourseError(
                "The train dataset has no rows left: the trainer leaves out rows in which nothing is trained. "
                "Raise max_length, or check which tokens are masked."
            )
        self.trainer = trainer
        self.meter = memory.Meter()
        self.before = {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in trainer.model.named_parameters()
            if parameter.requires_grad
        }
        self.method = _method(trainer)
        self.trained_tokens, self.sampled_rows = _trained_tokens(trainer, self.method)
        self.updates = _updates(trainer.optimizer) or 0  # a trainer that is started twice keeps its optimizer


def watch(trainer: Any) -> Watch:
    """Notes the weights of a trainer's model, and has the trainer measure memory and show one line of progress.

    Call it after the trainer is made and before `trainer.train()`; hand the result to `receipt`. Nothing in the
    training itself changes. Raises CourseError when the trainer has no rows. Taught in lesson colab2 (LoRA).
    """
    from transformers import PrinterCallback

    watching = Watch(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watching.meter)
    if watching.method == "grpo":
        trainer.add_callback(_Spread(trainer))
    trainer.add_callback(progress.shown())
    return watching


class _Spread(Callback):
    """Notes the spread of the rewards within groups, as `SPREAD`, in each row of GRPO's log.

    TRL's own `reward_std` is the spread over the whole batch, which is there even where all tries of a problem get the
    same. What each completion of the last batch got TRL keeps for its table of completions, in `_logs`.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        paid = getattr(self.trainer, "_logs", {}).get("rewards")
        if paid and logs and "reward" in logs and state.log_history:
            weights = [float(weight) for weight in self.trainer.reward_weights]
            spread = rewards.spread_in_groups(list(paid.values()), weights, self.trainer.num_generations)
            state.log_history[-1][rewards.SPREAD] = spread


def receipt(
    watching: Watch,
    score: evaluation.Score | None = None,
    answers: tuple[evaluation.Answers, evaluation.Answers] | None = None,
    predicted_bytes: int = 0,
) -> Receipt:
    """The receipt of a finished run.

    score: the held-out score. answers: the held-out answers before and after, to count and show what became of them.
    predicted_bytes: the memory prediction. Taught in lesson colab2 (LoRA).
    """
    trainer = watching.trainer
    after = {name: p.detach().to("cpu") for name, p in trainer.model.named_parameters() if name in watching.before}
    history = trainer.state.log_history
    method = watching.method
    rates = [float(row["learning_rate"]) for row in history if "learning_rate" in row]
    changed = sum(not after[name].equal(old) for name, old in watching.before.items())
    counted = _updates(trainer.optimizer)
    evidence = Evidence(
        steps=trainer.state.global_step,
        updates=counted - watching.updates if counted is not None else trainer.state.global_step if changed else 0,
        changed_tensors=changed,
        trainable_tensors=len(watching.before),
        trained_tokens=_written_tokens(trainer) if method == "grpo" else watching.trained_tokens,
        sampled_rows=watching.sampled_rows,
        learning_rate=max(rates) if rates else None,
        losses=_logged(history, "loss"),
        unseen=_logged(history, "eval_loss"),
        score=score,
        finite_weights=all(bool(tensor.isfinite().all()) for tensor in after.values()),
        predicted_bytes=predicted_bytes,
        measured_bytes=watching.meter.peak_bytes,
        method=method,
        rewards=_logged(history, "reward"),
        spreadless=_spreadless(history),
        clipped=_logged(history, "completions/clipped_ratio"),
        spreads=_logged(history, rewards.SPREAD),
        repeated=evaluation.one_answer(answers[1]) if answers else None,
    )
    verdict, findings = judge(evidence)
    return Receipt(
        verdict=verdict,
        findings=findings,
        evidence=evidence,
        layer_change=_layer_change(trainer.model, watching.before, after),
        answers=evaluation.changed(*answers) if answers else None,
        seed=trainer.args.seed,
        data_hash=data_hash(trainer.train_dataset),
        versions=results.versions(),
    )


def _method(trainer: Any) -> str:
    """What a trainer trains with, from the names of its class and of those that it is built on."""
    names = " ".join(kind.__name__ for kind in type(trainer).__mro__)
    if "GRPOTrainer" in names:
        return "grpo"
    if "DPOTrainer" in names:
        return "dpo"
    return "cpt" if "UnslothTrainer" in names.split() else "sft"


def _logged(history: list[Mapping[str, Any]], name: str) -> list[float]:
    return [float(row[name]) for row in history if name in row]


def _spreadless(history: list[Mapping[str, Any]]) -> list[float]:
    """For each logged step of GRPO the share of groups whose completions all got the same reward.

    TRL's own share is fooled by rounding: eight rewards of 1.2 have a standard deviation of 1e-7 in float32, and count
    as spread. Where all rewards of a step are alike, its logged deviation says so.
    """
    return [
        1.0 if float(row.get("reward_std", 1.0)) < ROUNDING else float(row["frac_reward_zero_std"])
        for row in history
        if "frac_reward_zero_std" in row
    ]


def _written_tokens(trainer: Any) -> int:
    """Tokens of completions that GRPO trained on, about: it makes its own text, so there is no row to look at before.

    Completions that were cut off count as nothing where the trainer masks them.
    """
    args, history = trainer.args, trainer.state.log_history
    lengths, clipped = _logged(history, "completions/mean_length"), _logged(history, "completions/clipped_ratio")
    if getattr(args, "mask_truncated_completions", False) and len(clipped) == len(lengths):
        lengths = [length * (1 - share) for length, share in zip(lengths, clipped, strict=True)]
    return round(sum(lengths) * args.per_device_train_batch_size)


def _trained_tokens(trainer: Any, method: str) -> tuple[int, int]:
    """Labels that count, as the collator gives them, in rows from all over the training set; and how many rows.

    GRPO's rows have none: they are prompts.
    """
    rows = len(trainer.train_dataset)
    count = min(SAMPLED_ROWS, rows)
    if method == "grpo":
        return 0, count
    made = (collated(trainer, trainer.train_dataset, rows * number // count) for number in range(count))
    return sum(sum(trained) for sequences in made for _, _, trained in sequences), count


def _updates(optimizer: Any) -> int | None:
    """How many updates an optimizer made to the parameter that it changed most often; None where it does not count."""
    states = getattr(optimizer, "state", None) or {}
    return max((int(state["step"]) for state in states.values() if "step" in state), default=None)


def _layer_change(model: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[int, float]:
    """How far each layer moved: the norm of its change over the norm of its weights, 0.01 being one percent.

    A LoRA adapter's change is that of the product (alpha / r) B A which it adds.
    """
    moved: dict[int, float] = {}
    whole: dict[int, float] = {}
    modules = dict(model.named_modules())
    for name, old in before.items():
        found = re.search(r"layers\.(\d+)\.", name)
        if not found:
            continue
        layer = int(found[1])
        if ".lora_A." in name:
            owner, adapter = re.fullmatch(r"(.*)\.lora_A\.(.*)\.weight", name).groups()
            partner = name.replace(".lora_A.", ".lora_B.")
            scale = modules[owner].scaling[adapter]
            change = scale * (after[partner].float() @ after[name].float() - before[partner].float() @ old.float())
            weight = _dense(modules[owner].base_layer.weight)
            moved[layer] = moved.get(layer, 0.0) + float(change.norm()) ** 2
            whole[layer] = whole.get(layer, 0.0) + float(weight.norm()) ** 2
        elif ".lora_B." not in name:
            moved[layer] = moved.get(layer, 0.0) + float((after[name].float() - old.float()).norm()) ** 2
            whole[layer] = whole.get(layer, 0.0) + float(old.float().norm()) ** 2
    return {layer: math.sqrt(moved[layer] / whole[layer]) if whole[layer] else 0.0 for layer in sorted(moved)}


def _dense(weight: Any) -> Any:
    """A frozen weight as float32 numbers; of one in 4 bits those that it stands for."""
    if getattr(weight, "quant_state", None) is None:
        return weight.detach().float()
    import bitsandbytes

    return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).float()
