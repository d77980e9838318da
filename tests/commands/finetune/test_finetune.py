"""The command `finetune`: what it refuses, what it trains, and what it leaves behind."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
from conftest import TWO_CORES
from datasets import Dataset
from typer.testing import CliRunner

from unsloth_course import cli, models, profile, results
from unsloth_course.commands import finetune
from unsloth_course.commands import options as settings
from unsloth_course.commands.finetune import Options, finishing, preparing, recipes, tasks
from unsloth_course.core import whole
from unsloth_course.core.errors import CourseError


def test_a_data_file_that_is_not_there_is_a_sentence(load, tmp_path):
    options = Options("lora", str(tmp_path / "gone.json"), model="pocket", profile="cpu", out=tmp_path / "out")
    with pytest.raises(CourseError, match=r"gone\.json"):
        finetune.run(options)


def test_an_out_folder_that_cannot_be_is_a_sentence(load, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CourseError, match="Choose another --out"):
        finetune.run(Options("lora", "pocket", profile="cpu", out=tmp_path / "file"))


def test_a_mistyped_start_leaves_the_config_of_a_finished_run(load, tmp_path):
    config = settings.write(Options("lora", "pocket", out=tmp_path), tmp_path)
    before = config.read_text()
    with pytest.raises(CourseError, match=r"gone\.jsonl"):
        finetune.run(Options("dpo", str(tmp_path / "gone.jsonl"), model="pocket", profile="cpu", out=tmp_path))
    assert config.read_text() == before


def test_a_run_at_its_end_is_not_gone_on_with(tmp_path):
    (tmp_path / "lora.json").write_text("{}")
    with pytest.raises(CourseError, match="holds a finished run, and --resume goes on with one that is not"):
        finetune.run(Options("lora", "pocket", profile="cpu", resume=True, out=tmp_path))


def test_a_run_goes_on_with_the_rows_that_it_began_with_alone(tmp_path, capsys):
    def begin(*rows, resume):
        held_out = [{"output": "kept"}]
        mark = tasks.fingerprint(SimpleNamespace(train=[{"output": text} for text in rows], held_out=held_out))
        before = tmp_path / settings.CONFIG
        noted = settings.read(before)["rows_sha256"] if before.is_file() else None
        options = Options("lora", "pocket", resume=resume, rows_sha256=noted, out=tmp_path)
        preparing._write_down(recipes.Recipe(options, profile.decide(TWO_CORES, "cpu", "pocket", "pocket")), mark)

    begin("a", "b", resume=False)
    begin("a", "b", resume=True)
    assert capsys.readouterr().out == ""
    for other in (("a",), ("b", "a"), ("a", "c")):
        with pytest.raises(CourseError, match="rows are not those that the run"):
            begin(*other, resume=True)
    begin("c", resume=False)
    assert "its result will be another" in capsys.readouterr().out
    begin("c", resume=True)


def test_the_file_beside_a_result_repeats_the_run_wherever_it_lies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}")
    asked = Options("dpo", "rows.jsonl", "pocket", rank=8, out=Path("runs/first"))
    recipe = recipes.Recipe(asked, profile.decide(TWO_CORES, "cpu", "pocket", "rows.jsonl", lesson="dpo"))
    preparing._write_down(recipe, "1f")
    text = (tmp_path / "runs" / "first" / "finetune.toml").read_text()
    assert 'data = "../../rows.jsonl"' in text and str(tmp_path) not in text and 'out = "."' in text
    assert {"learning_rate = 0.0005", "rank = 8", "lora_alpha = 8", "steps = 80", "beta = 5.0"} < {*text.splitlines()}
    assert {"max_length", "batch", "model", "filled_in", "rows_sha256"} < {
        *settings.read(Path("runs/first/finetune.toml"))
    }
    assert "[made_with]" in text and "trl = " in text
    (tmp_path / "moved").mkdir()
    (tmp_path / "runs").rename(tmp_path / "moved" / "runs")
    (tmp_path / "rows.jsonl").rename(tmp_path / "moved" / "rows.jsonl")
    again = settings.asked(tmp_path / "moved" / "runs" / "first" / "finetune.toml", {})
    assert (again.data, again.out) == (str(tmp_path / "moved" / "rows.jsonl"), tmp_path / "moved" / "runs" / "first")
    assert settings.changed(replace(asked, data=again.data), again) == [], "what was filled in was not said"
    other = settings.asked(tmp_path / "moved" / "runs" / "first" / "finetune.toml", {"beta": 0.5})
    assert settings.changed(replace(asked, data=again.data), other) == ["beta"]
    preparing._write_down(replace(recipe, options=replace(again, made_with={"trl": "0.1"})), "2e")
    said = capsys.readouterr().out
    assert "rows are not those of the run that is repeated" in said and "made with trl 0.1" in said


@pytest.mark.parametrize("model", ["out/merged", "out/deep/merged"])
def test_a_model_that_the_run_would_write_over_is_refused(tmp_path, monkeypatch, model):
    (tmp_path / model).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CourseError, match="out, where this run would write over it; choose another --out"):
        finetune.run(Options("lora", "pocket", model=model, merge=True, out=tmp_path / "out"))
    assert not (tmp_path / "out" / "finetune.toml").exists()


class Adapted:
    """Stands in for a model with an adapter: it saves what PEFT would, with the base's path."""

    peft_config = MappingProxyType({"default": None})

    def save_pretrained(self, folder, selected_adapters=()):
        Path(folder, "adapter_config.json").write_text('{"base_model_name_or_path": "/of/peft"}')
        Path(folder, "README.md").write_text("base_model: /of/peft\n")


def test_a_base_in_a_folder_is_found_from_every_other_folder(tmp_path, monkeypatch):
    for name in ("my model", "pocket", "smollm2"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    tokenizer = type("Tokenizer", (), {"save_pretrained": lambda self, folder: None})()
    names = {name: name for name in ("pocket", "smollm2", "a/b")}
    for base, noted in ({"my model": str(tmp_path.resolve() / "my model")} | names).items():
        made = models.save_adapter(Adapted(), tokenizer, "adapter", base=base)
        assert json.loads((made / "adapter_config.json").read_text())["base_model_name_or_path"] == noted
        assert (made / "README.md").read_text() == f"base_model: {noted}\n"


@pytest.fixture(scope="module")
def lora(load, tmp_path_factory):
    out = tmp_path_factory.mktemp("lora")
    options = Options("lora", "pocket", "pocket", "cpu", steps=40, batch=12, rank=8, held_out=40, merge=True, out=out)
    return finetune.run(options), out


def test_it_trains_as_the_lesson_does(lora):
    outcome, out = lora
    found = json.loads((out / "lora.json").read_text())
    assert outcome.trained and found["receipt"]["verdict"] == "trained", outcome
    assert found["evaluation"]["after"] > found["evaluation"]["before"]
    assert found["training"] | {"processes": 1, "steps": 40, "examples": 480} == found["training"]
    assert found["training"]["samples_per_second"] > 0
    assert found["options"]["rank"] == 8 and found["options"]["out"] == str(out)
    assert found["parameters"]["trainable"] * 2 == 311_296, "rank 16 has twice as many"
    assert json.loads(outcome.to_json()) == found
    assert str(out / "adapter") in str(outcome)


def test_it_leaves_a_page_a_card_and_what_to_do_next(lora, monkeypatch, capsys):
    outcome, out = lora
    todo = f"chat {out}", f"export {out} --to gguf", f"share {out} --to OWNER/NAME"
    steps = [f"unsloth-course {step}" for step in todo]
    assert [line.split("  ")[-1].strip() for line in str(outcome).splitlines()[-3:]] == steps
    page = (out / "report.html").read_text()
    assert all(f"<code>{step}</code>" in page for step in steps)
    assert "data:image/png" in page and "Trained." in page and "newly right" in page and "default-src 'none'" in page
    card = (out / "adapter" / "README.md").read_text()
    training = outcome.results["training"]
    done = f"| training | {training['steps']} updates, {training['examples']} rows, rate 0.001 |"
    assert "the bundled model of unsloth-course" in card and done in card and "| method | lora |" in card
    assert "| updates applied |" in card and str(out) not in card
    monkeypatch.setattr(finishing.plots, "loss", lambda history: 1 / 0)
    assert finishing.report(out, "", outcome.receipt, []) is None
    assert "report.html could not be made (ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.parametrize(("base", "line"), [("smollm2", "base_model: HuggingFaceTB/"), ("a/b", "base_model: a/b\n")])
def test_the_card_names_its_base_and_no_path(lora, tmp_path, base, line):
    outcome, _ = lora
    (tmp_path / "rows.jsonl").touch()
    found = outcome.results | {"options": {"data": str(tmp_path / "rows.jsonl")}}
    results.card(found, outcome.receipt, tmp_path, base)
    card = (tmp_path / "README.md").read_text()
    assert line in card and "| data | rows.jsonl |" in card and "library_name: transformers" in card
    results.card(found, outcome.receipt, tmp_path, str(tmp_path))
    own = (tmp_path / "README.md").read_text()
    assert "a model of its owner's" in own and "base_model" not in own and str(tmp_path) not in own


def test_an_adapter_is_gone_on_from_by_two_commands(lora, tmp_path):
    _, out = lora
    for named in (out, out / "adapter"):
        with pytest.raises(CourseError, match="is an adapter") as error:
            finetune.run(Options("dpo", "my rows.jsonl", str(named), out=tmp_path))
        merged = out / "export" / "merged"
        assert str(error.value).splitlines()[1:] == [
            f"    unsloth-course export {out / 'adapter'} --to merged",
            f"    unsloth-course finetune --method dpo --data 'my rows.jsonl' --model {merged}",
        ]


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


def result(out):
    (out / "lora.json").write_text("{}")


def checkpoint(out):
    (out / "checkpoints" / "checkpoint-7").mkdir(parents=True)
    (out / "checkpoints" / "checkpoint-7" / whole.MANIFEST).write_text("{}")


@pytest.mark.parametrize(
    ("leave", "sentence"),
    [
        (result, "after the training; what was learned is saved in {out}. Make the export that is missing"),
        (checkpoint, "all up to {out}/checkpoints/checkpoint-7 is saved. The same command with --resume goes on"),
        (lambda out: (out / "checkpoints" / "checkpoint-7").mkdir(parents=True), "nothing of this run was saved yet"),
        (lambda out: None, "before the first checkpoint; nothing of this run was saved yet"),
    ],
)
def test_ctrl_c_says_what_is_saved(monkeypatch, tmp_path, leave, sentence):
    def run(options, started):
        leave(tmp_path)
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "run", run)
    words = ["finetune", "--method", "lora", "--data", "pocket", "--merge", "--out", str(tmp_path)]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 130 and sentence.format(out=tmp_path.as_posix()) in done.stderr.replace("\\", "/")


def test_a_result_of_another_run_is_none_of_this_one(tmp_path):
    result(tmp_path)
    written = (tmp_path / "lora.json").stat().st_mtime
    assert "nothing of this run" in finetune.interrupted(Options("lora", "pocket", out=tmp_path), written + 1)


SHORT = {"profile": "cpu", "model": "pocket", "held_out": 12, "batch": 4}


@pytest.mark.parametrize(
    ("method", "more", "metric", "judge", "trainable"),
    [
        ("qlora", {"steps": 3}, "exact_match", "answer_perplexity", 311_296),
        ("dpo", {"steps": 3, "warm_up": 3, "beta": 0.5}, "preference_rate", "preference_accuracy", 311_296),
        ("grpo", {"steps": 2, "warm_up": 3, "batch": 2, "generations": 4}, "accuracy", "accuracy", 311_296),
        ("cpt", {"steps": 3, "max_samples": 60, "rank": 8, "replay": 0.2}, "perplexity", "perplexity", None),
    ],
)
def test_every_method_trains_on_its_own_data(load, tmp_path, method, more, metric, judge, trainable):
    options = Options(method, "pocket", **(SHORT | more), out=tmp_path)
    outcome = finetune.run(options)
    found = outcome.results
    assert found["evaluation"]["metric"] == metric and found["evaluation"]["n"] == 12
    measures = json.loads(outcome.to_json())["evaluation"]["measures"]
    assert [one["name"] for one in measures if one["judges"]] == [judge] and len(measures) > 2
    assert all({"before", "after", "interval", "n", "likelier"} <= set(one) for one in measures)
    assert found["training"]["steps"] == more["steps"] and found["method"] == method
    assert trainable in (None, found["parameters"]["trainable"])
    assert outcome.receipt.evidence.changed_tensors > 0
    assert all(1e-4 < change < 1 for change in outcome.receipt.layer_change.values()), "of 4-bit weights, too"
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    written = Options(**settings.read(tmp_path / "finetune.toml"))
    assert settings.changed(written, options) == [] and written.learning_rate and written.rows_sha256
    held_out = [json.loads(line) for line in (tmp_path / "held-out.jsonl").read_text().splitlines()]
    assert len(held_out) == 12 and all("text" in row or row["messages"] for row in held_out)


def test_conversations_and_long_answers_are_tested_by_perplexity(load, tmp_path):
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Why is {n} so large?"},
                {"role": "assistant", "content": f"{n} is so large since it comes after {n - 1}, as everyone knows."},
            ]
        }
        for n in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = Options("lora", str(tmp_path / "rows.jsonl"), **SHORT, steps=8, out=tmp_path / "out")
    outcome = finetune.run(options)
    score = outcome.results["evaluation"]
    assert score["metric"] == "perplexity" and score["after"] < score["before"]


def test_rows_with_long_answers_alone_stand_by_their_perplexity(load):
    rows = Dataset.from_list([{"instruction": "Why?", "input": "", "output": "Since\nit is so."}] * 4)
    task = tasks.Instructions(profile.decide(TWO_CORES), rows, rows, None)
    found = task.measure(*load())
    assert task.stands(found) == ("perplexity", found[0].likelihood.perplexity)
    assert task.score(found, found, None, None).metric == "perplexity" and task.answers(found).right == []
    short = tasks.Instructions(task.machine, rows, rows.map(lambda row: {"output": "So."}), None)
    assert short.stands(short.measure(*load())) == ("right answers", 0.0)


def test_pairs_whose_prompt_fills_the_length_are_left_out_and_counted(load, capsys):
    asked = [[{"role": "user", "content": text}] for text in ["What is 2 plus 2?"] * 3 + ["Why? " * 300]]
    rows = Dataset.from_list([{"prompt": turns, "chosen": "It is 4.", "rejected": "4"} for turns in asked])
    task = tasks.Pairs(profile.decide(TWO_CORES), rows, rows, None)
    model, tokenizer = load()
    for _ in range(2):  # a chain's tasks are fitted before its first measure, and with the run's own
        task.fit(tokenizer)
    written, likelihood = task.measure(model, tokenizer)
    assert len(written.given) == len(likelihood.chosen.losses) == len(task.train) == 3
    assert capsys.readouterr().out.count("1 of 4 pairs are left out") == 2


def test_early_stopping_ends_a_run_that_learns_nothing_which_says_so_and_still_saves(load, tmp_path):
    how = {"steps": 40, "learning_rate": 1e-12, "eval_steps": 2, "early_stopping": 2}
    found = finetune.run(Options("lora", "pocket", **SHORT, **how, out=tmp_path)).results
    assert 4 <= found["training"]["steps"] < 40
    assert found["evaluation"]["after"] == found["evaluation"]["before"]
    assert found["receipt"]["verdict"] == "suspicious"
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_epochs_count_passes_over_the_rows_and_curves_go_to_tensorboard_where_it_is(load, tmp_path, monkeypatch):
    installed = importlib.util.find_spec("tensorboard") is not None
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")  # put back after the test
    rows = [{"instruction": f"Say {n}.", "input": "", "output": str(n)} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    how = {"epochs": 2.0, "report_to": "tensorboard" if installed else "none", "out": tmp_path / "out"}
    found = finetune.run(Options("lora", str(tmp_path / "rows.jsonl"), **SHORT, **how)).results
    assert found["evaluation"]["n"] == 12 and found["training"]["steps"] == 9, "18 rows, 4 in an update, twice"
    assert any((tmp_path / "out" / "tensorboard").glob("events*")) == installed


@pytest.mark.parametrize("resume", [False, True])
def test_what_another_run_learned_is_not_written_over(tmp_path, monkeypatch, resume):
    def again(**other):
        return finetune.run(Options("lora", "pocket", **(SHORT | {"steps": 5} | other), resume=resume, out=tmp_path))

    def prepare(*_):
        raise CourseError("it begins")

    monkeypatch.setattr(finetune, "prepare", prepare)
    settings.write(Options("lora", "pocket", **SHORT, steps=5, out=tmp_path), tmp_path)
    with pytest.raises(CourseError, match="it begins"):
        again(steps=6)  # that run never came to its end
    (tmp_path / "adapter").mkdir()
    with pytest.raises(CourseError, match=r"holds what a run with other values of steps learned.* another --out"):
        again(steps=6)
    for same in ({}, {"merge": True}, {"steps": 6, "hand_on": True}):  # the last is a stage of a chain
        with pytest.raises(CourseError, match="it begins"):
            again(**same)


def test_a_cpu_takes_the_real_model_and_the_bundled_one_only_by_name(monkeypatch, tmp_path):
    """And the profile knows how long a training is, since it decides from that whether compiling pays."""
    asked = {}

    def detect(*names, **how):
        asked.update(how)
        return profile.decide(TWO_CORES, *names, **how)

    monkeypatch.setattr(profile, "detect", detect)
    assert preparing.machine_of(Options("qlora", "rows.jsonl", steps=5000, out=tmp_path)).model == "smollm2"
    assert asked["lesson"] == "lora" and asked["updates"] == 5000
    assert preparing.machine_of(Options("lora", "rows.jsonl", model="pocket", out=tmp_path)).model == "pocket"


def test_a_resumed_run_of_other_options_is_refused(load, tmp_path):
    settings.write(Options("lora", "pocket", **SHORT, steps=5, out=tmp_path), tmp_path)
    checkpoint(tmp_path)
    with pytest.raises(CourseError, match="other values of steps; its checkpoints would not fit"):
        finetune.run(Options("lora", "pocket", **SHORT, steps=6, resume=True, out=tmp_path))


def test_a_run_that_failed_before_its_first_checkpoint_goes_on_with_mended_options(tmp_path):
    before = Options("dpo", "pocket", **SHORT, steps=5, resume=True, out=tmp_path)
    settings.write(before, tmp_path)
    assert finetune._resumed(before) == (before, None), "its warm-up is taken over"
    mended = Options("dpo", "pocket", **SHORT, steps=5, warm_up=7, resume=True, out=tmp_path)
    options, found = finetune._resumed(mended)
    assert found is None and not options.resume and options.warm_up == 7, "its warm-up is not"


def test_hyperparameters_reach_the_trainer(load, tmp_path):
    options = Options(
        "lora",
        "pocket",
        **SHORT,
        steps=10,
        micro_batch=2,
        lr_scheduler_type="linear",
        warmup_ratio=0.3,
        weight_decay=0.2,
        lora_alpha=32,
        lora_dropout=0.1,
        target_modules=("q_proj", "v_proj"),
        out=tmp_path,
    )
    prepared = finetune.prepare(options)
    adapter = prepared.model.peft_config["default"]
    assert (adapter.lora_alpha, adapter.lora_dropout, set(adapter.target_modules)) == (32, 0.1, {"q_proj", "v_proj"})
    arguments = finetune.train(prepared, test=False).args
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (2, 2)
    assert (arguments.lr_scheduler_type, arguments.warmup_steps, arguments.weight_decay) == ("linear", 3, 0.2)


def test_what_gguf_needs_is_said_before_the_training(load, tmp_path, monkeypatch):
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path))
    with pytest.raises(CourseError, match=r"Run \./setup_venv\.sh --gguf"):
        finetune.run(Options("lora", "pocket", **SHORT, steps=2, gguf=("q4_k_m",), out=tmp_path / "out"))
    assert not (tmp_path / "out" / "adapter").exists()
