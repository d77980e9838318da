"""Runs that are killed at random moments, resumed, and compared with a run left alone: are the weights the same?

    python benchmarks/killed.py                                 # LoRA, 20 runs, each killed at least once
    python benchmarks/killed.py --method full dpo grpo cpt --runs 5
    python benchmarks/killed.py --stop                          # Ctrl-C at the random moment, in place of SIGKILL

Each run trains the bundled model in a process of its own, saves every few steps, and gets SIGKILL at a moment drawn
with the seed: half of them while a checkpoint is being written, half at any time. Then it is resumed, and with luck
killed again. One line for each run; exit status 1 unless all end at the weights of the run left alone, bit for bit, and
no kill costs more than the steps between two checkpoints. Linux and macOS, CPU.

Importing takes longer than such a training, so one process imports, with a single thread and nothing computed, and
each run is a fork of it.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

METHODS = ("lora", "full", "dpo", "grpo", "cpt")
SEED = 3407
GENERATION = 4  # updates of GRPO on the completions of one generation
# Set before anything is imported. OpenBLAS starts threads at import, and a process with threads cannot be forked.
ALONE = {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "2"}


# --- one training ---------------------------------------------------------------------------------------------------


def trainer_for(method: str, out: Path, steps: int, every: int) -> Any:
    """The trainer of a lesson, with few and short rows. They are fewer than the steps need, so that epochs change."""
    from unsloth_course import data, models, profile
    from unsloth_course.core import checkpoints
    from unsloth_course.pocket import datasets as pocket

    machine = profile.detect("cpu", "pocket", "pocket", lesson=method)
    from unsloth import FastLanguageModel, UnslothTrainer, UnslothTrainingArguments  # isort: skip
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=models.folder("pocket"),
        max_seq_length=machine.max_length,
        dtype=machine.torch_dtype,
        load_in_4bit=False,
        full_finetuning=method == "full",
    )
    cpt = {"use_rslora": True, "ensure_weight_tying": True} if method == "cpt" else {}
    if method != "full":
        model = FastLanguageModel.get_peft_model(
            model,
            r=8,
            lora_alpha=8,
            target_modules=[*models.PROJECTIONS, *(("embed_tokens", "lm_head") if cpt else ())],
            use_gradient_checkpointing=False,
            random_state=SEED,
            **cpt,
        )
    settings = {
        **machine.arguments,
        "max_steps": steps,
        "learning_rate": 1e-3,
        "warmup_steps": 3,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
        "seed": SEED,
        "output_dir": str(out / "checkpoints"),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        **checkpoints.settings(every),
    }
    rows = 5 * steps

    def chat(made: Any, change: Any) -> Any:
        return made.map(change, batched=True, remove_columns=made.column_names)

    if method == "dpo":
        pairs = chat(data.preference.load(pocket.preferences(rows, False, SEED)).dataset, data.preference.to_chat)
        args = DPOConfig(max_length=machine.max_length, beta=0.1, precompute_ref_log_probs=True, **settings)
        return DPOTrainer(model=model, ref_model=None, processing_class=tokenizer, train_dataset=pairs, args=args)
    if method == "grpo":
        return GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=lambda completions, **_: [float(len(set(str(text)))) for text in completions],
            train_dataset=chat(pocket.problems(rows // 10, False, SEED), data.problems.to_grpo),
            # Twice 2 updates on the completions of one generation: most checkpoints would fall in the midst of them.
            args=GRPOConfig(
                num_generations=4, max_completion_length=8, steps_per_generation=4, num_iterations=2, **settings
            ),
        )
    if method == "cpt":
        texts = pocket.functions(rows, False, SEED)["original_string"]
        args = UnslothTrainingArguments(embedding_learning_rate=1e-4, max_length=64, **settings)
        blocks = data.corpus.blocks(texts, tokenizer, 64).dataset.select(range(rows))
        return UnslothTrainer(model=model, processing_class=tokenizer, train_dataset=blocks, args=args)
    learn = chat(pocket.instructions(rows, False, SEED), data.instruction.to_prompt_completion)
    args = SFTConfig(max_length=machine.max_length, **settings)
    return SFTTrainer(model=model, processing_class=tokenizer, train_dataset=learn, args=args)


def work(method: str, out: Path, steps: int, every: int) -> None:
    """One run, resumed if it was begun before. Leaves the trained weights, and notes each step as it ends."""
    import torch
    from safetensors.torch import save_file
    from transformers import TrainerCallback

    from unsloth_course.commands.finetune import stopping
    from unsloth_course.core import whole

    class Clock(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            note(out / "begun", state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            note(out / "step", state.global_step)

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with stopping.locked(out):
        resume = whole.last_good(out / "checkpoints")
        trainer = trainer_for(method, out, steps, every)
        trainer.add_callback(Clock())
        try:
            stopping.train(trainer, resume)
        except stopping.Stopped as stopped:
            print(stopped, flush=True)
            os._exit(130)
        weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
        save_file(weights, out / "weights.part")
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        (out / "losses.json").write_text(json.dumps(losses))
        os.replace(out / "weights.part", out / "weights.safetensors")


def note(path: Path, number: int) -> None:
    part = path.with_suffix(".part")
    part.write_text(str(number))
    os.replace(part, path)


def noted(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except OSError:
        return None


# --- killing it -----------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What happened to one run: the steps at which it was killed and resumed, and whether it was saving."""

    number: int
    kills: list[dict[str, Any]] = field(default_factory=list)
    same: bool = False
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """Steps that had to be trained again, at most, after one of the kills."""
        return max((kill["step"] - kill["resumed"] for kill in self.kills), default=0)

    def __str__(self) -> str:
        told = ", ".join(
            f"step {kill['step']}{' (saving)' if kill['saving'] else ''} -> resumed at {kill['resumed']}"
            for kill in self.kills
        )
        end = "same weights" if self.same else "OTHER WEIGHTS"
        return f"run {self.number:>2}: killed at {told}; {end}, {self.seconds:.1f} s"


def started(task: tuple[str, Path, int, int]) -> int:
    """Forks a run and returns its process id. What it prints goes to log.txt in its folder."""
    out = task[1]
    out.mkdir(parents=True, exist_ok=True)
    (out / "begun").unlink(missing_ok=True)
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        with (out / "log.txt").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            work(*task)
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def ended(pid: int) -> int | None:
    """The exit status of a process (negative: the signal), None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def half_written(out: Path) -> bool:
    folders = (out / "checkpoints").glob("checkpoint-*")
    return any(not (folder / "manifest.json").exists() for folder in folders)


def interrupt(pid: int, out: Path, rng: random.Random, seconds: float, number: int) -> dict[str, Any] | None:
    """Waits for a random moment of a run's training and sends the signal; None when the run came to its end before.

    seconds: how long the training of the run left alone took.
    """
    saving = rng.random() < 0.5
    begun(pid, out)
    due = time.monotonic() + rng.uniform(0, seconds)
    while time.monotonic() < due or (saving and not half_written(out)):
        if (status := ended(pid)) is not None:
            return failed(out) if status else None
        time.sleep(0.0005)
    if saving:
        time.sleep(rng.uniform(0, 0.03))
    os.kill(pid, number)
    os.waitpid(pid, 0)
    if (out / "weights.safetensors").exists():
        return None
    return {"step": noted(out / "step") or 0, "saving": half_written(out)}


def begun(pid: int, out: Path) -> int:
    """Waits until a run trains, and returns the step that it begins at."""
    while (step := noted(out / "begun")) is None:
        if ended(pid) is not None:
            failed(out)
        time.sleep(0.001)
    return step


def finished(pid: int, out: Path) -> None:
    _, status = os.waitpid(pid, 0)
    if status:
        failed(out)


def failed(out: Path) -> None:
    raise SystemExit(f"A run failed by itself. The end of its log:\n{(out / 'log.txt').read_text()[-2000:]}")


def interval(method: str, every: int) -> int:
    """Steps between two checkpoints, at most. GRPO saves at the first end of a generation's updates."""
    updates = GENERATION if method == "grpo" else 1
    return -(-every // updates) * updates


def proof(method: str, folder: Path, runs: int, steps: int, every: int, seed: int, number: int) -> dict[str, Any]:
    """Trains once alone, then `runs` times with interruptions, and says what came of each."""
    rng = random.Random(seed)
    alone = folder / "alone"
    pid = started((method, alone, steps, every))
    begun(pid, alone)
    begin = time.monotonic()
    finished(pid, alone)
    seconds = time.monotonic() - begin
    print(f"{method}: left alone, {steps} steps took {seconds:.1f} s", flush=True)
    done: list[Run] = []
    while len(done) < runs:
        run, out = Run(len(done) + 1), folder / f"run-{len(done) + 1}"
        shutil.rmtree(out, ignore_errors=True)
        begin = time.monotonic()
        pid = started((method, out, steps, every))
        while kill := interrupt(pid, out, rng, seconds * (0.4 if run.kills else 0.8), number):
            pid = started((method, out, steps, every))
            kill["resumed"] = begun(pid, out)
            run.kills.append(kill)
            if rng.random() < 0.6:
                finished(pid, out)
                break
        if not run.kills:
            continue  # it was over before the moment came
        run.same = all(
            (out / name).read_bytes() == (alone / name).read_bytes() for name in ("weights.safetensors", "losses.json")
        )
        run.seconds = time.monotonic() - begin
        print(run, flush=True)
        done.append(run)
    return {
        "method": method,
        "steps": steps,
        "interval": interval(method, every),
        "runs": len(done),
        "same": sum(run.same for run in done),
        "kills": sum(len(run.kills) for run in done),
        "while_saving": sum(kill["saving"] for run in done for kill in run.kills),
        "most_lost": max(run.lost for run in done),
        "details": [asdict(run) for run in done],
    }


def imported() -> None:
    """Imports what a run needs. Exits when that started threads, which would be missing in a fork."""
    import pyarrow  # noqa: F401 -- has threads of its own, and restores them in a fork

    before = threads()
    from unsloth_course import profile

    profile.detect("cpu", "pocket", "pocket", lesson="lora")
    profile.quiet()
    import unsloth  # noqa: F401 -- before trl
    from trl import DPOTrainer, GRPOTrainer, SFTTrainer  # noqa: F401

    if threads() > before:
        raise SystemExit(f"Importing started {threads() - before} threads, so this process cannot be forked.")


def threads() -> int:
    """Threads of this process, those of libraries included; where the system does not list them, Python's."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", choices=METHODS, nargs="+", default=["lora"])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=5, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--stop", action="store_true", help="SIGINT in place of SIGKILL")
    parser.add_argument("--out", type=Path, help="folder for runs and report; a temporary one without it")
    parser.add_argument("--json", type=Path, help="file for the report")
    asked = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ALONE.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALONE)
    imported()
    reports = []
    with tempfile.TemporaryDirectory() if asked.out is None else contextlib.nullcontext(asked.out) as folder:
        for method in asked.method:
            number = signal.SIGINT if asked.stop else signal.SIGKILL
            out = Path(folder) / method
            report = proof(method, out, asked.runs, asked.steps, asked.every, asked.seed, number)
            reports.append(report)
            print(
                f"{method}: {report['same']} of {report['runs']} runs ended at the same weights, after "
                f"{report['kills']} kills ({report['while_saving']} while saving); at most {report['most_lost']} steps "
                f"were lost, and a checkpoint is saved every {report['interval']}",
                flush=True,
            )
    if asked.json:
        asked.json.write_text(json.dumps(reports, indent=1) + "\n")
    if any(report["same"] < report["runs"] or report["most_lost"] > report["interval"] for report in reports):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
