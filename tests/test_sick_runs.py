"""Real runs of the pocket model that cannot learn, each in its own way, and what the receipt says of them.

Three of them are the bar of the course: a learning rate of 0, every label masked, and no step applied are called
"not trained". The rest may be called suspicious, and never trained.
"""

import random

import pytest
from conftest import assert_sick, chat

from unsloth_course import data, diagnosis
from unsloth_course.core.errors import CourseError
from unsloth_course.pocket import datasets


def test_a_healthy_run_is_trained(healthy):
    assert healthy.receipt.verdict == "trained", str(healthy.receipt)
    assert healthy.findings == set()
    assert healthy.before.share <= 0.05 and healthy.after.share > 0.7
    evidence = healthy.receipt.evidence
    assert (evidence.steps, evidence.updates) == (90, 90)
    assert evidence.changed_tensors == evidence.trainable_tensors == 2 * 7 * healthy.model.config.num_hidden_layers
    assert 2 * 256 < evidence.trained_tokens < 8 * 256  # a short answer and the token that ends it
    assert evidence.measured_bytes > 0 and evidence.finite_weights
    answers = healthy.receipt.answers
    assert answers.counts["newly right"] == sum(healthy.after.right) and sum(answers.counts.values()) == 48
    assert {kind for kind, *_ in answers.shown} == {kind for kind, count in answers.counts.items() if count}


def test_a_learning_rate_of_0(run_pocket):
    run = run_pocket(learning_rate=0)
    assert_sick(run, "learning rate 0", "weights unchanged")
    assert run.receipt.evidence.steps == 8


def masked_by_the_collator(trainer):
    collate = trainer.data_collator

    def masked(rows):
        batch = collate(rows)
        batch["labels"] = batch["labels"].masked_fill(batch["labels"] != -100, -100)
        return batch

    trainer.data_collator = masked


def masked_in_the_rows(trainer):
    trainer.train_dataset = trainer.train_dataset.map(lambda row: {"labels": [-100] * len(row["input_ids"])})


@pytest.mark.parametrize("spoil", [masked_by_the_collator, masked_in_the_rows])
def test_every_label_masked(run_pocket, spoil):
    run = run_pocket(spoil=spoil)
    assert_sick(run, "no trained token", "weights unchanged")
    assert run.receipt.evidence.trained_tokens == 0


def without_effect(trainer):
    """An optimizer whose step does nothing, as after a gradient scaler that skips every one."""
    import torch

    class Idle(torch.optim.AdamW):
        def step(self, closure=None):
            return None

    trainer.optimizer = Idle([p for p in trainer.model.parameters() if p.requires_grad], lr=1e-3)


def test_no_step_applied(run_pocket):
    run = run_pocket(spoil=without_effect)
    assert_sick(run, "no update", "weights unchanged")
    assert (run.receipt.evidence.steps, run.receipt.evidence.updates) == (8, 0)


def test_a_training_that_was_never_started(run_pocket):
    run = run_pocket(spoil=lambda trainer: setattr(trainer, "train", lambda: None))
    assert_sick(run, "no step", "weights unchanged")


def test_a_training_that_is_stopped_at_once(run_pocket):
    """The loop makes one step before it looks at the wish to stop; in the warm-up its learning rate is 0."""
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            control.should_training_stop = True
            return control

    run = run_pocket(spoil=lambda trainer: trainer.add_callback(Stop()))
    assert_sick(run, "weights unchanged")
    assert run.receipt.evidence.steps <= 1


def test_rows_that_are_masked_from_the_start_are_a_sentence(run_pocket, load):
    """TRL leaves such rows out; without the sentence the trainer would fail with one about samplers."""
    _, tokenizer = load()

    def change(rows):
        def tokenized(row):
            ids = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"]
            return {"input_ids": ids, "labels": [-100] * len(ids)}

        return chat(rows).map(tokenized, remove_columns=["prompt", "completion"])

    with pytest.raises(CourseError, match="no rows left"):
        run_pocket(change=change)


def test_answers_that_are_cut_away_are_a_sentence(run_pocket):
    with pytest.raises(CourseError, match=r"no rows left.*Raise max_length"):
        run_pocket(max_length=8)


def test_a_response_marker_that_never_occurs_is_refused_by_unsloth(run_pocket):
    from unsloth.chat_templates import train_on_responses_only

    def change(rows):
        return rows.map(data.instruction.to_messages, batched=True, remove_columns=rows.column_names)

    def spoil(trainer):
        train_on_responses_only(trainer, instruction_part="<|im_start|>user\n", response_part="### Response:")

    with pytest.raises(ValueError, match=r"masked every label|nothing to train on"):
        run_pocket(change=change, spoil=spoil)


def test_a_learning_rate_that_is_no_number_is_refused_by_torch(run_pocket):
    with pytest.raises(ValueError, match="Invalid learning rate"):
        run_pocket(learning_rate=float("nan"))


def test_gradients_that_are_no_numbers(run_pocket):
    def spoil(trainer):
        parameter = next(p for p in trainer.model.parameters() if p.requires_grad)
        parameter.register_hook(lambda gradient: gradient * float("nan"))

    run = run_pocket(spoil=spoil)
    assert_sick(run, "broken weights")
    assert run.receipt._repr_html_()


def test_a_learning_rate_a_million_times_too_high(run_pocket):
    run = run_pocket(learning_rate=1e3)
    assert run.receipt.verdict in ("suspicious", "not trained")
    assert run.after.share <= 0.05


def test_a_learning_rate_ten_thousand_times_too_low(run_pocket):
    run = run_pocket(learning_rate=1e-7)
    assert run.receipt.verdict == "suspicious"
    assert "no held-out effect" in run.findings


def shuffled(within_skills):
    """Rows whose answers were dealt out anew, to any question or to questions of the same skill."""

    def change(rows):
        groups = {}
        for number, text in enumerate(rows["instruction"]):
            groups.setdefault(datasets.skill_of(text) if within_skills else None, []).append(number)
        outputs, rng = list(rows["output"]), random.Random(1)
        for numbers in groups.values():
            dealt = [outputs[number] for number in numbers]
            rng.shuffle(dealt)
            for number, output in zip(numbers, dealt, strict=True):
                outputs[number] = output
        return chat(rows.remove_columns("output").add_column("output", outputs))

    return change


@pytest.mark.parametrize("within_skills", [False, True], ids=["any answer", "an answer of the skill"])
def test_shuffled_answers_teach_the_form_and_nothing_else(run_pocket, within_skills):
    """Some of the answers are right by luck, so the score alone rises: 0 to 9 % of 200 in the lesson's length."""
    run = run_pocket(steps=40, rows=16, change=shuffled(within_skills), held_out=96)
    assert run.receipt.verdict == "suspicious", str(run.receipt)
    assert run.findings & {"no better than chance", "no held-out effect"}
    assert run.receipt.evidence.losses[-1] < run.receipt.evidence.losses[0]


def test_an_optimizer_that_does_not_count_its_updates_is_believed_by_the_weights(run_pocket):
    run = run_pocket(steps=24, rows=16, held_out=48, optim="sgd", learning_rate=1.0)
    assert run.receipt.evidence.updates == 24
    assert run.receipt.verdict == "trained", str(run.receipt)
    idle = run_pocket(optim="sgd", learning_rate=0)
    assert_sick(idle, "no update", "learning rate 0", "weights unchanged")


def test_full_fine_tuning_with_a_learning_rate_of_0(run_pocket, load):
    run = run_pocket(made=load(full_finetuning=True, use_gradient_checkpointing=False), learning_rate=0)
    assert_sick(run, "learning rate 0", "weights unchanged")
    assert run.receipt.evidence.trainable_tensors == len(list(run.model.parameters()))


def test_full_fine_tuning_is_seen_too(run_pocket, load):
    run = run_pocket(steps=24, rows=16, held_out=48, made=load(full_finetuning=True))
    assert run.receipt.verdict == "trained", str(run.receipt)
    assert run.receipt.evidence.trainable_tensors == len(list(run.model.parameters()))
    assert all(0.001 < share < 0.5 for share in run.receipt.layer_change.values())


def test_a_second_training_is_counted_for_itself(run_pocket):
    """The trainer keeps its optimizer, whose count goes on."""
    run = run_pocket()
    again = diagnosis.watch(run.trainer)
    run.trainer.train()
    assert diagnosis.receipt(again).evidence.updates == 8
    idle = diagnosis.watch(run.trainer)
    assert diagnosis.receipt(idle).evidence.updates == 0
