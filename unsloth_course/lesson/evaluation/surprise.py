"""Perplexity: how surprised a model is by text, and by the same words in no order."""

import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import models
from unsloth_course.lesson.evaluation.intervals import interval, ratio_interval
from unsloth_course.lesson.evaluation.scores import Answers, Measure, Retention, Score, score_of

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

TEXTS_AT_ONCE = 32
MOST = 700  # nats: beyond that the exponential is infinite
MOST_LOGITS = 2**27  # numbers of one batch: half a GiB in float32, and about three times that at its peak


@dataclass(frozen=True)
class Surprise:
    """How surprised a model was by texts: the sum of -log p over the tokens of each text, in nats, and their number."""

    losses: list[float]
    tokens: list[int]
    characters: list[int]

    @property
    def loss(self) -> float:
        """The mean over all tokens, in nats per token."""
        return sum(self.losses) / sum(self.tokens)

    @property
    def perplexity(self) -> float:
        """exp(loss): between how many tokens, all equally likely, the model was in doubt at each token."""
        return math.exp(min(self.loss, MOST))

    @property
    def bits_per_character(self) -> float:
        """The same in bits for each character, which can be compared between tokenizers."""
        return sum(self.losses) / math.log(2) / sum(self.characters)

    def likelier(self, than: "Surprise") -> int:
        """How many of the same texts are likelier here than they were there."""
        return sum(now < was for was, now in zip(than.losses, self.losses, strict=True))

    def __repr__(self) -> str:
        return (
            f"perplexity {self.perplexity:,.2f} on {sum(self.tokens):,} tokens "
            f"({self.bits_per_character:.2f} bits per character)"
        )


def perplexity(model: Any, tokenizer: Any, texts: Sequence[str], length: int) -> Surprise:
    """How surprised the model is by each text, token by token, the first one aside.

    Text beyond `length` tokens is not looked at; a text of fewer than two tokens is left out. What is longer than the
    `max_seq_length` of the model is read in windows of that length: on a GPU Unsloth cuts longer rows off. Control
    tokens written out in a text are read as characters. Raises ValueError when no text is left. Follows Jelinek et al.
    1977. Taught in lesson colab5 (continued pretraining).
    """
    texts = list(texts)
    rows = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    size = min(length, getattr(model, "max_seq_length", None) or length)
    windows = [
        (number, row[start : min(start + size, length)])
        for number, row in enumerate(rows)
        for start in range(0, min(len(row), length), size)
    ]
    windows = [(number, row) for number, row in windows if len(row) > 1]
    if not windows:
        raise ValueError("Perplexity needs at least one text of two tokens or more.")
    losses = nats_of(model, tokenizer, [row for _, row in windows], [1] * len(windows))
    # For each text the sums over its windows: nats, tokens, characters.
    sums: dict[int, tuple[float, int, int]] = {}
    for (number, row), loss in zip(windows, losses, strict=True):
        nats, tokens, characters = sums.get(number, (0.0, 0, 0))
        read = len(tokenizer.decode(row[1:], clean_up_tokenization_spaces=False))
        sums[number] = (nats + loss, tokens + len(row) - 1, characters + read)
    return Surprise(*map(list, zip(*sums.values(), strict=True)))


def nats_of(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> list[float]:
    """The sum of -log p over the tokens of each row from its start on, in nats; a start is at least 1.

    Rows of about one length go through the model together, so that little is padding; the sums are in the rows' order.
    """
    import torch

    losses = [0.0] * len(rows)
    waiting = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    with models.answering(model), torch.no_grad():
        while waiting:
            longest = len(rows[waiting[-1]])
            at_once = max(1, min(TEXTS_AT_ONCE, MOST_LOGITS // (longest * model.config.vocab_size)))
            together, waiting = waiting[-at_once:], waiting[:-at_once]
            batch, begin = [rows[number] for number in together], [starts[number] for number in together]
            ids = torch.tensor([[*row, *[tokenizer.pad_token_id] * (longest - len(row))] for row in batch])
            real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch])
            counted = real * (torch.arange(longest) >= torch.tensor(begin)[:, None])
            ids, real, counted = ids.to(model.device), real.to(model.device), counted.to(model.device)
            logits = model(input_ids=ids, attention_mask=real).logits[:, :-1].float()
            each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
            for number, loss in zip(together, (each * counted[:, 1:]).sum(dim=1).tolist(), strict=True):
                losses[number] = loss
    return losses


def answer_perplexity(model: Any, tokenizer: Any, rows: Iterable[Mapping[str, Any]], length: int) -> Surprise:
    """How surprised the model is by answers, token by token, given the turns before them; the end token counts.

    rows: TRL's conversational columns prompt and completion, and tools, if any, read up to `length` tokens, as in
    training; a row whose answer begins beyond them is left out. Raises CourseError when none is left.
    """
    return whole(each_answer(model, tokenizer, rows, length))


Each = tuple[float, int, int] | None
"""Of one answer its nats, tokens and characters; None where it begins beyond the length that is looked at."""


def each_answer(model: Any, tokenizer: Any, rows: Iterable[Mapping[str, Any]], length: int) -> list[Each]:
    """The figures of `answer_perplexity` for each row, in the order of the rows."""
    ids, starts, found = [], [], []
    for row in rows:
        turns, shown = [*row["prompt"], *row["completion"]], {"tools": row.get("tools")}
        asked = models.chat_ids(tokenizer, row["prompt"], add_generation_prompt=True, **shown)
        ended = models.chat_ids(tokenizer, turns, **shown)
        read = len(asked) < min(len(ended), length)
        if read:
            ids.append(ended[:length])
            starts.append(len(asked))
        text = tokenizer.decode(ended[len(asked) : length], clean_up_tokenization_spaces=False)
        found.append((min(len(ended), length) - len(asked), len(text)) if read else None)
    losses = iter(nats_of(model, tokenizer, ids, starts))
    return [(next(losses), *counts) if counts else None for counts in found]


def whole(answers: Sequence[Each]) -> Surprise:
    """The answers that were read as one Surprise. Raises CourseError when none was."""
    read = [figures for figures in answers if figures]
    if not read:
        raise CourseError(
            f"Of {len(answers)} held-out rows none has its answer within the length that is read: what comes before it "
            "is longer. Raise --max-length."
        )
    return Surprise(*map(list, zip(*read, strict=True)))


def shuffled(texts: Sequence[str], seed: int = 0) -> list[str]:
    """The same texts with their words, and the white space between them, in random order."""
    rng = random.Random(seed)
    mixed = []
    for text in texts:
        pieces = re.findall(r"\s+|\w+|[^\w\s]", text)
        rng.shuffle(pieces)
        mixed.append("".join(pieces))
    return mixed


def perplexity_interval(first: Surprise, second: Surprise) -> tuple[float, float]:
    """The 95 % interval of the second perplexity minus the first, texts drawn anew (see `scores.ratio_interval`)."""
    pairs = [(found.losses, found.tokens) for found in (first, second)]
    return ratio_interval(*pairs, lambda loss: np.exp(np.minimum(loss, MOST)))


def perplexity_measure(name: str, before: Surprise, after: Surprise, judges: bool = False) -> Measure:
    """The perplexity of the same texts before and after, and how many of them became likelier."""
    change, n = perplexity_interval(before, after), len(after.losses)
    return Measure(name, before.perplexity, after.perplexity, change, n, judges, after.likelier(before))


def perplexity_score(
    before: Surprise,
    after: Surprise,
    general: tuple[Surprise, Surprise] | None = None,
    chance: Surprise | None = None,
    beside: Mapping[str, tuple[Surprise, Surprise]] | None = None,
    facts: tuple[Answers, Answers] | None = None,
) -> Score:
    """The comparison of held-out domain text before and after. Lower is better, and the interval is after minus before.

    general: the same of what should stay, before and after: general text, or the answers in chat. chance: the trained
    model on the domain texts in shuffled order (see `shuffled`); who learned only which words occur finds these no more
    surprising. beside: other texts by the name of their measure, such as "unread_perplexity", each before and after.
    facts: what it recalls.
    """
    pair = [(found.losses, found.characters) for found in (before, after)]
    bits = ratio_interval(*pair, lambda nats: nats / math.log(2))
    measures = [
        perplexity_measure("perplexity", before, after, judges=True),
        Measure("bits_per_character", before.bits_per_character, after.bits_per_character, bits, len(after.losses)),
    ]
    measures += [perplexity_measure(name, *pair) for name, pair in (beside or {}).items()]
    if facts:
        change = interval(facts[0].right, facts[1].right)
        measures.append(Measure("facts", facts[0].share, facts[1].share, change, len(facts[1].right)))
    # Where chat is what should stay, `general` holds the answers in chat.
    kind = "chat_perplexity" if "chat_perplexity" in (beside or {}) else "perplexity"
    found = score_of(measures[0], measures=tuple(measures))
    if chance:
        found = replace(found, chance=chance.perplexity, above_chance=perplexity_interval(chance, after))
    return replace(found, retention=Retention(kind, *(one.perplexity for one in general))) if general else found


def surprises(model: Any, tokenizer: Any, tests: Mapping[str, "Dataset"], length: int) -> dict[str, Surprise]:
    """The surprise at each set of texts (column text), or at answers (columns prompt and completion).

    Of a text `length` tokens are looked at, of a row twice as many. Taught in lesson colab5 (continued pretraining).
    """
    return {
        name: answer_perplexity(model, tokenizer, rows, 2 * length)
        if "prompt" in rows.column_names
        else perplexity(model, tokenizer, rows["text"], length)
        for name, rows in tests.items()
    }


def reading_score(
    before: Mapping[str, Any], after: Mapping[str, Any], old: str, chance: Surprise | None = None
) -> Score:
    """`perplexity_score` of what was read: "domain", `old` as what should stay, "unread" beside them, and "skills".

    Taught in lesson colab5 (continued pretraining).
    """
    pairs = {name: (before[name], after[name]) for name in after}
    beside = {f"{name}_perplexity": pairs[name] for name in ("unread", "chat") if name in pairs}
    return perplexity_score(*pairs["domain"], pairs[old], chance, beside, facts=pairs["skills"])


def side_by_side(legs: Mapping[str, Mapping[str, Any]], old: str = "general") -> "DataFrame":
    """Runs beside each other, the first one as what the others are compared with: one column for each.

    legs: by name, for each a `Surprise` by the name of its texts, and skills (an `Answers`). old: the texts that should
    stay as they were. Taught in lesson colab5 (continued pretraining).
    """
    import pandas as pd

    known = next(iter(legs.values()))[old].perplexity
    return pd.DataFrame(
        {
            name: {
                **{f"perplexity, {what}": f"{leg[what].perplexity:,.2f}" for what in leg if what != "skills"},
                f"rise of {old}": f"{leg[old].perplexity / known - 1:+.1%}",
                "untouched skills": f"{leg['skills'].share:.1%}",
            }
            for name, leg in legs.items()
        }
    )
