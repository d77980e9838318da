"""Checkpoints in a folder: a lost session goes on, with `trainer.train(resume_from_checkpoint=...)` as in a lesson."""

import json
import sys
import types

import nbformat
import pytest
from conftest import chat

from unsloth_course import colab, data, training
from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.colab import keeping

STEPS = 8


class Lost(Exception):
    """The session ended here."""


def losing(at):
    """A callback that ends the session after a step."""
    from transformers import TrainerCallback

    class Losing(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == at:
                raise Lost

    return Losing()


SETTINGS = {"steps": STEPS, "learning_rate": 1e-3, "seed": 1, "logging_steps": 1, "per_device_train_batch_size": 4}


@pytest.fixture
def lora(with_adapter, machine, tmp_path):
    """Makes the trainer of a short LoRA run, anew each time, as a fresh session would."""

    def make(**changes):
        rows = chat(data.sources.instructions("pocket", train=64, held_out=8, seed=1)[0])
        how = SETTINGS | {"out": tmp_path / "elsewhere"} | changes
        return training.supervised_trainer(*with_adapter(), rows, machine, **how)

    return make


@pytest.fixture
def dpo(with_adapter, machine, tmp_path):
    """The same for DPO, whose reference lies in the checkpoint beside what is trained."""

    def make():
        pairs = data.sources.preferences("pocket", 64, held_out=8, seed=1)[0]
        rows = pairs.map(data.preference.to_chat, batched=True, remove_columns=pairs.column_names)
        how = SETTINGS | {"out": tmp_path / "elsewhere", "beta": 0.1}
        return training.preference_trainer(*with_adapter(), rows, machine, **how)

    return make


@pytest.fixture
def grpo(with_adapter, machine, tmp_path):
    """The same for GRPO, which saves between two generations, and whose sampler has to find its place."""
    from unsloth_course import rewards

    def make():
        model, tokenizer = with_adapter()
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        questions = [f"What is {number} plus {number + 3}?" for number in range(6)]
        rows = Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in questions])
        settings = {"max_steps": STEPS, "learning_rate": 1e-3, "seed": 1, "beta": 0.0, "logging_steps": 1}
        settings |= {"num_generations": 4, "max_completion_length": 6, "output_dir": str(tmp_path / "elsewhere")}
        args = GRPOConfig(**(machine.arguments | settings | {"per_device_train_batch_size": 8}))
        functions = [rewards.brevity]
        return GRPOTrainer(
            model=model, processing_class=tokenizer, reward_funcs=functions, train_dataset=rows, args=args
        )

    return make


def weights(trainer):
    return {
        name: p.detach().clone()
        for name, p in trainer.model.named_parameters()
        if p.requires_grad and ".ref." not in name
    }


def session(make, kept, lost_at=None):
    """One session: the cells of a lesson that make a trainer and train it."""
    trainer = make()
    last = kept.last(trainer)
    if lost_at:
        trainer.add_callback(losing(lost_at))
        with pytest.raises(Lost):
            trainer.train(resume_from_checkpoint=last)
    else:
        trainer.train(resume_from_checkpoint=last)
    return trainer


@pytest.mark.parametrize("method", ["lora", "dpo", "grpo"])
def test_a_lost_session_ends_where_one_left_alone_does(method, request, tmp_path, capsys):
    make = request.getfixturevalue(method)
    alone = session(make, colab.checkpoints(tmp_path / "alone", method))
    session(make, colab.checkpoints(tmp_path / "lost", method), lost_at=5)
    assert "checkpoints go to" in capsys.readouterr().out
    again = session(make, colab.checkpoints(tmp_path / "lost", method))
    assert "going on from checkpoint-4" in capsys.readouterr().out
    assert again.state.global_step == STEPS
    here, there = weights(again), weights(alone)
    assert here.keys() == there.keys() and all(here[name].equal(there[name]) for name in here)
    losses = [[row["loss"] for row in t.state.log_history if "loss" in row] for t in (alone, again)]
    assert losses[0] == losses[1]


def test_the_last_two_checkpoints_are_kept_and_none_of_the_end(lora, tmp_path):
    session(lora, colab.checkpoints(tmp_path, "lora"))
    found = sorted(path.name for path in (tmp_path / "lora-checkpoints").glob("checkpoint-*"))
    assert found == ["checkpoint-4", "checkpoint-6"]


def test_one_that_was_cut_off_is_passed_over(lora, tmp_path, capsys):
    session(lora, colab.checkpoints(tmp_path, "lora"), lost_at=7)
    (tmp_path / "lora-checkpoints" / "checkpoint-6" / "manifest.json").unlink()
    session(lora, colab.checkpoints(tmp_path, "lora"))
    said = capsys.readouterr().out
    assert "checkpoint-6 is passed over" in said and "going on from checkpoint-4" in said


def test_checkpoints_of_other_knobs_are_refused(lora, tmp_path):
    session(lora, colab.checkpoints(tmp_path, "lora"), lost_at=5)
    with pytest.raises(CourseError, match=r"learning_rate 0\.001 then, 0\.0001 now"):
        colab.checkpoints(tmp_path, "lora").last(lora(learning_rate=1e-4))
    knobs = tmp_path / "lora-checkpoints" / keeping.KNOBS
    assert json.loads(knobs.read_text())["max_steps"] == STEPS
    knobs.write_text("[1")
    with pytest.raises(CourseError, match="other knobs"):
        colab.checkpoints(tmp_path, "lora").last(lora())


def test_without_a_folder_nothing_changes(lora):
    trainer = lora()
    before, callbacks = trainer.args.to_dict(), list(trainer.callback_handler.callbacks)
    assert colab.checkpoints(None, "lora").last(trainer) is None
    assert trainer.args.to_dict() == before and trainer.callback_handler.callbacks == callbacks


@pytest.mark.parametrize("lesson", lessons.LESSONS)
def test_every_lesson_shows_how_it_goes_on(lesson):
    """And only its own training does: the short ones of a deep dive would leave their checkpoints in its place."""
    code = [cell.source for cell in nbformat.read(lessons.notebook_path(lesson), as_version=4).cells]
    assert [text for text in code if f'checkpoints = colab.checkpoints(None, "{lesson}")' in text]
    (line,) = [line for text in code for line in text.splitlines() if "checkpoints.last(" in line]
    assert line.rstrip(";") == "trainer.train(resume_from_checkpoint=checkpoints.last(trainer))"


def test_drive_is_mounted_when_it_is_asked_for(monkeypatch, tmp_path):
    mounted = []
    drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(drive=drive))
    monkeypatch.setattr(keeping, "MOUNT", tmp_path / "drive")
    kept = colab.checkpoints("drive", "grpo")
    assert mounted == [str(tmp_path / "drive")]
    assert kept.folder == tmp_path / "drive" / "MyDrive" / "unsloth-course" / "grpo-checkpoints"
    assert kept.folder.is_dir()


def test_drive_elsewhere_is_a_sentence():
    with pytest.raises(CourseError, match="in Colab only"):
        colab.checkpoints("drive", "lora")


def test_a_folder_that_takes_no_files_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match="Nothing can be written into"):
        colab.checkpoints(tmp_path / "file", "lora")
