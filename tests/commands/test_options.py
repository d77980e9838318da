"""What a run is asked to do: its checks, and the TOML file that holds and repeats it."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course.commands import options
from unsloth_course.commands.options import Options
from unsloth_course.core.errors import CourseError

LORA = Options("lora", "pocket")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "lorra"}, "--method is 'lorra'; choose one of full, lora"),
        ({"steps": 0}, "--steps is 0"),
        ({"max_samples": -1}, "--max-samples is -1"),
        ({"held_out": 0}, "--held-out is 0"),
        ({"rank": 0}, "--rank is 0"),
        ({"batch": 0}, "--batch is 0"),
        ({"micro_batch": 0}, "--micro-batch is 0"),
        ({"learning_rate": 0.0}, "--learning-rate is 0;"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"epochs": -1.0}, r"--epochs is -1; .* such as 3"),
        ({"lora_dropout": 1.0}, "--lora-dropout is 1"),
        ({"warmup_steps": -1}, "--warmup-steps is -1"),
        ({"steps": 5, "epochs": 1.0}, "--steps and --epochs"),
        ({"warmup_steps": 5, "warmup_ratio": 0.1}, "--warmup-steps and --warmup-ratio"),
        ({"report_to": "paper"}, "--report-to is 'paper'; choose one of none, tensorboard"),
        ({"lr_scheduler_type": "stairs"}, "--lr-scheduler-type is 'stairs'"),
        ({"profile": "tpu"}, "--profile is 'tpu'"),
        ({"gguf": ("q9",)}, "choose one of f16, q8_0"),
        ({"beta": 0.1}, "--beta means nothing with --method lora; it belongs to dpo"),
        ({"generations": 4}, "belongs to grpo"),
        ({"replay": 0.2}, "belongs to cpt"),
        ({"method": "full", "rank": 8}, "--rank means nothing with --method full"),
        ({"method": "grpo", "early_stopping": 2}, "--early-stopping means nothing with --method grpo"),
        ({"data": ""}, r"--data is empty .* such as my-rows.jsonl"),
        ({"model": " "}, "--model is empty"),
        ({"seed": 2**33}, "--seed is 8589934592; give a whole number from 0 to below 4294967296"),
        ({"method": "grpo", "generations": 1}, "--generations is 1; give at least 2"),
        ({"target_modules": ("q_proj", "foo")}, "--target-modules names 'foo'; choose from q_proj, k_proj"),
        ({"target_modules": ("all-linear",)}, "--target-modules names 'all-linear'"),
        ({"early_stopping": 2, "save_steps": 5}, "--early-stopping saves .* give --eval-steps"),
        ({"method": "full", "merge": True}, "--merge puts an adapter"),
        ({"earlier": ("lora",)}, "earlier = 'lora': write the method and the data"),
    ],
)
def test_what_cannot_be_is_a_sentence(change, sentence):
    with pytest.raises(CourseError, match=sentence):
        options.check(replace(LORA, **change))


@pytest.mark.parametrize("method", options.METHODS)
def test_every_method_passes_with_method_and_data_alone(method):
    options.check(Options(method, "pocket"))


def test_a_tracker_that_is_not_installed_is_a_sentence(monkeypatch):
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match="--report-to wandb needs the package wandb"):
        options.check(replace(LORA, report_to="wandb"))
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: object())
    options.check(replace(LORA, report_to="wandb"))


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip)
ANY = {
    "data": TEXT,
    "model": st.none() | TEXT,
    "steps": st.none() | st.integers(1, 10**6),
    "learning_rate": st.none() | st.floats(1e-9, 0.9),
    "weight_decay": st.floats(0, 0.9),
    "merge": st.booleans(),
    "gguf": st.lists(st.sampled_from(options.QUANTS)).map(tuple),
    "target_modules": st.lists(TEXT).map(tuple),
}


@given(st.fixed_dictionaries(ANY))
def test_what_is_written_is_read_again(tmp_path_factory, values):
    asked = Options("lora", **values)
    out = tmp_path_factory.mktemp("options")
    path = options.write(asked, out)
    assert path.name == "finetune.toml"
    assert Options(**options.read(path)) == asked


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("method = ", "is no TOML file"),
        ('methode = "lora"', "'methode' is no option of finetune. Those are method, data"),
        ('steps = "five"', "steps is 'five'; give a whole number"),
        ("steps = true", "steps is True; give a whole number"),
        ("steps = 2.5", "steps is 2.5; give a whole number"),
        ("learning_rate = 'fast'", "learning_rate is 'fast'; give a number"),
        ("merge = 1", "merge is 1; give true or false"),
        ("method = 3", "method is 3; choose one of full"),
        ("gguf = [1]", r"gguf is \[1\]; choose one of f16"),
        ("out = 5", "out is 5; give a path in quotes"),
    ],
)
def test_a_file_with_a_fault_names_it(tmp_path, text, sentence):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(CourseError, match=sentence) as error:
        options.read(path)
    assert str(path) in str(error.value)


@given(st.binary())
def test_any_bytes_are_options_or_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "run.toml"
    path.write_bytes(content)
    try:
        Options(**{"method": "lora", "data": "pocket"} | options.read(path))
    except CourseError as error:
        assert str(path) in str(error)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(CourseError, match="Name a TOML file with --config"):
        options.read(tmp_path / "gone.toml")


def test_what_is_said_goes_before_the_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('method = "lora"\ndata = "rows.jsonl"\nsteps = 7\ngguf = "f16"\nepochs = 1\n')
    said = {"steps": 9, "merge": False, "rank": None, "gguf": "q8_0, q4_k_m", "out": Path("here")}
    asked = options.asked(path, said)
    assert (asked.method, asked.steps, asked.merge, asked.gguf) == ("lora", 9, False, ("q8_0", "q4_k_m"))
    assert asked.out == Path("here") and asked.epochs == 1.0
    with pytest.raises(CourseError, match="--data is missing"):
        options.asked(None, {"method": "lora"})


def test_runs_differ_by_what_decides_the_training():
    assert options.changed(LORA, replace(LORA, merge=True, out=Path("x"), resume=True)) == []
    assert options.changed(LORA, replace(LORA, steps=5, seed=1)) == ["steps", "seed"]
