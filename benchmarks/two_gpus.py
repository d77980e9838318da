"""Two GPUs of one host beside one: the same curve, how much faster, and what happens when a process dies.

    python benchmarks/two_gpus.py --out DIR                 # a machine with two CUDA GPUs, no network
    python benchmarks/two_gpus.py --out DIR --cpu           # a rehearsal: the bundled model, tiny sizes, two processes

For LoRA and for full fine-tuning of a model of SmolLM2-135M's shape with random weights: one GPU with three seeds, and
two GPUs with the first of them, at the same rows of an update, through `finetune.prepare` and `finetune.train`, the
recipe of the command `finetune`. An update has 128 rows of 512 tokens: at the lessons' few rows a step of so small a
model takes as long as launching its kernels, on one GPU as on two, and there would be nothing to share.

All processes start at once, since importing takes longer than training, and wait for their turn. Runs whose time is
taken are alone on the GPUs; the other seeds, for the band, share them, and so does the command `finetune` in two
processes, of which one is killed on purpose.
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

SEEDS = (3407, 1, 2)
METHODS = ("lora", "full")
POCKET = ROOT / "unsloth_course" / "pocket" / "base"
KILLED_STEPS = 60


# --- one training, in one or two processes --------------------------------------------------------------------------


def work(folder: Path, name: str, options: dict[str, Any], timed: int) -> None:
    """One training: imports, waits for model and rows, loads them, waits for its turn, trains, notes its measures."""
    from unsloth_course import profile
    from unsloth_course.commands import finetune
    from unsloth_course.commands.finetune import processes

    options = finetune.Options(**{**options, "out": folder / name})
    process = processes.current()
    with processes.together(process):
        if process.several and options.profile == "gpu":
            processes.take_gpu(process)
        profile.detect(options.profile, options.model, options.data, lesson=options.method)
        import unsloth  # noqa: F401

        wait_for(folder / "inputs")
        prepared = finetune.prepare(options, process)
        (folder / f"{name}.{process.number}.prepared").touch()
        wait_for(folder / f"{name}.go")
        clock = clock_for(prepared.steps, timed)
        trainer = finetune.train(prepared, callbacks=[clock], test=False)
        if process.first:
            measured = {
                "name": name,
                "seed": options.seed,
                "processes": process.count,
                "micro_batch": prepared.plan.micro_batch,
                "accumulation": prepared.plan.accumulation,
                "checkpointing": prepared.plan.checkpointing,
                "samples_per_second": round(timed * prepared.plan.rows / clock.seconds, 2),
                "ms_per_update": round(1000 * clock.seconds / timed, 1),
                "peak_memory_bytes": trainer.watching.meter.peak_bytes,
                "tokens_per_row": round(sum(map(len, trainer.train_dataset["input_ids"])) / len(trainer.train_dataset)),
                "loss": [row["loss"] for row in trainer.state.log_history if "loss" in row],
            }
            made = folder / f"{name}.part"
            made.write_text(json.dumps(measured))
            made.rename(folder / f"{name}.json")


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


def clock_for(steps: int, timed: int) -> Any:
    """A callback that takes the seconds of the last `timed` updates."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        seconds = math.inf

        def on_step_end(self, args, state, control, **_):
            if state.global_step not in (steps - timed, steps):
                return
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if state.global_step == steps:
                self.seconds = time.perf_counter() - self.began
            else:
                self.began = time.perf_counter()

    return Clock()


# --- model and rows -------------------------------------------------------------------------------------------------


def make_rows(path: Path, count: int, length: int) -> None:
    """Questions of the small world, many in a row, with their answers: a little over `length` tokens, then cut there.

    Two short rows, because the held-out test asks for short answers.
    """
    from tokenizers import Tokenizer

    from unsloth_course.pocket import datasets

    tokenizer = Tokenizer.from_file(str(POCKET / "tokenizer.json"))
    pool = datasets.preferences(4000, held_out=False, seed=SEEDS[0]).to_list()
    sizes = [len(tokenizer.encode(f"{pair['question']} {pair['chosen']} ").ids) for pair in pool]
    rng = random.Random(SEEDS[0])
    rows = [{"instruction": f"Say {word}.", "input": "", "output": word} for word in ("yes", "no")]
    for number in range(count):
        # The number makes the question another one: rows with the questions of the test are left out of training.
        asked, answers, size = [f"List {number}."], [], 0
        while size < length:
            at = rng.randrange(len(pool))
            asked.append(pool[at]["question"])
            answers.append(pool[at]["chosen"])
            size += sizes[at]
        rows.append({"instruction": " ".join(asked), "input": "", "output": " ".join(answers)})
    path.write_text(json.dumps(rows))


def make_model(folder: Path) -> None:
    """A model of the true size with random weights, beside the bundled tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from unsloth_course.lesson.smollm2 import CONFIG, PARAMETERS

    torch.manual_seed(SEEDS[0])
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).to(torch.bfloat16)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(POCKET / name, folder)


# --- all of them ----------------------------------------------------------------------------------------------------


class Legs:
    """The processes of the benchmark, each with its output in a file."""

    def __init__(self, folder: Path, sizes: argparse.Namespace):
        self.folder, self.sizes = folder, sizes
        self.end = time.monotonic() + sizes.seconds
        self.running: dict[str, subprocess.Popen] = {}

    def options(self, method: str, seed: int) -> dict[str, Any]:
        model = "pocket" if self.sizes.cpu else str(self.folder / "model")
        return {
            "method": method,
            "data": str(self.folder / "rows.json"),
            "model": model,
            "profile": "cpu" if self.sizes.cpu else "gpu",
            "max_samples": self.sizes.samples,
            "steps": self.sizes.steps,
            "save_steps": 10 * self.sizes.steps,  # no checkpoint within what is timed
            "batch": self.sizes.rows,
            "seed": seed,
        }

    def start(self, name: str, arguments: list[str], gpu: int | None = None) -> None:
        """Starts a process on one GPU, or two by torchrun."""
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
        if self.sizes.cpu:
            environment["OMP_NUM_THREADS"] = "1"
        launcher = [sys.executable]
        if gpu is None:
            launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        else:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        # Each has its own working folder, since Unsloth writes what it compiles there.
        place = self.folder / f"{name}.place"
        place.mkdir()
        with (self.folder / f"{name}.log").open("w") as log:
            self.running[name] = subprocess.Popen(
                [*launcher, *arguments], cwd=place, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def start_training(self, name: str, method: str, seed: int, gpu: int | None) -> None:
        work = ["--work", str(self.folder), name, json.dumps(self.options(method, seed)), str(self.sizes.timed)]
        self.start(name, [str(Path(__file__).resolve()), *work], gpu)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, name: str, found: Any) -> None:
        """Waits until `found()`; ends the benchmark when the process is gone without that, or the time is over."""
        while not found():
            gone = self.running[name].poll()
            if (gone is not None and not found()) or time.monotonic() > self.end:
                why = f"ended with status {gone}" if gone is not None else f"not done after {self.sizes.seconds} s"
                raise SystemExit(f"{name}: {why}\n{self.said(name)[-4000:]}")
            time.sleep(0.05)

    def prepared(self, name: str, count: int = 1) -> None:
        for number in range(count):
            self.until(name, (self.folder / f"{name}.{number}.prepared").exists)

    def go(self, *names: str) -> list[dict]:
        """Has these train side by side, and returns what they measured."""
        for name in names:
            (self.folder / f"{name}.go").touch()
        for name in names:
            self.until(name, (self.folder / f"{name}.json").exists)
        for name in names:
            self.until(name, lambda name=name: self.running[name].poll() is not None)
        return [json.loads((self.folder / f"{name}.json").read_text()) for name in names]

    def stop(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def start_command(legs: Legs) -> None:
    """The command `finetune` in two processes, for one of them to be killed."""
    asked = legs.options("lora", SEEDS[0]) | {"steps": KILLED_STEPS, "out": str(legs.folder / "killed-out")}
    words = [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    legs.start("killed", ["-m", "unsloth_course", "finetune", *words])


def kill_one(legs: Legs) -> dict:
    """Kills the second process of the command in the midst of its training, and says how it ended."""
    import psutil

    legs.until("killed", lambda: f"training: step {KILLED_STEPS // 10} of" in legs.said("killed"))
    launcher = legs.running["killed"]
    children = psutil.Process(launcher.pid).children()
    time.sleep(random.random())
    next(child for child in children if child.environ().get("RANK") == "1").kill()
    began = time.monotonic()
    legs.until("killed", lambda: launcher.poll() is not None)
    seconds = round(time.monotonic() - began, 1)
    said = legs.said("killed")
    sentences = [line for line in said.splitlines() if line.startswith("Process ")]
    left = [child.pid for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    return {
        "seconds": seconds,
        "status": launcher.returncode,
        "sentences": sentences,
        "left_running": left,
        "printed": said[said.index("training: step 0") :][-6000:],
    }


def distance(one: list[float], other: list[float]) -> float:
    """The root of the mean squared difference of two curves."""
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(one))


def compare(one: dict, two: dict, others: list[dict]) -> dict:
    """Two processes beside one: pace, and whether the curve lies within the band of the seeds.

    It does when it is nearer to the one-GPU curve of its own seed than any two seeds are to each other. Beside that,
    the share of its points that lie between the lowest and the highest seed, give or take a hundredth of the value.
    """
    curves = [leg["loss"] for leg in (one, *others)]
    between = [distance(a, b) for n, a in enumerate(curves) for b in curves[n + 1 :]]
    own = distance(two["loss"], one["loss"])
    points = list(zip(two["loss"], *curves, strict=True))
    within = sum(0.99 * min(seeds) <= point <= 1.01 * max(seeds) for point, *seeds in points)
    return {
        "ratio": round(two["samples_per_second"] / one["samples_per_second"], 3),
        "distance_to_own_seed": own,
        "distance_between_seeds": between,
        "largest_difference": max(abs(a - b) for a, b in zip(two["loss"], one["loss"], strict=True)),
        "points_between_the_seeds": within / len(points),
        "inside": own < min(between),
        "one": one,
        "two": two,
        "other_seeds": others,
    }


def device(cpu: bool) -> str:
    if cpu:
        return f"{os.cpu_count()} CPU cores"
    names = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    found = [name.strip() for name in names.stdout.splitlines() if name.strip()]
    if len(found) < 2:
        raise SystemExit(f"This needs two GPUs, and nvidia-smi lists {len(found)}. --cpu rehearses it without any.")
    return f"2 x {found[0]}"


def main() -> int:
    if sys.argv[1:2] == ["--work"]:
        folder, name, options, timed = sys.argv[2:]
        work(Path(folder), name, json.loads(options), int(timed))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for two_gpus.json; works in a folder inside")
    parser.add_argument("--cpu", action="store_true", help="rehearse with the bundled model on two CPU processes")
    parser.add_argument("--rows", type=int, help="of an update (128)")
    parser.add_argument("--steps", type=int, help="updates of a run (30)")
    parser.add_argument("--seconds", type=int, default=250, help="after which all is given up")
    sizes = parser.parse_args()
    sizes.rows = sizes.rows or (8 if sizes.cpu else 128)
    sizes.steps = sizes.steps or (6 if sizes.cpu else 30)
    sizes.timed = 2 * sizes.steps // 3
    sizes.samples = 10 * sizes.rows
    began = time.monotonic()
    machine = device(sizes.cpu)
    folder = sizes.out.resolve() / "two_gpus"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "rows.json").write_text("[]")  # what is on this machine is not looked for on the Hub
    legs = Legs(folder, sizes)
    result: dict[str, Any] = {
        "device": machine,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": "pocket" if sizes.cpu else "SmolLM2-135M's shape, random weights",
        "rows": sizes.rows,
        "steps": sizes.steps,
        "timed_steps": sizes.timed,
        "methods": {},
    }

    def note(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)
        result["wall_seconds"] = round(time.monotonic() - began, 1)
        (sizes.out / "two_gpus.json").write_text(json.dumps(result, indent=2) + "\n")

    try:
        for method in METHODS:
            for number, seed in enumerate(SEEDS):
                legs.start_training(f"{method}-{seed}", method, seed, gpu=number % 2)
            legs.start_training(f"{method}-two", method, SEEDS[0], gpu=None)
        if not sizes.cpu:
            make_model(folder / "model")
        make_rows(folder / "rows.json", sizes.samples, length=128 if sizes.cpu else 512)
        (folder / "inputs").touch()
        note("model and rows made")
        from unsloth_course import results

        result["versions"] = results.versions()
        # Nothing else may be loading while a run is timed.
        for name in legs.running:
            legs.prepared(name, 2 if name.endswith("two") else 1)
        note("all processes ready")
        timed = {}
        for method in METHODS:
            for name in (f"{method}-{SEEDS[0]}", f"{method}-two"):
                (timed[name],) = legs.go(name)
                note(f"{name}: {timed[name]['samples_per_second']} samples/s")
        start_command(legs)
        # On a GPU of its own for each other seed; both methods at once.
        others = legs.go(*(f"{method}-{seed}" for method in METHODS for seed in SEEDS[1:]))
        for method in METHODS:
            same = [leg for leg in others if leg["name"].startswith(method)]
            found = compare(timed[f"{method}-{SEEDS[0]}"], timed[f"{method}-two"], same)
            result["methods"][method] = found
            note(
                f"{method}: {found['ratio']} times the samples/s, {'inside' if found['inside'] else 'OUTSIDE'} the band"
            )
        result["killed"] = kill_one(legs)
        note(f"one process killed: ended after {result['killed']['seconds']} s")
    finally:
        legs.stop()
        note("end")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
