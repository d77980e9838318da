"""The lessons' recipes as functions; that they train and can be watched is shown by finetune and the sick runs."""

from conftest import chat

from unsloth_course import data, training


def test_its_settings_go_before_the_recipe(with_adapter, machine, tmp_path):
    model, tokenizer = with_adapter()
    rows = chat(data.sources.instructions("pocket", train=48, held_out=8, seed=3407)[0])
    trainer = training.supervised(
        model, tokenizer, rows, machine, steps=3, learning_rate=1e-3, seed=1, out=tmp_path, logging_steps=1
    )
    assert [row["step"] for row in trainer.state.log_history if "loss" in row] == [1, 2, 3]
    assert trainer.args.seed == 1
