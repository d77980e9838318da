"""The GRPO lesson itself, in a process of its own: a run that cannot learn, on a model that came from the Hub.

That the unchanged lesson trains on the bundled model is what nbmake runs.
"""

import json
import re
from pathlib import Path

import pytest
from hub_server import HubServer
from lesson_runs import Finished, with_knobs

from unsloth_course import models, profile

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
KNOBS = {"LEARNING_RATE": 0, "WARM_UP": 20, "STEPS": 3, "AGAIN, FASTER": "2, 1", "HELD_OUT": 16, "WARM_UP_RATE": 1e-3}
KNOBS |= {"GATE": False}  # this model learns too little in so short a warm-up


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    """The lesson with a learning rate of 0, in the cpu profile, with the pocket model under the Hub's name."""
    folder = tmp_path_factory.mktemp("grpo")
    with HubServer() as server:
        server.add_model(MODEL, Path(models.folder("pocket")))
        environment = server.environment(tmp_path_factory.mktemp("cache"))
        run = Finished("grpo", folder, with_knobs("grpo", KNOBS, MODEL=MODEL), environment)
        run.fetched = [request.path for request in server.requests if request.sent > 1000]
    return run


def test_a_lesson_that_did_not_learn_says_so(sick):
    assert sick.results["receipt"]["verdict"] == "not trained"
    names = {finding["name"] for finding in sick.results["receipt"]["findings"]}
    assert {"learning rate 0", "weights unchanged"} <= names
    assert "NOT TRAINED: This run did not train." in sick.outputs
    assert "grpo.json written: This run did not train." in sick.outputs
    assert "Not trained." in sick.page


def test_it_runs_to_its_end_and_ends_with_status_1(sick):
    assert sick.errors == []
    assert sick.status == 1
    assert "its verdict is 'not trained'" in sick.complained and "Traceback" not in sick.complained


def test_its_figures_are_those_of_the_changed_knobs(sick):
    found = sick.results
    assert (found["training"]["steps"], found["training"]["micro_batch"]) == (3, 32)
    assert (found["evaluation"]["metric"], found["evaluation"]["n"]) == ("accuracy", 16)
    assert found["evaluation"]["before"] == found["evaluation"]["after"]
    assert found["evaluation"]["retention"]["before"] == found["evaluation"]["retention"]["after"]


def test_a_loophole_that_is_not_found_is_not_claimed(sick):
    assert "form + brevity: the reward " in sick.outputs
    assert sick.outputs.count("no loophole was found.") == 2 and ": a loophole was found" not in sick.outputs


def test_the_problems_are_generated_for_a_model_of_the_hub_too(sick):
    assert (sick.results["model"], sick.results["data"]) == (MODEL, profile.HUB_DATA["grpo"]) == (MODEL, "english")
    assert re.search(r"data +english +plain English, generated here", sick.outputs)
    assert any(path.endswith("/model.safetensors") for path in sick.fetched)
    assert not any("/datasets/" in path for path in sick.fetched)


def test_the_adapter_names_its_base_and_gives_the_same_answers(sick):
    settings = json.loads((sick.out / "grpo-adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == MODEL
    assert re.search(r"(\d+) of \1 answers are the same as before saving", sick.outputs)


def test_where_there_is_nothing_to_learn_from_the_lesson_ends_and_says_what_to_change(tmp_path):
    run = Finished("grpo", tmp_path, with_knobs("grpo", {"WARM_UP": 2, "HELD_OUT": 16}))
    ((cell, error),) = run.errors
    assert cell.id == "grpo-24" and error.evalue.startswith("The gate is closed. ")
    assert run.status == 1 and error.evalue in run.complained and "trained for 28 steps" not in run.outputs
