"""How the pocket model was made: pretraining from a seed on documents of the small world.

    python -m unsloth_course.pocket.train --out DIR [--tokens 1000000000] [--seed 3407]

On one H100 this takes minutes; on a CPU give fewer tokens (20,000,000 take about an hour on 2 cores and give a weaker
model). The folder that it writes is a complete model: weights, tokenizer and ``scores.json``.
"""

import argparse
import json
import multiprocessing
import os
import random
import time
from pathlib import Path

import numpy as np

from unsloth_course.pocket import skills, text, tokenizer

BLOCK = 256  # tokens a row
DOCUMENTS = 4_000  # documents that one worker makes at a time
CONFIG = {
    "vocab_size": tokenizer.VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_theta": 10_000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


def _blocks(job: tuple[str, str]) -> np.ndarray:
    """Token ids of one worker's documents, packed into rows: uint16, (rows, BLOCK)."""
    from tokenizers import Tokenizer

    folder, seed = job
    rng = random.Random(seed)
    encoder = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
    end = encoder.token_to_id("<|endoftext|>")
    ids: list[int] = []
    for encoding in encoder.encode_batch([text.document(rng) for _ in range(DOCUMENTS)]):
        ids += [*encoding.ids, end]
    rows = len(ids) // BLOCK
    return np.array(ids[: rows * BLOCK], dtype=np.uint16).reshape(rows, BLOCK)


def corpus(folder: Path, tokens: int, seed: int) -> np.ndarray:
    """About ``tokens`` tokens of fresh documents, (rows, BLOCK), the same for the same seed on any number of cores."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pieces: list[np.ndarray] = []
    rows = 0
    with multiprocessing.get_context("spawn").Pool() as pool:
        jobs = ((str(folder), f"{seed}-{number}") for number in range(tokens))
        for piece in pool.imap(_blocks, jobs):
            pieces.append(piece)
            rows += len(piece)
            if rows * BLOCK >= tokens:
                pool.terminate()
                break
    return np.concatenate(pieces)[: max(1, tokens // BLOCK)]


class Blocks:
    """The corpus as a map-style data set for transformers' Trainer."""

    def __init__(self, rows: np.ndarray):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        import torch

        row = torch.from_numpy(self.rows[index].astype(np.int64))
        return {"input_ids": row, "labels": row}


def redraw_unseen(model, rows: np.ndarray, seed: int) -> int:
    """Give each token that the corpus never held a fresh embedding row, and return how many there were.

    Pretraining only ever pushes such rows down, all the same way, until no two can be told apart (measured: cosine
    0.9999), and then fine-tuning cannot learn to write ``<|im_end|>`` and not another of them. The new rows are drawn from
    the mean and spread of the trained ones (Hewitt 2021, "Initializing new word embeddings").
    """
    import torch

    unseen = torch.from_numpy(np.bincount(rows.ravel(), minlength=tokenizer.VOCABULARY) == 0)
    table = model.get_input_embeddings().weight.data
    seen = table[~unseen.to(table.device)].float()
    noise = torch.randn(int(unseen.sum()), table.shape[1], generator=torch.Generator().manual_seed(seed))
    table[unseen.to(table.device)] = (seen.mean(0) + seen.std(0) * noise.to(table.device)).to(table.dtype)
    return int(unseen.sum())


def held_out_scores(model, tokens, each: int = 200, seed: int = 1) -> dict[str, float]:
    """Share of held-out questions per skill that the base model answers right, asked the way pretraining asked."""
    import torch

    rng = random.Random(seed)
    tokens.padding_side = "left"
    scores = {}
    for skill in skills.ALL:
        items = [skill.draw(rng, True) for _ in range(each)]
        prompts = [f"Question:\n{skills.ask(skill, item, rng)}\nAnswer:\n" for item in items]
        batch = tokens(prompts, return_tensors="pt", padding=True, return_token_type_ids=False).to(model.device)
        with torch.no_grad():
            made = model.generate(**batch, max_new_tokens=24, do_sample=False)
        answers = tokens.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        right = 0
        for item, answer in zip(items, answers, strict=True):
            line = answer.split("\n")[0]
            right += line in (item.answer, skill.sentence(item))
        scores[skill.name] = right / each
    tasks = [text.problem(rng, True) for _ in range(each)]
    prompts = [f"Problem:\n{task.question}\nSolution:\n" for task in tasks]
    batch = tokens(prompts, return_tensors="pt", padding=True, return_token_type_ids=False).to(model.device)
    for name, sampled in (("problems", False), ("problems, sampled", True)):
        torch.manual_seed(seed)
        with torch.no_grad():
            made = model.generate(**batch, max_new_tokens=40, do_sample=sampled)
        answers = tokens.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        found = [answer.partition("####")[2].strip().split("\n")[0] for answer in answers]
        scores[name] = sum(a == str(task.answer) for a, task in zip(found, tasks, strict=True)) / each
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain the pocket model.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=1_000_000_000)
    parser.add_argument("--batch", type=int, default=256, help="rows of 256 tokens an update")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=3407)
    options = parser.parse_args()

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

    options.out.mkdir(parents=True, exist_ok=True)
    tokens = tokenizer.build(options.seed)
    tokens.save_pretrained(str(options.out))
    started = time.time()
    rows = corpus(options.out, options.tokens, options.seed)
    print(f"{rows.size:,} tokens made in {time.time() - started:.0f} s")

    set_seed(options.seed)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    cuda = torch.cuda.is_available()
    steps = len(rows) // options.batch
    trainer = Trainer(
        model=model,
        train_dataset=Blocks(rows),
        args=TrainingArguments(
            output_dir=str(options.out / "checkpoints"),
            per_device_train_batch_size=options.batch,
            max_steps=steps,
            learning_rate=options.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=min(300, max(1, steps // 10)),
            weight_decay=0.1,
            adam_beta2=0.95,
            bf16=cuda,
            logging_steps=max(1, steps // 40),
            save_strategy="no",
            report_to="none",
            dataloader_num_workers=8 if cuda else 0,
            seed=options.seed,
            disable_tqdm=True,
        ),
    )
    started = time.time()
    result = trainer.train()
    seconds = time.time() - started
    unseen = redraw_unseen(model, rows, options.seed)
    model.eval()
    scores = held_out_scores(model, tokens)
    model.to(torch.bfloat16).save_pretrained(str(options.out))
    facts = {
        "parameters": model.num_parameters(),
        "tokens": int(rows.size),
        "updates": steps,
        "tokens_never_seen": unseen,
        "final_loss": result.training_loss,
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "torch": torch.__version__,
        "seed": options.seed,
        "held_out": scores,
    }
    (options.out / "scores.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
