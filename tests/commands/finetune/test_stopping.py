"""Checkpoints of a training that is stopped, resumed, or cannot save."""

import pickle
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from unsloth_course.commands.finetune import stopping
from unsloth_course.core import checkpoints, whole
from unsloth_course.core.errors import CourseError

STEPS = 12


@pytest.fixture
def toy(load, tmp_path):
    """Makes a trainer of a small layer with dropout: `toy(callbacks=[], **settings)`. `load` has Unsloth come first."""
    import torch
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    class Layer(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            torch.manual_seed(0)
            self.inside, self.dropout = torch.nn.Linear(width, width), torch.nn.Dropout(0.5)

        def forward(self, x, labels=None):
            return {"loss": ((self.dropout(self.inside(x)) - labels) ** 2).mean(), "logits": x}

    def make(callbacks=(), folder="checkpoints", width=16, **settings):
        source = torch.Generator().manual_seed(1)
        rows = Dataset.from_dict({name: torch.randn(20, width, generator=source).tolist() for name in ("x", "labels")})
        defaults = {
            "output_dir": str(tmp_path / folder),
            "max_steps": STEPS,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            **checkpoints.settings(5),
        }
        return Trainer(
            model=Layer(width),
            args=TrainingArguments(**(defaults | settings)),
            train_dataset=rows,
            eval_dataset=rows,
            callbacks=list(callbacks),
        )

    return make


@pytest.fixture
def at(load):
    """A callback that does something at the end of a step: `at(7, action)`."""
    from transformers import TrainerCallback

    class At(TrainerCallback):
        def __init__(self, step, action):
            self.step, self.action = step, action

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == self.step:
                self.action(control)

    return At


def weights(trainer):
    return trainer.model.inside.weight.detach().numpy().tobytes()


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir() if path.is_dir())


def test_it_keeps_two_whole_checkpoints_and_no_pickle_that_nobody_reads(toy, tmp_path):
    trainer = toy()
    assert stopping.train(trainer) == 0
    folder = tmp_path / "checkpoints"
    assert names(folder) == ["checkpoint-10", "checkpoint-12"]
    assert {path.name for path in (folder / "checkpoint-12").iterdir()} == {
        "manifest.json",
        "model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    }
    assert whole.last_good(folder) == folder / "checkpoint-12"
    assert "_save_checkpoint" not in vars(trainer), "the trainer is left as it was"
    with pytest.raises(CourseError, match="holds checkpoint-12"):
        stopping.train(toy())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_saves_and_a_resumed_run_ends_at_the_same_weights(number, toy, at, tmp_path, capsys):
    alone = toy(folder="alone")
    stopping.train(alone)
    before = signal.getsignal(number)
    with pytest.raises(stopping.Stopped, match="after step 7 of 12; all of it is saved") as stopped:
        stopping.train(toy([at(7, lambda control: signal.raise_signal(number))]))
    assert signal.getsignal(number) is before
    assert "this step ends, and is saved first" in capsys.readouterr().out
    assert (stopped.value.step, stopped.value.number) == (7, number)
    folder = tmp_path / "checkpoints"
    assert names(folder) == ["checkpoint-5", "checkpoint-7"]
    assert stopped.value.checkpoint == whole.last_good(folder)
    resumed = toy()
    assert stopping.train(resumed, folder / "checkpoint-7") == 7
    assert weights(resumed) == weights(alone)
    losses = [[row["loss"] for row in made.state.log_history if "loss" in row] for made in (resumed, alone)]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS


def test_the_second_ctrl_c_stops_at_once(toy, at, tmp_path):
    def twice(control):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        stopping.train(toy([at(7, twice)]))
    assert names(tmp_path / "checkpoints") == ["checkpoint-5"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_that_comes_twice_at_once_is_one_request(toy, at, tmp_path):
    """To all processes of a job, and passed on by its chain."""

    def twice(control):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(stopping.Stopped, match="after step 7"):
        stopping.train(toy([at(7, twice)]))
    assert names(tmp_path / "checkpoints") == ["checkpoint-5", "checkpoint-7"]


def test_a_signal_that_is_ignored_stays_so(toy, at):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup does
    try:
        assert stopping.train(toy([at(7, lambda control: signal.raise_signal(signal.SIGINT))])) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_beside_the_main_thread_signals_are_left_alone(toy):
    done = []
    thread = threading.Thread(target=lambda: done.append(stopping.train(toy())))
    thread.start()
    thread.join()
    assert done == [0]


def test_a_training_that_was_over_is_loaded_and_not_trained_further(toy, tmp_path):
    alone = toy()
    stopping.train(alone)
    again = toy()
    assert stopping.train(again, tmp_path / "checkpoints" / "checkpoint-12") == STEPS
    assert weights(again) == weights(alone) and again.state.global_step == STEPS


def halt(control):
    control.should_training_stop = control.should_save = True


def test_one_that_ended_early_is_over_too(toy, at, tmp_path):
    alone = toy([at(6, halt)])
    stopping.train(alone)
    again = toy()
    assert stopping.train(again, tmp_path / "checkpoints" / "checkpoint-6") == 6
    assert weights(again) == weights(alone)


BEST = {
    "eval_strategy": "steps",
    "eval_steps": 2,
    "eval_on_start": True,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "learning_rate": 0.4,  # too high, so that the best measurement is an early one
} | checkpoints.settings(2)


def test_early_stopping_goes_on_counting_and_the_best_weights_come_back(toy, at, tmp_path):
    from transformers import EarlyStoppingCallback

    def patience():
        return EarlyStoppingCallback(early_stopping_patience=3)

    alone = toy([patience()], folder="alone", **BEST)
    stopping.train(alone)
    best = alone.state.best_global_step
    assert best + 6 == alone.state.global_step < STEPS, "it has to end early for this test"
    folder = tmp_path / "first"
    with pytest.raises(stopping.Stopped):
        stopping.train(
            toy([patience(), at(best + 3, lambda _: signal.raise_signal(signal.SIGINT))], folder="first", **BEST)
        )
    moved = folder.rename(tmp_path / "moved")
    resumed = toy([patience()], folder="moved", **BEST)
    stopping.train(resumed, whole.last_good(moved))
    assert resumed.state.global_step == alone.state.global_step
    assert resumed.state.best_model_checkpoint == str(moved / f"checkpoint-{best}")
    assert weights(resumed) == weights(alone)
    over = toy([patience()], folder="moved", **BEST)
    assert stopping.train(over, whole.last_good(moved)) == alone.state.global_step
    assert weights(over) == weights(alone)


def test_grpo_saves_between_two_generations(toy):
    """A stand-in for GRPOTrainer: completions are written every 4 micro-batches, an update takes 1."""

    from transformers import TrainerCallback

    saved = []

    class Saved(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            saved.append(state.global_step)

    trainer = toy([Saved()], **checkpoints.settings(3))
    trainer._buffered_inputs, trainer._step, trainer.num_iterations = None, 0, 2
    trainer.args.steps_per_generation = 2
    step = trainer.training_step

    def counted(*args):
        trainer._step += 1
        return step(*args)

    trainer.training_step = counted
    stopping.train(trainer)
    assert saved == [4, 8, 12], "due after 3, 6, 9 and 12"


def test_every_zero_steps_cannot_be():
    with pytest.raises(CourseError, match="every 0 steps"):
        checkpoints.settings(0)


# --- what cannot be saved or loaded


@contextmanager
def largest_file(size):
    """A full disk, as far as a process can have one of its own: no file may grow beyond so many bytes."""
    resource = pytest.importorskip("resource")  # not on Windows
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda control: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("size", "reason"),
    [(200_000, "File too large"), (400_000, "a file could not be written to its end")],
)
def test_a_full_disk_leaves_the_last_checkpoint_whole(size, reason, toy, at, tmp_path):
    """300 x 300 weights: 361 kB of safetensors, and twice as much of optimizer."""
    with (
        largest_file(size) as fill,
        pytest.raises(CourseError, match="checkpoint-10 could not be saved") as caught,
    ):
        stopping.train(toy([at(9, fill)], width=300))
    assert reason in str(caught.value)
    assert "checkpoint-5 is whole" in str(caught.value) and "goes on from step 5" in str(caught.value)
    folder = tmp_path / "checkpoints"
    assert names(folder) == ["checkpoint-5"] and whole.last_good(folder) == folder / "checkpoint-5"
    assert stopping.train(toy(width=300), folder / "checkpoint-5") == 5


def test_a_full_disk_at_the_first_checkpoint(toy, at, tmp_path):
    with largest_file(200_000) as fill, pytest.raises(CourseError, match="No older checkpoint is there"):
        stopping.train(toy([at(4, fill)], width=300))
    assert names(tmp_path / "checkpoints") == []


def test_a_folder_that_takes_no_more_files(toy, at, tmp_path):
    """Tests may run as root, whom no permission stops: a file stands where the checkpoint should be made."""
    with pytest.raises(CourseError, match="checkpoint-10 could not be saved") as caught:
        stopping.train(toy([at(9, lambda _: (tmp_path / "checkpoints" / "checkpoint-10").touch())]))
    assert "checkpoint-5 is whole" in str(caught.value)


def test_a_disk_that_is_full_when_the_manifest_is_written(toy, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    trainer = toy()
    monkeypatch.setattr(whole, "_to_disk", full)
    with pytest.raises(CourseError, match=r"checkpoint-5 could not be saved \(No space left on device\)"):
        stopping.train(trainer)
    assert names(tmp_path / "checkpoints") == []


def test_a_bug_while_saving_keeps_its_traceback(toy, monkeypatch):
    trainer = toy()

    def broken(*_, **__):
        raise RuntimeError("some bug")

    monkeypatch.setattr(trainer, "save_model", broken)
    with pytest.raises(RuntimeError, match="some bug"):
        stopping.train(trainer)


@pytest.fixture
def checkpoint(toy, at, tmp_path):
    """That of a training that was stopped in its seventh step."""
    with pytest.raises(stopping.Stopped):
        stopping.train(toy([at(7, lambda control: signal.raise_signal(signal.SIGINT))]))
    return tmp_path / "checkpoints" / "checkpoint-7"


class Harmful:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["rng_state.pth", "optimizer.pt", "scheduler.pt", "training_args.bin"])
def test_a_checkpoint_runs_no_code(name, toy, checkpoint, tmp_path):
    import torch

    proof = tmp_path / "ran"
    torch.save({"python": Harmful(proof)}, checkpoint / name)
    whole.write_manifest(checkpoint, finished=False)  # whoever can plant a file can plant its size
    if name == "training_args.bin":
        assert stopping.train(toy(), checkpoint) == 7, "nobody reads it"
    else:
        with pytest.raises(CourseError, match="cannot be resumed by this run"):
            stopping.train(toy(), checkpoint)
    assert not proof.exists()
    pickle.loads(pickle.dumps(Harmful(proof)))  # noqa: S301 -- it would have
    assert proof.exists()


def test_a_checkpoint_of_another_shape_is_a_sentence(toy, checkpoint):
    with pytest.raises(CourseError, match="It was made with other options, versions or data"):
        stopping.train(toy(width=8), checkpoint)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"global_step": "x"}'])
def test_a_state_that_is_none_is_a_sentence(text, toy, checkpoint):
    (checkpoint / "trainer_state.json").write_text(text)
    with pytest.raises(CourseError, match="cannot be resumed by this run"):
        stopping.train(toy(), checkpoint)
