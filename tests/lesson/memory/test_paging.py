"""The watch for a training that slows down: recorded step times, and real trainings."""

import subprocess
import sys
import time
from statistics import median
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course.lesson.memory import guard as paging

# Seconds of the training that a guide reports: about one a step, then the driver begins to page.
PAGED = [1.02, 0.98, 1.05, 1.01, 0.97, 1.03, 1.0, 1.02, 79.6, 83.1, 81.7]


def test_paging_is_named_with_its_remedies_in_order():
    said = paging.slowed(PAGED[:10], [0.99] * 10, left=110)
    assert "Step 10 took 83.1 s, 82 times the median before it (1.02 s)" in said and "99% of the GPU's memory" in said
    order = [said.index(words) for words in ("fewer rows at a time", "close what else", "max_length", "it will end")]
    assert order == sorted(order) and "in about 2.5 hours" in said


def test_slow_steps_beside_free_memory_have_another_cause():
    assert "memory is not the cause" in paging.slowed(PAGED, [0.4] * len(PAGED))


@pytest.mark.parametrize(
    "seconds",
    [
        PAGED[:8],  # a healthy run
        PAGED[:9],  # a single slow step
        [60.0, 30.0, 1.0, 1.0, 1.0, 1.0, 1.0],  # kernels are compiled in the first ones
        [1.0, 2.5, 1.2, 3.9, 1.1, 4.0, 4.0, 3.8],  # rows of different lengths
        [1.0, 50.0, 50.0],  # too early to tell
        [0.0] * 20,
        [],
    ],
)
def test_other_runs_are_left_in_peace(seconds):
    assert paging.slowed(seconds, [1.0] * len(seconds)) == ""


@given(st.lists(st.floats(0.01, 100), min_size=8, max_size=40), st.floats(0, 1))
def test_a_slowdown_is_always_one(seconds, full):
    said = paging.slowed(seconds, [full] * len(seconds), 3)
    if said:
        assert min(seconds[-2:]) >= paging.TIMES * median(seconds[:-2]) and said.count("\n") == 0
        assert ("The driver now keeps" in said) == (full >= paging.FULL)


def played(monkeypatch, times, full):
    """The watch over steps of these seconds."""
    now = [0.0]
    monkeypatch.setattr(paging.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(paging, "in_use", lambda: full)
    watch, state = paging.Pace(), SimpleNamespace(global_step=0, max_steps=120)
    watch.on_train_begin(None, state, None)
    for seconds in times:
        watch.on_step_begin(None, state, None)
        now[0] += seconds
        state.global_step += 1
        watch.on_step_end(None, state, None)
        now[0] += 500  # an evaluation between the steps
    return watch


def test_the_watch_says_it_once(monkeypatch, capsys):
    assert played(monkeypatch, PAGED, 0.99).said.startswith("Step 10 ")
    assert capsys.readouterr().out.count("Step 10") == 1
    assert played(monkeypatch, PAGED[:8], 0.99).said == "" and capsys.readouterr().out == ""


@pytest.mark.parametrize("held_up", [4, 0])
def test_a_real_training_is_noticed_where_it_is_held_up_and_else_left_in_peace(small_trainer, monkeypatch, held_up):
    trainer, watch = small_trainer(steps=9), paging.Pace()
    monkeypatch.setattr(paging, "in_use", lambda: 0.99)
    trainer.add_callback(watch)
    inner = trainer.training_step

    def slow(*args, **kwargs):
        time.sleep(held_up if trainer.state.global_step >= 7 else 0)
        return inner(*args, **kwargs)

    trainer.training_step = slow
    trainer.train()
    assert bool(watch.said) == bool(held_up)


# When it is told to, it fills the GPU but for a fiftieth, as another program may.
HOG = """
import sys, torch
sys.stdin.readline()
free, total = torch.cuda.mem_get_info()
held = torch.empty(free - total // 50, dtype=torch.uint8, device="cuda")
print("full", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no CUDA GPU here to fill.")
def test_a_gpu_that_another_process_fills_in_the_midst_of_a_training_is_noticed(small_trainer):
    trainer, watch = small_trainer(steps=9), paging.Pace()
    trainer.add_callback(watch)
    inner = trainer.training_step
    with subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hog:

        def slow(*args, **kwargs):
            if trainer.state.global_step == 7:
                print("now", file=hog.stdin, flush=True)
                assert hog.stdout.readline() == "full\n"
            if trainer.state.global_step >= 7:
                time.sleep(4)
            return inner(*args, **kwargs)

        trainer.training_step = slow
        trainer.train()
        hog.stdin.close()
    assert "The driver now keeps" in watch.said
