"""A trainer of a few steps, for what is put on it."""

import pytest

from unsloth_course import data


@pytest.fixture
def small_trainer(machine, with_adapter, tmp_path):
    """A trainer of a few steps with 8 rows an update, always on the same rows and weights."""

    def make(steps, micro=8):
        model, tokenizer = with_adapter()
        from conftest import chat
        from trl import SFTConfig, SFTTrainer

        rows, _, _ = data.sources.instructions("pocket", train=8 * steps, held_out=1, seed=3407)
        settings = machine.arguments | {"per_device_train_batch_size": micro}
        return SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=chat(rows),
            args=SFTConfig(max_steps=steps, learning_rate=1e-3, logging_steps=1, output_dir=str(tmp_path), **settings),
        )

    return make
