"""What a notebook shows is what its recorded run measured: the run with the lesson's own seed was stored in it."""

import json
import re

import nbformat
import pytest
from conftest import script
from notebook_lint import code_cells, output_texts

from unsloth_course.core import lessons
from unsloth_course.core.places import REPOSITORY

RECORDED = REPOSITORY / "benchmarks" / "recorded"
SEEDS = (3407, 1, 2)
LESSONS = lessons.written_lessons()
BARS = {  # what each lesson promises on the bundled model: a test of what was recorded
    "full": lambda e: e["before"] <= 0.05 and e["after"] >= 0.9,
    "lora": lambda e: e["before"] <= 0.05 and e["after"] >= 0.9,
    "dpo": lambda e: (
        e["before"] <= 0.2
        and e["after"] >= 0.9
        and e["correctness"]["before"] - e["correctness"]["after"] <= 0.05 + 1e-9
    ),
    "grpo": lambda e: e["after"] - e["before"] >= 0.25 and e["interval"][0] > 0,
    "cpt": lambda e: e["after"] <= 0.4 * e["before"] and e["retention"]["after"] <= 1.15 * e["retention"]["before"],
}


def recorded(lesson, seed):
    return json.loads((RECORDED / f"{lesson}-cpu-seed{seed}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lesson", LESSONS)
def test_every_lesson_was_run_with_three_seeds_and_keeps_its_promise(lesson, seed):
    run = recorded(lesson, seed)
    assert (run["lesson"], run["seed"], run["profile"], run["model"]) == (lesson, seed, "cpu", "pocket")
    assert run["receipt"]["verdict"] == "trained"
    assert BARS[lesson](run["evaluation"]), run["evaluation"]


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_stored_outputs_are_those_of_the_recorded_run(lesson):
    notebook = nbformat.read(lessons.notebook_path(lesson), as_version=4)
    shown = " ".join(text for _, cell in code_cells(notebook) for text in output_texts(cell))
    run = recorded(lesson, 3407)
    found = run["evaluation"]
    assert f"{lesson}.json written: This run trained" in shown
    pairs = re.findall(r"([\d,]+\.\d{3}) before, ([\d,]+\.\d{3}) after", shown)
    told = [[float(number.replace(",", "")) for number in pair] for pair in pairs]
    # Another processor may round the seventh digit otherwise.
    assert [found["before"], found["after"]] in [pytest.approx(pair, rel=1e-6, abs=5.1e-4) for pair in told], told
    steps = run["training"]["steps"]
    assert f"{steps} of {steps} steps" in shown


def test_the_dpo_notebook_shows_what_over_optimisation_looks_like():
    """The smallest beta drives the pairs furthest apart, its margin rises as well, and the text gets worse."""
    cells = code_cells(nbformat.read(lessons.notebook_path("dpo"), as_version=4))
    (table,) = [text for _, cell in cells for text in output_texts(cell) if text.startswith("beta  ")]
    named = [line.split("  ", 1) for line in table.splitlines()[1:] if line]
    rows = {name: [float(number) for number in numbers.split()] for name, numbers in named}
    assert min(rows["margin"]) > 0
    assert rows["moved apart, nats"] == sorted(rows["moved apart, nats"], reverse=True)
    assert rows["right"][0] <= rows["right"][-1] - 0.1


def real(lesson, seed, kind="gpu"):
    path = RECORDED / f"{lesson}-{kind}-smollm2-seed{seed}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not recorded yet")
    return json.loads(path.read_text(encoding="utf-8"))


def likelier(run, measures):
    found = measures["answer_perplexity"]
    assert found["after"] <= 0.85 * found["before"] and found["interval"][1] < 0
    assert found["likelier"] >= 0.8 * found["n"]


def preferred(run, measures):
    rate, chosen = measures["preference_rate"], measures["chosen_perplexity"]
    assert rate["after"] - rate["before"] >= 0.08 and chosen["after"] <= 1.12 * chosen["before"]
    assert measures["preference_accuracy"]["after"] >= 0.75
    # 148 conversations are few to learn from: docs/results.md says so under "What is not proven yet".
    for group, share in (("conversations", 0.6), ("rewrites", 0.9)):
        assert run["apart"][group]["preference_accuracy"] >= share


def solved(run, measures):
    found = measures["accuracy"]
    assert found["after"] - found["before"] >= 0.25 and found["interval"][0] > 0
    assert measures["worked"]["after"] >= measures["worked"]["before"]


def read(run, measures):
    for name, at_most in (("unread_perplexity", 0.6), ("perplexity", 0.85), ("chat_perplexity", 1.02)):
        assert measures[name]["after"] <= at_most * measures[name]["before"], name


# Seconds of all cells on an H200 that runs nothing else. Four minutes were the aim, and six for GRPO: three lessons
# take longer, as docs/results.md says.
ALONE = {"lora": 240, "cpt": 240, "full": 360, "dpo": 340, "grpo": 420}
REAL_BARS = {"lora": likelier, "full": likelier, "dpo": preferred, "grpo": solved, "cpt": read}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lesson", LESSONS)
def test_the_real_model_learned_what_the_lesson_promises(lesson, seed):
    run = real(lesson, seed)
    assert run["receipt"]["verdict"] == "trained" and run["fingerprint"]["weights"]["sha"]
    REAL_BARS[lesson](run, {found["name"]: found for found in script("record").measures(run["evaluation"])})
    if run["beside"] == 1:
        assert run["wall_seconds"] <= ALONE[lesson]


@pytest.mark.parametrize("lesson", LESSONS)
def test_as_near_to_a_t4_as_could_be_had_the_real_model_trained(lesson):
    assert real(lesson, 3407, "t4")["receipt"]["verdict"] == "trained"
