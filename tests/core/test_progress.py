"""The line of progress: in a terminal every tenth of the way, in a notebook one line that is rewritten."""

import sys
from types import SimpleNamespace

import pytest

from unsloth_course.core import progress


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""
    made = SimpleNamespace(now=100.0, monotonic=lambda: made.now)
    monkeypatch.setattr(progress, "time", made)
    return made


def run(line, clock, steps, losses=(), seconds=1.0):
    state = SimpleNamespace(max_steps=steps, global_step=0)
    line.on_train_begin(None, state, None)
    for step in range(1, steps + 1):
        clock.now += seconds
        state.global_step = step
        if step <= len(losses):
            line.on_log(None, state, None, logs={"loss": losses[step - 1]})
        line.on_step_end(None, state, None)
    line.on_train_end(None, state, None)


def test_the_module_itself_does_not_load_transformers():
    assert "transformers" not in vars(progress)


def test_a_terminal_gets_a_line_every_tenth_of_the_way(clock, capsys):
    run(progress.Line(), clock, steps=50, losses=[7.0, 6.5])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[0] == "training: step 0 of 50"
    assert lines[1] == "training: step 5 of 50, loss 6.500, 45 s left"
    assert lines[10] == "training: step 50 of 50, loss 6.500, 0 s left"
    assert lines[11] == "trained for 50 steps in 50 s, loss 6.500"


@pytest.mark.parametrize("steps", [0, 3])
def test_a_run_shorter_than_ten_steps_gets_every_step(clock, capsys, steps):
    run(progress.Line(), clock, steps)
    lines = [f"training: step {step} of {steps}" for step in range(steps + 1)]
    lines += [f"trained for {steps} steps in {steps} s"]
    assert [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()] == lines


def test_a_notebook_gets_one_line_that_is_rewritten_twice_a_second_at_most(clock, capsys, monkeypatch):
    texts = []
    screen = SimpleNamespace(update=lambda shown: texts.append(shown.data))
    monkeypatch.setattr(progress, "_display", lambda: screen)
    run(progress.Line(), clock, steps=100, losses=[2.0], seconds=0.1)
    assert capsys.readouterr().out == ""
    assert texts[0] == "training: step 0 of 100"
    assert texts[-1] == "trained for 100 steps in 10 s, loss 2.000"
    assert 15 <= len(texts) <= 25


def test_other_logs_leave_the_loss_alone(clock, capsys):
    line = progress.Line()
    for logs in (None, {}, {"eval_loss": 3.0}, {"loss": float("nan")}):
        line.on_log(None, None, None, logs=logs)
    run(line, clock, steps=1)
    assert capsys.readouterr().out.splitlines()[-1] == "trained for 1 steps in 1 s, loss nan"


def test_a_second_run_with_the_same_line_starts_anew(clock, capsys):
    line = progress.Line()
    run(line, clock, steps=1)
    clock.now += 1000
    run(line, clock, steps=2)
    assert capsys.readouterr().out.splitlines()[-1] == "trained for 2 steps in 2 s"


@pytest.mark.parametrize("shell", [None, SimpleNamespace(kernel=None), SimpleNamespace()])
def test_without_a_kernel_or_without_ipython_there_is_nothing_to_rewrite(monkeypatch, shell):
    for ipython in (SimpleNamespace(get_ipython=lambda: shell), None):
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        assert progress._display() is None


def test_a_resumed_run_counts_its_own_steps_and_a_reward_is_shown_in_place_of_the_loss(clock, capsys):
    line, state = progress.Line(), SimpleNamespace(global_step=90, max_steps=100)
    line.on_train_begin(None, state, None)
    clock.now += 20
    state.global_step = 100
    line.on_log(None, state, None, logs={"loss": 0.0, "reward": 0.75, "reward_std": 0.3})
    line.on_step_end(None, state, None)
    line.on_train_end(None, state, None)
    assert capsys.readouterr().out.splitlines() == [
        "training: step 90 of 100",
        "training: step 100 of 100, reward 0.750, 0 s left",
        "trained for 10 steps in 20 s, reward 0.750",
    ]


@pytest.mark.parametrize(("is_terminal", "kind"), [(True, progress.Bar), (False, progress.Line)])
def test_a_terminal_gets_a_bar_and_a_pipe_lines(monkeypatch, is_terminal, kind):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: is_terminal, flush=lambda: None))
    assert isinstance(progress.shown(), kind)


def test_the_bar_shows_loss_pace_memory_and_time_left(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_held", lambda: 3 * 2**30)
    bar, state = progress.Bar(), SimpleNamespace(global_step=0, max_steps=10)
    arguments = SimpleNamespace(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    bar.on_train_begin(arguments, state, None)
    state.global_step = 5
    clock.now += 10
    bar.on_log(arguments, state, None, logs={"loss": 1.5})
    (task,) = bar._bar.tasks
    assert task.description == "loss 1.500 2.0 rows/s 3.0 GiB" and task.completed == 5
    bar.on_log(arguments, state, None, logs={"reward": 0.5, "num_tokens": 1000})
    assert task.description == "reward 0.500 100 tokens/s 3.0 GiB"
    bar.on_train_end(arguments, state, None)
    assert "trained for 5 steps in 10 s, reward 0.500" in capsys.readouterr().out


def test_a_training_that_breaks_off_leaves_no_bar_at_the_end_of_the_process(monkeypatch):
    ended = []
    monkeypatch.setattr(progress.atexit, "register", ended.append)
    bar = progress.Bar()
    bar.on_train_begin(None, SimpleNamespace(global_step=0, max_steps=10), None)
    assert bar._bar.live.is_started
    ended[0]()
    assert not bar._bar.live.is_started
