"""Exercises of the full fine-tuning lesson (colab1): its memory, a fair comparison, and the rank of a change."""

import random

import numpy as np

from unsloth_course.lesson.exercises.asking import Learner, exercise

FLOAT32 = 4  # bytes
# (all, trained): SmolLM2-135M with all of it trained, and with a LoRA of rank 16 beside it.
SMOLLM2 = ((134_515_008, 134_515_008), (134_515_008 + 4_884_480, 4_884_480))


def memory_bytes(total, trained):
    weights = 4 * total
    gradients = 4 * trained
    moments = 2 * 4 * trained
    return weights + gradients + moments


@exercise(
    "full.1",
    "What training keeps in memory",
    memory_bytes,
    "There are weights, gradients, and two numbers that AdamW keeps. Which of them does a frozen weight need?",
    "A frozen weight costs its own four bytes. A trained one also has a gradient and two moving averages.",
)
def _memory(learner: Learner) -> None:
    rng = random.Random("full.1")
    cases = [(1, 1), (10, 0), *SMOLLM2]
    for _ in range(20):
        total = rng.randint(1, 10**9)
        cases.append((total, rng.randint(0, total)))
    for total, trained in cases:
        weights, rest = FLOAT32 * total, 3 * FLOAT32 * trained
        learner(total, trained).expect(
            weights + rest,
            f"where the weights take {weights:,} bytes, and gradients and optimizer {rest:,} besides",
            tolerance=1e-12,
        )


QUESTIONS = 400


def _marks(seed: int, first: float, changed: float) -> tuple[list[int], list[int]]:
    """Marks of two models that mostly agree: a share `first` right, and a share `changed` turned the other way."""
    rng = np.random.default_rng(seed)
    lora = (rng.random(QUESTIONS) < first).astype(int)
    turned = rng.random(QUESTIONS) < changed
    full = np.where(turned, rng.random(QUESTIONS) < 0.8, lora).astype(int)
    return lora.tolist(), full.tolist()


def paired_interval(lora, full, rng):
    import numpy as np

    change = np.array(full) - np.array(lora)
    n = len(change)
    drawn = rng.integers(n, size=(2000, n))
    means = change[drawn].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return low, high


@exercise(
    "full.2",
    "Is the difference real",
    paired_interval,
    "A question that is drawn brings both of its marks along. Which one number per question could you draw?",
    "Draw from the differences `full[i] - lora[i]`, take the mean of each draw, and cut 2.5 % off either end.",
)
def _intervals(learner: Learner) -> None:
    def ask(lora, full, seed=0):
        given = learner(lora, full, np.random.default_rng(seed))
        low, high = given.numbers(2)
        if not low <= high:
            given.wrong("and the lower end comes first")
        return given, low, high

    same, _ = _marks(1, 0.5, 0.0)
    given, low, high = ask(same, same)
    if max(abs(low), abs(high)) > 1e-9:
        given.wrong("for two models that are right at the same questions: every draw has the difference 0")
    given, low, high = ask([0] * 30, [1] * 30)
    if abs(low - 1) + abs(high - 1) > 1e-9:
        given.wrong("for a model that is always wrong and one that is always right: every draw has the difference 1")
    ratios = []
    for seed, (first, changed) in enumerate(
        [(0.5, 0.3), (0.8, 0.2), (0.3, 0.5), (0.6, 0.4), (0.9, 0.3), (0.5, 0.6)], 2
    ):
        lora, full = _marks(seed, first, changed)
        change = np.subtract(full, lora)
        given, low, high = ask(lora, full)
        if not low - 1e-9 <= change.mean() <= high + 1e-9:
            given.wrong(f"and the difference of the shares, {change.mean():.4f}, is not inside")
        if high - low < 1e-9:
            given.wrong("so every draw was the same: draw with replacement, so that a question may come twice or never")
        again = learner(lora, full, np.random.default_rng(0))
        if again.numbers(2) != [low, high]:
            again.wrong(f"and ({low:.6g}, {high:.6g}) from the same rng a moment ago: draw from `rng` and nothing else")
        ratios.append((high - low) / (2 * 1.96 * change.std() / len(change) ** 0.5))
    ratio = sum(ratios) / len(ratios)
    if abs(ratio - 1) > 0.08:
        given.wrong(f"and over six pairs of models your intervals are {ratio:.2f} times as wide as 95 % ones")


def rank_needed(change, share):
    import numpy as np

    energy = np.linalg.svd(change, compute_uv=False) ** 2
    kept = np.cumsum(energy) / energy.sum()
    return int(np.argmax(kept >= share)) + 1


@exercise(
    "full.3",
    "The rank that a change needs",
    rank_needed,
    "The best approximation of rank r keeps the r largest singular values. What is its energy then?",
    (
        "Square the singular values (`np.linalg.svd(change, compute_uv=False)`), add them up from the largest "
        "(`np.cumsum`), and count how many it takes to reach `share` of the sum."
    ),
)
def _ranks(learner: Learner) -> None:
    rng = np.random.default_rng(3)

    def ask(matrix, share, rank, what):
        learner(matrix, share).expect(rank, f"and {what}")

    for energies, share in [
        ([50, 30, 15, 5], 0.9),
        ([90, 6, 4], 0.85),
        ([30, 28, 22, 20], 0.7),
        ([60, 25, 10, 5], 0.98),
    ]:
        values = np.sqrt(energies)
        rank = int(np.argmax(np.cumsum(energies) / sum(energies) >= share)) + 1
        matrix = _matrix(rng, values, len(values) + 2, len(values) + 1)
        what = f"its singular values, squared, are {energies}: the first {rank} hold that share"
        ask(matrix, share, rank, what)
        ask(1e-3 * matrix, share, rank, f"{what} (scaled by 0.001, which changes no share)")
        ask(matrix.T, share, rank, f"{what} (of the transposed matrix)")
    for rows, columns, rank in [(12, 30, 3), (40, 16, 5), (20, 20, 1)]:
        product = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
        ask(product, 1 - 1e-9, rank, f"the matrix is a product of {rows} x {rank} and {rank} x {columns}")
    for _ in range(5):
        matrix = rng.normal(size=(24, 18)) * np.exp(-rng.uniform(0, 0.4) * np.arange(18))
        energy = np.linalg.svd(matrix, compute_uv=False) ** 2
        held = np.cumsum(energy) / energy.sum()
        for share in (0.35, 0.62, 0.93):
            given = learner(matrix, share)
            rank = given.number()
            if rank not in range(1, 19):
                given.wrong("and a rank from 1 to 18 is wanted")
            if held[int(rank) - 1] < share:
                given.wrong(f"and that rank keeps only {held[int(rank) - 1]:.4f} of the energy")
            if rank > 1 and held[int(rank) - 2] >= share:
                given.wrong(f"and one rank less is enough: it keeps {held[int(rank) - 2]:.4f} of the energy")


def _matrix(rng, values, rows: int, columns: int):
    """A random matrix with these singular values."""
    left, _ = np.linalg.qr(rng.normal(size=(rows, len(values))))
    right, _ = np.linalg.qr(rng.normal(size=(columns, len(values))))
    return left * values @ right.T
