"""The results file: the keys that the design names, numbers that JSON knows, and the file whole or not at all."""

import json
import os
import threading
from importlib import metadata
from statistics import median
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from hypothesis import given

from lesson.data.test_files import json_values
from unsloth_course import evaluation, memory, models, results
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY
from unsloth_course.lesson.evaluation import scores

# From the design, word for word; a results file may have more keys and never fewer.
DESIGN = {
    "lesson": "lora",
    "profile": "cpu",
    "device": "...",
    "backend": "unsloth 2026.10.9",
    "versions": {},
    "seed": 3407,
    "parameters": {"total": 0, "trainable": 0},
    "training": {
        "steps": 0,
        "examples": 0,
        "tokens": 0,
        "seconds": 0.0,
        "loss": [],
        "peak_memory_bytes": 0,
        "predicted_memory_bytes": 0,
        "micro_batch": 0,
        "accumulation": 0,
        "reasons": [],
    },
    "evaluation": {
        "metric": "exact_match",
        "n": 200,
        "before": 0.0,
        "after": 0.0,
        "interval": [0.0, 0.0],
        "retention": {"metric": "...", "before": 0.0, "after": 0.0},
    },
    "receipt": {"verdict": "trained", "findings": []},
    "wall_seconds": 0.0,
}


def assert_holds(found, wanted, where="results"):
    """Every key of `wanted` is in `found`, with a value of the same type."""
    for key, value in wanted.items():
        assert key in found, f"{where} lacks {key}"
        assert isinstance(found[key], int | float if isinstance(value, float) else type(value)), f"{where}.{key}"
        if isinstance(value, dict):
            assert_holds(found[key], value, f"{where}.{key}")


@pytest.fixture(scope="module")
def built(healthy, machine):
    kept = healthy.before, healthy.after
    score = scores.score(healthy.before, healthy.after, kept)
    plan = memory.plan(healthy.model, machine, "lora", longest=30)
    return results.build(
        "lora",
        machine,
        models.require_lora(healthy.model, 16),
        healthy.watching,
        score,
        healthy.receipt,
        plan,
        12.34,
        battery={"answers": {"value": 0.9, "interval": (0.8, float("nan")), "n": 120}},
        file_bytes=77_824,
    )


def test_a_real_run_has_the_keys_of_the_design(built, tmp_path):
    found = json.loads(results.write(built, tmp_path).read_text())
    assert_holds(found, DESIGN)
    assert found["battery"] == {"answers": {"value": 0.9, "interval": [0.8, None], "n": 120}}
    assert found["file_bytes"] == 77_824
    assert found["evaluation"]["measures"] == []


def test_the_figures_are_those_of_the_run(built, healthy, machine):
    training = built["training"]
    assert (training["steps"], training["examples"]) == (90, 90 * 16)
    assert (training["micro_batch"], training["accumulation"]) == (16, 1)
    assert training["learning_rate"] == healthy.trainer.args.learning_rate > 0
    assert len(training["loss"]) == 45 and training["loss"][0] > 1 > training["loss"][-1]
    assert training["seconds"] > 0 and built["wall_seconds"] == 12.3
    lengths = [len(row) for row in healthy.trainer.train_dataset["input_ids"]]
    assert min(lengths) * 1440 <= training["tokens"] <= max(lengths) * 1440
    assert training["peak_memory_bytes"] > 4 * built["parameters"]["total"]
    assert built["parameters"]["trainable"] == 16 * 19456
    assert built["seed"] == 3407
    assert (built["model"], built["data"], built["profile"]) == ("pocket", "pocket", "cpu")
    assert built["receipt"]["verdict"] == healthy.receipt.verdict
    assert built["evaluation"]["before"] == healthy.before.share
    assert [reason.partition(": ")[0] for reason in training["reasons"][len(machine.reasons) :]] == [
        "rows of an update 16",
        "micro-batch 16 x 1",
        "checkpointing off",
    ]
    assert str(REPOSITORY) not in json.dumps(built), "nothing of this machine is in it but its device"
    assert built["backend"] == f"unsloth {metadata.version('unsloth')}"


def test_versions_of_what_is_installed_and_what_is_not():
    assert results.versions(["pytest", "no-such-package"]) == {
        "pytest": pytest.__version__,
        "no-such-package": "not installed",
    }
    assert set(results.versions()) >= {"unsloth", "torch", "trl", "peft", "transformers"}


def test_what_a_run_cost_in_words(healthy):
    found = results.costs(healthy.watching)
    parts = healthy.watching.meter.parts
    assert found["trained parameters"] == "311,296 (8.4%)"
    assert found["peak memory"] == memory.size(healthy.watching.meter.peak_bytes)
    assert found["of it, optimizer"] == memory.size(parts["optimizer"])
    assert found["of it, gradients and activations"] == memory.size(parts["gradients"] + parts["activations"])
    steps = healthy.watching.meter.step_seconds
    assert len(steps) == 89 and sum(steps) < results.seconds(healthy.trainer.state.log_history)
    assert found["milliseconds per step"] == f"{1000 * median(steps):.0f}"


def test_a_step_that_compiles_does_not_count_as_one_of_many():
    meter = memory.Meter()
    meter.step_seconds = [20.0, 0.3, 0.3, 0.2, 0.3]
    trainer = SimpleNamespace(model=torch.nn.Linear(2, 2), state=SimpleNamespace(log_history=[]))
    found = results.costs(SimpleNamespace(trainer=trainer, meter=meter))
    assert found["milliseconds per step"] == "300"


def test_seconds_are_those_of_the_last_training_without_its_evaluations():
    first = [{"eval_runtime": 50.0}, {"loss": 1.0}, {"train_runtime": 100.0}]
    assert results.seconds(first) == 50.0
    assert results.seconds([*first, {"eval_runtime": 1.5}, {"train_runtime": 10.0}, {"eval_runtime": 7.0}]) == 8.5
    assert results.seconds([{"loss": 1.0}]) == 0.0


def test_a_run_keeps_its_curves_with_their_steps(built, healthy):
    curves = built["training"]["curves"]
    assert [value for _, value in curves["loss"]] == built["training"]["loss"]
    assert [step for step, _ in curves["loss"]] == list(range(2, 91, 2))
    assert built["samples"] == [] and "eval_loss" not in curves and "learning_rate" not in curves


def test_curves_hold_what_was_logged_and_only_finite_numbers():
    log = [
        {"loss": 1.0, "reward": 0.5, "rewards/margins": -1, "entropy": 3.0, "step": 1},
        {"loss": float("nan"), "reward": float("inf"), "rewards/margins": "many", "step": 2},
        {"eval_loss": 0.7, "reward_std": None, "step": 2.0},
        {"loss": 0.5},
        {"train_runtime": 9.0, "train_loss": 0.75, "step": 2},
    ]
    found = {"loss": [[1, 1.0]], "reward": [[1, 0.5]], "rewards/margins": [[1, -1.0]], "eval_loss": [[2, 0.7]]}
    assert results.curves(log) == found and results.curves([]) == {}


def test_six_samples_are_kept_and_long_ones_are_cut():
    texts = [str(number) for number in range(9)]
    found = results.samples(texts, texts, ["x" * 9999] * 9)
    assert [sample["prompt"] for sample in found] == texts[:6]
    assert found[0] == {"prompt": "0", "before": "0", "after": "x" * 600}
    with pytest.raises(ValueError):
        results.samples(texts, texts[1:], texts)


def test_samples_of_marked_answers_are_of_each_kind_and_say_how_many():
    given = [str(number) for number in range(40)]
    before = evaluation.Answers(given, given, given, [False] * 38 + [True] * 2)
    after = evaluation.Answers(given, given, given, [True] * 10 + [False] * 29 + [True])
    found = results.samples(before, after)
    kinds = [sample["kind"] for sample in found]
    assert kinds == ["newly right"] * 2 + ["still wrong"] * 2 + ["newly wrong", "still right"]
    assert found[0] == {"prompt": "0", "before": "0", "after": "0", "kind": "newly right", "count": 10, "of": 40}
    assert [sample["count"] for sample in found] == [10, 10, 28, 28, 1, 1]
    unmarked = evaluation.Answers(given, given, given, [])
    assert results.samples(unmarked, unmarked) == results.samples(given, given, given)


def test_tokens_are_counted_by_the_trainer_or_from_the_rows():
    rows = Dataset.from_dict({"input_ids": [[1] * 10, [1] * 20]})
    assert results._tokens([{"num_tokens": 100.0}, {"loss": 1}, {"num_tokens": 250.0}], rows, 4) == 250
    assert results._tokens([{"loss": 1}], rows, 4) == 60
    assert results._tokens([], Dataset.from_dict({"prompt": ["a"]}), 4) == 0
    assert results._tokens([], Dataset.from_dict({"input_ids": []}), 4) == 0


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    broken = {"lesson": "lora", "training": {"loss": [1.0, float("nan"), float("inf"), -float("inf")]}, "pair": (1, 2)}
    path = results.write(broken, tmp_path)
    assert path == tmp_path / "lora.json"
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "lesson": "lora",
        "training": {"loss": [1.0, None, None, None]},
        "pair": [1, 2],
    }


@given(json_values)
def test_whatever_is_in_it_the_file_is_json(tmp_path_factory, value):
    folder = tmp_path_factory.getbasetemp() / "any"
    path = results.write({"lesson": "lora", "value": value}, folder)
    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert found["lesson"] == "lora" and "value" in found


def test_folders_are_made_and_an_older_file_is_replaced(tmp_path):
    folder = tmp_path / "a" / "b"
    results.write({"lesson": "lora", "seed": 1}, folder)
    results.write({"lesson": "lora", "seed": 2}, str(folder))
    results.write({"lesson": "dpo"}, folder)
    assert json.loads((folder / "lora.json").read_text())["seed"] == 2
    assert sorted(path.name for path in folder.iterdir()) == ["dpo.json", "lora.json"]


@pytest.mark.parametrize("taken", ["results", "results/lora.json/inside"])
def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path, taken):
    """A file where the folder should be, and a folder where the file should be."""
    blocker = tmp_path / taken
    blocker.parent.mkdir(parents=True, exist_ok=True)
    blocker.write_text("mine")
    with pytest.raises(CourseError, match=r"lora\.json.* cannot be written .*choose another OUT folder") as error:
        results.write({"lesson": "lora"}, tmp_path / "results")
    assert "\n" not in str(error.value)
    assert blocker.read_text() == "mine"


def test_a_full_disk_leaves_the_older_file(tmp_path, monkeypatch):
    results.write({"lesson": "lora", "seed": 1}, tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CourseError, match="No space left on device"):
        results.write({"lesson": "lora", "seed": 2}, tmp_path)
    assert json.loads((tmp_path / "lora.json").read_text())["seed"] == 1


def test_a_reader_never_sees_half_a_file(tmp_path):
    results.write({"lesson": "lora", "loss": [0.5] * 20_000}, tmp_path)
    stop, seen = threading.Event(), []

    def read():
        while not stop.is_set():
            seen.append(len(json.loads((tmp_path / "lora.json").read_text())["loss"]))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        results.write({"lesson": "lora", "loss": [0.5] * 20_000}, tmp_path)
    stop.set()
    reader.join()
    assert seen and set(seen) == {20_000}


def test_a_run_that_logged_nothing_has_results_too(machine):
    trainer = SimpleNamespace(
        state=SimpleNamespace(log_history=[], global_step=0),
        args=SimpleNamespace(per_device_train_batch_size=16, gradient_accumulation_steps=1, seed=1, learning_rate=1e-3),
        train_dataset=Dataset.from_dict({"input_ids": []}),
    )
    watching = SimpleNamespace(trainer=trainer, meter=SimpleNamespace(peak_bytes=0))
    score = evaluation.Score("exact_match", 1, 0.0, 0.0, (0.0, 0.0))
    receipt = SimpleNamespace(to_dict=lambda: {"verdict": "not trained", "findings": []})
    plan = SimpleNamespace(prediction=SimpleNamespace(total=0), reasons=())
    found = results.build("lora", machine, models.Count(2, 1), watching, score, receipt, plan, wall_seconds=1.0)
    assert found["evaluation"]["retention"] is None
    assert (found["battery"], found["file_bytes"]) == ({}, 0)
    assert (found["training"]["steps"], found["training"]["loss"], found["training"]["seconds"]) == (0, [], 0.0)
