"""Records the five lessons in the gpu profile, on the real SmolLM2-135M-Instruct and on real rows, without network.

    python benchmarks/real_lessons.py --rows DIR --out DIR [--lessons lora,dpo] [--seeds 1,2,3407] [--memory 15]

On a machine with CUDA GPUs. The small Hub of the tests serves the model and the rows under the names that the lessons
ask for. --rows is a folder with the public samples that `SAMPLES` names; the Python functions are those of the standard
library. Each run is a process of its own, `--jobs` of them side by side, spread over `--gpus` GPUs. A line is printed
for each that ends; --out holds its folder and its log, and a run whose results lie there is not repeated. After each,
all results and the ends of all logs are packed into one archive, which `record.py` takes.

`--memory 15` is as near to a T4 as another card comes: it caps the GPU, in GiB, and hides bfloat16. `--with-pocket`
runs the bundled model too. `--factor 0` multiplies the learning rate: such a run must not be called trained, and is not
recorded.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks"), str(ROOT / "upkeep")]

from unsloth_course.lesson.profile import HUB_DATA, HUB_MODEL, POCKET, SMOLLM2  # noqa: E402 -- found only now

SAMPLES = {
    "alpaca": ("alpaca_en_demo.json", "rasbt_instruction-data.json"),
    "rewrites": ("rasbt_instruction-data-with-preference.json",),
    "conversations": ("dpo_en_demo.json",),
}
ROWS = {  # what is served under the name of the Hub's set, by its true name
    "lora": "LLaMA-Factory's alpaca_en_demo and instruction-data of LLMs-from-scratch",
    "dpo": "instruction-data-with-preference of LLMs-from-scratch and LLaMA-Factory's dpo_en_demo",
    "cpt": "functions with a docstring of Python's standard library",
}
ROWS["full"] = ROWS["lora"]
FUNCTIONS = 8000
TAIL = 20_000  # characters of a log that are brought home
T4 = """
import sys
import torch
total = torch.cuda.get_device_properties(0).total_memory
torch.cuda.set_per_process_memory_fraction({gib} * 1024**3 / total)
torch.cuda.is_bf16_supported = lambda *_, **__: False
real = torch.cuda.get_device_capability
def capability(*which):
    caller = sys._getframe(1).f_globals["__name__"].split(".")[0]
    return real(*which) if caller in ("torch", "triton") else (7, 5)  # these two compile for the card that is there
# Or Unsloth puts its own memory of the answer in between, is the caller for all then, and no kernel compiles.
capability._unsloth_per_device_cache = True
torch.cuda.get_device_capability = capability
"""


# The rows


def functions() -> Iterator[dict[str, str]]:
    """Functions of Python's standard library that have a docstring, in the columns of CodeXGLUE."""
    from unsloth_course.pocket.english import library

    for path in sorted(library.modules(held_out=False) + library.modules(held_out=True)):
        for name, code, docstring in library.functions(path):
            yield {"func_name": name, "code": code, "original_string": code, "docstring": docstring}


def samples(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of the public samples of this name."""
    return [row for file in SAMPLES[name] for row in json.loads((folder / file).read_text(encoding="utf-8"))]


def conversations(folder: Path) -> list[dict[str, Any]]:
    """The pairs that are conversations, as TRL's preference type has them."""
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    return [
        {
            "prompt": [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]],
            "chosen": row["chosen"]["value"],
            "rejected": row["rejected"]["value"],
        }
        for row in samples(folder, "conversations")
    ]


def sets(rows: Path, out: Path) -> dict[str, Path]:
    """The rows in the files that the lessons fetch, a folder for each Hub name. A pair has a prompt of turns."""
    import pyarrow
    import pyarrow.parquet

    asked = [{key: row.get(key, "") for key in ("instruction", "input", "output")} for row in samples(rows, "alpaca")]
    pairs = [
        {"prompt": [{"role": "user", "content": "\n\n".join(filter(None, (row["instruction"], row["input"])))}]}
        | {side: row[side] for side in ("chosen", "rejected")}
        for row in samples(rows, "rewrites")
    ]
    pairs += conversations(rows)
    code = [row for row, _ in zip(functions(), range(FUNCTIONS), strict=False)]
    found = {HUB_DATA[lesson]: out / lesson for lesson in ("lora", "dpo", "cpt")}
    answers, preferences, python = found.values()
    for folder in (answers, preferences, python / "python"):
        folder.mkdir(parents=True, exist_ok=True)
    (answers / "alpaca_data_cleaned.json").write_text(json.dumps(asked))
    (preferences / "orca_rlhf.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    table = pyarrow.Table.from_pylist(code)
    pyarrow.parquet.write_table(table, python / "python" / "validation-00000-of-00001.parquet")
    print(f"{len(asked):,} questions, {len(pairs):,} pairs, {len(code):,} functions", flush=True)
    return found


def served(model: Path, out: Path, rounded: str) -> Path:
    """The folder of the model as it is served: its config says what the weights were rounded to."""
    out.mkdir(parents=True, exist_ok=True)
    for path in model.iterdir():
        (out / path.name).unlink(missing_ok=True)
        if path.name == "config.json":
            config = json.loads(path.read_text(encoding="utf-8"))
            (out / path.name).write_text(json.dumps({"rounded": rounded} | config, indent=2) + "\n")
        else:
            (out / path.name).symlink_to(path.resolve())
    return out


def copies(folder: Path, brief: bool, factor: float) -> Path:
    """Copies of the lessons, with the knobs that nbmake sets in CI where brief, and another learning rate."""
    import nbformat
    from off_course import RATE
    from shortened import shorten

    from unsloth_course.core import lessons

    folder.mkdir(exist_ok=True)
    for path in lessons.NOTEBOOKS.glob("colab*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.source = RATE.sub(rf"LEARNING_RATE = (\1) * {factor!r}", cell.source)
        nbformat.write(shorten(notebook) if brief else notebook, folder / path.name)
    return folder


# The runs


@dataclass
class Job:
    """One run of a lesson; `kind` is that of its file in `recorded/`, or "off" where it is not to be recorded."""

    lesson: str
    seed: int
    kind: str
    out: Path
    started: float = 0.0
    seconds: float = 0.0
    process: subprocess.Popen | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """That of its folder and its log."""
        kinds = {"gpu-smollm2": "", "t4-smollm2": "-t4", "gpu": "-pocket"}
        return f"{self.lesson}-{self.seed}{kinds.get(self.kind, '-off')}"

    @property
    def folder(self) -> Path:
        return self.out / self.name

    @property
    def log(self) -> Path:
        return self.out / f"{self.name}.log"

    @property
    def results(self) -> Path:
        return self.folder / f"{self.lesson}.json"

    @property
    def apart(self) -> Path:
        """What the DPO lesson's adapter says of each group of pairs."""
        return self.folder / "apart.json"

    @property
    def asks_apart(self) -> bool:
        """Whether that is still to be asked."""
        asked = self.apart.exists() or (self.process is not None and "--apart" in self.process.args)
        return self.lesson == "dpo" and self.kind != "gpu" and self.results.exists() and not asked

    def start(self, command: list[str], environment: dict[str, str]) -> None:
        """Starts a command of it, whose words are added to its log."""
        environment |= {"UNSLOTH_COMPILE_LOCATION": str(self.folder / "compiled")}
        self.folder.mkdir(exist_ok=True)
        with self.log.open("a") as log:
            command = [sys.executable, *command]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def record(self) -> dict[str, Any]:
        """Its results with the true name of its rows; empty where it has none."""
        if not self.results.exists():
            return {}
        found = json.loads(self.results.read_text(encoding="utf-8"))
        if self.kind != "gpu":
            found["fingerprint"]["rows"]["name"] = ROWS.get(self.lesson, found["data"])
        if self.kind.startswith("t4"):
            found["stands_for"] = "a T4: float16, and as much memory as one has"
        if self.apart.exists():
            found["apart"] = json.loads(self.apart.read_text(encoding="utf-8"))
        return found


def said(job: Job) -> str:
    """One line on a finished run."""
    from record import measures

    from unsloth_course.lesson.recordings import Measured

    found = job.record()
    if not found:
        return f"{job.name}: no results after {job.seconds:.0f} s: {tail(job.log, 700)}"
    training, receipt = found["training"], found["receipt"]
    peak, predicted = (training[f"{name}_memory_bytes"] or 0 for name in ("peak", "predicted"))
    parts = [f"{one['name']} {Measured(one['name'], [one])}" for one in measures(found["evaluation"])]
    for name, group in found.get("apart", {}).items():
        low, high = group["interval"]
        share = f"{100 * group['preference_accuracy']:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
        parts.append(f"{name}: preference accuracy {share}, n = {group['n']}")
    if job.process and job.process.returncode and "--apart" in job.process.args:
        parts.append(f"asked apart: status {job.process.returncode}: {tail(job.log, 300)}")
    parts += [
        f"kept {found['evaluation'].get('retention')}",
        f"peak {peak / 2**30:.2f} GiB (predicted {predicted / 2**30:.2f})",
        f"{training['steps']} steps in {training['seconds']:.0f} s, cells {found['wall_seconds']:.0f} s, "
        f"{job.seconds:.0f} s in all",
        *(f"{one['level']} {one['name']}: {one['text']}" for one in receipt["findings"]),
    ]
    return f"{job.name}: {receipt['verdict']}; " + "; ".join(parts)


def tail(path: Path, characters: int = TAIL) -> str:
    """The end of a log; empty where there is none."""
    return path.read_text(encoding="utf-8", errors="replace")[-characters:] if path.exists() else ""


def pack(jobs: list[Job], path: Path) -> None:
    """All results and the ends of all logs, in one archive that appears whole."""
    made = {f"{job.name}.log": tail(job.log) for job in jobs}
    for job in jobs:
        if found := job.record():
            made[f"{job.lesson}-{job.kind}-seed{job.seed}.json"] = json.dumps(found, indent=2) + "\n"
            if (base := job.folder / "base.json").exists():
                made[f"base-{job.kind}.json"] = base.read_text(encoding="utf-8")
    beside = path.with_name(path.name + ".part")
    with tarfile.open(beside, "w:gz") as archive:
        for name, text in made.items():
            info = tarfile.TarInfo(name)
            info.size = len(content := text.encode())
            archive.addfile(info, io.BytesIO(content))
    beside.replace(path)


def run(jobs: list[Job], environment: dict[str, str], options: argparse.Namespace) -> int:
    """Runs the jobs, so many side by side; returns how many did not train."""
    if options.memory:
        site = options.out / "t4"
        site.mkdir(exist_ok=True)
        # Python runs it at its start, in the kernel too; usercustomize would not be run in a virtual environment.
        (site / "sitecustomize.py").write_text(T4.format(gib=options.memory))
        environment |= {"PYTHONPATH": f"{site}{os.pathsep}{environment.get('PYTHONPATH', '')}"}
    program = ["-m", "unsloth_course"]
    if options.brief or options.factor != 1:
        from shortened import COMMAND

        program = ["-c", COMMAND, str(copies(options.out / "notebooks", options.brief, options.factor))]
    waiting, running, failed = list(jobs), [], 0
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                used = [other.environment["CUDA_VISIBLE_DEVICES"] for other in running]
                running.append(job := waiting.pop(0))
                free = min(map(str, range(options.gpus)), key=used.count)
                job.environment, job.started = environment | {"CUDA_VISIBLE_DEVICES": free}, time.monotonic()
                if not job.results.exists():
                    job.log.unlink(missing_ok=True)
                    words = ["--model", POCKET] if job.kind == "gpu" else []
                    words = ["--model", HUB_MODEL] if options.profile == "cpu" else words
                    words += ["--profile", options.profile, "--seed", str(job.seed), "--out", str(job.folder)]
                    job.start([*program, "run", job.lesson, *words], job.environment)
            for job in [job for job in running if job.process is None or job.process.poll() is not None]:
                if job.asks_apart:
                    words = ["--apart", str(job.folder), "--rows", str(options.rows), "--out", str(options.out)]
                    job.start([__file__, *words, "--profile", options.profile], job.environment)
                    continue
                job.seconds = time.monotonic() - job.started
                running.remove(job)
                if job.process and job.results.exists():
                    found = json.loads(job.results.read_text(encoding="utf-8"))
                    beside = -(-min(options.jobs, len(jobs)) // options.gpus)
                    job.results.write_text(json.dumps({"beside": beside} | found, indent=2) + "\n")
                trained = job.record().get("receipt", {}).get("verdict") == "trained"
                failed += not trained or bool(job.process and job.process.returncode)
                print(said(job), flush=True)
                pack(jobs, options.records)
            time.sleep(0.5)
    finally:
        for job in running:
            if job.process:
                job.process.terminate()
        pack(jobs, options.records)
    return failed


def preferred(folder: Path, rows: Path, profile_name: str) -> dict[str, Any]:
    """What the adapter of a DPO run says of held-out pairs, conversations and rewrites apart, against the base."""
    from unsloth_course import data, evaluation, models, profile
    from unsloth_course.lesson.evaluation.intervals import wilson

    machine = profile.detect(profile_name, HUB_MODEL, lesson="dpo")
    how = {"max_length": machine.max_length, "dtype": machine.torch_dtype}
    model, tokenizer = models.load_adapter(folder / "dpo-adapter", **how)
    _, held_out, _ = data.sources.preferences(machine.data, train=1, held_out=data.dividing.RESERVED, seed=1)
    spoken = {row["prompt"][-1]["content"].strip() for row in conversations(rows)}
    groups = {"conversations": [], "rewrites": []}
    for row in held_out:
        last = row["prompt"][-1]["content"].strip()
        groups["conversations" if last in spoken else "rewrites"].append(row)
    found = {}
    for name, group in groups.items():
        pairs = data.preference.load(group, name=name).dataset
        now = evaluation.pair_likelihood(model, tokenizer, pairs, machine.max_length)
        with model.disable_adapter():
            base = evaluation.pair_likelihood(model, tokenizer, pairs, machine.max_length)
        gains = now.gains(base)
        right = sum(gain > 0 for gain in gains)
        interval = wilson(right, len(gains))
        found[name] = {"n": len(gains), "preference_accuracy": right / len(gains), "interval": interval}
    return found


def main() -> int:
    """Runs what is asked for; the exit status is 0 when all of it trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="folder with the public samples")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and logs")
    parser.add_argument("--model", type=Path, help="folder of the model; without it that of the package index")
    parser.add_argument("--rounded", default="Q4_1", help='what its weights were rounded to; "" for the release')
    parser.add_argument("--lessons", default="lora,full,cpt,dpo,grpo")
    parser.add_argument("--seeds", default="1,2,3407")
    parser.add_argument("--memory", type=float, help="cap of the GPU in GiB; hides bfloat16")
    parser.add_argument("--jobs", type=int, default=5, help="runs side by side")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs to spread them over")
    parser.add_argument("--with-pocket", action="store_true", help="the bundled model's lessons, too")
    parser.add_argument("--records", type=Path, help="the archive (default: records.tar.gz in --out)")
    parser.add_argument("--factor", type=float, default=1, help="of the learning rate")
    parser.add_argument("--brief", action="store_true", help="with the shortened knobs of CI; not recorded")
    parser.add_argument("--profile", default="gpu", help=argparse.SUPPRESS)
    parser.add_argument("--apart", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out, options.rows = options.out.resolve(), options.rows.resolve()
    options.records = options.records or options.out / "records.tar.gz"
    if options.apart:
        (options.apart / "apart.json").write_text(json.dumps(preferred(options.apart, options.rows, options.profile)))
        return 0
    from hub_server import HubServer

    from unsloth_course import models

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # what is running is ended, too
    options.out.mkdir(parents=True, exist_ok=True)
    model = served(options.model or Path(models.folder(SMOLLM2)), options.out / "model", options.rounded)
    kinds = ["t4-smollm2" if options.memory else "gpu-smollm2"]
    if options.brief or options.factor != 1:
        kinds = ["off"]
    elif options.with_pocket and not options.memory:
        kinds.append("gpu")
    seeds, lessons = map(int, options.seeds.split(",")), options.lessons.split(",")
    jobs = [Job(lesson, seed, kind, options.out) for seed in seeds for kind in kinds for lesson in lessons]
    with HubServer() as server:
        server.add_model(HUB_MODEL, model)
        for name, folder in sets(options.rows, options.out / "sets").items():
            server.add_dataset(name, folder)
        environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
        return int(run(jobs, environment | server.environment(options.out / "cache"), options) > 0)


if __name__ == "__main__":
    sys.exit(main())
