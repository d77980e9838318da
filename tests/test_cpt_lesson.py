"""The continued-pretraining lesson itself, in a process of its own: model from the Hub, text from a learner's folder.

That the unchanged lesson trains on the bundled model is what nbmake runs; that it reads its large set from the Hub, and
says so where it cannot learn, lesson/colab/test_rehearsal.py.
"""

import json
import random
import re
from pathlib import Path

import pytest
from hub_server import HubServer
from lesson_runs import Finished, with_knobs

from unsloth_course import models
from unsloth_course.lesson.profile import HUB_DATA, HUB_MODEL
from unsloth_course.pocket import datasets, library


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory):
    """Functions in all four kinds of file and in folders, and whatever else lies in a folder."""
    folder, rng = tmp_path_factory.mktemp("own") / "manuals", random.Random("own")
    texts = iter([library.function(rng, False).text for _ in range(400)])
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


@pytest.fixture(scope="module")
def from_a_folder(own_folder, tmp_path_factory):
    """The lesson in the cpu profile, with the bundled model under its name on a Hub, and a cache that was empty."""
    answers = tmp_path_factory.mktemp("answers")
    prose = [" ".join(datasets.stories(3, seed=n)["text"]) for n in range(900)]
    rows = [{"instruction": f"Tell me story {n}.", "input": "", "output": text} for n, text in enumerate(prose)]
    (answers / "alpaca_data_cleaned.json").write_text(json.dumps(rows))
    # The pocket model wants its own learning rate, whatever name it goes by.
    knobs = {"LEARNING_RATE": 1e-3, "BLOCKS": 48, "HELD_OUT": 24}
    notebook = with_knobs("cpt", knobs, MODEL=HUB_MODEL, DATA=str(own_folder))
    with HubServer() as hub:
        hub.add_model(HUB_MODEL, Path(models.folder("pocket")))
        hub.add_dataset(HUB_DATA["lora"], answers)
        environment = hub.environment(tmp_path_factory.mktemp("cache"))
        return Finished("cpt", tmp_path_factory.mktemp("folder"), notebook, environment)


def test_the_lesson_trains_on_a_folder_of_text(from_a_folder):
    run = from_a_folder
    assert run.errors == [] and run.status == 0, run.complained
    assert run.results["receipt"]["verdict"] == "trained", run.results["receipt"]
    found, score = run.results, run.results["evaluation"]
    assert score["n"] == 24 and score["after"] < 0.1 * score["before"]
    assert (found["model"], found["profile"], found["training"]["micro_batch"]) == (HUB_MODEL, "cpu", 8)


def test_every_file_that_was_not_read_is_named_with_the_reason(from_a_folder):
    said = from_a_folder.outputs + from_a_folder.page
    assert "set aside: 6" in said
    for file, reason in {
        "latin.txt": "byte 9 (from 0) is not UTF-8",
        "photo.png": "it has none of the endings .txt, .md, .py, .jsonl",
        "binary.txt": "byte 2 (from 0) is zero, so it is binary",
        "empty.md": "it is empty",
        "broken.jsonl": "the JSON is broken",
    }.items():
        assert re.search(rf"{file}, row 1: [^\n]*{re.escape(reason)}", said), file


def test_no_held_out_text_of_the_folder_was_trained_on(own_folder):
    from unsloth_course.lesson.data import sources

    train, held_out, _ = sources.corpus(str(own_folder), train=10_000, held_out=24, seed=3407)
    assert len(held_out) == 24 and not set(train["text"]) & set(held_out["text"])
