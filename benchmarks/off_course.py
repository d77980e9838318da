"""Trains a lesson with its learning rate times a factor, and adds the curves of that run to a file, as a line of JSON.

    python benchmarks/off_course.py lora --factor 10 --seed 3407 --out tests/recordings/lora.jsonl

Factor 0 trains nothing, 10 overshoots, 1 is the lesson. `tests/lesson/test_recordings.py` wants the first two outside
the band of the lesson's runs. The cells are the lesson's own, from the first to the training.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

RATE = re.compile(r"^LEARNING_RATE = (.*?)(\s+#.*)?$", re.MULTILINE)
TRAINING = re.compile(r"^trainer\.train\(", re.MULTILINE)


def history(lesson: str, factor: float, knobs: dict[str, Any]) -> list[dict[str, Any]]:
    """The log of one training: the lesson's cells as they are, but for its learning rate and the given knobs."""
    import nbformat

    from unsloth_course.core import lessons

    names: dict[str, Any] = {"display": lambda *shown: None}
    for cell in nbformat.read(lessons.notebook_path(lesson), as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" or "skip-execution" in tags:
            continue
        source = RATE.sub(rf"LEARNING_RATE = (\1) * {factor!r}", cell.source)
        exec(compile(source, f"{lesson}: {cell.id}", "exec"), names)  # the course's own notebook, not a learner's file
        if "parameters" in tags:
            names |= knobs
        if TRAINING.search(source):
            return names["trainer"].state.log_history
    raise SystemExit(f"The {lesson} lesson has no cell that begins a line with trainer.train().")


def main() -> None:
    """Trains once and adds lesson, factor, seed, steps and curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lesson")
    parser.add_argument("--factor", type=float, required=True)
    parser.add_argument("--seed", type=int, default=3407)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    out = given.out.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        knobs = {"PROFILE": given.profile, "SEED": given.seed, "OUT": scratch}
        log = history(given.lesson, given.factor, knobs)
        os.chdir(REPOSITORY)
    from unsloth_course import results

    about = {"lesson": given.lesson, "factor": given.factor, "seed": given.seed}
    steps = max(int(row["step"]) for row in log)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(about | {"steps": steps, "curves": results.curves(log)}) + "\n")
    print(f"{out.name}: {steps} steps")


if __name__ == "__main__":
    main()
