"""The notebooks for upload, from the first cell to the last, in what Colab has; rehearsal.py says how.

One session opens one after the other: the first installs, the others find all there. The LoRA, GRPO and
continued-pretraining lessons get their model from the Hub's stand-in, as in Colab; the others, which would take minutes
each with the knobs of a larger model, from the folder of the bundled one. LoRA's has to train; the others run with a
learning rate of 0, and have to come to their end and to say that they did not train.
UNSLOTH_COURSE_REHEARSAL=full takes all knobs as they are, the rate too.
"""

import collections
import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace

import nbformat
import pytest
from hub_server import HubServer

from unsloth_course import models
from unsloth_course.commands.colab import address, upload
from unsloth_course.core import lessons
from unsloth_course.core.places import REPOSITORY
from unsloth_course.lesson.data import sources
from unsloth_course.lesson.profile import HUB_DATA, HUB_MODEL
from unsloth_course.pocket import library

from . import rehearsal

FULL = os.environ.get("UNSLOTH_COURSE_REHEARSAL") == "full"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Colab runs on Linux, and so does its rehearsal.")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A fresh session of Colab."""
    try:
        return rehearsal.environment(tmp_path_factory.mktemp("session"))
    except rehearsal.Unreachable as error:
        pytest.skip(f"Colab's versions are not here and cannot be fetched: {error}")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with HubServer() as running:
        rehearsal.serve(running, tmp_path_factory.mktemp("sets"))
        yield running


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    upload.write(folder)
    return folder


# The GRPO lesson's model learns too little in so short a warm-up for its gate, and the stand-in's answers are too short
# for the share that continued pretraining would replay.
STEPS = 60  # of the LoRA lesson, which has to train
KNOBS = {
    "cpt": {"EMBEDDING_RATE": 0, "BLOCKS": 32, "REPLAY": 0.2},
    "grpo": {"PROMPTS": 2, "FASTER": 1, "WARM_UP_RATE": 1e-3},
}


def lesson_of(uploads, lesson, model=str(rehearsal.POCKET), shorter=None, **settings):
    notebook = nbformat.read(uploads / lessons.LESSONS[lesson], as_version=4)
    return rehearsal.prepared(notebook, FULL, MODEL=model, shorter=KNOBS.get(lesson, {}) | (shorter or {}), **settings)


def assert_ran(notebook, session, lesson):
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in code)
    results = json.loads((session.content / "results" / f"{lesson}.json").read_text())
    assert results["lesson"] == lesson and results["versions"]["transformers"] == rehearsal.COLAB["transformers"]
    return results


def fetched_since(hub, begun):
    """Bytes that the Hub has sent of each file since it had so many requests."""
    fetched = collections.Counter()
    for request in hub.requests[begun:]:
        if request.sent > 1000:
            fetched[request.path.split("/resolve/")[-1].split("/", 1)[-1]] += request.sent
    return fetched


def test_a_session_that_is_lost_goes_on_from_the_drive(session, hub, uploads, tmp_path):
    """Also the first look at the install cell, and at model and data over HTTP: what is found, done, and said."""
    drive = tmp_path / "drive"
    kept = drive / "MyDrive" / "unsloth-course" / "lora-checkpoints"
    hub_here = hub.environment(tmp_path / "cache")

    def lost():
        return bool(list(kept.glob("checkpoint-*/manifest.json")))

    # The pocket model wants its own learning rate, whatever name it goes by.
    knobs = {"STEPS": STEPS, "LEARNING_RATE": 1e-3, "HELD_OUT": 40}
    begun = len(hub.requests)
    first = lesson_of(uploads, "lora", HUB_MODEL, knobs, drive=drive)
    with pytest.raises(rehearsal.Lost):
        rehearsal.run(first, session, hub_here, lost)
    said = rehearsal.texts(first)
    assert "Done in" in said and "No restart is needed" in said and "no weights" in said
    lines = {line.split()[0]: line.split() for line in said.splitlines() if len(line.split()) > 3}
    assert lines["datasets"][1:4] == ["4.0.0", "4.8.5", "replaced"]
    assert lines["trl"][1] == "-" and lines["trl"][3] == "installed"
    assert lines["ipywidgets"][1] == "7.7.1" and lines["ipywidgets"][3] == "kept"

    fetched = fetched_since(hub, begun)
    assert fetched["model.safetensors"] == models.disk_bytes(rehearsal.POCKET)
    assert {"tokenizer.json", "alpaca_data_cleaned.json"} <= set(fetched)
    assert re.search(rf"model +{HUB_MODEL} +asked for", said) and re.search(r"network +Hugging Face Hub", said)
    assert re.search(rf"{HUB_MODEL}: [\d.]+ MB to download, 0 of \d files are in the cache", said)

    second = rehearsal.run(lesson_of(uploads, "lora", HUB_MODEL, knobs, drive=drive), session, hub_here)
    said = rehearsal.texts(second)
    assert "nothing is installed" in said and "going on from checkpoint-" in said
    found = assert_ran(second, session, "lora")
    assert found["receipt"]["verdict"] == "trained" or FULL, found["receipt"]
    assert (found["model"], found["data"], found["profile"]) == (HUB_MODEL, HUB_DATA["lora"], "cpu")
    assert (found["training"]["steps"], found["training"]["micro_batch"]) == (STEPS, 8) or FULL
    # Rows of the data set are checked, and general knowledge takes the place of the pocket model's skills.
    assert "rows ready: 12,000, set aside: 0" in said and re.search(r"untouched skills: \d+ of 60 right", said)
    settings = json.loads((session.content / "results" / "lora-adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == HUB_MODEL
    assert re.search(r"(\d+) of \1 answers are the same as before saving", said)


def unlearned(lesson, session, uploads, environment, model=str(rehearsal.POCKET), **settings):
    """(results, what was shown) of an uploaded lesson with a learning rate of 0, which has to say so."""
    done = rehearsal.run(lesson_of(uploads, lesson, model, {"LEARNING_RATE": 0}, **settings), session, environment)
    results, said = assert_ran(done, session, lesson), rehearsal.texts(done)
    if FULL:
        pytest.skip("With its own rate the lesson learns.")
    found = {finding["name"] for finding in results["receipt"]["findings"]}
    assert results["receipt"]["verdict"] == "not trained" and {"learning rate 0", "weights unchanged"} <= found
    assert f"{lesson}.json written: This run did not train." in said
    score = results["evaluation"]
    assert score["before"] == score["after"]
    assert (score["retention"] or {}).get("before") == (score["retention"] or {}).get("after")
    return results, said


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory):
    """Functions in all four kinds of file and in folders, and whatever else lies in a folder."""
    folder, rng = tmp_path_factory.mktemp("own") / "manuals", random.Random("own")
    texts = iter([library.function(rng, False) for _ in range(400)])
    (folder / "deep" / "er").mkdir(parents=True)
    for number in range(60):
        (folder / f"{number}.py").write_text("\n\n".join(next(texts) for _ in range(2)), encoding="utf-8")
    for number in range(40):
        text = "\n".join(next(texts) for _ in range(2))
        (folder / "deep" / f"{number}.md").write_text(text, encoding="utf-16" if number % 2 else "utf-8-sig")
    rows = "\n".join(json.dumps({"text": text}) for text in texts)
    (folder / "deep" / "er" / "rows.jsonl").write_text(rows)
    (folder / "latin.txt").write_bytes("# Messgerät\n".encode("latin-1"))
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (folder / "binary.txt").write_bytes(b"ab\0cd")
    (folder / "empty.md").write_text(" \n")
    (folder / "broken.jsonl").write_text('{"text": "half')
    (folder / "out.txt").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    (folder / ".secret").mkdir()
    return folder


def test_continued_pretraining_that_cannot_learn_on_a_folder_of_text(session, uploads, hub, tmp_path, own_folder):
    """Every file that was not read is named with the reason; prose of the Hub's answers is replayed.

    That of the Hub's own large set one file is fetched, test_sources.py and test_hub.py show.
    """
    begun, data = len(hub.requests), str(own_folder)
    results, said = unlearned("cpt", session, uploads, hub.environment(tmp_path / "cache"), HUB_MODEL, DATA=data)
    assert (results["model"], results["data"], results["profile"]) == (HUB_MODEL, data, "cpu")
    assert set(fetched_since(hub, begun)) >= {"model.safetensors", "alpaca_data_cleaned.json"}
    assert "set aside: 6" in said
    for file, reason in {
        "latin.txt": "byte 9 (from 0) is not UTF-8",
        "photo.png": "it has none of the endings .txt, .md, .py, .jsonl",
        "binary.txt": "byte 2 (from 0) is zero, so it is binary",
        "empty.md": "it is empty",
        "broken.jsonl": "the JSON is broken",
    }.items():
        assert re.search(rf"{file}, row 1: [^\n]*{re.escape(reason)}", said), file
    assert "no held-out effect" in {finding["name"] for finding in results["receipt"]["findings"]}
    score = results["evaluation"]
    assert score["metric"] == "perplexity" and score["before"] > 1000 and score["interval"] == [0.0, 0.0]
    assert score["n"] == 16 and results["training"]["micro_batch"] == 8
    assert set(results["battery"]) >= {"perplexity_domain", "perplexity_general"}
    assert "0 parameters at a rate" not in said


def test_no_held_out_text_of_the_folder_was_trained_on(own_folder):
    train, held_out, _ = sources.corpus(str(own_folder), train=10_000, held_out=24, seed=3407)
    assert len(held_out) == 24 and not set(train["text"]) & set(held_out["text"])


def test_grpo_that_cannot_learn_on_a_model_from_the_hub(session, uploads, hub, tmp_path):
    results, said = unlearned("grpo", session, uploads, hub.environment(tmp_path / "cache"), HUB_MODEL)
    assert (results["training"]["steps"], results["training"]["micro_batch"]) == (2, 16)
    assert "form + brevity: the reward " in said
    assert said.count("no loophole was found.") == 2 and ": a loophole was found" not in said
    assert (results["model"], results["data"]) == (HUB_MODEL, HUB_DATA["grpo"]) == (HUB_MODEL, "english")
    assert re.search(r"data +english +plain English, generated here", said)
    settings = json.loads((session.content / "results" / "grpo-adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == HUB_MODEL
    assert re.search(r"(\d+) of \1 answers are the same as before saving", said)


def test_full_fine_tuning_that_cannot_learn(session, uploads):
    results, said = unlearned("full", session, uploads, {})
    assert "The change gained nothing, so nothing can be said about the rank that it needs." in said
    assert "embeddings moved by 0.00%" in said and re.search(r"q_proj +0 to +0 of 256", said)
    assert "low rank suffices" not in said
    # The learning rate of the whole model is not that of the adapter, which moved.
    assert results["parameters"] == {"total": 3_410_176, "trainable": 3_410_176}
    assert results["file_bytes"] > 12 * 2**20 and "311,296 (8.4%)" in said and "3,410,176 (100.0%)" in said


def test_dpo_that_cannot_learn(session, uploads):
    results, _ = unlearned("dpo", session, uploads, {})
    assert "loss stays at ln 2" in {finding["name"] for finding in results["receipt"]["findings"]}
    assert all(abs(loss - 0.6931) < 1e-3 for loss in results["training"]["loss"])
    score = results["evaluation"]
    (judge,) = [measure for measure in score["measures"] if measure["judges"]]
    assert (judge["name"], judge["before"], judge["after"]) == ("preference_accuracy", 0.5, 0.5)
    assert score["metric"] == "preference_rate" and score["correctness"]["before"] == score["correctness"]["after"]


def test_the_cell_of_a_notebook_from_the_repository_brings_the_course_with_weights(session, tmp_path):
    """The badge's way, with a copy of this checkout in the place of GitHub; what there is to install, is there."""
    copy = tmp_path / "copy"
    copy.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("This is no checkout, so there is nothing to clone.")
    files = [name for name in listed.stdout.splitlines() if name.startswith(("unsloth_course/", "req", "pyproject"))]
    subprocess.run(["cp", "--parents", *files, str(copy)], cwd=REPOSITORY, check=True)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "copy"]):
        subprocess.run([*git, *command], cwd=copy, check=True)
    away = f"https://github.com/{address.address()}"
    instead = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{copy.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": away,
    }
    notebook = nbformat.read(lessons.notebook_path("lora"), as_version=4)
    (cell,) = [cell for cell in notebook.cells if lessons.has_tag(cell, "install")]
    look = "from unsloth_course import models\nimport pathlib\nassert pathlib.Path(models.folder('pocket')).is_dir()"
    cells = [nbformat.v4.new_code_cell(source) for source in (cell.source, cell.source, look)]
    content = tmp_path / "content"
    content.mkdir()
    done = rehearsal.run(nbformat.v4.new_notebook(cells=cells), replace(session, content=content), instead)
    assert rehearsal.texts(done).count("nothing is installed") == 2
    assert (content / "course" / "unsloth_course").is_dir()


def test_without_an_index_and_a_cache_it_is_skipped_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(rehearsal.Unreachable, match="No matching distribution"):
        rehearsal.front()
    assert not list(tmp_path.glob("unsloth-course/*"))
