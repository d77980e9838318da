"""How the pocket model was made: pretraining from a seed on documents of the small world.

    python -m unsloth_course.pocket.train --out DIR [--tokens 450000000] [--seed 3407] [--score-only]

The bundled model was trained with the default 450,000,000 tokens, in four minutes on one H100. On a CPU give fewer:
20,000,000 take about an hour on 2 cores and give a weaker model. The folder that it writes is a complete model:
weights, tokenizer and `scores.json`.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

import numpy as np

from unsloth_course.core.errors import CourseError
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


def _blocks(job: tuple[Path, str]) -> np.ndarray:
    """Token ids of one worker's documents, packed into rows: uint16, (rows, BLOCK)."""
    from tokenizers import Tokenizer

    folder, seed = job
    rng = random.Random(seed)
    encoder = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = encoder.token_to_id("<|endoftext|>")
    ids: list[int] = []
    for encoding in encoder.encode_batch([text.document(rng) for _ in range(DOCUMENTS)]):
        ids += [*encoding.ids, end]
    return np.array(ids[: len(ids) // BLOCK * BLOCK], dtype=np.uint16).reshape(-1, BLOCK)


def corpus(folder: Path, tokens: int, seed: int) -> np.ndarray:
    """About `tokens` tokens of fresh documents, (rows, BLOCK), the same for the same seed on any number of cores.

    `folder` holds the tokenizer.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pieces: list[np.ndarray] = []
    with multiprocessing.get_context("spawn").Pool() as pool:
        for piece in pool.imap(_blocks, ((folder, f"{seed}-{number}") for number in itertools.count())):
            pieces.append(piece)
            if sum(made.size for made in pieces) >= tokens:
                break
    return np.concatenate(pieces)[: tokens // BLOCK]


def redraw_unseen(model, rows: np.ndarray, seed: int) -> int:
    """Give each token that the corpus never held a fresh embedding row, and return how many there were.

    Pretraining only ever pushes such rows down, all the same way, until no two can be told apart (measured: cosine
    0.9999), and then fine-tuning cannot learn to write `<|im_end|>` and not another of them. The new rows are drawn
    from the mean and spread of the trained ones (Hewitt 2021, "Initializing new word embeddings").
    """
    import torch

    unseen = torch.from_numpy(np.bincount(rows.ravel(), minlength=tokenizer.VOCABULARY) == 0)
    table = model.get_input_embeddings().weight.data
    seen = table[~unseen.to(table.device)].float()
    noise = torch.randn(int(unseen.sum()), table.shape[1], generator=torch.Generator().manual_seed(seed))
    table[unseen.to(table.device)] = (seen.mean(0) + seen.std(0) * noise.to(table.device)).to(table.dtype)
    return len(noise)


def _completions(model, tokens, prompts: list[str], length: int, sampled: bool = False) -> list[str]:
    """What the model writes after each prompt: at most `length` tokens, greedily or sampled."""
    import torch

    tokens.padding_side = "left"
    batch = tokens(prompts, return_tensors="pt", padding=True, return_token_type_ids=False).to(model.device)
    with torch.no_grad():
        made = model.generate(**batch, max_new_tokens=length, do_sample=sampled)
    return tokens.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def held_out_scores(model, tokens, each: int = 200, seed: int = 1) -> dict[str, float]:
    """Share of held-out questions per skill that the base model answers right, asked the way pretraining asked.

    `each` questions of every skill, right if the first line is the answer, short or as a sentence; then `each` word
    problems, greedily and sampled (temperature 1), right if the number behind `####` is.
    """
    import torch

    rng = random.Random(seed)
    before, between, _ = text.PLAIN
    scores = {}
    for skill in skills.ALL:
        items = [skill.draw(rng, True) for _ in range(each)]
        prompts = [f"{before}{skills.ask(skill, item, rng)}{between}" for item in items]
        lines = [made.split("\n")[0] for made in _completions(model, tokens, prompts, 24)]
        right = [line in (item.answer, skill.sentence(item)) for item, line in zip(items, lines, strict=True)]
        scores[skill.name] = sum(right) / each
    problems = [text.problem(rng, True) for _ in range(each)]
    prompts = [f"Problem:\n{problem.question}\nSolution:\n" for problem in problems]
    for name, sampled in (("problems", False), ("problems, sampled", True)):
        torch.manual_seed(seed)
        # A worked solution is up to 55 tokens: with less room, showing the steps would look like a wrong answer.
        made = _completions(model, tokens, prompts, 64, sampled)
        found = [answer.partition("####")[2].strip().split("\n")[0] for answer in made]
        right = [number == str(problem.answer) for number, problem in zip(found, problems, strict=True)]
        scores[name] = sum(right) / each
    return scores


def score(folder: Path, each: int = 200) -> dict:
    """Score the model in `folder` as it was saved, put the scores into its `scores.json` and return its content."""
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    file = folder / "scores.json"
    if not file.exists():
        raise CourseError(f"{folder} holds no {file.name}, so it is no model of this script. Train one first.")
    model = LlamaForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    facts = json.loads(file.read_text(encoding="utf-8"))
    facts["held_out"] = held_out_scores(model, PreTrainedTokenizerFast.from_pretrained(str(folder)), each)
    file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def pretrain(out: Path, tokens: int, batch: int = 256, seed: int = 3407, score_each: int = 200) -> dict:
    """Train a model into the folder `out` and return its facts, as `scores.json` holds them.

    tokens: length of the corpus. batch: rows of BLOCK tokens an update. score_each: held-out questions per skill.
    Raises CourseError if `out` holds a model, and if the tokens are too few for one update.
    """
    if (out / "model.safetensors").exists():
        raise CourseError(f"{out} already holds a model. Choose another --out, or delete that folder.")
    steps = tokens // BLOCK // batch
    if steps < 1:
        raise CourseError(
            f"--tokens {tokens:,} is less than one update of {batch} rows of {BLOCK} tokens. "
            f"Give --tokens {batch * BLOCK} or more, or a smaller --batch."
        )

    import torch
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(tokenizer.build(seed), out)
    started = time.time()
    rows = corpus(out, tokens, seed)
    print(f"{rows.size:,} tokens made in {time.time() - started:.0f} s")

    set_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    cuda = torch.cuda.is_available()
    trainer = Trainer(
        model=model,
        train_dataset=Dataset.from_dict({"input_ids": rows, "labels": rows}).with_format("torch"),
        args=TrainingArguments(
            output_dir=str(out),
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=2e-3,
            lr_scheduler_type="cosine",
            warmup_steps=min(300, max(1, steps // 10)),
            weight_decay=0.1,
            adam_beta2=0.95,
            bf16=cuda,
            logging_steps=max(1, steps // 40),
            save_strategy="no",
            report_to="none",
            dataloader_num_workers=8 if cuda else 0,
            seed=seed,
            disable_tqdm=True,
        ),
    )
    started = time.time()
    result = trainer.train()
    seconds = time.time() - started
    unseen = redraw_unseen(model, rows, seed)
    model.to(torch.bfloat16).save_pretrained(str(out))
    facts = {
        "parameters": model.num_parameters(),
        "tokens": int(rows.size),
        "updates": steps,
        "tokens_never_seen": unseen,
        "final_loss": result.training_loss,  # the mean over the run
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "torch": torch.__version__,
        "seed": seed,
    }
    (out / "scores.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return score(out, score_each)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Pretrain the pocket model.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--tokens", type=int, default=450_000_000, help="length of the corpus")
    parser.add_argument("--batch", type=int, default=256, help=f"rows of {BLOCK} tokens an update")
    parser.add_argument("--seed", type=int, default=3407)
    parser.add_argument("--score-each", type=int, default=200, help="held-out questions per skill")
    parser.add_argument("--score-only", action="store_true", help="score the model that is there; train nothing")
    options = vars(parser.parse_args(arguments))
    try:
        only = options.pop("score_only")
        facts = score(options["out"], options["score_each"]) if only else pretrain(**options)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(facts, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
