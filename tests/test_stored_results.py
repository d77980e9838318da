"""What a notebook shows is what its recorded run measured: the run with the lesson's own seed was stored in it."""

import json
import re

import nbformat
import pytest
from notebook_lint import code_cells, output_texts

from unsloth_course import runner
from unsloth_course.cleaning import REPOSITORY

RECORDED = REPOSITORY / "benchmarks" / "recorded"
SEEDS = (3407, 1, 2)
LESSONS = runner.written_lessons()
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
    notebook = nbformat.read(runner.notebook_path(lesson), as_version=4)
    shown = " ".join(text for _, cell in code_cells(notebook) for text in output_texts(cell))
    run = recorded(lesson, 3407)
    found = run["evaluation"]
    assert f"{lesson}.json written: This run trained" in shown
    assert re.search(rf"{found['before']:,.3f} before, {found['after']:,.3f} after", shown), found
    steps = run["training"]["steps"]
    assert f"{steps} of {steps} steps" in shown


def test_the_dpo_notebook_shows_what_over_optimisation_looks_like():
    """The smallest beta drives the pairs furthest apart, with the loss well below ln 2, and the text pays for it."""
    cells = code_cells(nbformat.read(runner.notebook_path("dpo"), as_version=4))
    (table,) = [text for _, cell in cells for text in output_texts(cell) if text.startswith("beta  ")]
    rows = {line[: line.index("  ")]: [float(n) for n in line.split()[-3:]] for line in table.splitlines()[1:] if line}
    assert max(rows["loss"]) < 0.6 and min(rows["margin"]) > 0
    assert rows["moved apart, nats"] == sorted(rows["moved apart, nats"], reverse=True)
    assert rows["right"][0] <= rows["right"][-1] - 0.1
