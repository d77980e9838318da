"""Exercises of the continued pretraining lesson (colab5): perplexity, packing, and a replay mix."""

import math
import random
from collections import Counter
from typing import Any

from unsloth_course.lesson.exercises.asking import Given, Learner, brief, exercise


def perplexity_of(losses):
    import math

    tokens = [loss for text in losses for loss in text]
    return math.exp(sum(tokens) / len(tokens))


@exercise(
    "cpt.1",
    "Perplexity of several texts",
    perplexity_of,
    "Perplexity is the exponential of a mean. The mean over what?",
    "Add up the losses of all texts, divide by the number of all tokens, and only then take `math.exp`.",
)
def _perplexities(learner: Learner) -> None:
    rng = random.Random("cpt.1")
    learner([[math.log(2)] * 3]).expect(2.0, "and a model in doubt between 2 tokens at every step has the perplexity 2")
    learner([[0.0] * 5, [0.0]]).expect(1.0, "and a model that is never surprised has the perplexity 1")
    for _ in range(25):
        texts = [[round(rng.uniform(0, 6), 3) for _ in range(rng.randint(1, 40))] for _ in range(rng.randint(2, 6))]
        given, joined = learner(texts), learner([[loss for text in texts for loss in text]])
        if not math.isclose(given.number(), joined.number(), rel_tol=1e-6):
            given.wrong(
                f"and {joined.number():.6g} when the same {sum(map(len, texts))} tokens come as one text: "
                "where a text ends must not matter"
            )
        mean = sum(map(sum, texts)) / sum(map(len, texts))
        given.expect(math.exp(mean), f"where a token costs {mean:.4f} nats on average, and perplexity is exp of that")


def pack_texts(texts, end, length):
    stream = []
    for text in texts:
        stream += [*text, end]
    whole = len(stream) - len(stream) % length
    return [stream[i : i + length] for i in range(0, whole, length)]


@exercise(
    "cpt.2",
    "Pack texts into blocks",
    pack_texts,
    "Make one long list first. A block may begin inside a text, and hold parts of several.",
    (
        "`stream += [*text, end]` for each text; then `stream[i : i + length]` for `i` in steps of `length`, "
        "the last one only if it is full."
    ),
)
def _packs(learner: Learner) -> None:
    rng = random.Random("cpt.2")
    cases = [([[5, 6, 7, 8]], 0, 2), ([[5, 6, 7], [8], [9, 10]], 0, 3), ([[5], [6]], 0, 9), ([], 0, 4)]
    for _ in range(25):
        texts = [[rng.randint(3, 99) for _ in range(rng.randint(1, 30))] for _ in range(rng.randint(1, 8))]
        cases.append((texts, rng.choice([0, 2]), rng.randint(2, 16)))
    for texts, end, length in cases:
        given = learner(texts, end, length)
        blocks = given.items()
        for block in blocks:
            if not isinstance(block, list) or len(block) != length:
                given.wrong(f"and every block has to hold {length} tokens")
        stream = [token for text in texts for token in [*text, end]]
        whole = len(stream) // length
        if len(blocks) != whole:
            given.wrong(f"that is {len(blocks)} blocks; {len(stream)} tokens, each text's end included, fill {whole}")
        flat = [token for block in blocks for token in block]
        for position, (found, wanted) in enumerate(zip(flat, stream, strict=False)):
            if found != wanted:
                given.wrong(
                    f"where token {position} of the stream is {wanted}"
                    + (", the end of a text," if wanted == end else "")
                    + f" and yours is {found}"
                )


def mix_replay(domain, general, share, seed):
    import random

    rng = random.Random(seed)
    count = round(len(domain) * share / (1 - share))
    blocks = domain + rng.sample(general, count)
    rng.shuffle(blocks)
    return blocks


@exercise(
    "cpt.3",
    "Mix in replay",
    mix_replay,
    "The share is one of the result, not of the domain blocks: a half means as many general blocks as others.",
    (
        "From g / (d + g) = share follows g = d * share / (1 - share). A `random.Random(seed)` of your own can "
        "`sample` and `shuffle`, and follows the seed."
    ),
)
def _mixes(learner: Learner) -> None:
    rng = random.Random("cpt.3")
    general = [[1, number] for number in range(1000)]
    for count, share in [(30, 0.25), (400, 0.2), (300, 0.5), (50, 0.0), (240, 0.4), (90, 0.1), (600, 0.05)]:
        domain = [[0, number] for number in range(count)]
        seed = rng.randint(0, 9999)
        given = learner(domain, general, share, seed)
        blocks = given.items()
        given.unchanged(0, "domain", "and the data has to stay as it was")
        given.unchanged(1, "general", "and the data has to stay as it was")
        replay = _counted(given, blocks, domain, general)
        if abs(replay - share * len(blocks)) > 1:
            found = f"{replay} of {len(blocks)} blocks are general ones, a share of {replay / len(blocks):.3f}"
            given.wrong(f"where {found} and not {share}")
        if learner(domain, general, share, seed).items() != blocks:
            given.wrong("and something else when it was called again: the seed has to decide everything")
        if learner(domain, general, share, seed + 1).items() == blocks:
            given.wrong(f"and the same for the seed {seed + 1}: another seed has to give another order")
        early = sum(block in general for block in blocks[: len(blocks) // 2])
        if replay > 60 and not 0.2 < early / replay < 0.8:
            given.wrong(f"where {early} of the {replay} general blocks come in the first half: spread them all over")


def _counted(given: Given, blocks: list[Any], domain: list[Any], general: list[Any]) -> int:
    """How many blocks are general ones. Raises `Wrong` for a stranger, a block twice, and a domain block missing."""
    kinds = {repr(block): "domain" for block in domain} | {repr(block): "general" for block in general}
    found = [repr(block) for block in blocks]
    strange = [block for block, name in zip(blocks, found, strict=True) if name not in kinds]
    if strange:
        given.wrong(f"where {brief(strange[0])} is none of the blocks")
    if len(set(found)) < len(found):
        given.wrong("where a block stands twice")
    counts = Counter(kinds[name] for name in found)
    if counts["domain"] < len(domain):
        given.wrong(f"where {counts['domain']} of the {len(domain)} domain blocks are left")
    return counts["general"]
