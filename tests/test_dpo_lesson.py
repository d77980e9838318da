"""The DPO lesson in a process of its own: a run that cannot learn says so.

That the unchanged lesson trains on the bundled model is what nbmake runs.
"""

import pytest
from lesson_runs import Finished, with_knobs


@pytest.fixture(scope="module")
def without_a_learning_rate(tmp_path_factory):
    knobs = {"WARM_UP": 20, "STEPS": 6, "LEARNING_RATE": 0, "HELD_OUT": 24, "DEEP_STEPS": 3}
    return Finished("dpo", tmp_path_factory.mktemp("sick"), with_knobs("dpo", knobs))


def test_a_lesson_that_did_not_learn_says_so(without_a_learning_rate):
    run = without_a_learning_rate
    assert run.errors == []
    assert run.results["receipt"]["verdict"] == "not trained"
    names = {finding["name"] for finding in run.results["receipt"]["findings"]}
    assert {"learning rate 0", "weights unchanged", "loss stays at ln 2"} <= names
    assert "dpo.json written: This run did not train." in run.outputs
    assert "Not trained." in run.page
    assert run.status == 1 and "Traceback" not in run.complained


def test_its_figures_are_those_of_the_changed_knobs(without_a_learning_rate):
    found = without_a_learning_rate.results
    assert (found["training"]["steps"], found["evaluation"]["n"]) == (6, 24)
    assert found["evaluation"]["metric"] == "preference_rate"
    assert found["evaluation"]["before"] == found["evaluation"]["after"]
    (judge,) = [measure for measure in found["evaluation"]["measures"] if measure["judges"]]
    assert (judge["name"], judge["before"], judge["after"]) == ("preference_accuracy", 0.5, 0.5)
    assert found["evaluation"]["correctness"]["before"] == found["evaluation"]["correctness"]["after"]
    assert all(abs(loss - 0.6931) < 1e-3 for loss in found["training"]["loss"])
