"""The LoRA lesson itself, in processes of its own: a run that cannot learn, and a Hub that is down.

That the unchanged lesson trains on the bundled model is what nbmake runs; that it trains on model and data from the
Hub, lesson/colab/test_rehearsal.py.
"""

import json
import re

import pytest
from hub_server import HubServer
from lesson_runs import BASE, Finished, with_knobs

from unsloth_course.lesson.profile import HUB_MODEL

# A run that cannot learn


@pytest.fixture(scope="module")
def without_a_learning_rate(tmp_path_factory):
    knobs = {"LEARNING_RATE": 0, "STEPS": 15, "HELD_OUT": 24}
    return Finished("lora", tmp_path_factory.mktemp("sick"), with_knobs("lora", knobs), base=False)


def test_a_lesson_that_did_not_learn_says_so(without_a_learning_rate):
    run = without_a_learning_rate
    assert run.results["receipt"]["verdict"] == "not trained"
    names = {finding["name"] for finding in run.results["receipt"]["findings"]}
    assert {"learning rate 0", "weights unchanged"} <= names
    assert "NOT TRAINED: This run did not train." in run.outputs
    assert "lora.json written: This run did not train." in run.outputs
    assert "Not trained." in run.page


def test_it_runs_to_its_end_and_ends_with_status_1(without_a_learning_rate):
    run = without_a_learning_rate
    assert run.errors == []
    assert run.status == 1
    assert "its verdict is 'not trained'" in run.complained
    assert "tensors have the values that they had before training" in run.complained
    assert "Traceback" not in run.complained


def test_its_figures_are_those_of_the_changed_knobs(without_a_learning_rate):
    found = without_a_learning_rate.results
    assert (found["training"]["steps"], found["training"]["examples"]) == (15, 240)
    assert (found["evaluation"]["n"], found["evaluation"]["before"], found["evaluation"]["after"]) == (24, 0.0, 0.0)
    low, high = found["evaluation"]["interval"]
    assert low < 0 < high  # 0 of 24 is not known to be 0
    judge = found["evaluation"]["measures"][0]
    assert (judge["name"], judge["judges"], judge["n"], judge["likelier"]) == ("answer_perplexity", True, 24, 0)
    assert judge["before"] == judge["after"] and judge["interval"] == [0.0, 0.0]
    assert found["evaluation"]["retention"]["before"] == found["evaluation"]["retention"]["after"]


def test_the_untouched_model_scores_as_recorded(without_a_learning_rate):
    """So the tests of other lessons may find these scores measured already."""
    measured = json.loads((without_a_learning_rate.out / "base.json").read_text())["battery"]
    for name, score in json.loads(BASE.read_text())["battery"].items():
        assert measured[name]["questions"] == score["questions"]
        assert measured[name]["value"] == pytest.approx(score["value"], rel=1e-3, abs=0.03), name


# The Hub


def test_a_hub_that_is_down_ends_the_lesson_with_a_sentence(tmp_path):
    with HubServer() as server:
        environment = server.environment(tmp_path / "cache")
        server.down()
        run = Finished("lora", tmp_path, with_knobs("lora", {}, MODEL=HUB_MODEL), environment)
    assert run.status == 1
    sentence = re.sub(r"\s+", " ", run.complained)
    assert f"{HUB_MODEL} cannot be downloaded: the Hub at {server.endpoint} cannot be reached" in sentence
    assert "--model smollm2" in sentence
    assert "Traceback" not in run.complained
    assert not (run.out / "lora.json").exists()
    ((cell, output),) = run.errors
    assert "from_pretrained" in cell.source and output.ename == "CourseError"
    assert not any("Traceback" in line for line in output.traceback)
