"""Exercises of the LoRA lesson (colab2): counting an adapter, merging it, and the labels of a row."""

import random

import numpy as np

from unsloth_course.lesson.exercises.asking import Learner, exercise

SMOLLM2 = 30 * [(576, 576), (576, 192), (576, 192), (576, 576), (576, 1536), (576, 1536), (1536, 576)]
POCKET = 4 * [(256, 256), (256, 128), (256, 128), (256, 256), (256, 768), (256, 768), (768, 256)]


def count_trained(shapes, rank):
    return sum(rank * (inputs + outputs) for inputs, outputs in shapes)


@exercise(
    "lora.1",
    "What an adapter trains",
    count_trained,
    "`A` makes `rank` numbers from `inputs`, and `B` makes `outputs` from `rank`. What are their shapes?",
    "`A` is rank x inputs and `B` is outputs x rank; add the two products, then add up over all pairs.",
)
def _counts(learner: Learner) -> None:
    rng = random.Random("lora.1")
    cases = [([(3, 5)], 2), ([(8, 8)], 4), ([(3, 5), (5, 3)], 1), ([], 16)]
    for _ in range(20):
        shapes = [(rng.randint(2, 900), rng.randint(2, 900)) for _ in range(rng.randint(1, 7))]
        cases.append((shapes, rng.randint(1, 64)))
    cases += [(POCKET, 16), (SMOLLM2, 16)]
    for shapes, rank in cases:
        trained = sum(rank * inputs + outputs * rank for inputs, outputs in shapes)
        learner(shapes, rank).expect(trained, f"and A and B hold {trained:,} numbers together")


def merge_adapter(W, A, B, alpha):
    rank = len(A)
    return W + alpha / rank * B @ A


@exercise(
    "lora.2",
    "Merge",
    merge_adapter,
    "Section 1 has the formula: the correction is scaled before it is added. By what?",
    "The rank is the number of rows of `A`, and the correction is `alpha / rank * B @ A`.",
)
def _merges(learner: Learner) -> None:
    rng = np.random.default_rng(2)
    for outputs, inputs, rank, alpha in [(5, 3, 2, 4), (3, 5, 1, 16), (8, 8, 4, 4), (6, 9, 3, 0.5), (7, 7, 7, 14)]:
        W, A, B = (rng.normal(size=size) for size in ((outputs, inputs), (rank, inputs), (outputs, rank)))
        given = learner(W, A, B, alpha)
        merged = given.array(W.shape)
        given.unchanged(0, "W", "and the base must stay as it was, so that the adapter can be taken out")
        for x in rng.normal(size=(4, inputs)):
            found, beside = merged @ x, W @ x + alpha / rank * (B @ (A @ x))
            if not np.allclose(found, beside, rtol=1e-5, atol=1e-8):
                given.wrong(
                    f"and for some x the merged weight makes {found[0]:.4f} the first output, where base and "
                    f"adapter side by side (rank {rank}) make {beside[0]:.4f}"
                )
        untrained = learner(W, A, np.zeros_like(B), alpha)
        if not np.allclose(untrained.array(W.shape), W):
            untrained.wrong("and with B full of zeros, as before training, it must be W")


END, IGNORED = 2, -100


def make_labels(ids, start, length):
    padding = len(ids) - length
    return [-100] * start + ids[start:length] + [-100] * padding


@exercise(
    "lora.3",
    "Which tokens are trained",
    make_labels,
    "Decide by the place of a token, not by its id: the same id stands for the end and for padding.",
    "Three stretches: `start` times -100, then `ids[start:length]`, then -100 up to the end.",
)
def _labels(learner: Learner) -> None:
    rng = random.Random("lora.3")
    cases = [(4, 2, 2), (6, 3, 0), (4, 1, 7)]
    cases += [(rng.randint(1, 12), rng.randint(1, 9), rng.randint(0, 8)) for _ in range(20)]
    for prompt, completion, padding in cases:
        text = [rng.randint(3, 1023) for _ in range(prompt + completion)]
        ids = [*text, END, *[END] * padding]
        length = len(text) + 1
        given = learner(ids, prompt, length)
        found = given.numbers(len(ids))
        given.unchanged(0, "ids", "and those are what the model reads: copy them first")
        for position, (token, label) in enumerate(zip(ids, found, strict=True)):
            trained = prompt <= position < length
            if label != (token if trained else IGNORED):
                given.wrong(f"where position {position} {_why(position, prompt, length, token)}")


def _why(position: int, start: int, length: int, token: int) -> str:
    if position < start:
        return "belongs to the prompt: -100"
    if position >= length:
        return "is padding: -100"
    if position == length - 1:
        return f"is the token that ends the turn, which the model must learn to write: {token}"
    return f"belongs to the completion: {token}, in the same place (the model shifts labels by itself)"
