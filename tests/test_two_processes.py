"""`finetune` in two processes, really started by torchrun: the same curve as one, and an end when one of them dies."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ENVIRONMENT

from unsloth_course import models
from unsloth_course.commands import finetune

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ["-m", "unsloth_course", "finetune", "--data", "pocket", "--model", "pocket", "--profile", "cpu"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
LONG = ("--method", "lora", "--steps", "400", "--batch", "8", "--max-samples", "80")
LIMIT = 60  # seconds from a death to the end of the run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="torchrun with gloo is tested on Linux")


class Torchrun:
    """A run of two processes that is going on."""

    def __init__(self, folder: Path, *options: str, before: str | None = None):
        folder.mkdir(exist_ok=True)
        environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
        if before:  # usercustomize runs in each process before the command
            site = folder / "site"
            site.mkdir()
            (site / "sitecustomize.py").write_text(before)
            environment["PYTHONPATH"] = str(site)
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*TORCHRUN, *COMMAND, *options, "--out", str(folder)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def until(self, text: str) -> None:
        end = time.monotonic() + 300
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def pid_of(self, rank: int) -> int:
        for child in psutil.Process(self.process.pid).children():
            if child.environ().get("RANK") == str(rank):
                return child.pid
        raise AssertionError(f"no process {rank}")

    def ended(self) -> tuple[int, float, str]:
        """Exit status, seconds until then, and all that was printed; nothing of the run is left behind."""
        began = time.monotonic()
        left = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        try:
            status = self.process.wait(timeout=2 * LIMIT)
        finally:
            for child in left:
                if child.is_running():
                    child.kill()
        return status, time.monotonic() - began, self.log.read_text()

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def torchrun(tmp_path):
    started = []

    def start(*options: str, before: str | None = None) -> Torchrun:
        started.append(Torchrun(tmp_path / f"run{len(started)}", *options, before=before))
        return started[-1]

    yield start
    for run in started:
        run.stop()


def the_sentence(said: str, beginning: str) -> str:
    """The one line that begins so, outside torchrun's report."""
    (line,) = [line for line in said.splitlines() if line.startswith(beginning)]
    return line


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_give_the_curve_of_one(load, torchrun, tmp_path, method):
    asked = {"method": method, "data": "pocket", "model": "pocket", "profile": "cpu"}
    asked |= {"steps": 6, "batch": 8, "max_samples": 40}
    run = torchrun("--method", method, "--steps", "6", "--batch", "8", "--max-samples", "40")
    one = finetune.run(finetune.Options(**asked, out=tmp_path / "one")).results
    models.allow_adapters()
    status, _, said = run.ended()
    assert status == 0, said[-3000:]
    two = json.loads((tmp_path / "run0" / f"{method}.json").read_text())
    assert len(one["training"]["loss"]) == 6
    assert two["training"]["loss"] == pytest.approx(one["training"]["loss"], abs=1e-4)
    assert two["training"]["curves"]["eval_loss"][-1] == pytest.approx(
        one["training"]["curves"]["eval_loss"][-1], abs=1e-4
    )
    for name in ("micro_batch", "processes", "examples"):
        assert (one["training"][name], two["training"][name]) == {
            "micro_batch": (8, 4), "processes": (1, 2), "examples": (48, 48)
        }[name]  # fmt: skip
    assert two["evaluation"]["n"] == 200
    assert said.count("training: step 6 of 6") == 1, "only the first process prints"
    assert (tmp_path / "run0" / ("adapter" if method == "lora" else "model")).is_dir()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_run_with_a_sentence(torchrun, victim):
    run = torchrun(*LONG)
    run.until("training: step 40 of")
    time.sleep(random.random())
    os.kill(run.pid_of(victim), signal.SIGKILL)
    status, seconds, said = run.ended()
    assert status != 0
    assert seconds < LIMIT
    sentence = the_sentence(said, "Process ")
    assert sentence.startswith(f"Process {victim} of 2 on host ") and "died without a word" in sentence
    assert "start the same command again" in sentence


def test_an_error_in_one_process_ends_the_run_with_a_sentence(torchrun):
    break_one = """
import os, sys
if os.environ.get("RANK") == "1":
    class Breaks:
        def find_spec(self, name, path=None, target=None):
            if name == "unsloth_course.core.progress":
                from unsloth_course.lesson.memory import Meter
                def broken(self, args, state, control, **_):
                    if state.global_step == 2:
                        raise ValueError("the disk of this host is full")
                Meter.on_step_end = broken
    sys.meta_path.insert(0, Breaks())
"""
    run = torchrun(*LONG, before=break_one)
    status, _, said = run.ended()
    assert status != 0
    sentence = the_sentence(said, "Process ")
    assert sentence.startswith("Process 1 of 2 on host ") and "ValueError: the disk of this host is full" in sentence


def test_what_all_find_wrong_is_said_once(torchrun):
    run = torchrun("--method", "lora", "--batch", "7")
    status, _, said = run.ended()
    assert status != 0
    sentence = the_sentence(said, "Process ")
    assert "7 rows of an update cannot be shared evenly by 2 processes" in sentence and "--batch 8" in sentence


def test_ctrl_c_ends_the_run(torchrun):
    run = torchrun(*LONG)
    run.until("training: step 40 of")
    os.killpg(run.process.pid, signal.SIGINT)
    _, seconds, said = run.ended()
    assert seconds < LIMIT
    assert the_sentence(said, "Stopped by Ctrl-C")
