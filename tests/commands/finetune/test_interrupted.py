"""Real runs of the bundled model, killed and resumed. `benchmarks/killed.py` is the whole proof, with 20 of them."""

import json
import sys

import forked
import pytest
from conftest import ENVIRONMENT, script


@pytest.mark.skipif(sys.platform != "linux", reason="it forks a process with Unsloth in it, and kills")
def test_killed_runs_end_at_the_weights_of_those_left_alone(tmp_path):
    asked = (
        f"--method lora dpo grpo --runs 1 --steps 12 --every 4 --seed 2 --out {tmp_path} --json {tmp_path / 'found'}"
    )
    command = [sys.executable, "-m", "killed", *asked.split()]
    done = forked.run(command, ENVIRONMENT | script("killed").ALONE)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found").read_text())
    assert [report["method"] for report in found] == ["lora", "dpo", "grpo"]
    for report in found:
        assert report["same"] == report["runs"] == 1 <= report["kills"]
        assert report["most_lost"] <= report["interval"] == 4
