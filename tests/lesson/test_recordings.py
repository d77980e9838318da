"""Recorded runs: the band that three real runs give, what lies inside and outside, the file, and the script for it."""

import copy
import hashlib
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import script
from safetensors.torch import save_file

from unsloth_course import plots, recordings
from unsloth_course.core.errors import CourseError
from unsloth_course.core.history import smoothed
from unsloth_course.core.lessons import LESSONS
from unsloth_course.core.places import REPOSITORY
from unsloth_course.lesson.fingerprint import fingerprint
from unsloth_course.lesson.recordings import Recording, Run
from unsloth_course.lesson.recordings.recorded import FLOOR

record = script("record")
ATTACK = "<script>alert('x')</script>"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


def log(curve, key, steps):
    """A trainer's log with this curve, ended as a trainer ends it."""
    return [*({"step": step, key: value} for step, value in curve), {"step": steps, "train_runtime": 1.0}]


def real(lesson):
    """Trainings of a lesson on two cores, as `benchmarks/off_course.py` writes them, by factor and seed."""
    lines = (REPOSITORY / "tests" / "recordings" / f"{lesson}.jsonl").read_text(encoding="utf-8").splitlines()
    return {(run["factor"], run["seed"]): run for run in map(json.loads, lines)}


def recording_of(lesson, runs, **changes):
    """The recording that these trainings make."""
    made = tuple(Run(run["seed"], run["curves"], {"held out": (0.0, 0.9)}, 2**20, 12.5) for run in runs)
    about = {"device": "2 CPU cores", "model": "pocket", "data": "pocket", "date": "2026-11-21"}
    return Recording(lesson, "cpu", **about, steps=runs[0]["steps"], versions={"unsloth": "1"}, runs=made, **changes)


def right(lesson):
    """The three runs with the lesson's own rate that make the band; others are kept for a test."""
    return [real(lesson)[1, seed] for seed in (3407, 1, 2)]


def compared(recording, run, key=None):
    key = key or recording.curve
    return recordings.compare(recording, log(run["curves"][key], key, run["steps"]))


def inside(sentence):
    """What a comparison says of the run: True, False, or None where nothing was compared."""
    return True if "went as they did" in sentence else False if "went another way" in sentence else None


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_of_three_real_runs_lies_inside_the_band_of_the_two_others(lesson):
    runs = right(lesson)
    for left_out in runs:
        others = recording_of(lesson, [run for run in runs if run is not left_out])
        found = compared(others, left_out)
        assert inside(found), found


@pytest.mark.parametrize("lesson", LESSONS)
def test_real_runs_with_seeds_that_are_not_in_the_band_lie_inside(lesson):
    """Seed 4 of the DPO lesson decided how low a band may be; the others were run when the rule stood."""
    more = [run for (factor, seed), run in real(lesson).items() if factor == 1 and seed not in (3407, 1, 2)]
    assert more and all(inside(compared(recording_of(lesson, right(lesson)), run)) for run in more)


@pytest.mark.parametrize("factor", [0.0, 10.0])
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_real_run_without_learning_or_with_ten_times_the_rate_lies_outside(lesson, factor):
    found = compared(recording_of(lesson, right(lesson)), real(lesson)[factor, 3407])
    assert "should: this run went another way, first at step" in found


# LoRA and full fine-tuning learn the same rows in as many steps, and their curves cannot be told apart by three seeds:
# the band says whether a run learned as the recorded ones did, not by which method. That is what the counts are for.
OTHERS = [(a, b) for a in LESSONS for b in LESSONS if a != b and {a, b} != {"lora", "full"}]


@pytest.mark.parametrize(("lesson", "other"), OTHERS)
def test_the_curve_of_another_lesson_is_not_compared_and_as_long_it_would_lie_outside(lesson, other):
    recording, run = recording_of(lesson, right(lesson)), right(other)[0]
    key = "reward" if other == "grpo" else "loss"
    found = compared(recording, run, key)
    assert "they are not compared" in found or f"has logged no {recording.curve}" in found
    values, band = [value for _, value in run["curves"][key]], recording.band()
    places = [round(n * (len(values) - 1) / (len(band.steps) - 1)) for n in range(len(band.steps))]
    stretched = [(step, values[place]) for step, place in zip(band.steps, places, strict=True)]
    assert inside(recordings.compare(recording, log(stretched, recording.curve, recording.steps))) is False


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("lesson", LESSONS)
def test_the_shipped_recording_holds_what_it_promises(lesson, profile):
    recording = recordings.read(lesson, profile)
    if not recording:
        assert "is recorded yet" in str(recordings.show(lesson, profile))
        pytest.skip(recording.why)
    assert len(recording.runs) >= 3 and recording.model == "pocket" and recording.device and recording.date
    assert recording.samples and recording.versions["unsloth"] and recording.learning_rate > 0
    assert all(run.peak_memory_bytes > 0 and run.seconds > 0 and run.scores for run in recording.runs)
    if profile == "gpu":
        assert "CPU" not in recording.device
    for left_out in recording.runs:
        others = tuple(run for run in recording.runs if run is not left_out)
        rest = replace(recording, runs=others)
        assert inside(recordings.compare(rest, log(left_out.curves[rest.curve], rest.curve, rest.steps)))
    band = recording.band()
    flat = [(step, (band.low[0] + band.high[0]) / 2) for step in band.steps]
    assert inside(recordings.compare(recording, log(flat, recording.curve, recording.steps))) is False
    assert recordings.show(lesson, profile).picture().caption


@pytest.fixture
def lora():
    return recording_of("lora", right("lora"))


def curve(recording):
    return recording.runs[0].curves[recording.curve]


def test_the_sentence_counts_the_points_and_names_the_device(lora):
    sentence = "40 of 40 points of the smoothed loss lie inside the band of three recorded runs on 2 CPU cores"
    assert recordings.compare(lora, log(curve(lora), "loss", 200)) == f"{sentence}: this run went as they did."


@pytest.mark.parametrize("steps", [60, 199, 400])
def test_a_run_with_other_steps_is_not_compared_and_says_why(lora, steps):
    short = [(step, value) for step, value in curve(lora) if step <= steps]
    found = recordings.compare(lora, log(short, "loss", steps))
    assert f"This run has {steps} steps and the recorded ones have 200" in found and inside(found) is None


def test_a_run_that_was_logged_otherwise_or_not_at_all_is_not_compared(lora):
    every_tenth = log(curve(lora)[1::2], "loss", 200)
    assert "logging_steps decides that" in recordings.compare(lora, every_tenth)
    assert "has logged no loss" in recordings.compare(lora, [])
    with pytest.raises(CourseError, match="log_history"):
        recordings.compare(lora, None)


def with_rates(history, rate):
    """A log with this learning rate, which rises for ten steps and then falls, as the lessons' do."""
    return [row | {"learning_rate": rate * min(row["step"] / 10, 1 - row["step"] / 10_000)} for row in history]


@pytest.mark.parametrize(("rate", "written"), [(2e-4, "0.0002"), (5e-5, "5e-05"), (0.0, "0")])
def test_a_run_with_another_learning_rate_is_not_compared_and_says_why(rate, written):
    """With twice the rate a run that learned well left the band, and was told that it went another way."""
    recording = recording_of("full", right("full"), learning_rate=1e-4)
    assert recordings.compare(recording, with_rates(log(curve(recording), "loss", 200), rate)) == (
        f"This run's learning rate went up to {written} and that of the recorded ones to 0.0001: they are not compared."
    )


def test_the_same_rate_is_compared_and_an_unknown_one_too():
    known = recording_of("full", right("full"), learning_rate=1e-4)
    history = log(curve(known), "loss", 200)
    for recording, found in (
        (known, with_rates(history, 1e-4)),
        (known, history),
        (recording_of("full", right("full")), with_rates(history, 2e-4)),
    ):
        assert "40 of 40 points" in recordings.compare(recording, found)


def test_points_that_are_no_number_lie_outside(lora):
    broken = [(step, math.nan if step > 100 else value) for step, value in curve(lora)]
    found = recordings.compare(lora, log(broken, "loss", 200))
    assert found.startswith("20 of 40 points") and "went another way, first at step 105" in found
    infinite = [(s, math.inf) for s, _ in broken]
    assert recordings.compare(lora, log(infinite, "loss", 200)).startswith("0 of 40 points")


def test_the_band_is_the_mean_and_four_spreads_of_a_new_run_pooled_over_neighbours():
    flat = [
        {"seed": n, "steps": 9, "curves": {"loss": [[s, v] for s in range(1, 10)]}} for n, v in enumerate((1, 2, 3))
    ]
    band = recording_of("lora", flat).band()
    assert band.steps == list(range(1, 10))
    half = 4 * math.sqrt(1 + 1 / 3)  # the standard deviation of 1, 2, 3 is 1
    assert band.high == pytest.approx([2 + half] * 9) and band.low == pytest.approx([2 - half] * 9)


def test_runs_that_agree_still_have_a_band_of_some_height():
    same = [{"seed": n, "steps": 9, "curves": {"loss": [[s, 10.0 - s] for s in range(1, 10)]}} for n in range(3)]
    recording = recording_of("lora", same)
    band = recording.band()
    tall = band.low[0] - band.low[-1]
    assert band.high[4] - band.low[4] == pytest.approx(2 * FLOOR * tall)


def machine(**changes):
    return SimpleNamespace(**({"name": "cpu", "model": "pocket", "data": "pocket"} | changes))


def test_only_a_run_of_the_same_model_and_data_finds_the_recording(lora, tmp_path):
    recordings.write(lora, tmp_path)
    found = recordings.find(machine(), "lora", tmp_path)
    assert found == recordings.read("lora", "cpu", tmp_path) and found and found.runs[0].seed == 3407
    for changes, words in (({"model": HUB}, "with SmolLM2 on a CPU"), ({"data": "mine.json"}, "mine.json, pocket")):
        other = recordings.find(machine(**changes), "lora", tmp_path)
        assert not other and all(word in other.why for word in words.split(", "))
        assert recordings.compare(other, log(curve(lora), "loss", 200)) == other.why
    missing = recordings.find(machine(name="gpu"), "lora", tmp_path)
    assert not missing and "No run of the lora lesson on a GPU is recorded yet" in missing.why


def on_the_hub(hub, folder, lesson="lora", answer="black"):
    """A Hub with a model and rows; the machine of the gpu profile that has fetched both."""
    from unsloth_course.core import hub as client

    for name in ("weights", "rows"):
        (folder / name).mkdir(parents=True)
    (folder / "weights" / "config.json").write_text('{"rounded": "Q4_1"}')
    (folder / "weights" / "tokenizer.json").write_text("{}")
    save_file({"x": torch.zeros(3)}, folder / "weights" / "model.safetensors")
    (folder / "rows" / "rows.json").write_text(json.dumps([{"instruction": "a", "input": "", "output": answer}]))
    hub.add_model(HUB, folder / "weights")
    hub.add_dataset("yahma/alpaca-cleaned", folder / "rows")
    client.fetch_model(HUB)
    client.fetch_dataset("yahma/alpaca-cleaned")
    return machine(name="gpu", model=HUB, data="yahma/alpaca-cleaned")


def test_the_real_model_is_compared_where_weights_and_rows_are_the_recorded_ones(lora, tmp_path, hub_here):
    """Under a Hub name anything may be served: what decides is the content, and not the name."""
    learner = on_the_hub(hub_here, tmp_path / "first")
    found = fingerprint(learner.model, learner.data, "lora")
    digest = hashlib.sha256((tmp_path / "first/weights/model.safetensors").read_bytes()).hexdigest()
    assert found["weights"] == {"name": HUB, "sha": digest[:12], "from": "Q4_1"} and len(found["rows"]["sha"]) == 12
    found["rows"]["name"] = "public samples"
    about = {"profile": "gpu", "model": HUB, "data": learner.data, "fingerprint": found}
    path = recordings.write(replace(lora, **about), tmp_path)
    assert path.name == "lora-gpu-smollm2.json" and recordings.find(learner, "lora", tmp_path)
    elsewhere = machine(name="gpu", model=str(tmp_path / "first/weights"), data=str(tmp_path / "first/rows"))
    assert recordings.find(elsewhere, "lora", tmp_path)

    few = replace(lora, **about, runs=lora.runs[:2])  # shown, and no band
    recordings.write(few, tmp_path)
    assert "only 2 of 3 runs are recorded. Three" in recordings.find(learner, "lora", tmp_path).why
    shown = recordings.show("lora", "gpu", tmp_path)
    assert "seeds 3407, 1\n" in str(shown) and "band" not in shown.recording.label and shown.picture()
    recordings.write(replace(lora, **about), tmp_path)

    other = on_the_hub(hub_here, tmp_path / "second", answer="white")
    why = recordings.find(other, "lora", tmp_path).why
    assert why == (
        "No band yet for these rows: this run has the rows of yahma/alpaca-cleaned, and the recorded ones have those "
        "of public samples. Three runs with seeds of their own make one: send results/lora.json of each in an issue."
    )
    found["weights"]["sha"] = "0" * 12
    recordings.write(replace(lora, **about), tmp_path)
    assert "other weights of that name" in recordings.find(learner, "lora", tmp_path).why
    assert "there is no band. Three runs" in recordings.find(learner, "grpo", tmp_path).why


def test_generated_rows_are_told_apart_by_what_they_say():
    found = {lesson: fingerprint("pocket", "pocket", lesson) for lesson in LESSONS}
    assert len({about["rows"]["sha"] for about in found.values()}) == 4  # LoRA and full have the same rows
    assert {about["weights"]["from"] for about in found.values()} == {""}
    assert fingerprint("nobody/nothing", "mine.json", "lora")["weights"]["sha"] == ""


MEASURES = [
    {"name": "answer_perplexity", "before": 6.5, "after": 5.5, "interval": [-1.2, -0.9], "n": 200, "likelier": 190},
    {"name": "exact_match", "before": 0.05, "after": 0.06, "interval": [-0.01, 0.03], "n": 81, "likelier": None},
]


def measured_fingerprint():
    weights = {"name": HUB, "sha": "0123456789ab", "from": "Q4_1"}
    return {"weights": weights, "rows": {"name": "public samples", "sha": "ba9876543210"}}


def measured(recording, change=lambda run, measures: measures):
    """The recording with measures in all its runs, of the real model."""
    runs = tuple(
        replace(run, measures=tuple(change(number, copy.deepcopy(MEASURES))), wall_seconds=100.0 + number)
        for number, run in enumerate(recording.runs)
    )
    about = {"profile": "gpu", "model": HUB, "data": "yahma/alpaca-cleaned", "trained": 4_884_480}
    about |= {"learning_rate": 5e-4, "fingerprint": measured_fingerprint()}
    return replace(recording, **about, runs=runs)


def test_on_a_gpu_the_real_model_is_shown_with_all_its_measures_weights_and_rows(lora, tmp_path):
    def other(number, measures):
        measures[0] |= {"after": 5.5 - number / 10, "interval": [-1.2 - number, -0.9]}
        return measures

    samples = ({"kind": "still wrong", "count": 3, "of": 81, "prompt": "A?", "before": "x", "after": "y"},)
    recordings.write(replace(lora, profile="gpu"), tmp_path)
    assert "pocket" in str(recordings.show("lora", "gpu", tmp_path))
    recordings.write(replace(measured(lora, other), samples=samples), tmp_path)
    shown = recordings.show("lora", "gpu", tmp_path)
    lines = str(shown).splitlines()
    assert lines[0].split("  ")[0] == "answer perplexity"
    assert lines[0].endswith("(95 % interval of the difference -3.2 to -0.9, n = 200, 190 of 200 rows likelier)")
    assert "6.50 before, 5.30 to 5.50 after" in lines[0]
    assert lines[1].endswith("5.0 % before, 6.0 % after (95 % interval of the difference -1.0 to +3.0 points, n = 81)")
    text, page = "\n".join(lines), shown._repr_html_()
    for part in ("4,884,480", "rounded to Q4_1, about 4.5 bits", "repair of the rounding", "public samples (ba98"):
        assert part in text and part in page
    assert "12.5 s, learning rate 0.0005; the whole lesson 100 to 102 s" in text and "held out" not in text
    assert "still wrong, 3 of 81: 'A?'" in text and "<code>still wrong, 3 of 81</code>" in page
    assert recordings.read("lora", "gpu", tmp_path, real=True).runs[1].measures[0]["after"] == 5.4


def test_what_is_shown_is_escaped_and_names_what_it_cost(lora, tmp_path):
    samples = ({"prompt": ATTACK, "before": ATTACK, "after": "Two & two"},)
    recordings.write(replace(lora, samples=samples, device=f"card {ATTACK} $_1$"), tmp_path)
    shown = recordings.show("lora", "cpu", tmp_path)
    page = shown._repr_html_()
    assert "<script" not in page and page.count("&lt;script&gt;") == 3 and "Two &amp; two" in page
    text = str(shown)
    for part in ("200 steps, 12.5 s", "1.0 MiB", "seeds 3407, 1, 2", "0 before, 0.9 after", "after  'Two & two'"):
        assert part in text and (part in page or "after" in part), part
    assert shown.picture()._repr_png_().startswith(b"\x89PNG")
    assert "40 of 40 points" in shown.picture().caption


def test_where_nothing_is_recorded_a_sentence_is_shown(tmp_path):
    shown = recordings.show("dpo", "gpu", tmp_path)
    assert str(shown) == "No run of the dpo lesson on a GPU is recorded yet, so there is none to look at here."
    assert shown._repr_html_() == f"<p>{shown}</p>"


@pytest.mark.parametrize(("lesson", "outputs"), [("lora", 2), ("grpo", 2), ("dpo", 1)])
def test_a_notebook_shows_picture_and_table_or_the_sentence(lesson, outputs, tmp_path, monkeypatch):
    import IPython.display

    for kept in ("lora", "grpo"):
        recordings.write(recording_of(kept, right(kept)), tmp_path)
    displayed = []
    monkeypatch.setattr(IPython.display, "display", lambda shown, raw=False: displayed.append(shown))
    recordings.show(lesson, "cpu", tmp_path)._ipython_display_()
    assert len(displayed) == outputs and set(displayed[-1]) == {"text/html", "text/plain"}
    if outputs == 2:
        assert displayed[0].caption


def test_a_recording_comes_back_as_it_was_written(lora, tmp_path):
    path = recordings.write(lora, tmp_path)
    assert path.name == "lora-cpu.json"
    back = recordings.read("lora", "cpu", tmp_path)
    assert back.band() == lora.band() and back.steps == 200 and back.runs[1].scores == {"held out": [0.0, 0.9]}
    recordings.write(back, tmp_path)
    assert recordings.read("lora", "cpu", tmp_path) == back


def results_of(lesson):
    """Results files of the three real runs, as a lesson writes them."""
    file = REPOSITORY / "benchmarks" / "recorded" / f"{lesson}-cpu-seed3407.json"
    template = json.loads(file.read_text(encoding="utf-8"))
    for run in right(lesson):
        found = copy.deepcopy(template)
        found["seed"], found["training"]["curves"] = run["seed"], run["curves"]
        found["training"]["steps"], found["training"]["learning_rate"] = run["steps"], 1e-3
        found["samples"] = [{"prompt": "2 + 2", "before": f"seed {run['seed']}", "after": "4"}]
        yield found


def recorded(found, folder, capsys, monkeypatch):
    """Runs the script over these results; its exit status, and what it said."""
    files = [folder / f"{number}.json" for number in range(len(found))]
    for file, one in zip(files, found, strict=True):
        file.write_text(json.dumps(one))
    argv = ["record.py", *map(str, files), "--date", "2026-11-21", "--into", str(folder / "into")]
    monkeypatch.setattr("sys.argv", argv)
    status = record.main()
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.mark.parametrize("lesson", LESSONS)
def test_three_results_files_make_a_recording(lesson, tmp_path, capsys, monkeypatch):
    status, said = recorded(list(results_of(lesson)), tmp_path, capsys, monkeypatch)
    assert status == 0 and said.startswith(f"{lesson}-cpu.json: band of three recorded runs on 2 CPU cores")
    found = recordings.read(lesson, "cpu", tmp_path / "into")
    assert [run.seed for run in found.runs] == [3407, 1, 2] and found.date == "2026-11-21"
    assert found.samples[0]["before"] == "seed 3407" and found.runs[0].scores and found.learning_rate == 1e-3
    for run in right(lesson):
        assert inside(compared(found, run))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.pop(), "at least 3 runs"),
        (lambda f: f[1].update(seed=3407), "seed of its own"),
        (lambda f: f[2]["receipt"].update(verdict="suspicious"), "2.json: the verdict is 'suspicious'"),
        (lambda f: f[1]["training"].pop("curves"), "1.json holds no curves: it was made by an older version"),
        (lambda f: f[1]["training"].pop("learning_rate"), "1.json holds no learning_rate: it was made by an older"),
        (lambda f: f[1]["training"].update(learning_rate=2e-3), "training.learning_rate is 0.002, and 0.001"),
        (lambda f: f[1].update(lesson="full"), "1.json: lesson is 'full', and 'lora' in 0.json"),
        (lambda f: f[1].update(profile="gpu"), "profile is 'gpu'"),
        (lambda f: f[1].update(device="a T4"), "device is 'a T4'"),
        (lambda f: f[1].update(model=HUB), "model is"),
        (lambda f: f[1].update(data="mine.json"), "data is 'mine.json'"),
        (lambda f: f[1]["training"].update(steps=60), "training.steps is 60, and 200"),
        (lambda f: f[1]["versions"].update(torch="1.0"), "versions is"),
        (lambda f: f[1]["training"]["curves"]["loss"].pop(), "at different steps"),
        (lambda f: [one.update(model=HUB) for one in f], "no fingerprint of weights and rows"),
        (lambda f: f[1].update(fingerprint={"weights": {"sha": "0"}}), "1.json: fingerprint is"),
        (lambda f: f[1].pop("receipt"), "1.json has no 'receipt.verdict'"),
        (lambda f: f.__setitem__(1, []), "1.json is not a results file"),
    ],
)
def test_what_makes_no_recording_is_refused_in_a_sentence(change, said, tmp_path, capsys, monkeypatch):
    found = list(results_of("lora"))
    change(found)
    status, sentence = recorded(found, tmp_path, capsys, monkeypatch)
    assert status == 1 and said in sentence and sentence.count("\n") == 1
    assert not (tmp_path / "into").exists()


def test_an_archive_of_the_gpu_machine_fills_records_and_results(tmp_path, capsys, monkeypatch):
    real_lessons = script("real_lessons")
    jobs = []
    for run in results_of("dpo"):
        run["evaluation"]["measures"] = [MEASURES[1], MEASURES[0] | {"judges": True}]
        found = run | {"model": HUB, "profile": "gpu", "fingerprint": copy.deepcopy(measured_fingerprint())}
        for kind in ("gpu-smollm2", "t4-smollm2", "gpu"):
            jobs.append(job := real_lessons.Job("dpo", run["seed"], kind, tmp_path))
            job.folder.mkdir()
            job.log.write_text("what it said")
            job.results.write_text(json.dumps(found | ({"model": "pocket"} if kind == "gpu" else {})))
            (job.folder / "base.json").write_text(json.dumps({"lesson": "base"}))
            if kind != "gpu":
                apart = {"rewrites": {"n": 100, "preference_accuracy": 0.9, "interval": [0.82, 0.95]}}
                job.apart.write_text(json.dumps(apart))
    assert "rewrites: preference accuracy 90.0 % (82 to 95), n = 100" in real_lessons.said(jobs[0])
    real_lessons.pack(jobs, tmp_path / "records.tar.gz")
    (results := tmp_path / "results").mkdir()
    folders = ["--into", str(tmp_path / "into"), "--results-into", str(results)]
    monkeypatch.setattr("sys.argv", ["record.py", str(tmp_path / "records.tar.gz"), *folders])
    assert record.main() == 0, capsys.readouterr()
    found = recordings.read("dpo", "gpu", tmp_path / "into", real=True)
    assert [run.seed for run in found.runs] == [3407, 1, 2] and "preference of LLMs" in str(recordings.Shown(found))
    assert [one["name"] for one in found.runs[0].measures] == ["answer_perplexity", "exact_match", "preference_rate"]
    assert recordings.read("dpo", "gpu", tmp_path / "into").model == "pocket"
    kinds = {path.name.split("-seed")[0] for path in results.iterdir()}
    assert kinds == {"dpo-gpu-smollm2", "dpo-t4-smollm2", "base-gpu-smollm2.json", "base-t4-smollm2.json"}
    kept = json.loads((results / "dpo-t4-smollm2-seed2.json").read_text())
    assert kept["apart"]["rewrites"]["n"] == 100


def test_the_results_of_one_t4_are_kept_by_one_command(tmp_path, capsys, monkeypatch):
    run = next(iter(results_of("lora"))) | {"model": HUB, "profile": "gpu", "device": "Tesla T4, 15 GiB"}
    for change, said in (
        ({}, ""),
        ({"device": "NVIDIA L4, 22 GiB"}, "only one of SmolLM2 on a T4"),
        ({"model": "pocket"}, "only one of SmolLM2 on a T4"),
        ({"receipt": {"verdict": "suspicious"}}, "only a run that trained is kept"),
    ):
        (tmp_path / "lora.json").write_text(json.dumps(run | change))
        monkeypatch.setattr(
            "sys.argv", ["record.py", "--t4", str(tmp_path / "lora.json"), "--results-into", str(tmp_path)]
        )
        if said:
            with pytest.raises(SystemExit, match=said):
                record.main()
        else:
            assert record.main() == 0 and "table.py --write" in capsys.readouterr().out
    assert json.loads((tmp_path / f"lora-t4-smollm2-seed{run['seed']}.json").read_text()) == run


def test_every_notebook_compares_its_curve_and_shows_the_recorded_gpu_run():
    import nbformat

    from unsloth_course.core import lessons

    for lesson in LESSONS:
        cells = nbformat.read(lessons.notebook_path(lesson), as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        assert f'recorded = recordings.find(machine, "{lesson}")' in code
        assert "print(recordings.compare(recorded, history))" in code and "band=recorded)" in code
        assert f'recordings.show("{lesson}", "gpu")' in code and "samples=results.samples(" in code


def test_the_smoothed_line_is_that_of_the_picture(lora):
    figure = plots.loss(log(curve(lora), "loss", 200))
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert drawn["smoothed (moving average, span 4)"] == smoothed([value for _, value in curve(lora)])
