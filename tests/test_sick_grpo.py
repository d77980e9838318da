"""Real GRPO runs of the pocket model: one that learns, and others that cannot, each in its own way.

The bar of the course: a learning rate of 0 and a constant reward are called "not trained", by their name. The rest may
be called suspicious, and never trained.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import Run, assert_sick

from unsloth_course import data, diagnosis, evaluation, memory, models, rewards, training

WARM_UP, COMPLETION = 40, 64
FEW, ALL = 16, 64  # held-out problems: ALL where a score has to rise or fall
BRIEF = 16  # tokens of a completion where it does not matter what it says


@dataclass
class Warm:
    """A model after the supervised warm-up, its weights to go back to, and the problems.

    before: what it answers to the first so many of the held-out ones, as it was solved.
    """

    model: Any
    tokenizer: Any
    start: dict
    prompts: Any
    held_out: Any
    before: dict[int, evaluation.Answers] = field(default_factory=dict)

    def solve(self, count):
        return evaluation.solve(self.model, self.tokenizer, self.held_out.select(range(count)), COMPLETION)


@pytest.fixture(scope="module")
def warm(with_adapter, machine, tmp_path_factory):
    model, tokenizer = with_adapter()
    train, held_out, _ = data.sources.problems("pocket", train=16 * WARM_UP + 100, held_out=ALL, seed=3407)
    mixed = data.problems.warm_up(train.select(range(16 * WARM_UP)), worked=0.25)
    how = {"steps": WARM_UP, "learning_rate": 1e-3, "seed": 3407, "out": tmp_path_factory.mktemp("warm")}
    training.supervised(model, tokenizer, mixed, machine, **how)
    prompts = train.select(range(16 * WARM_UP, len(train))).map(data.problems.to_grpo, batched=True)
    made = Warm(model, tokenizer, models.adapter_state(model), prompts, held_out)
    made.before = {count: made.solve(count) for count in (FEW, ALL)}
    return made


@pytest.fixture(scope="module")
def run_grpo(warm, machine, tmp_path_factory):
    """Trains the warm model as the GRPO lesson does, only shorter; `prompts` of 8 completions a step."""

    def run(functions=(rewards.exact, rewards.form), weights=(1.0, 0.0), steps=3, prompts=2, held_out=FEW, **settings):
        from trl import GRPOConfig, GRPOTrainer

        models.restore_adapter(warm.model, warm.start)
        defaults = {
            "num_generations": 8,
            "max_completion_length": COMPLETION,
            "reward_weights": list(weights),
            "beta": 0.0,
            "loss_type": "bnpo",
            "max_steps": steps,
            "learning_rate": 1e-3,
            "warmup_steps": 2,
            "lr_scheduler_type": "constant_with_warmup",
            "logging_steps": 1,
            "seed": 3407,
            "output_dir": str(tmp_path_factory.mktemp("checkpoints")),
            **machine.arguments,
            "per_device_train_batch_size": 8 * prompts,
        }
        trainer = GRPOTrainer(
            model=warm.model,
            processing_class=warm.tokenizer,
            reward_funcs=list(functions),
            train_dataset=warm.prompts,
            args=GRPOConfig(**(defaults | settings)),
        )
        watching = diagnosis.watch(trainer)
        trainer.train()
        before, after = warm.before[held_out], warm.solve(held_out)
        score = evaluation.accuracy_score(before, after)
        return Run(trainer, watching, before, after, diagnosis.receipt(watching, score, (before, after)))

    return run


def test_a_healthy_run_is_trained(run_grpo, warm):
    run = run_grpo(steps=14, prompts=4, held_out=ALL)
    assert run.verdict == "trained", str(run.receipt)
    assert run.findings == set()
    assert run.after.share - warm.before[ALL].share > 0.25
    evidence = run.receipt.evidence
    assert (evidence.method, evidence.steps, evidence.updates) == ("grpo", 14, 14)
    assert len(evidence.rewards) == len(evidence.spreadless) == 14
    assert len(evidence.spreads) == 14, "TRL keeps no rewards where they are looked for"
    assert [spread < 1e-6 for spread in evidence.spreads] == [share == 1 for share in evidence.spreadless]
    assert "the reward rose, and unseen problems are solved more often" in run.receipt.sentence()
    # Nobody told it to: it found out that showing its steps pays.
    assert sum("=" in text for text in warm.before[ALL].given) < 8 and sum("=" in text for text in run.after.given) > 45
    the_memory_was_predicted(run, warm)


def the_memory_was_predicted(run, warm):
    length = data.problems.longest_prompt(warm.prompts, warm.tokenizer) + COMPLETION
    sizes = {"rank": 16, "micro_batch": 32, "length": length, "completion": COMPLETION}
    prediction = memory.predict(memory.Shape.of(warm.model), method="grpo", **sizes)
    assert prediction.total == pytest.approx(run.watching.meter.peak_bytes, rel=0.2)


def test_a_learning_rate_of_0(run_grpo):
    run = run_grpo(learning_rate=0, max_completion_length=BRIEF)
    assert_sick(run, "learning rate 0", "weights unchanged")
    assert run.receipt.evidence.steps == 3


def constant(completions, **kwargs):
    return [1.0] * len(completions)


def also_constant(completions, **kwargs):  # TRL keeps rewards by the name of their function
    return [1.0] * len(completions)


@pytest.mark.parametrize(
    ("functions", "weights"),
    [([constant], [1.0]), ([constant, also_constant], [1.0, 0.2])],
    ids=["exact in binary", "rounded"],
)
def test_a_constant_reward(run_grpo, functions, weights):
    """Eight rewards of 1.0 + 0.2 are alike, and yet have a spread of 1e-7 in float32, which TRL takes for one."""
    run = run_grpo(functions, weights, max_completion_length=BRIEF)
    assert_sick(run, "no spread in rewards")
    assert "nothing to prefer" in run.receipt.sentence()


def test_a_reward_of_random_numbers(run_grpo):
    dice = random.Random(5)

    def lottery(completions, **kwargs):
        return [dice.random() for _ in completions]

    run = run_grpo([lottery], [1.0], steps=4)
    assert run.verdict == "suspicious", str(run.receipt)
    assert run.findings & {"no held-out effect", "held-out score worse"}


def test_completions_that_are_all_cut_off(run_grpo):
    """`#### 63` and the end of the turn are more than 4 tokens."""
    run = run_grpo(max_completion_length=4)
    assert run.verdict in ("suspicious", "not trained")
    assert "completions cut off" in run.findings
    assert "Raise max_completion_length" in run.receipt.sentence()


def test_cut_off_completions_that_the_trainer_masks(run_grpo):
    run = run_grpo(max_completion_length=4, mask_truncated_completions=True)
    assert_sick(run, "no trained token")


def test_a_reward_that_pays_for_something_else(run_grpo, warm):
    """Its reward rises all the way: the held-out problems give it away."""
    run = run_grpo([rewards.form, rewards.brevity], [1.0, 1.0], steps=12, held_out=ALL, learning_rate=2e-3)
    paid = run.receipt.evidence.rewards
    assert sum(paid[-4:]) > sum(paid[:4])
    assert run.verdict == "suspicious", str(run.receipt)
    assert "held-out score worse" in run.findings
    (found,) = rewards.payoffs({"form + brevity": (run.trainer, run.after)}, warm.before[ALL]).runs
    assert found.loophole, found
