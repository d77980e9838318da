"""Two processes: `finetune` has the curve of one, and all end when one of them dies, really started by torchrun.

How all end is tried on `TOY`, which has what `finetune` has around its training and imports no Unsloth; that
`finetune` has it too, a killed training shows. The curve is that of two forks with the variables that torchrun sets.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import psutil
import pytest
from conftest import ENVIRONMENT

from unsloth_course import models
from unsloth_course.commands import finetune
from unsloth_course.commands.finetune import processes

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ["-m", "unsloth_course", "finetune", "--data", "pocket", "--model", "pocket", "--profile", "cpu"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
TOY = """
import sys, time
from torch import distributed, ones
from unsloth_course.commands.finetune import processes
process = processes.current()
with processes.together(process):
    rows = processes.share(int(sys.argv[1]), process)
    distributed.init_process_group("gloo")
    for step in range(10**6):
        distributed.all_reduce(ones(rows))
        print(f"training: step {step} of", flush=True)
        if step == int(sys.argv[2]) and process.number == 1:
            raise ValueError("the disk of this host is full")
        time.sleep(0.01)
"""
LONG = ("--method", "lora", "--steps", "200", "--batch", "8", "--max-samples", "80", "--held-out", "8")
LIMIT = processes.HUNG  # seconds from a death to the end of the run: sooner than a neighbour would give it up

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="torchrun with gloo is tested on Linux")


class Torchrun:
    """A run of two processes that is going on."""

    def __init__(self, folder: Path, *command: str):
        folder.mkdir(exist_ok=True)
        environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.log = folder / "log"
        with self.log.open("w") as log:
            how = {"cwd": folder, "env": environment, "stdout": log, "stderr": log, "start_new_session": True}
            self.process = subprocess.Popen([*TORCHRUN, *command], **how)

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
            for one in (*psutil.Process(self.process.pid).children(recursive=True), self.process):
                one.kill()
            self.process.wait()


@pytest.fixture
def torchrun(tmp_path):
    """Starts a run of this command in its folder; what still goes on at the end is stopped."""
    started = []

    def start(*command: str) -> Torchrun:
        started.append(Torchrun(tmp_path / "run", *command))
        return started[-1]

    yield start
    for run in started:
        run.stop()


def the_sentence(said: str, beginning: str) -> str:
    """The one line that begins so, outside torchrun's report."""
    (line,) = [line for line in said.splitlines() if line.startswith(beginning)]
    return line


@pytest.fixture
def two_forks(tmp_path):
    """Starts both processes of a run as torchrun would, in forks with Unsloth imported; torchrun's store is here."""
    from torch.distributed import TCPStore

    store, started = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False), []
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": True, "OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT}

    def start(*options: str) -> list[forked.Popen]:
        command = [sys.executable, *COMMAND, *options, "--out", str(tmp_path / "two")]
        for number in range(2):
            own = {name: str(value) for name, value in (shared | {"RANK": number, "LOCAL_RANK": number}).items()}
            started.append(forked.Popen(command, ENVIRONMENT | own, tmp_path, *[subprocess.PIPE] * 3))
        return started

    yield start
    for process in started:
        process.kill()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_give_the_curve_of_one(load, two_forks, tmp_path, method):
    asked = {"method": method, "data": "pocket", "model": "pocket", "profile": "cpu"}
    asked |= {"steps": 4, "batch": 8, "max_samples": 40, "held_out": 16}
    words = ("--method", method, "--steps", "4", "--batch", "8", "--max-samples", "40", "--held-out", "16")
    running = two_forks(*words)
    one = finetune.run(finetune.Options(**asked, out=tmp_path / "one")).results
    models.allow_adapters()
    (said, complained), (others, theirs) = (process.communicate(timeout=600) for process in running)
    assert [process.returncode for process in running] == [0, 0], complained[-3000:] + theirs[-3000:]
    two = json.loads((tmp_path / "two" / f"{method}.json").read_text())
    assert len(one["training"]["loss"]) == 4
    assert two["training"]["loss"] == pytest.approx(one["training"]["loss"], abs=1e-4)
    assert two["training"]["curves"]["eval_loss"][-1] == pytest.approx(
        one["training"]["curves"]["eval_loss"][-1], abs=1e-4
    )
    for name, figures in {"micro_batch": (8, 4), "processes": (1, 2), "examples": (32, 32)}.items():
        assert (one["training"][name], two["training"][name]) == figures
    assert two["evaluation"]["n"] == 16
    assert said.count("training: step 4 of 4") == 1 and "training: step" not in others, "only the first prints"
    assert (tmp_path / "two" / ("adapter" if method == "lora" else "model")).is_dir()


@pytest.fixture
def toy(torchrun, tmp_path):
    """Starts TOY with so many rows for an update of both, and maybe the step at which the second process fails."""
    (tmp_path / "toy.py").write_text(TOY)
    return lambda rows=8, fails=-1: torchrun(str(tmp_path / "toy.py"), str(rows), str(fails))


def killed(run: Torchrun, victim: int, step: int) -> None:
    run.until(f"training: step {step} of")
    time.sleep(random.random() / 10)
    os.kill(run.pid_of(victim), signal.SIGKILL)
    status, seconds, said = run.ended()
    assert status != 0
    assert seconds < LIMIT
    sentence = the_sentence(said, "Process ")
    assert sentence.startswith(f"Process {victim} of 2 on host ") and "died without a word" in sentence
    assert "start the same command again" in sentence


def test_a_killed_training_ends_with_a_sentence(torchrun, tmp_path):
    killed(torchrun(*COMMAND, *LONG, "--out", str(tmp_path / "run")), victim=0, step=20)


def test_a_killed_process_ends_the_run_with_a_sentence(toy):
    killed(toy(), victim=1, step=40)


def test_an_error_in_one_process_ends_the_run_with_a_sentence(toy):
    status, _, said = toy(fails=2).ended()
    assert status != 0
    sentence = the_sentence(said, "Process ")
    assert sentence.startswith("Process 1 of 2 on host ") and "ValueError: the disk of this host is full" in sentence


def test_what_all_find_wrong_is_said_once(toy):
    status, _, said = toy(rows=7).ended()
    assert status != 0
    sentence = the_sentence(said, "Process ")
    assert "7 rows of an update cannot be shared evenly by 2 processes" in sentence and "--batch 8" in sentence


def test_ctrl_c_ends_the_run(toy):
    run = toy()
    run.until("training: step 40 of")
    os.killpg(run.process.pid, signal.SIGINT)
    _, seconds, said = run.ended()
    assert seconds < LIMIT
    assert the_sentence(said, "Stopped by Ctrl-C")
