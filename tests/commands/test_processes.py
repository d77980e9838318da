"""Several processes: their numbers, their shares, and the sentence about one that died. tests/test_two_processes.py has
real ones."""

import json
import os
import signal
import subprocess
import sys

import pytest

from unsloth_course.commands.finetune import processes
from unsloth_course.commands.finetune.processes import Process
from unsloth_course.core.errors import CourseError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def numbered(monkeypatch, *numbers):
    for name, number in zip(NAMES, numbers, strict=True):
        if number is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(number))


def test_without_torchrun_there_is_one(monkeypatch):
    numbered(monkeypatch, None, None, None, None)
    alone = processes.current()
    assert alone == Process() and alone.first and not alone.several
    assert processes.arguments(alone, on_gpu=True) == {}


def test_torchrun_numbers_them(monkeypatch):
    numbered(monkeypatch, 9, 16, 1, 8)
    found = processes.current()
    assert (found.number, found.count, found.here, found.count_here) == (9, 16, 1, 8)
    assert found.several and not found.first
    assert str(found).startswith("Process 9 of 16 on host ")


@pytest.mark.parametrize("numbers", [(0, 2, None, 2), (0, "two", 0, 1)])
def test_numbers_that_lack_are_a_sentence(monkeypatch, numbers):
    numbered(monkeypatch, *numbers)
    with pytest.raises(CourseError, match="torchrun"):
        processes.current()


def test_rows_are_shared_evenly():
    assert processes.share(16, Process(0, 4, 0, 4)) == 4
    assert processes.share(7, Process()) == 7
    with pytest.raises(CourseError, match=r"10 rows .* by 4 processes\. Choose --batch 8"):
        processes.share(10, Process(0, 4, 0, 4))
    with pytest.raises(CourseError, match="--batch 8"):
        processes.share(1, Process(0, 8, 0, 8))


def test_each_process_needs_a_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    processes.take_gpu(Process(3, 4, 1, 2))
    assert taken == [1]
    with pytest.raises(CourseError, match=r"4 processes .* has 2 GPUs .* --nproc-per-node 2"):
        processes.take_gpu(Process(0, 4, 0, 4))


def test_gloo_is_for_cpus_alone():
    two = Process(0, 2, 0, 2)
    assert processes.arguments(two, on_gpu=False)["ddp_backend"] == "gloo"
    assert "ddp_backend" not in processes.arguments(two, on_gpu=True)


def test_one_process_waits_for_nobody():
    with processes.together(Process()), processes.before_the_others(Process(), "x"):
        pass
    with pytest.raises(ValueError), processes.together(Process()):
        raise ValueError("stays an ordinary error")


def leaving(tmp_path, code, here=0, number=0, count=2, **files):
    """Runs code as one process of several on one host, with what the others noted; returns status and stderr."""
    for sibling in range(count):
        (tmp_path / str(sibling)).mkdir()
    for name, text in files.items():
        sibling, _, file = name.partition("_")
        (tmp_path / sibling[1:] / file.replace("_", ".")).write_text(str(text))
    environment = os.environ | {"TORCHELASTIC_ERROR_FILE": str(tmp_path / str(here) / "error.json")}
    begin = "from unsloth_course.commands.finetune import processes"
    script = f"{begin}\np = processes.Process({number}, {count}, {here}, {count})\n{code}"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr.strip()


LEAVE = f"processes._leave(p, {int(signal.SIGTERM)})"


@pytest.fixture
def dead():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


def test_a_process_that_died_is_named(tmp_path, dead):
    status, said = leaving(tmp_path, LEAVE, n1_pid=dead)
    assert status == 143
    assert said.startswith("Process 1 of 2 on host ") and f"(pid {dead}) died without a word" in said


@pytest.mark.parametrize(
    "noted",
    [{"n1_error_json": "{}"}, {"here": 2, "number": 2, "count": 3, "n0_pid": os.getpid()}],
    ids=["the dead one said why", "another survivor speaks"],
)
def test_what_is_said_already_is_not_said_again(tmp_path, dead, noted):
    assert leaving(tmp_path, LEAVE, n1_pid=dead, **noted) == (143, "")


def test_one_that_was_told_to_end_did_not_die(tmp_path, dead):
    status, said = leaving(tmp_path, LEAVE, n1_pid=dead, n1_left="")
    assert status == 143 and "was told to end (SIGTERM)" in said


def test_an_error_is_a_sentence_and_noted_for_torchrun(tmp_path):
    code = "processes._fail(p, processes._explained(RuntimeError('CUDA error.\\nat line 3')))"
    status, said = leaving(tmp_path, code, here=1, number=1)
    assert status == 1
    assert (
        said.startswith("Process 1 of 2 on host ")
        and "stopped: RuntimeError: CUDA error. at line 3. The lines above" in said
    )
    assert json.loads((tmp_path / "1" / "error.json").read_text())["message"]["message"] == said


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), "Lower --batch"),
        (RuntimeError("Timed out waiting 180000ms for recv"), "Another process hangs"),
        (RuntimeError("Connection closed by peer [10.0.0.2]:3"), "on another host is gone"),
        (ValueError(""), "The lines above"),
    ],
)
def test_errors_come_with_advice(error, advice):
    assert advice in processes._explained(error)
