"""How fast completions are written on a GPU, way by way, alone and inside GRPO's update.

    python benchmarks/writing.py --model FOLDER --out FILE.json [--rows 32,128] [--tokens 128] [--updates 12]

On a machine with a CUDA GPU; FOLDER holds SmolLM2-135M-Instruct. Each way is timed in this one process, in turns, the
fastest of three rounds: prompts of mixed and of equal length, without and with Unsloth's decode graphs. The adapter is
not merged, every row writes all its tokens, greedily. `same` is the share of rows whose tokens are those of the first
way, which launches each kernel: rows that differ are near ties. Then GRPO trains on problems in plain English, its
prompts in mixed and in equal lengths, and the seconds of writing and of the rest of an update stand apart.
"""

import argparse
import contextlib
import itertools
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SEED = 3407
ROUNDS = 3
COMPLETION = 48  # tokens that GRPO writes at most, as in its lesson
PROMPTS, GENERATIONS = 8, 8


def load(folder: str) -> tuple[Any, Any]:
    """Model and tokenizer, with an adapter that changes what the model writes, as after some training."""
    import torch
    from unsloth import FastLanguageModel

    from unsloth_course import models

    model, tokenizer = FastLanguageModel.from_pretrained(folder, max_seq_length=512, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(
        model, r=16, lora_alpha=16, target_modules=models.PROJECTIONS, use_gradient_checkpointing=False
    )
    torch.manual_seed(SEED)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.002)
    return model, tokenizer


def questions(count: int) -> Any:
    """Problems in plain English, as the GRPO lesson has them."""
    from unsloth_course import data

    return data.sources.problems("english", train=count, held_out=8, seed=SEED)[0]


def batch(tokenizer: Any, rows: int, equal: bool) -> Any:
    """Prompts as tensors, padded on the left; of equal length the one prompt is the middle one in length."""
    from unsloth_course import models

    texts = [models.chat_prompt(tokenizer, text) for text in questions(rows)["question"]]
    if equal:
        texts = [sorted(texts, key=lambda text: len(tokenizer(text)["input_ids"]))[rows // 2]] * rows
    tokenizer.padding_side = "left"
    return tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to("cuda")


def written(model: Any, tokenizer: Any, rows: int, tokens: int) -> list[dict[str, Any]]:
    """The ways of plain generation, timed in turns."""
    import torch
    from unsloth import FastLanguageModel
    from unsloth.models import _decode_graphs

    FastLanguageModel.for_inference(model)
    ways = {
        "mixed lengths": (batch(tokenizer, rows, equal=False), contextlib.nullcontext),
        "mixed lengths, graphs": (batch(tokenizer, rows, equal=False), _decode_graphs.rl_generation),
        "equal lengths": (batch(tokenizer, rows, equal=True), contextlib.nullcontext),
        "equal lengths, graphs": (batch(tokenizer, rows, equal=True), _decode_graphs.rl_generation),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    texts = {}
    for _ in range(ROUNDS + 1):  # the first warms up
        for name, (inputs, scope) in ways.items():
            torch.cuda.synchronize()
            started = time.perf_counter()
            with torch.no_grad(), scope():
                ids = model.generate(
                    **inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0
                )
            torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
            texts[name] = ids[:, inputs["input_ids"].shape[1] :].tolist()
    found = []
    for name, taken in seconds.items():
        best, slow = min(taken[1:]), texts[name.removesuffix(", graphs")]
        same = sum(one == other for one, other in zip(texts[name], slow, strict=True)) / rows
        found.append(
            {
                "way": name,
                "rows": rows,
                "tokens": tokens,
                "ms_per_token": 1000 * best / tokens,
                "completions_per_second": rows / best,
                "same": same,
            }
        )
    return found


def updates(model: Any, tokenizer: Any, count: int, equal: bool, **settings: Any) -> dict[str, Any]:
    """GRPO's updates, its writing timed apart. equal: the prompts of an update have one length."""
    import torch
    from trl import GRPOConfig, GRPOTrainer

    from unsloth_course import data, rewards

    rows = questions(40 * PROMPTS * count)
    prompts = rows.map(data.problems.to_grpo, batched=True, remove_columns=rows.column_names)
    if equal:
        prompts = in_lengths(prompts, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=[rewards.exact, rewards.form],
            train_dataset=prompts,
            args=GRPOConfig(
                num_generations=GENERATIONS,
                per_device_train_batch_size=PROMPTS * GENERATIONS,
                max_completion_length=COMPLETION,
                beta=0.0,
                loss_type="bnpo",
                max_steps=count,
                learning_rate=1e-5,
                shuffle_dataset=not equal,
                logging_steps=1,
                seed=SEED,
                report_to="none",
                save_strategy="no",
                output_dir=folder,
                optim="adamw_torch_fused",
                disable_tqdm=True,
                **settings,
            ),
        )
        writing, ends = [], []
        inner = trainer._generate

        def timed(*arguments: Any, **named: Any) -> Any:
            torch.cuda.synchronize()
            started = time.perf_counter()
            made = inner(*arguments, **named)
            torch.cuda.synchronize()
            writing.append(time.perf_counter() - started)
            ends.append(started)
            return made

        trainer._generate = timed
        trainer.train()
        torch.cuda.synchronize()
        ends.append(time.perf_counter())
    whole = [after - before for before, after in itertools.pairwise(ends)]
    return {
        "lengths": "equal" if equal else "mixed",
        "settings": settings,
        "writing_seconds": writing,
        "update_seconds": whole,
        "mean_length": [row["completions/mean_length"] for row in trainer.state.log_history if "reward" in row],
    }


def in_lengths(prompts: Any, tokenizer: Any) -> Any:
    """Prompts in an order that gives each update prompts of one length, the updates shuffled."""
    from unsloth_course import models

    texts = [models.chat_prompt(tokenizer, turns[0]["content"]) for turns in prompts["prompt"]]
    lengths: dict[int, list[int]] = {}
    for at, ids in enumerate(tokenizer(texts)["input_ids"]):
        lengths.setdefault(len(ids), []).append(at)
    groups = [at[i : i + PROMPTS] for at in lengths.values() for i in range(0, len(at) - PROMPTS + 1, PROMPTS)]
    random.Random(SEED).shuffle(groups)
    return prompts.select([at for group in groups for at in group])


def main() -> None:
    """Measures all ways; the file is written anew after each, and a line printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--rows", default="32,128")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--updates", type=int, default=12)
    options = parser.parse_args()
    import torch
    import unsloth  # noqa: F401 -- before transformers

    model, tokenizer = load(options.model)
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "plain": [], "grpo": []}
    for rows in map(int, options.rows.split(",")):
        for one in written(model, tokenizer, rows, options.tokens):
            found["plain"].append(one)
            print(one, flush=True)
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    from unsloth import FastLanguageModel

    FastLanguageModel.for_training(model)
    for equal in (False, True):
        for settings in ({}, {"pad_to_multiple_of": 64}):
            one = updates(model, tokenizer, options.updates, equal, **settings)
            found["grpo"].append(one)
            print(one, flush=True)
            options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
