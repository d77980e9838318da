"""The commands of docs/several-gpus.md for two GPUs with a task each, in small and on CPU cores in place of GPUs."""

import functools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from conftest import ENVIRONMENT

from unsloth_course import models
from unsloth_course.commands.finetune import saved
from unsloth_course.core.places import REPOSITORY

DOC = REPOSITORY / "docs" / "several-gpus.md"
SMALL = ["--model", "pocket", "--profile", "cpu", "--steps", "2", "--held-out", "8"]


def documented() -> list[tuple[dict[str, str], list[str]]]:
    """The commands of the section: what each sets in the environment, and the command of the course with its words."""
    section = DOC.read_text(encoding="utf-8").split("## Two GPUs, two tasks")[1].split("\n## ")[0]
    found = []
    for line in section.splitlines():
        if line.startswith("    CUDA_VISIBLE_DEVICES"):
            words = shlex.split(line.removesuffix("&"))
            name, _, value = words[0].partition("=")
            assert words[1] == "unsloth-course"
            found.append(({name: value}, words[2:]))
    return found


def in_small(words: list[str], folder: Path) -> list[str]:
    """A documented command with the bundled data and model, two steps, and folders below `folder`."""
    replaced = {"my_rows.json": "pocket"} | ({"results/mine": models.folder("pocket")} if words[0] == "chat" else {})
    words = [replaced.get(word, str(folder / word) if word.startswith("results/") else word) for word in words]
    return words + (SMALL if words[0] == "finetune" else ["--max-new-tokens", "12"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The last three of them side by side: words of the document, exit status, what was printed and said.

    The first training is the second one over again, but for an option.
    """
    folder = tmp_path_factory.mktemp("side-by-side")
    popen = forked.Popen if sys.platform == "linux" else functools.partial(subprocess.Popen, text=True)
    root = str(REPOSITORY)
    environment = {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    started = []
    for _, words in documented()[1:]:
        command = [sys.executable, "-m", "unsloth_course", *in_small(words, folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append((words, popen(command, cwd=folder, env=environment, **pipes)))
    try:
        ended = []
        for words, process in started:
            asked = "Which letter does XQQX start with?\n" if words[0] == "chat" else None
            out, err = process.communicate(asked, timeout=1200)
            ended.append((words, process.returncode, out, err))
    finally:
        for _, process in started:
            process.kill()
    return folder, ended


def test_the_document_gives_each_of_a_pair_a_gpu_of_its_own():
    pairs = documented()
    assert [words[0] for _, words in pairs] == ["finetune", "chat", "finetune", "finetune"]
    assert [names["CUDA_VISIBLE_DEVICES"] for names, _ in pairs] == ["0", "1", "0", "1"]
    folders = [words[words.index("--out") + 1] for _, words in pairs if "--out" in words]
    assert len(set(folders)) == len(folders) == 3


def test_all_come_to_their_end_beside_each_other(finished):
    _, ended = finished
    statuses = [(words[0], status) for words, status, _, _ in ended]
    assert statuses == [("chat", 0), ("finetune", 0), ("finetune", 0)], "\n".join(err for *_, err in ended)
    answer = next(out for words, _, out, _ in ended if words[0] == "chat")
    assert answer.strip()


def test_each_experiment_is_in_its_own_folder_with_its_own_rank(finished):
    folder, _ = finished
    trained = {}
    for name in ("rank-8", "rank-32"):
        saved.adapter(folder / "results" / name / "adapter")
        trained[name] = json.loads((folder / "results" / name / "lora.json").read_text())["parameters"]["trainable"]
    assert trained["rank-32"] == 4 * trained["rank-8"]
    assert not os.path.exists(folder / "results" / "mine")
