"""The command `memory`: a plan for a run on this machine or a named GPU, without loading anything."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import memory as room
from unsloth_course.commands import memory

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")


def test_a_t4_takes_the_lessons_rows_at_once(command):
    status, out, err = command("memory", "--method", "lora", "--gpu", "T4", "--json")
    found = json.loads(out)
    assert (status, err) == (0, "") and found["fits"] is True and found["gpus"]["T4"] is True
    assert (found["model"], found["micro_batch"], found["accumulation"]) == (SMOLLM2, 8, 1)
    assert found["predicted_bytes"] == sum(found["parts"].values())
    assert set(found["parts"]) == {"weights", "gradients", "optimizer", "activations"} and found["reasons"]


def test_what_does_not_fit_has_another_status(command, tmp_path):
    config = dict(zip(SIZES, (8192, 80, 64, 28672, 128256), strict=True))
    (tmp_path / "config.json").write_text(json.dumps(config))
    status, out, _ = command("memory", "--method", "full", "--gpu", "t4", "--model", str(tmp_path))
    assert status == 1 and "still too much" in out and "too small  T4" in out


def test_this_machine_is_planned_for_when_none_is_named(command):
    status, out, _ = command("memory", "--method", "full", "--model", "pocket", "--json")
    assert status == 0 and json.loads(out)["parts"]["weights"] == 3_410_176 * 4


def test_full_fine_tuning_is_planned_with_32_bit_weights_on_every_gpu(command):
    for gpu in ("T4", "L4"):
        _, out, _ = command("memory", "--method", "full", "--gpu", gpu, "--json")
        parts = json.loads(out)["parts"]
        assert (parts["weights"], parts["gradients"], parts["optimizer"]) == tuple(134_515_008 * n for n in (4, 4, 8))


def test_a_micro_batch_of_ones_own_is_kept():
    found = memory.report("lora", gpu="H200", rows=12, micro_batch=3).plan
    assert (found.micro_batch, found.accumulation, found.rows) == (3, 4, 12) and "as asked for" in str(found)
    whole = memory.report("lora", gpu="H200", rows=12).plan
    assert found.prediction.total < whole.prediction.total


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "sft"], "There is no method 'sft'; choose one of"),
        (["--method", "lora", "--gpu", "GTX"], "No GPU named 'GTX' is known; choose one of T4"),
        (
            ["--method", "lora", "--gpu", "T4", "--micro-batch", "3"],
            r"8 rows of an update cannot be taken 3 at a time.*another number of rows \(--batch\)",
        ),
    ],
)
def test_wrong_options_are_sentences(command, words, says):
    status, out, err = command("memory", *words)
    assert status == 1 and out == "" and re.match(says, err) and err.count("\n") == 1


def test_sizes_that_no_model_has_are_a_sentence(command, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(dict.fromkeys(SIZES, 64) | {"num_attention_heads": 0}))
    status, _, err = command("memory", "--method", "lora", "--gpu", "T4", "--model", str(tmp_path))
    assert status == 1 and err == "config.json says that heads is 0, which no model has: fetch it again.\n"


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b"\xff\xfe", b'{"hidden_size": "big"}'])
def test_a_config_that_is_none_is_a_sentence(command, tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    status, _, err = command("memory", "--method", "lora", "--gpu", "T4", "--model", str(tmp_path))
    assert status == 1 and "Traceback" not in err and err.count("\n") == 1


def test_of_a_model_on_the_hub_only_its_config_is_fetched(command, monkeypatch):
    from unsloth_course.core import hub
    from unsloth_course.core.places import BUNDLED_MODEL

    fetched = []
    there = hub.Repository("somebody/small", "model", folder=BUNDLED_MODEL)
    monkeypatch.setattr(hub, "_fetch", lambda name, *_: fetched.append(name) or there)
    status, out, _ = command("memory", "--method", "full", "--gpu", "T4", "--model", "somebody/small", "--json")
    found = json.loads(out)
    assert status == 0 and fetched == ["somebody/small"] and found["model"] == "somebody/small"
    assert found["parts"]["weights"] == 3_410_176 * 4  # a T4 has no bfloat16, and float16 cannot be trained


@pytest.mark.parametrize("name", ["smollm2", SMOLLM2])
def test_the_models_that_the_course_names_are_known_without_fetching_anything(command, monkeypatch, name):
    from unsloth_course.core import hub
    from unsloth_course.lesson import smollm2

    for place, fetching in ((hub, "_fetch"), (smollm2, "fetch")):
        monkeypatch.setattr(place, fetching, lambda *_: pytest.fail("it was fetched"))
    status, out, _ = command("memory", "--method", "lora", "--gpu", "T4", "--model", name, "--json")
    assert status == 0 and json.loads(out)["parts"]["weights"] >= 134_515_008 * 2


@given(
    method=st.sampled_from(room.METHODS),
    gpu=st.sampled_from(sorted(room.GPUS)),
    length=st.integers(1, 8192),
    rows=st.integers(1, 64),
)
def test_any_run_gets_a_report(method, gpu, length, rows):
    found = memory.report(method, gpu=gpu, length=length, rows=rows)
    assert json.loads(found.to_json())["rows"] == rows
    assert found.gpus[gpu] == room.fits(found.plan.prediction, gpu)[0] and str(found)
