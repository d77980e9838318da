"""Sizes, scores and drift of every export format of one LoRA run, and what batching gains in answering. Prints JSON.

    python benchmarks/formats.py [--run DIR] [--out FILE]

DIR is the folder of a `finetune` run, with `adapter` and `held-out.jsonl` in it; without it the LoRA recipe is run on
the pocket model first. Every format makes its round trip (docs/export.md), ONNX too where its packages are installed.
Batching: 64 held-out prompts through `chat.answer_file`, so many side by side; the shortest of three times, after one
that is not counted.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from convert import hand_over  # noqa: E402

from unsloth_course.commands import chat, export  # noqa: E402
from unsloth_course.core.errors import CourseError  # noqa: E402

PROMPTS = 64
BATCHES = (1, 4, 16, 64)
TIMES = 3


def trained(folder: Path) -> Path:
    """A LoRA run on the pocket model's own data."""
    said = "--method lora --data pocket --model pocket --profile cpu --out"
    command = [sys.executable, "-m", "unsloth_course", "finetune", *said.split(), str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    return folder


def say(line: str) -> None:
    """A line on what is being done; stdout is for the JSON."""
    print(line, file=sys.stderr, flush=True)


def formats(run: Path) -> list[dict[str, Any]]:
    """The rows of the table, of all formats; that of ONNX is compared with the merged weights, which it is made of."""
    made = export.after_training(run, merge=True, quants=export.QUANTS, say=say)
    try:
        made.append(export.export(run / "merged", "onnx", out=run, data=str(run / export.held_out.FILE), say=say))
    except CourseError as error:
        say(str(error))  # its packages are not installed
    found = {row.name: row for one in made for row in one.formats if row.name != "model"}
    return [asdict(row) | {"path": Path(row.path).name} for row in found.values()]


def batching(source: Path, rows: list[dict[str, Any]], place: Path) -> list[dict[str, Any]]:
    """Prompts/s by the number of prompts side by side."""
    chats, sampling = [row["messages"] for row in rows[:PROMPTS]], chat.Sampling(max_new_tokens=24)
    model = chat.open_model(source)
    found = []
    try:
        for batch in BATCHES:
            seconds = []
            for _ in range(1 + TIMES):
                out = place / "answers.jsonl"
                out.unlink(missing_ok=True)
                started = time.perf_counter()
                chat.answer_file(model, chats, out, sampling, batch)
                seconds.append(time.perf_counter() - started)
            best = min(seconds[1:])
            found.append({"batch": batch, "prompts_per_second": round(len(chats) / best, 1), "seconds": round(best, 3)})
    finally:
        model.close()
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run = Path(shutil.copytree(options.run, place / "run")) if options.run else trained(place / "run")
        rows = export.held_out.read(run / "adapter")
        found = {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "formats": formats(run),
            "batching": {
                name: batching(run / path, rows, place)
                for name, path in (("merged", "merged"), ("q4_k_m", "gguf/model.q4_k_m.gguf"))
            },
        }
    hand_over(found, options.out)


if __name__ == "__main__":
    main()
