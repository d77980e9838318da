"""The GPU benchmark: the copied setting, plain TRL + PEFT and the course's plan, side by side on one machine.

    python benchmarks/speed.py --out DIR [--model FOLDER] [--only METHODS] [--rounds sft,memory]

On a machine with a CUDA GPU. `--model` is a folder with SmolLM2-135M-Instruct; without it that of the Python package
index is taken. Every leg is a process of its own (`leg.py`). In a round all legs get ready, each compiling what it
needs, and then train one after the other while the others wait, so that what is measured is never disturbed. A second
round measures peak memory, all at once. `page.py` makes tables and a picture of `DIR/speed.json`; as
`recorded/gpu-speed.json` it is the record.
"""

import argparse
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

from leg import Leg  # noqa: E402

UPDATES = {"lora": 40, "full": 40, "dpo": 24, "cpt": 40}
READY_SECONDS = 240
# Llamas beside the true size: the pocket model, and the shape of SmolLM2-360M.
SIZES = {
    "3.4M": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 1024,
    },
    "362M": {
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
    },
}


def compared() -> list[Leg]:
    """The legs that are timed. The copied setting goes first: the loss that it ends with is the others' target."""
    legs = []
    for method, updates in UPDATES.items():
        legs.append(Leg("seeds", method, "seeds", updates=updates, warm=3, evaluate_every=updates // 4))
        legs.append(Leg("plan", method, "plan", updates=updates, evaluate_every=2))
        legs.append(Leg("plan, free", method, "free", updates=updates, evaluate_every=1))
        sizes = (8, 12) if method == "dpo" else (8, 24)  # the larger one needs most of 12 GiB
        legs += [Leg(f"plain {n}", method, "plain", micro=n, updates=12) for n in sizes]
        legs.append(Leg("Unsloth 8 x 1", method, updates=14))
    legs.append(Leg("8 x 1", "grpo", updates=6, warm=2))
    legs.append(Leg("plan 32", "grpo", "plan", rows=32, updates=4, warm=2))
    legs.append(Leg("plan, free", "grpo", "free", updates=48, warm=2))
    return legs


def scaled() -> list[Leg]:
    """How the cost of an update grows: with rows, with length, with the size of the model. LoRA, planned."""
    legs = [Leg(f"{rows} rows", "lora", "plan", rows=rows, updates=24) for rows in (32, 64)]
    legs += [
        Leg(f"{length} tokens", "lora", "plan", length=length, same_length=True, updates=24)
        for length in (512, 1024, 2048)
    ]
    return legs + [Leg(f"{size} parameters", "lora", "plan", updates=24, model=size) for size in SIZES]


def weighed() -> list[Leg]:
    """The fifteen points of predicted and measured peak memory: five methods, three lengths, 8 rows.

    GRPO holds most in its first update, where Unsloth computes the answers in two ways and compares them.
    """
    return [
        Leg(
            f"{length} tokens",
            method,
            "plan",
            length=length,
            same_length=True,
            updates=2 if method == "grpo" else 3,
            warm=0 if method == "grpo" else 2,
        )
        for method in ("grpo", "dpo", "full", "lora", "cpt")
        for length in (2048, 1024, 512)
    ]


def make_models(folder: Path, tokenizer: Path) -> dict[str, str]:
    """Llamas of the other sizes, with random weights: what they cost does not depend on what they know."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from unsloth_course.lesson.smollm2 import CONFIG

    for name, sizes in SIZES.items():
        config = LlamaConfig(**(CONFIG | {"head_dim": None} | sizes))
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder / name)
    return {name: str(folder / name) for name in SIZES}


class Running:
    """A started leg: its process, and what it has printed."""

    def __init__(self, leg: Leg, folder: Path):
        folder.mkdir(parents=True)
        self.leg, self.errors, self.printed = leg, folder / "errors.txt", []
        caches = {
            "UNSLOTH_COMPILE_LOCATION": "unsloth",
            "TORCHINDUCTOR_CACHE_DIR": "inductor",
            "TRITON_CACHE_DIR": "triton",
        }
        environment = os.environ | {name: str(folder / value) for name, value in caches.items()}
        environment |= {
            "TORCHINDUCTOR_COMPILE_THREADS": "2",
            "OMP_NUM_THREADS": "2",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        command = [sys.executable, str(ROOT / "benchmarks" / "leg.py"), json.dumps(dataclasses.asdict(leg))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors.open("w"), "text": True}
        self.process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
        self.ready = False
        self.waiting = threading.Thread(target=self._until_ready, daemon=True)
        self.waiting.start()

    def _until_ready(self) -> None:
        self.ready = self._next("READY") is not None

    def _next(self, word: str) -> str | None:
        for line in self.process.stdout:
            if line.startswith(word):
                return line[len(word) :].strip()
            self.printed.append(line.strip())
        return None

    def train(self, target: float | None) -> dict[str, Any]:
        """Lets it train and returns what it measured; of a leg that failed, what it said last."""
        name = {"name": self.leg.name, "method": self.leg.method, "way": self.leg.way}
        if self.ready:
            self.process.stdin.write(json.dumps(target) + "\n")
            self.process.stdin.flush()
            if found := self._next("RESULT "):
                self.process.kill()
                return json.loads(found)
        self.process.kill()
        return name | {"failed": self.errors.read_text()[-600:]}


def measure(legs: list[Leg], work: Path, *, alone: bool) -> list[dict[str, Any]]:
    """Runs a round of legs, each alone or all at once, and returns what they measured."""
    began = time.monotonic()
    running = [Running(leg, work / f"{number:02}-{leg.method}") for number, leg in enumerate(legs)]
    for one in running:
        one.waiting.join(max(0.1, READY_SECONDS - (time.monotonic() - began)))
    print(
        f"{sum(one.ready for one in running)} of {len(legs)} legs ready after {time.monotonic() - began:.0f} s",
        flush=True,
    )
    found: list[dict[str, Any]] = [{} for _ in running]
    targets: dict[str, float] = {}

    def go(number: int) -> None:
        one = running[number]
        leg = one.leg
        found[number] = result = one.train(targets.get(leg.method) if leg.evaluate_every else None)
        if leg.way == "seeds" and result.get("curve"):
            targets[leg.method] = result["curve"][-1][2]
        print(said(result), flush=True)
        with (work.parent / "legs.jsonl").open("a") as kept:  # what is there if the machine is taken away
            kept.write(json.dumps(result) + "\n")

    if alone:
        for number in range(len(running)):
            go(number)
    else:
        threads = [threading.Thread(target=go, args=(number,)) for number in range(len(running))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return found


def said(result: dict[str, Any]) -> str:
    """One line on a finished leg."""
    name = f"{result['method']} {result['name']}"
    if "failed" in result:
        return f"{name}: failed: {result['failed'][-300:]}"
    gib = 2**30
    line = (
        f"{name:28} {result['micro']} x {result['accumulation']}  {result['ms_per_update']:8.1f} ms  "
        f"{result['peak_bytes'] / gib:6.2f} GiB (predicted {result['predicted_bytes'] / gib:.2f})  "
        f"{result['updates_done']} updates in {result['seconds']:.2f} s, ready in {result['warm_seconds']:.0f} s"
    )
    if result["curve"]:
        line += f"  held-out loss {result['loss_before']:.4f} -> {result['curve'][-1][2]:.4f}"
    return line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="model to train, of the true size")
    parser.add_argument(
        "--rounds",
        default="sft,others,scaled,memory",
        help="which rounds to run; what is recorded of the others is kept",
    )
    parser.add_argument("--only", default="", help="methods to measure, separated by commas")
    options = parser.parse_args()
    import torch

    from unsloth_course import models
    from unsloth_course.lesson import smollm2
    from unsloth_course.lesson.profile import SMOLLM2
    from unsloth_course.lesson.results import versions

    work = options.out / "speed"
    options.out.mkdir(parents=True, exist_ok=True)
    model = options.model or models.folder(SMOLLM2)
    named = make_models(work, model) | {"": str(model)}
    only = set(filter(None, options.only.split(",")))

    def chosen(legs: list[Leg]) -> list[Leg]:
        return [dataclasses.replace(leg, model=named[leg.model]) for leg in legs if not only or leg.method in only]

    path = options.out / "speed.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    record |= {
        "device": torch.cuda.get_device_name(),
        "date": datetime.date.today().isoformat(),
        "versions": versions() | {"python": sys.version.split()[0]},
        "model": options.model.name if options.model else smollm2.WHAT,
    }
    # Legs that wait hold memory too: each round is small enough for one GPU of 140 GiB.
    rounds = {
        "sft": ("compared", [leg for leg in compared() if leg.method in ("lora", "full")]),
        "others": ("compared", [leg for leg in compared() if leg.method not in ("lora", "full")]),
        "scaled": ("scaled", scaled()),
        "memory": ("memory", weighed()),
    }
    for name, (part, legs) in rounds.items():
        if name not in options.rounds.split(","):
            continue
        found = measure(chosen(legs), work / name, alone=name != "memory")
        again = {(leg["method"], leg["name"]) for leg in found}
        kept = [leg for leg in record.get(part, []) if (leg["method"], leg["name"]) not in again]
        record[part] = kept + found
        path.write_text(json.dumps(record, indent=1) + "\n")
    found = [leg for name in ("compared", "scaled", "memory") for leg in record.get(name, [])]
    failed = sum("failed" in leg for leg in found)
    print(f"{len(found) - failed} legs measured, {failed} failed; {path}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
