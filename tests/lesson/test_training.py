"""The LoRA lesson's recipe as a function: it trains what is trainable, follows its seed, and can be watched."""

import pytest
from conftest import chat

from unsloth_course import data, diagnosis, evaluation, training


@pytest.fixture(scope="module")
def rows():
    train, held_out, _ = data.sources.instructions("pocket", train=16 * 60, held_out=24, seed=3407)
    return chat(train), held_out


def test_it_trains(with_adapter, machine, rows, tmp_path):
    train, held_out = rows
    model, tokenizer = with_adapter()
    before = evaluation.ask(model, tokenizer, held_out)
    trainer = training.supervised(
        model, tokenizer, train, machine, steps=60, learning_rate=1e-3, seed=3407, out=tmp_path, watched=True
    )
    after = evaluation.ask(model, tokenizer, held_out)
    receipt = diagnosis.receipt(trainer.watching, evaluation.score(before, after))
    assert receipt.verdict == "trained", str(receipt)
    assert trainer.state.global_step == 60


def test_its_settings_go_before_the_recipe(with_adapter, machine, rows, tmp_path):
    model, tokenizer = with_adapter()
    trainer = training.supervised(
        model, tokenizer, rows[0], machine, steps=3, learning_rate=1e-3, seed=1, out=tmp_path, logging_steps=1
    )
    assert [row["step"] for row in trainer.state.log_history if "loss" in row] == [1, 2, 3]
    assert trainer.args.seed == 1
