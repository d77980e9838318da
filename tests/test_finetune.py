"""The command `finetune`: what it refuses, what it trains, and what it leaves behind."""

import json

import pytest
from typer.testing import CliRunner

from unsloth_course import cli, finetune, models
from unsloth_course.errors import CourseError
from unsloth_course.finetune import Options


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "dpo"}, r"no dpo yet; .*lora, full.*run dpo"),
        ({"method": "qlora"}, r"no qlora yet; .*run lora"),
        ({"method": "lorra"}, "no method 'lorra'"),
        ({"steps": 0}, "--steps is 0"),
        ({"max_samples": -1}, "--max-samples is -1"),
        ({"rank": 0}, "--rank is 0"),
        ({"batch": 0}, "--batch is 0"),
        ({"learning_rate": 0.0}, "--learning-rate is 0;"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"method": "full", "merge": True}, "--merge puts an adapter"),
    ],
)
def test_what_cannot_be_is_a_sentence_before_anything_is_loaded(change, sentence):
    with pytest.raises(CourseError, match=sentence):
        finetune.run(Options(**({"method": "lora", "data": "pocket"} | change)))


def test_a_data_file_that_is_not_there_is_a_sentence(load, tmp_path):
    options = Options("lora", str(tmp_path / "gone.json"), model="pocket", profile="cpu", out=tmp_path / "out")
    with pytest.raises(CourseError, match=r"gone\.json"):
        finetune.run(options)


def test_an_out_folder_that_cannot_be_is_a_sentence(load, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CourseError, match="choose another one with --out"):
        finetune.run(Options("lora", "pocket", profile="cpu", out=tmp_path / "file"))


@pytest.fixture(scope="module")
def lora(load, tmp_path_factory):
    out = tmp_path_factory.mktemp("lora")
    options = Options("lora", "pocket", profile="cpu", steps=60, batch=12, rank=8, merge=True, out=out)
    return finetune.run(options), out


def test_it_trains_as_the_lesson_does(lora):
    outcome, out = lora
    found = json.loads((out / "lora.json").read_text())
    assert outcome.trained and found["receipt"]["verdict"] == "trained", outcome
    assert found["evaluation"]["after"] > found["evaluation"]["before"]
    assert found["training"] | {"processes": 1, "steps": 60, "examples": 720} == found["training"]
    assert found["training"]["samples_per_second"] > 0
    assert found["options"]["rank"] == 8 and found["options"]["out"] == str(out)
    assert found["parameters"]["trainable"] * 2 == 311_296, "rank 16 has twice as many"
    assert json.loads(outcome.to_json()) == found
    assert str(out / "adapter") in str(outcome)


def test_what_it_saved_loads_again(lora):
    _, out = lora
    model, tokenizer = models.load_adapter(out / "adapter")
    (answer,) = models.answer(model, tokenizer, ["Which letter does XQQX start with?"])
    assert answer
    assert models.disk_bytes(out / "merged") > models.disk_bytes(out / "adapter") > 0


def test_full_saves_the_whole_model(load, tmp_path):
    rows = [{"instruction": f"Say {n}.", "input": "", "output": str(n)} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = Options(
        "full", str(tmp_path / "rows.jsonl"), model="pocket", profile="cpu", max_samples=20, steps=4, out=tmp_path
    )
    outcome = finetune.run(options)
    models.allow_adapters()
    assert outcome.results["evaluation"]["n"] == 30 and outcome.results["training"]["steps"] == 4
    assert len(outcome.results["training"]["loss"]) == 4
    assert (tmp_path / "model" / "model.safetensors").is_file() and outcome.results["lesson"] == "full"


@pytest.mark.parametrize(("verdict", "status"), [("trained", 0), ("suspicious", 0), ("not trained", 1)])
def test_the_exit_status_is_the_receipt_s(monkeypatch, verdict, status, tmp_path):
    receipt = type("Receipt", (), {"sentence": lambda self: "What the receipt says."})()
    file = tmp_path / "lora.json"
    file.write_text("{}")
    outcome = finetune.Outcome({"receipt": {"verdict": verdict}}, [file], receipt)
    calls = []
    monkeypatch.setattr(finetune, "run", lambda options, started: calls.append(options) or outcome)
    words = "finetune --method lora --data pocket --profile cpu --max-samples 5 --batch 4 --merge --json"
    done = CliRunner().invoke(cli.app, words.split())
    assert (done.exit_code, done.stdout) == (status, "{}\n")
    (options,) = calls
    assert (options.profile, options.max_samples, options.batch, options.merge) == ("cpu", 5, 4, True)
    assert isinstance(done.exception, CourseError) == (status == 1)
