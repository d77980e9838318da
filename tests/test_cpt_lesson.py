"""The continued-pretraining lesson in a process of its own: a run that cannot learn says so.

That the unchanged lesson trains on the bundled model is what nbmake runs.
"""

import pytest
from lesson_runs import Finished, with_knobs


@pytest.fixture(scope="module")
def without_a_learning_rate(tmp_path_factory):
    knobs = {"BLOCKS": 48, "LEARNING_RATE": 0, "HELD_OUT": 16}
    return Finished("cpt", tmp_path_factory.mktemp("sick"), with_knobs("cpt", knobs))


def test_a_lesson_that_did_not_learn_says_so(without_a_learning_rate):
    run = without_a_learning_rate
    assert run.errors == []
    assert run.results["receipt"]["verdict"] == "not trained"
    names = {finding["name"] for finding in run.results["receipt"]["findings"]}
    assert {"learning rate 0", "weights unchanged"} <= names
    assert "cpt.json written: This run did not train." in run.outputs
    assert run.status == 1 and "Traceback" not in run.complained


def test_its_figures_are_those_of_the_changed_knobs(without_a_learning_rate):
    found = without_a_learning_rate.results["evaluation"]
    assert (found["metric"], found["n"]) == ("perplexity", 16)
    assert found["before"] == pytest.approx(found["after"], rel=1e-4)
