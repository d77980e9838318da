"""Trains the pocket model whole at seven learning rates and three seeds, for the dial of the full fine-tuning lesson.

    venv/bin/python benchmarks/sweep_learning_rate.py

Writes `unsloth_course/recorded/sweeps/full-learning-rate.json` anew; about nine minutes on two idle CPU
cores. With `--part N` it runs the N-th seed only and adds it to the record, in pieces of three minutes.
"""

import argparse
import tempfile

from unsloth_course import data, evaluation, models, profile, results, training
from unsloth_course.lesson.dials import sweeps

NAME = "full-learning-rate"
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
SEEDS = (3407, 1, 2)
STEPS, HELD_OUT = 200, 200


def load(machine):
    """The bundled model, all of it trainable, as the lesson loads it."""
    from unsloth import FastLanguageModel

    return FastLanguageModel.from_pretrained(
        model_name=models.folder(machine.model),
        max_seq_length=machine.max_length,
        dtype=machine.torch_dtype,
        load_in_4bit=False,
        full_finetuning=True,
        use_gradient_checkpointing=False,
    )


def scores(model, tokenizer, held_out, probes):
    """What the lesson measures: held-out questions, and skills that it does not train."""
    return {
        "held-out questions": evaluation.ask(model, tokenizer, held_out).share,
        "untouched skills": evaluation.recall(model, tokenizer, probes).share,
    }


def trial(machine, rate, seed):
    """One whole training, as the lesson does it."""
    train, held_out, _ = data.sources.instructions(machine.data, train=STEPS * 16, held_out=HELD_OUT, seed=seed)
    chat = train.map(data.instruction.to_prompt_completion, batched=True, remove_columns=train.column_names)
    model, tokenizer = load(machine)
    models.require_full(model)
    with tempfile.TemporaryDirectory() as out:
        trainer = training.supervised(
            model, tokenizer, chat, machine, steps=STEPS, learning_rate=rate, seed=seed, out=out
        )
    history = trainer.state.log_history
    loss = [(row["step"], round(float(row["loss"]), 4)) for row in history if "loss" in row]
    seconds = next(float(row["train_runtime"]) for row in history if "train_runtime" in row)
    found = scores(model, tokenizer, held_out, evaluation.probes(machine))
    print(f"learning rate {rate:g}, seed {seed}: {found}, {seconds:.0f} s", flush=True)
    return sweeps.Trial(rate, seed, loss, found, round(seconds, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", type=int, choices=range(len(SEEDS)), help="run this seed only, and add it")
    part = parser.parse_args().part
    machine = profile.detect("cpu", "pocket", "pocket", lesson="full")
    seeds = SEEDS if part is None else SEEDS[part : part + 1]
    trials = [one for one in sweeps.read(NAME).trials if one.seed not in seeds] if part else []
    trials += [trial(machine, rate, seed) for seed in seeds for rate in RATES]
    _, held_out, _ = data.sources.instructions(machine.data, train=1, held_out=HELD_OUT, seed=0)
    sweep = sweeps.Sweep(
        name=NAME,
        knob="learning rate",
        metric="share",
        before=scores(*load(machine), held_out, evaluation.probes(machine)),
        device=machine.device,
        model=machine.model,
        versions=results.versions(),
        settings={"method": "full", "steps": STEPS, "micro_batch": 16, "warmup_steps": 10, "schedule": "cosine"},
        trials=trials,
    )
    print(f"written: {sweep.write().name}")


if __name__ == "__main__":
    main()
