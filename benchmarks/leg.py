"""One leg of the GPU benchmark: a training with one way of setting it up, measured. `speed.py` starts them.

A leg is a process of its own, since Unsloth changes trl and transformers when it is imported, and whether its blocks
run as CUDA graphs is chosen in the environment. It builds its trainer, warms up (kernels are compiled and graphs are
recorded then; with a learning rate of 0 nothing is learned), says READY, waits for a line, trains, and prints one line
of JSON.
"""

import bisect
import dataclasses
import gc
import itertools
import json
import math
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SEED = 3407
ROWS = 8  # of an update
# Rows that a pass takes in about the time of launching its kernels, and 13 GiB hold, for the way "free".
MORE = {"lora": 32, "full": 32, "dpo": 16, "cpt": 32, "grpo": 128}
HELD_OUT = 32  # rows behind a held-out loss
SHORTEST = 228  # tokens of the shortest row; the longest has the leg's length
COMPLETION = 128  # tokens that GRPO writes, always all of them
RATES = {"lora": 2e-4, "full": 5e-5, "dpo": 5e-5, "cpt": 1e-4, "grpo": 2e-5}  # for ROWS rows an update
SETTLING = 2  # updates that are not timed where no curve is wanted: the first new shapes are still being prepared
BUDGET = 13 * 1024**3  # bytes that the plan may use: a T4's, so that plain TRL is not outspent


@dataclass
class Leg:
    """One way of training. Sizes are in rows and tokens; `arguments` go to TRL's config as they are.

    way: "seeds" (2 x 4 with checkpointing, as public notebooks have it), "plain" (TRL and PEFT without Unsloth), "set"
    (Unsloth with the sizes given here), "plan" (the course's, with `rows` rows) or "free" (of `MORE` rows).
    """

    name: str
    method: str
    way: str = "set"
    micro: int = ROWS
    accumulation: int = 1
    rows: int = ROWS
    arguments: dict[str, Any] = field(default_factory=dict)
    updates: int = 40
    warm: int = 5  # updates before it; 0 where the first one is to be measured too
    evaluate_every: int = 0
    length: int = 512
    same_length: bool = False  # every row has exactly `length` tokens
    model: str = ""
    learning_rate: float = 0.0
    checkpointing: Any = False
    reasons: list[str] = field(default_factory=list)
    predicted_bytes: int = 0


def rank_of(leg: Leg) -> int:
    """The LoRA rank of the method's lesson."""
    return 64 if leg.method == "cpt" else 16


def load(leg: Leg) -> tuple[Any, Any]:
    """Model and tokenizer, ready for training."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from unsloth_course import models

    rank, tied = rank_of(leg), {"use_rslora": True, "ensure_weight_tying": True} if leg.method == "cpt" else {}
    if leg.way == "plain":
        tokenizer = AutoTokenizer.from_pretrained(leg.model)
        model = AutoModelForCausalLM.from_pretrained(leg.model, dtype=torch.bfloat16).cuda()
        if leg.method != "full":
            from peft import LoraConfig, get_peft_model

            whole = {"modules_to_save": ["embed_tokens", "lm_head"]} if leg.method == "cpt" else {}
            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=models.PROJECTIONS, **whole, **tied)
            model = get_peft_model(model, config)
        return model, tokenizer
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=leg.model,
        max_seq_length=leg.length,
        load_in_4bit=False,
        full_finetuning=leg.method == "full",
        use_gradient_checkpointing=leg.checkpointing,
    )
    if leg.method != "full":
        model = FastLanguageModel.get_peft_model(
            model,
            r=rank,
            lora_alpha=rank,
            target_modules=[*models.PROJECTIONS, *(["embed_tokens", "lm_head"] if leg.method == "cpt" else [])],
            use_gradient_checkpointing=leg.checkpointing,
            random_state=SEED,
            **tied,
        )
    return model, tokenizer


def rows(leg: Leg, tokenizer: Any, count: int, held_out: bool) -> list[dict]:
    """Rows of the small world's text in the method's columns, of 228 to `length` tokens, the same for every leg."""
    from unsloth_course.pocket import datasets

    if leg.same_length and leg.method in ("dpo", "grpo"):
        return [_exactly(leg, tokenizer)] * count
    if leg.same_length or leg.method == "cpt":
        made = datasets.functions(count * leg.length // 150 + 9, held_out=held_out, seed=SEED)["original_string"]
        ids = [token for text in made for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
        return [{"input_ids": ids[at * leg.length : (at + 1) * leg.length]} for at in range(count)]
    rng = random.Random(f"{held_out}-{SEED}")
    pairs = iter(datasets.preferences(count * 20, held_out=held_out, seed=SEED).to_list())
    return [_row(leg, tokenizer, pairs, rng.randrange(SHORTEST, leg.length - 20)) for _ in range(count)]


def _row(leg: Leg, tokenizer: Any, pairs: Any, most: int) -> dict:
    """As many questions, with their answers, as go into `most` tokens."""
    if leg.method == "grpo":
        return {"prompt": [{"role": "user", "content": next(pairs)["question"]}]}
    taken, size = [], 30
    while size < most:
        taken.append(next(pairs))
        size += len(tokenizer(f"{taken[-1]['question']} {taken[-1]['chosen']} ", add_special_tokens=False)["input_ids"])
    said = {name: " ".join(pair[name] for pair in taken[:-1]) for name in ("question", "chosen", "rejected")}
    row = {"prompt": [{"role": "user", "content": said["question"]}]}
    names = {"chosen": "chosen", "rejected": "rejected"} if leg.method == "dpo" else {"completion": "chosen"}
    return row | {column: [{"role": "assistant", "content": said[name]}] for column, name in names.items()}


def _exactly(leg: Leg, tokenizer: Any) -> dict:
    """A pair that is longer than the limit, so that it is cut to it; a prompt that leaves room for half a row."""
    if leg.method == "grpo":
        return {"prompt": [{"role": "user", "content": _text(tokenizer, leg.length // 2)}]}
    answers = {"chosen": " the" * leg.length, "rejected": " a" * leg.length}
    row = {"prompt": [{"role": "user", "content": " the" * (leg.length // 4)}]}
    return row | {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}


def _text(tokenizer: Any, tokens: int) -> str:
    """Text of the small world that is, as a question, a prompt of so many tokens."""
    from unsloth_course import models
    from unsloth_course.pocket import datasets

    def size(text: str) -> int:
        return len(tokenizer(models.chat_prompt(tokenizer, text), add_special_tokens=False)["input_ids"])

    words = " ".join(datasets.stories(tokens // 20 + 9, seed=SEED)["text"]).split()
    too_many = bisect.bisect_right(range(len(words)), tokens, key=lambda count: size(" ".join(words[:count])))
    text = " ".join(words[: too_many - 1])
    return text + " a" * (tokens - size(text))


def digits(completions: list, **_: Any) -> list[float]:
    """A reward for the clock: the share of digits."""
    texts = [made[-1]["content"] if isinstance(made, list) else made for made in completions]
    return [sum(map(str.isdigit, text)) / max(1, len(text)) for text in texts]


def set_up(leg: Leg, model: Any, machine: Any) -> None:
    """Writes into the leg what its way of training means: micro-batch, accumulation, arguments, learning rate."""
    leg.learning_rate = RATES[leg.method]
    if leg.way == "seeds":
        leg.micro, leg.accumulation, leg.arguments = 2, 4, {"optim": "adamw_8bit"}
    if leg.way not in ("plan", "free"):
        return
    from unsloth_course import memory

    if leg.way == "free":
        # As many rows are read, and the rate grows with the root of their number (Malladi et al. 2022 for Adam).
        factor, leg.rows = MORE[leg.method] / leg.rows, MORE[leg.method]
        leg.updates, leg.learning_rate = math.ceil(leg.updates / factor), leg.learning_rate * math.sqrt(factor)
    longest = leg.length
    if leg.method == "grpo" and not leg.same_length:
        longest = 32 + COMPLETION
    plan = memory.plan(
        model,
        dataclasses.replace(
            machine,
            max_length=leg.length,
            memory_bytes=BUDGET if leg.way == "free" else machine.memory_bytes,
            mixed_precision=False,  # as the other ways: full fine-tuning of all legs keeps its weights in bfloat16
        ),
        leg.method,
        longest=longest,
        rows=leg.rows,
        rank=rank_of(leg),
        completion=longest // 2 if leg.same_length else COMPLETION if leg.method == "grpo" else None,
    )
    leg.micro, leg.accumulation, leg.checkpointing = plan.micro_batch, plan.accumulation, plan.checkpointing
    leg.reasons = [f"{reason.what} {reason.value}: {reason.why}" for reason in plan.reasons]
    leg.predicted_bytes = plan.prediction.total
    leg.arguments = plan.arguments | leg.arguments


def trainer_for(leg: Leg, model: Any, data: dict, updates: int, rate: float) -> Any:
    """The trainer of the method, with the leg's settings."""
    arguments = {
        "output_dir": "leg",
        "max_steps": updates,
        "learning_rate": rate,
        "warmup_steps": min(3, updates // 5),
        "lr_scheduler_type": "constant_with_warmup",  # so that no leg gains by the end of a schedule
        "logging_steps": updates,
        "per_device_eval_batch_size": 16,
        "report_to": "none",
        "bf16": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "optim": "adamw_torch_fused",
        "seed": SEED,
    } | leg.arguments
    arguments |= {
        "per_device_train_batch_size": leg.micro,
        "gradient_accumulation_steps": leg.accumulation,
        "gradient_checkpointing": bool(leg.checkpointing),
    }
    if leg.method == "grpo":
        from trl import GRPOConfig, GRPOTrainer

        tokens = leg.length // 2 if leg.same_length else COMPLETION
        arguments |= {"num_generations": 8, "max_completion_length": tokens, "temperature": 1.0}
        arguments |= {"generation_kwargs": {"min_new_tokens": tokens}}
        data = {name: value for name, value in data.items() if name != "eval_dataset"}
        return GRPOTrainer(model=model, reward_funcs=[digits], args=GRPOConfig(**arguments), **data)
    arguments["max_length"] = leg.length
    if leg.method == "dpo":
        from trl import DPOConfig, DPOTrainer

        return DPOTrainer(model=model, args=DPOConfig(beta=0.1, **arguments), **data)
    if leg.method == "cpt" and leg.way != "plain":
        from unsloth import UnslothTrainer, UnslothTrainingArguments

        arguments["embedding_learning_rate"] = rate / 5
        return UnslothTrainer(model=model, args=UnslothTrainingArguments(**arguments), **data)
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(model=model, args=SFTConfig(**arguments), **data)


def clock_for(leg: Leg, trainer: Any, target: float | None) -> Any:
    """A callback that counts seconds of training and bytes of its peak, evaluations left out, and keeps the curve."""
    import torch
    from transformers import TrainerCallback

    from unsloth_course import memory

    class Clock(TrainerCallback):
        seconds, peak, updates = 0.0, 0, 0

        def __init__(self):
            self.curve: list[list[float]] = []
            self.marks: list[float] = []

        def on_train_begin(self, *_, **__):
            self.start()

        def on_step_end(self, args, state, control, **__):
            # No waiting for the GPU here: a step is launched while the one before still runs, as without a clock.
            self.marks.append(time.perf_counter())
            self.updates += 1
            if not leg.evaluate_every and state.global_step == SETTLING < state.max_steps:
                self.stop()
                self.seconds, self.updates = 0.0, 0
                self.start()
            if leg.evaluate_every and state.global_step % leg.evaluate_every == 0:
                self.stop()
                loss = self.evaluate()
                self.curve.append([state.global_step, round(self.seconds, 4), loss])
                if target is not None and loss <= target:
                    control.should_training_stop = True
                self.start()

        def on_train_end(self, *_, **__):
            self.stop()

        def start(self):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.began = time.perf_counter()

        def stop(self):
            torch.cuda.synchronize()
            self.seconds += time.perf_counter() - self.began
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() + memory.graph_bytes())

        def evaluate(self) -> float:
            was = trainer.model.training
            loss = trainer.evaluate()["eval_loss"]
            trainer.model.train(was)
            return float(loss)

    return Clock()


def main() -> int:
    leg = Leg(**json.loads(sys.argv[1]))
    from unsloth_course import profile

    started = time.perf_counter()
    machine = None
    if leg.way == "seeds":
        leg.checkpointing = "unsloth"
    if leg.way in ("plan", "free"):
        machine = profile.detect("gpu", leg.model, profile.POCKET, lesson=leg.method)
    if leg.way != "plain":
        import unsloth  # noqa: F401 -- before trl and transformers
    import torch
    from datasets import Dataset

    imported = time.perf_counter() - started
    model, tokenizer = load(leg)
    reference = leg.updates * leg.rows
    set_up(leg, model, machine)
    each = leg.micro * leg.accumulation
    data = {
        "processing_class": tokenizer,
        "train_dataset": Dataset.from_list(rows(leg, tokenizer, max(reference, each), held_out=False)),
        "eval_dataset": Dataset.from_list(rows(leg, tokenizer, HELD_OUT, held_out=True)),
    }
    few = data | {"train_dataset": data["train_dataset"].select(range(min(each * leg.warm, reference)))}
    began = time.perf_counter()
    if leg.warm:
        warm = trainer_for(leg, model, few, leg.warm, 0.0)
        warm.train()
        torch.cuda.synchronize()
        _let_go(warm, model)
    warmed = time.perf_counter() - began
    began = time.perf_counter()
    # Four times the updates: a leg that has not reached the target by then has not reached it.
    trainer = trainer_for(leg, model, data, leg.updates * (4 if leg.evaluate_every else 1), leg.learning_rate)
    prepared = time.perf_counter() - began
    print("READY", flush=True)
    target = json.loads(sys.stdin.readline())
    clock = clock_for(leg, trainer, target)
    if target is None and leg.evaluate_every:  # this one sets it
        trainer.args.max_steps = leg.updates
    before = clock.evaluate() if leg.evaluate_every else None
    trainer.add_callback(clock)
    trainer.train()
    gaps = sorted(b - a for a, b in itertools.pairwise(clock.marks))
    columns = trainer.train_dataset.column_names
    tokens = (
        sum(map(len, trainer.train_dataset["input_ids"])) / len(trainer.train_dataset) if "input_ids" in columns else 0
    )
    if leg.method == "dpo":
        sizes = {name: sum(map(len, trainer.train_dataset[name])) for name in columns if name.endswith("_ids")}
        tokens = (2 * sizes["prompt_ids"] + sizes["chosen_ids"] + sizes["rejected_ids"]) / len(trainer.train_dataset)
    found = dataclasses.asdict(leg) | {
        "updates_done": clock.updates,
        "seconds": round(clock.seconds, 4),
        "ms_per_update": round(1000 * clock.seconds / max(1, clock.updates), 2),
        "ms_median": round(1000 * gaps[len(gaps) // 2], 2) if gaps else None,
        "tokens_per_row": round(tokens, 1),
        "peak_bytes": clock.peak,
        "loss_before": before,
        "curve": clock.curve,
        "trainable": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "import_seconds": round(imported, 1),
        "warm_seconds": round(warmed, 1),
        "prepare_seconds": round(prepared, 2),
    }
    print("RESULT " + json.dumps(found), flush=True)
    return 0


def _let_go(trainer: Any, model: Any) -> None:
    """Frees what a finished trainer holds, so that the next one's peak is its own."""
    import torch

    trainer.optimizer = trainer.lr_scheduler = None
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")
    for parameter in model.parameters():
        parameter.grad = None
    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
