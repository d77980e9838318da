"""The tables of README and docs/results: made from any recorded runs, with each metric written as what it is."""

import ast
import copy
import dataclasses
import functools
import json
import os
import tarfile
from types import SimpleNamespace

import nbformat
import pytest
from conftest import script, unsloth_source

from unsloth_course import models, profile
from unsloth_course.core import lessons

table = script("table")
SCORE = {"metric": "exact_match", "n": 200, "before": 0.0, "after": 0.95, "interval": [0.9, 0.99], "retention": None}


def run_of(lesson, seed=1, **changes):
    found = {
        "lesson": lesson,
        "profile": "cpu",
        "device": "2 CPU cores, 24 GiB",
        "model": "pocket",
        "seed": seed,
        "parameters": {"total": 2000, "trainable": 1000},
        "training": {"seconds": 10.0 + seed, "peak_memory_bytes": 2**20 * seed},
        "evaluation": copy.deepcopy(SCORE),
        "receipt": {"verdict": "trained"},
        "battery": {name: {"value": 0.5 + seed / 100} for name in table.SCORES},
        "file_bytes": 2**20,
        "wall_seconds": 100.0 * seed,
    }
    return found | changes


def cells(text, first):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_with_nothing_recorded_every_table_says_so():
    for name in ("lessons", "runs"):
        assert table.TABLES[name]([]).startswith("| lesson |")
    assert table.lessons([]).count(table.UNRECORDED) == 10
    assert table.matrix([]) == table.scoreboard([]) == ""
    assert "real_lessons.py" in table.real([]) and table.measures([]) == "Not recorded yet."


def test_the_matrix_gives_means_over_the_seeds_and_names_the_device():
    text = table.matrix([run_of("lora", seed) for seed in (1, 3)])
    assert text.startswith("On 2 CPU cores, 24 GiB, model pocket, seeds 1, 3:\n\n| method |")
    assert cells(text, "LoRA")[1:5] == ["1,000 (50.0%)", "1.0 MiB", "2.0 MiB", "12 s"]
    assert cells(text, "GRPO")[1] == table.UNRECORDED


def real_run(lesson, seed, **changes):
    """A run of the real model on a GPU, with measures and a fingerprint."""
    exact = {"name": "exact_match", "before": 0.05, "after": 0.06, "interval": [-0.01, 0.03], "n": 81}
    judge = {"name": "answer_perplexity", "before": 6.5, "after": 5 + seed / 10, "n": 200, "judges": True}
    judge |= {"interval": [-1.3, -0.9 - seed / 10], "likelier": 190 + seed}
    retention = {"metric": "exact_match", "before": 0.667, "after": 0.733}
    score = SCORE | {"measures": [exact, judge], "retention": retention}
    weights = {"name": "SmolLM2", "sha": "0123456789ab", "from": "Q4_1"}
    about = {"profile": "gpu", "device": "NVIDIA H200, 140 GiB", "model": "owner/SmolLM2", "evaluation": score}
    about["fingerprint"] = {"weights": weights, "rows": {"name": "public samples", "sha": "ba9876543210"}}
    return run_of(lesson, seed, **(about | changes))


def test_the_real_model_s_table_names_scores_over_seeds_weights_and_rows():
    apart = {"rewrites": {"n": 100, "preference_accuracy": 0.9, "interval": [0.82, 0.95]}}
    t4 = {"device": "NVIDIA H200, 15 GiB", "stands_for": "a T4"}
    runs = [real_run("lora", seed, beside=3) for seed in (1, 3)] + [run_of("lora")]
    runs += [real_run("dpo", 1, apart=apart, beside=3), real_run("lora", 1, **t4)]
    text = table.real(runs)
    assert text.count("| lesson |") == 2 and "On NVIDIA H200, 15 GiB (in place of a T4)" in text
    assert cells(text.split("15 GiB")[0], "LoRA")[1:] == [
        *("1, 3", "answer perplexity, n = 200", "6.50 → 5.10 to 5.30", "-1.3 to -1", "191 to 193 of 200 rows likelier"),
        *("1,000", "2.0 MiB", "12 s", "3 min 20 s"),
    ]
    for part in ("SmolLM2 (0123456789ab), rounded to Q4_1", "LoRA, DPO: public samples", "3 runs shared the GPU"):
        assert part in text
    alone = [real_run("dpo", 1), real_run("dpo", 3, beside=3)]
    assert "The seconds are those of seed 1, which had the GPU alone." in table.real(alone)
    lines = table.measures(runs).splitlines()
    assert "| DPO | preference accuracy, rewrites | 100 | 50.0 % → 90.0 % | +32.0 to +45.0 points |" in lines
    assert "| LoRA | exact match | 81 | 5.0 % → 6.0 % | -1.0 to +3.0 points |" in lines
    assert "| LoRA | untouched skills | – | 66.7 % → 73.3 % | – |" in lines
    assert "answer perplexity 6.50 → 5.30; exact match 5.0 % → 6.0 %" in table.runs(runs)
    assert cells(table.lessons(runs), "LoRA")[3:5] == ["1 min 40 s", "3 min 20 s"]


def test_runs_of_two_devices_are_two_tables():
    runs = [run_of("lora"), run_of("lora", device="Tesla T4, 15 GiB", profile="gpu")]
    assert table.matrix(runs).count("| method |") == table.scoreboard(runs).count("| answers |") == 2


def test_the_scoreboard_shows_mean_and_range_and_perplexities_as_numbers():
    text = table.scoreboard([run_of("lora", seed) for seed in (1, 3)] + [run_of("base")])
    found = cells(text, "LoRA")
    assert found[1] == "52.0 % (51.0 % to 53.0 %)" and found[6] == "0.52 (0.51 to 0.53)"
    assert cells(text, "base model")[1] == "51.0 %"
    assert cells(text, "DPO")[1] == table.UNRECORDED


def test_what_was_not_measured_and_a_run_that_did_not_train_are_said():
    run = run_of("lora")
    run["battery"]["format"]["value"] = None
    assert cells(table.scoreboard([run]), "LoRA")[4] == "not measured"
    assert cells(table.scoreboard([run_of("lora", battery={})]), "LoRA")[1] == table.UNRECORDED
    assert "(suspicious)" in table.runs([run_of("lora", receipt={"verdict": "suspicious"})])


PERPLEXITY = {"metric": "perplexity", "before": 251.7, "after": 1.234}
PERPLEXITY["retention"] = {"metric": "perplexity", "before": 1.5, "after": 1.6}


@pytest.mark.parametrize(
    ("evaluation", "what", "kept"),
    [
        (SCORE, "exact match 0.0 % → 95.0 %", "–"),
        (
            SCORE | {"metric": "preference_rate", "correctness": {"metric": "correct", "before": 0.9, "after": 0.88}},
            "preference rate 0.0 % → 95.0 %; right 90.0 % → 88.0 %",
            "–",
        ),
        (
            SCORE | {"retention": {"metric": "exact_match", "before": 1.0, "after": 0.99}, "metric": "accuracy"},
            "accuracy 0.0 % → 95.0 %",
            "100.0 % → 99.0 %",
        ),
        (SCORE | PERPLEXITY, "perplexity 252 → 1.23", "general perplexity 1.50 → 1.60"),
    ],
)
def test_each_metric_is_written_as_what_it_is(evaluation, what, kept):
    text = table.runs([run_of("cpt", evaluation=evaluation)])
    assert cells(text, "continued pretraining")[3:5] == [what, kept]


def test_minutes():
    said = [table._minutes(seconds) for seconds in (31.4, 99, 100, 119.6)]
    assert said == ["31 s", "99 s", "1 min 40 s", "2 min 00 s"]


def test_tables_are_put_between_their_markers_and_nothing_else_changes():
    page = "before\n<!-- table: runs -->\nold\n<!-- end -->\nafter\n<!-- table: matrix -->\n<!-- end -->\n"
    filled = table.filled(page, [run_of("lora")])
    assert (
        filled.startswith("before\n<!-- table: runs -->\n| lesson |") and "\nafter\n" in filled and "old" not in filled
    )
    assert table.filled(filled, [run_of("lora")]) == filled
    with pytest.raises(KeyError):
        table.filled("<!-- table: nonsense -->\n<!-- end -->", [])


def test_recorded_files_are_read_in_learning_order(tmp_path):
    for lesson in ("grpo", "base", "full", "lora"):
        (tmp_path / f"{lesson}-cpu-seed1.json").write_text(json.dumps(run_of(lesson)))
    assert [run["lesson"] for run in table.recorded(tmp_path)] == ["base", "lora", "full", "grpo"]


# Recording on the real model


def person(text, answer, other):
    return {"instruction": text, "input": "", "output": answer, "chosen": answer, "rejected": other}


@pytest.fixture
def public_samples(tmp_path):
    """Files as the public samples have them, of a few rows; the folder."""
    folder = tmp_path / "samples"
    folder.mkdir()
    rows = [person(f"Say {n} kindly.", f"It is {n}, my friend.", f"It is {n}, you fool.") for n in range(30)]
    spoken = []
    for number in range(12):
        said = [{"from": "human", "value": f"Talk {number}."}]
        if number % 3 == 1:
            said.insert(0, {"from": "system", "value": "Be brief."})
        if number % 3 == 2:
            said += [{"from": "gpt", "value": "Well."}, {"from": "human", "value": f"Go on, {number}."}]
        sides = {side: {"from": "gpt", "value": f"{side} {number}"} for side in ("chosen", "rejected")}
        spoken.append({"conversations": said, **sides})
    for name, found in {
        "alpaca_en_demo": rows[:10],
        "rasbt_instruction-data": rows[10:],
        "rasbt_instruction-data-with-preference": rows,
        "dpo_en_demo": spoken,
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(found))
    return folder


@pytest.fixture
def real_lessons(monkeypatch):
    found = script("real_lessons")
    monkeypatch.setattr(found, "FUNCTIONS", 40)
    return found


def test_the_rows_are_served_in_the_form_that_the_lessons_fetch(real_lessons, public_samples, tmp_path, hub_here):
    from unsloth_course import data

    for name, folder in real_lessons.sets(public_samples, tmp_path / "sets").items():
        hub_here.add_dataset(name, folder)
    names = profile.HUB_DATA
    train, held_out, _ = data.sources.instructions(names["lora"], 5, 4, seed=1)
    assert len(train) == 5 and len(held_out) == 4
    pairs = [row for side in data.sources.preferences(names["dpo"], 99, 200, seed=1)[:2] for row in side]
    assert len(pairs) == 42 and sum(len(row["prompt"]) > 2 for row in pairs) == 4
    assert sum(row["prompt"][0] == {"role": "system", "content": "Be brief."} for row in pairs) == 4
    assert data.sources.corpus(names["cpt"], 5, 4, seed=1)[0]["text"][0].startswith("def ")


def test_pairs_are_asked_apart(real_lessons, public_samples, tmp_path, hub_here, with_adapter, machine, monkeypatch):
    """A new adapter has changed nothing, so no chosen answer gained more than the rejected one."""
    for name, folder in real_lessons.sets(public_samples, tmp_path / "sets").items():
        hub_here.add_dataset(name, folder)
    models.save_adapter(*with_adapter(), tmp_path / "dpo-adapter", base="pocket")
    here = dataclasses.replace(machine, data=profile.HUB_DATA["dpo"])
    monkeypatch.setattr(profile, "detect", lambda *_, **__: here)
    found = real_lessons.preferred(tmp_path, public_samples, "cpu")
    counts = {name: group["n"] for name, group in found.items()}
    assert set(counts) == {"conversations", "rewrites"} and sum(counts.values()) == 21
    assert all(group["preference_accuracy"] == 0 and group["interval"][1] < 0.8 for group in found.values())


LESSON = """
import json, os, pathlib, sys, time
apart = "--apart" in sys.argv
out = pathlib.Path(sys.argv[sys.argv.index("--apart" if apart else "--out") + 1])
time.sleep(0.2)
if apart:
    (out / "apart.json").write_text("{}")
elif sys.argv[sys.argv.index("run") + 1] != "cpt":
    found = json.loads(sys.argv[1]) | {"gpu": os.environ["CUDA_VISIBLE_DEVICES"]}
    (out / (sys.argv[sys.argv.index("run") + 1] + ".json")).write_text(json.dumps(found))
print("done" if out.name != "cpt-1" else "no memory left")
"""


def test_runs_are_spread_over_the_gpus_and_packed_one_by_one(real_lessons, tmp_path, monkeypatch, capsys):
    options = {"out": tmp_path, "rows": tmp_path, "records": tmp_path / "records.tar.gz", "memory": None}
    options = SimpleNamespace(**options, brief=False, factor=1, profile="gpu", jobs=2, gpus=2)
    pretended = real_run("dpo", 1)
    pretended["training"] |= {"predicted_memory_bytes": 2**20, "steps": 3}
    pretended["receipt"]["findings"], pretended["data"] = [], "its rows"
    start = real_lessons.Job.start
    monkeypatch.setattr(
        real_lessons.Job,
        "start",
        lambda job, command, env: start(job, ["-c", LESSON, json.dumps(pretended), *command], env),
    )

    def jobs():
        return [real_lessons.Job(lesson, 1, "gpu-smollm2", tmp_path) for lesson in ("lora", "dpo", "cpt")]

    assert real_lessons.run(jobs(), dict(os.environ), options) == 1  # cpt
    said = capsys.readouterr().out
    assert "lora-1: trained; answer_perplexity 6.50 before, 5.10 after" in said
    assert "peak 0.00 GiB" in said and "3 steps in 11 s" in said and "cpt-1: no results" in said
    with tarfile.open(options.records) as packed:
        assert {"lora-gpu-smollm2-seed1.json", "dpo-gpu-smollm2-seed1.json", "cpt-1.log"} <= set(packed.getnames())
        assert packed.extractfile("cpt-1.log").read() == b"no memory left\n"
        found = json.loads(packed.extractfile("dpo-gpu-smollm2-seed1.json").read())
    assert found["apart"] == {} and found["beside"] == 1
    used = {json.loads((tmp_path / f"{name}-1/{name}.json").read_text())["gpu"] for name in ("lora", "dpo")}
    assert used == {"0", "1"}
    monkeypatch.setattr(real_lessons.Job, "start", lambda job, *_: pytest.fail(f"{job.name} is run again"))
    assert real_lessons.run(jobs()[:2], dict(os.environ), options) == 0


@pytest.mark.parametrize("lesson", lessons.LESSONS)
def test_a_wrong_rate_can_be_tried_with_every_lesson(lesson):
    """off_course.py runs the cells up to the training with another learning rate."""
    off = script("off_course")
    code = [cell for cell in nbformat.read(lessons.notebook_path(lesson), 4).cells if cell.cell_type == "code"]
    assert sum(bool(off.TRAINING.search(cell.source)) for cell in code) == 1
    assert sum(bool(off.RATE.search(cell.source)) for cell in code) == 1


def test_the_pretended_t4_answers_unsloth_and_not_the_compilers(monkeypatch):
    """Behind Unsloth's memory of the answer the compilers would build kernels that the real card refuses."""
    import torch

    wanted, source = "_cache_device_capability", unsloth_source("_utils").read_text()
    (function,) = [part for part in ast.parse(source).body if getattr(part, "name", None) == wanted]
    unsloths = {"torch": torch, "functools": functools}
    exec(ast.unparse(function), unsloths)

    gib = 1024**3
    shares = []
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=60 * gib))
    monkeypatch.setattr(cuda, "set_per_process_memory_fraction", shares.append)
    monkeypatch.setattr(cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(cuda, "get_device_capability", lambda *_: (9, 0))
    exec(script("real_lessons").T4.format(gib=15), {})
    monkeypatch.setattr(cuda, "get_device_capability", unsloths[wanted](cuda.get_device_capability))

    def asked_by(module):
        found = {"__name__": module, "torch": torch}
        exec("answer = torch.cuda.get_device_capability()", found)
        return found["answer"]

    assert shares == [0.25] and not cuda.is_bf16_supported()
    assert asked_by("unsloth.models.llama") == (7, 5) == asked_by("bitsandbytes.functional")
    assert asked_by("torch._inductor.utils") == (9, 0) == asked_by("triton.backends.nvidia.driver")
