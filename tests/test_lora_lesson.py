"""The LoRA lesson itself, in processes of its own: a run that cannot learn, and the Hub path over real HTTP.

That the unchanged lesson trains on the bundled model is what nbmake runs.
"""

import json
import re
from pathlib import Path

import pytest
from hub_server import HubServer
from lesson_runs import BASE, Finished, with_knobs

from unsloth_course import models
from unsloth_course.pocket import datasets

MODEL, DATA = "HuggingFaceTB/SmolLM2-135M-Instruct", "yahma/alpaca-cleaned"


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


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub that serves the pocket model and its rows under the names that the lesson knows."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [*datasets.instructions(3000, False, seed=11), *datasets.instructions(600, True, seed=12)]
    (folder / "alpaca_data_cleaned.json").write_text(json.dumps(rows))
    with HubServer() as server:
        server.add_model(MODEL, Path(models.folder("pocket")))
        server.add_dataset(DATA, folder)
        yield server


@pytest.fixture(scope="module")
def from_the_hub(hub, tmp_path_factory):
    """The lesson in the cpu profile, with model and data from the Hub and a cache that was empty."""
    cache = tmp_path_factory.mktemp("cache")
    # The pocket model wants its own learning rate, whatever name it goes by.
    notebook = with_knobs("lora", {"STEPS": 110, "LEARNING_RATE": 1e-3, "HELD_OUT": 60}, MODEL=MODEL, DATA=DATA)
    return Finished("lora", tmp_path_factory.mktemp("hub"), notebook, hub.environment(cache))


def test_the_lesson_trains_on_model_and_data_from_the_hub(from_the_hub):
    run = from_the_hub
    assert run.errors == []
    assert run.results["receipt"]["verdict"] == "trained", run.results["receipt"]
    assert run.status == 0, run.complained
    found = run.results
    assert (found["model"], found["data"], found["profile"]) == (MODEL, DATA, "cpu")
    assert found["evaluation"]["n"] == 60
    assert found["training"]["steps"] == 110 and found["training"]["micro_batch"] == 8


def test_both_came_over_http(from_the_hub, hub):
    fetched = {request.path.split("/resolve/")[-1].split("/", 1)[-1] for request in hub.requests if request.sent > 1000}
    assert {"model.safetensors", "tokenizer.json", "alpaca_data_cleaned.json"} <= fetched
    weights = [request for request in hub.requests if request.path.endswith("/model.safetensors") and request.sent]
    assert sum(request.sent for request in weights) == models.disk_bytes(models.folder("pocket"))


def test_the_page_says_where_they_came_from(from_the_hub):
    run = from_the_hub
    assert re.search(rf"model +{MODEL} +asked for", run.outputs)
    assert re.search(rf"data +{DATA} +asked for", run.outputs)
    assert re.search(r"network +Hugging Face Hub", run.outputs)
    assert re.search(rf"{MODEL}: [\d.]+ MB to download, 0 of \d files are in the cache", run.outputs)
    # Rows of the data set are checked, and general knowledge takes the place of the pocket model's skills.
    assert "rows ready: 3,600, set aside: 0" in run.outputs
    assert re.search(r"untouched skills: \d+ of 60 right", run.outputs)


def test_the_adapter_names_its_base_on_the_hub(from_the_hub):
    settings = json.loads((from_the_hub.out / "lora-adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == MODEL
    assert re.search(r"(\d+) of \1 answers are the same as before saving", from_the_hub.outputs)


def test_a_hub_that_is_down_ends_the_lesson_with_a_sentence(tmp_path):
    with HubServer() as server:
        environment = server.environment(tmp_path / "cache")
        server.down()
        run = Finished("lora", tmp_path, with_knobs("lora", {}, MODEL=MODEL, DATA=DATA), environment)
    assert run.status == 1
    sentence = re.sub(r"\s+", " ", run.complained)
    assert f"{MODEL} cannot be downloaded: the Hub at {server.endpoint} cannot be reached" in sentence
    assert "--model smollm2" in sentence
    assert "Traceback" not in run.complained
    assert not (run.out / "lora.json").exists()
    ((cell, output),) = run.errors
    assert "from_pretrained" in cell.source and output.ename == "CourseError"
    assert not any("Traceback" in line for line in output.traceback)
