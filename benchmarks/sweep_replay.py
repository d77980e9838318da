"""Goes on pretraining the pocket model with seven shares of replay and three seeds, for the dial of the lesson on that.

    venv/bin/python benchmarks/sweep_replay.py

Every run reads the same blocks of the new domain; what changes is how much general text is mixed in, so a run with
more of it takes longer. Writes `unsloth_course/recorded/sweeps/cpt-replay.json` anew; about nine minutes on two
idle CPU cores. With `--part N` it runs the N-th seed only and adds it to the record, in pieces of three minutes.
"""

import argparse
import tempfile

from unsloth_course import data, evaluation, models, profile, results, training
from unsloth_course.lesson.dials import sweeps

NAME = "cpt-replay"
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SEEDS = (3407, 1, 2)
DOMAIN, HELD_OUT, LENGTH = 600, 100, 256  # blocks, texts, tokens of a text
RANK, RATE, EMBEDDING_RATE = 64, 8e-4, 4e-4


def load(machine):
    """The bundled model as it was pretrained, with its tokenizer."""
    from unsloth import FastLanguageModel

    return FastLanguageModel.from_pretrained(
        model_name=models.folder(machine.model),
        max_seq_length=machine.max_length,
        dtype=machine.torch_dtype,
        load_in_4bit=False,
    )


def adapted(machine, seed):
    """The same with an adapter, and its embeddings trained, as in the lesson."""
    from unsloth import FastLanguageModel

    model, tokenizer = load(machine)
    model = FastLanguageModel.get_peft_model(
        model,
        r=RANK,
        lora_alpha=RANK,
        target_modules=[*models.PROJECTIONS, "embed_tokens", "lm_head"],
        use_rslora=True,
        ensure_weight_tying=True,
        use_gradient_checkpointing=False,
        random_state=seed,
    )
    models.require_cpt(model, RANK)
    return model, tokenizer


def texts(machine, seed):
    """Domain and general text to learn from, and the held-out texts of both."""
    domain, held_out, _ = data.sources.corpus(machine.data, train=2 * DOMAIN, held_out=HELD_OUT, seed=seed)
    general, stories = data.sources.general_text(machine.data, train=4 * DOMAIN, held_out=HELD_OUT, seed=seed)
    return domain["text"], general["text"], held_out["text"], stories["text"]


def scores(model, tokenizer, held_out, stories):
    """What the lesson measures: the perplexity of held-out text of the domain, and of general text."""
    return {
        "held-out domain text": evaluation.perplexity(model, tokenizer, held_out, LENGTH).perplexity,
        "general text": evaluation.perplexity(model, tokenizer, stories, LENGTH).perplexity,
    }


def trial(machine, share, seed):
    """One whole training."""
    model, tokenizer = adapted(machine, seed)
    domain, general, held_out, stories = texts(machine, seed)
    blocks = data.corpus.blocks(domain, tokenizer, machine.max_length).dataset.select(range(DOMAIN))
    replay = data.corpus.blocks(general, tokenizer, machine.max_length).dataset
    mixed = data.corpus.mix(blocks, replay, share, seed)
    steps = round(len(mixed) / machine.arguments["per_device_train_batch_size"])
    rates = {"learning_rate": RATE, "embedding_learning_rate": EMBEDDING_RATE}
    with tempfile.TemporaryDirectory() as out:
        trainer = training.continued(model, tokenizer, mixed, machine, steps=steps, seed=seed, out=out, **rates)
    history = trainer.state.log_history
    loss = [(row["step"], round(float(row["loss"]), 4)) for row in history if "loss" in row]
    found = {name: round(value, 4) for name, value in scores(model, tokenizer, held_out, stories).items()}
    print(f"share {share:g}, seed {seed}: {found}, {steps} steps, {results.seconds(history):.0f} s", flush=True)
    return sweeps.Trial(share, seed, loss, found, round(results.seconds(history), 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", type=int, choices=range(len(SEEDS)), help="run this seed only, and add it")
    part = parser.parse_args().part
    machine = profile.detect("cpu", "pocket", "pocket", lesson="cpt")
    seeds = SEEDS if part is None else SEEDS[part : part + 1]
    trials = [one for one in sweeps.read(NAME).trials if one.seed not in seeds] if part else []
    trials += [trial(machine, share, seed) for seed in seeds for share in SHARES]
    before = scores(*load(machine), *texts(machine, SEEDS[0])[2:])
    settings = {"method": "cpt", "domain_blocks": DOMAIN, "block": machine.max_length, "micro_batch": 16, "rank": RANK}
    sweep = sweeps.Sweep(
        name=NAME,
        knob="replay share",
        metric="perplexity",
        before={name: round(value, 4) for name, value in before.items()},
        device=machine.device,
        model=machine.model,
        versions=results.versions(),
        settings=settings | {"learning_rate": RATE, "embedding_learning_rate": EMBEDDING_RATE, "schedule": "cosine"},
        trials=trials,
    )
    print(f"written: {sweep.write().name}")


if __name__ == "__main__":
    main()
