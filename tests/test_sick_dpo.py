"""Real DPO runs of the pocket model: one that learns, and others that cannot, each in its own way.

The bar of the course: a learning rate of 0, and one so low that the loss stays at ln 2, are called "not trained", and
swapped preferences are called by their name. The rest may be called suspicious, and never trained.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import Run, assert_sick

from unsloth_course import data, diagnosis, evaluation, memory, models, training
from unsloth_course.lesson.evaluation.preferring import PairLikelihood, Preferred

WARM_UP, SEED, BATCH = 90, 3407, 16
FEW, ALL = 16, 80  # held-out pairs: ALL where a score has to rise or fall
SMALL = {"steps": 6, "per_device_train_batch_size": 4}  # where it does not matter how much is learned
LN_2 = math.log(2)


@dataclass
class Warm:
    """A merged model that writes both ways, with a fresh adapter and its weights to go back to; pairs and prompts.

    before: what it writes to the first so many held-out prompts and how likely their pairs are, as it was measured.
    """

    model: Any
    tokenizer: Any
    start: dict
    pairs: Any
    held_out: Any
    max_length: int
    before: dict[int, tuple[Preferred, PairLikelihood]] = field(default_factory=dict)

    def measure(self, count):
        rows = self.held_out.select(range(count))
        likelihood = evaluation.pair_likelihood(self.model, self.tokenizer, rows, self.max_length)
        return evaluation.prefer(self.model, self.tokenizer, rows), likelihood


@pytest.fixture(scope="module")
def warm(with_adapter, machine, tmp_path_factory):
    model, tokenizer = with_adapter()
    from unsloth import FastLanguageModel

    train, held_out, _ = data.sources.preferences("pocket", BATCH * (WARM_UP + 40), held_out=ALL, seed=SEED)
    mixed = data.preference.warm_up(train.select(range(BATCH * WARM_UP)), share=0.33, seed=SEED)
    how = {"steps": WARM_UP, "learning_rate": 1e-3, "seed": SEED, "out": tmp_path_factory.mktemp("warm")}
    training.supervised(model, tokenizer, mixed, machine, **how)
    settings = {"r": 16, "lora_alpha": 16, "lora_dropout": 0, "target_modules": models.PROJECTIONS}
    settings |= {"use_gradient_checkpointing": False, "random_state": SEED}
    model = FastLanguageModel.get_peft_model(model.merge_and_unload(), **settings)
    pairs = train.select(range(BATCH * WARM_UP, len(train)))
    made = Warm(model, tokenizer, models.adapter_state(model), pairs, held_out, machine.max_length)
    made.before = {count: made.measure(count) for count in (FEW, ALL)}
    return made


@pytest.fixture(scope="module")
def run_dpo(warm, machine, tmp_path_factory):
    """Trains the warm model as the DPO lesson does, only shorter; `change` may replace the trainer's chat columns."""

    def run(steps=8, change=lambda rows: rows, spoil=lambda trainer: None, held_out=FEW, **settings):
        models.restore_adapter(warm.model, warm.start)
        if "ref" in warm.model.peft_config:
            warm.model.delete_adapter("ref")
        pairs = warm.pairs.select(range(BATCH * steps))
        chat = pairs.map(data.preference.to_chat, batched=True, remove_columns=pairs.column_names)
        how = {"beta": 5.0, "learning_rate": 1e-3, "warmup_steps": 3, "logging_steps": 1, "seed": SEED} | settings
        place = {"steps": steps, "out": tmp_path_factory.mktemp("checkpoints")}
        trainer = training.preference_trainer(warm.model, warm.tokenizer, change(chat), machine, **place, **how)
        spoil(trainer)
        watching = diagnosis.watch(trainer)
        trainer.train()
        (before, reference), (after, likelihood) = warm.before[held_out], warm.measure(held_out)
        score = evaluation.preference_score(before, after, likelihood=(reference, likelihood), beta=trainer.args.beta)
        answers = (before.as_answers(), after.as_answers())
        return Run(trainer, watching, before, after, diagnosis.receipt(watching, score, answers))

    return run


@pytest.fixture(scope="module")
def healthy_dpo(run_dpo):
    # So few steps cannot do all that the lesson's do; with a higher beta, what they do costs no right answers.
    return run_dpo(steps=24, held_out=ALL, beta=10.0)


def test_a_healthy_run_is_trained(healthy_dpo, warm):
    run = healthy_dpo
    assert run.verdict == "trained", str(run.receipt)
    assert run.findings == set()
    assert run.before.share < 0.35 and run.after.share > run.before.share + 0.15
    assert run.before.correctness - run.after.correctness <= 0.05
    evidence = run.receipt.evidence
    assert evidence.method == "dpo" and evidence.losses[0] == pytest.approx(LN_2, abs=0.02)
    # The reference lies beside the adapter and is not counted as trained.
    assert evidence.changed_tensors == evidence.trainable_tensors == 2 * 7 * 4
    assert "the chosen answers of held-out pairs gained on the rejected ones" in run.receipt.sentence()
    judge = evidence.score.judge
    assert judge.name == "preference_accuracy" and judge.after >= 0.9 and judge.n == len(warm.held_out)
    # The margin of unseen pairs is that of the last rows in training, and in the same unit.
    margin = next(measure for measure in evidence.score.measures if measure.name == "margin")
    assert margin.after == pytest.approx(run.trainer.state.log_history[-2]["rewards/margins"], rel=0.35)


def test_memory_is_predicted_within_20_percent(healthy_dpo, warm, machine):
    longest, answer = data.preference.longest(warm.pairs, warm.tokenizer)
    sizes = {"longest": longest, "completion": answer, "rank": 16}
    sizes["micro_batch"] = machine.arguments["per_device_train_batch_size"]
    predicted = memory.plan(warm.model, machine, "dpo", **sizes).prediction
    assert predicted.total == pytest.approx(healthy_dpo.watching.meter.peak_bytes, rel=0.2)
    # Weights are counted and not estimated: the base, the adapter, and the reference's copy of it.
    assert predicted.parts["weights"] == pytest.approx(healthy_dpo.watching.meter.parts["weights"], rel=0.01)


def test_the_reference_is_neither_trained_nor_saved(healthy_dpo, warm, tmp_path):
    from safetensors import safe_open

    copied = {name: p for name, p in warm.model.named_parameters() if ".ref." in name}
    assert copied and not any(parameter.requires_grad for parameter in copied.values())
    assert all(parameter.equal(warm.start[name.replace(".ref.", ".default.")]) for name, parameter in copied.items())
    saved = models.save_adapter(warm.model, warm.tokenizer, tmp_path / "adapter", base="pocket")
    assert not (saved / "ref").exists()
    with safe_open(str(saved / "adapter_model.safetensors"), "pt") as file:
        assert len(file.keys()) == 2 * 7 * 4 and not any("ref" in name for name in file.keys())  # noqa: SIM118


def test_a_learning_rate_of_0(run_dpo):
    run = run_dpo(**SMALL, learning_rate=0)
    assert_sick(run, "learning rate 0", "weights unchanged", "loss stays at ln 2")
    assert run.after.given == run.before.given
    assert run.receipt.evidence.score.judge.after == 0.5  # a coin, since nothing gained


@pytest.mark.parametrize("logging_steps", [1, 6])
def test_a_learning_rate_that_leaves_the_loss_at_ln_2(run_dpo, logging_steps):
    """5e-6 is what recipes for whole models give; it does not move an adapter. Few logged steps must not hide that."""
    run = run_dpo(**SMALL, learning_rate=5e-6, logging_steps=logging_steps)
    assert_sick(run, "loss stays at ln 2")
    assert "weights unchanged" not in run.findings
    assert run.receipt.evidence.losses == pytest.approx([LN_2] * len(run.receipt.evidence.losses), abs=0.005)


def test_identical_answers(run_dpo):
    """The check of the data sets such rows aside; a slip in a learner's own `map` makes them again."""
    run = run_dpo(**SMALL, change=lambda rows: rows.map(lambda row: {"rejected": row["chosen"]}))
    assert_sick(run, "loss stays at ln 2")
    assert run.after.given == run.before.given


def test_completions_masked_by_the_collator(run_dpo):
    def spoil(trainer):
        collate = trainer.data_collator

        def masked(rows):
            batch = collate(rows)
            batch["completion_mask"] = batch["completion_mask"] * 0
            return batch

        trainer.data_collator = masked

    run = run_dpo(**SMALL, spoil=spoil)
    assert_sick(run, "no trained token", "weights unchanged")
    assert run.receipt.evidence.trained_tokens == 0


def test_answers_that_are_cut_away_are_a_sentence(run_dpo):
    from unsloth_course.core.errors import CourseError

    with pytest.raises(CourseError, match=r"no rows left.*Raise max_length"):
        run_dpo(max_length=8)


def test_swapped_preferences_are_called_by_their_name(run_dpo):
    run = run_dpo(steps=16, change=lambda rows: rows.rename_columns({"chosen": "rejected", "rejected": "chosen"}))
    assert run.verdict in ("suspicious", "not trained"), str(run.receipt)
    assert "held-out score worse" in run.findings
    assert "chosen and rejected are probably swapped" in run.receipt.sentence()
    # Its own curves look as they should: the swapped pairs were learned.
    history = [row for row in run.trainer.state.log_history if "loss" in row]
    assert history[-1]["loss"] < LN_2 and history[-1]["rewards/margins"] > 0


def test_over_optimisation_costs_being_right_and_is_suspicious(run_dpo):
    """The margin rises all the while, and so does the share of sentences; what they say is wrong."""
    run = run_dpo(steps=28, held_out=ALL, beta=0.1, learning_rate=3e-3)
    assert run.verdict == "suspicious", str(run.receipt)
    assert "correctness fell" in run.findings
    history = [row for row in run.trainer.state.log_history if "loss" in row]
    assert history[-1]["rewards/margins"] > history[len(history) // 2]["rewards/margins"] > 0


def test_two_runs_from_the_same_start_are_the_same(run_dpo, warm):
    first, second = (run_dpo(**SMALL).receipt.evidence.losses for _ in range(2))
    assert first == second
    models.restore_adapter(warm.model, warm.start)
    assert warm.measure(FEW)[0].given == warm.before[FEW][0].given
