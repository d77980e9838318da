"""Real runs of the bundled model, killed and resumed. `benchmarks/killed.py` is the whole proof, with 20 of them."""

import json
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT

from unsloth_course.core.places import REPOSITORY


@pytest.mark.skipif(sys.platform == "win32", reason="it forks, and Windows has no SIGKILL")
def test_killed_runs_end_at_the_weights_of_those_left_alone(tmp_path):
    script = REPOSITORY / "benchmarks" / "killed.py"
    asked = "--method lora dpo grpo --runs 1 --steps 12 --every 4 --seed 2"
    command = [sys.executable, str(script), *asked.split(), "--out", str(tmp_path), "--json", str(tmp_path / "found")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found").read_text())
    assert [report["method"] for report in found] == ["lora", "dpo", "grpo"]
    for report in found:
        assert report["same"] == report["runs"] == 1 <= report["kills"]
        assert report["most_lost"] <= report["interval"] == 4
