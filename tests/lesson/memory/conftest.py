"""A trainer of a few steps, for what is put on it."""

import pytest
from conftest import chat

from unsloth_course import data, training


@pytest.fixture
def small_trainer(machine, with_adapter, tmp_path):
    """A trainer of a few steps with 8 rows an update, always on the same rows and weights."""

    def make(steps, micro=8):
        rows = chat(data.sources.instructions("pocket", train=8 * steps, held_out=1, seed=3407)[0])
        how = {"steps": steps, "learning_rate": 1e-3, "seed": 42, "out": tmp_path, "logging_steps": 1}
        return training.supervised_trainer(*with_adapter(), rows, machine, **how, per_device_train_batch_size=micro)

    return make
