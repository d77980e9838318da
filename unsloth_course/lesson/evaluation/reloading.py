"""Is what was saved and loaded again the same model? Rounding may decide near ties either way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unsloth_course.lesson import models
from unsloth_course.lesson.evaluation.asking import LONGEST_ANSWER
from unsloth_course.lesson.evaluation.surprise import nats_of

DRIFT = 0.015  # by how many nats a token, on average, two copies of a model may be apart in -log p
TIE = 0.5
"""By how many nats a token may lead over another one that a copy chooses in its place.

Measured on SmolLM2-135M-Instruct, float32 against bfloat16, which is more than saving does: up to 0.007 and 0.22. An
adapter of noise left out, whose every B has a deviation of 0.01, is 0.021.
"""


@dataclass(frozen=True)
class Reloaded:
    """Of `n` greedy answers those that are the `same`; of each other one by how many nats the two tokens were apart;
    and the drift: by how many nats a token the two models differ in -log p, on average over all questions and answers.
    """

    n: int
    same: int
    gaps: list[float]
    drift: float

    @property
    def close(self) -> bool:
        """Whether it is the same model, up to rounding."""
        return self.drift <= DRIFT and max(self.gaps, default=0.0) <= TIE

    def __repr__(self) -> str:
        told = f"{self.same} of {self.n} answers are the same as before saving"
        if self.close and not self.gaps:
            return f"{told}."
        verb, gap = "differs" if len(self.gaps) == 1 else "differ", f"{max(self.gaps, default=0.0):.2f} nats"
        if self.close:
            return (
                f"{told}; {len(self.gaps)} {verb} first where two tokens are nearly as likely (largest gap {gap}): "
                f"rounding chose, and the model is the same ({self.drift:.3f} nats a token apart)."
            )
        return (
            f"{told}, and this is not the same model: it is {self.drift:.3f} nats a token apart, where rounding "
            f"explains {DRIFT:g}; the largest gap between tokens that differ is {gap}, where it "
            f"explains {TIE:g}. Was it saved after the training, and loaded from this folder?"
        )


def same_answers(
    model: Any,
    again: Any,
    tokenizer: Any,
    questions: Sequence[str | Sequence[Mapping[str, str]]],
    max_new_tokens: int = LONGEST_ANSWER,
) -> Reloaded:
    """A trained model and what was loaded from its folder, asked the same in the same batches and compared.

    questions: texts, or conversations up to the answer. A GPU adds in another order from one run to the next, so two
    tokens that are nearly as likely may change places; the probabilities that both models give to all tokens tell
    whether the weights are the same. Taught in lessons colab1 to colab4.
    """
    turns = [[{"role": "user", "content": each}] if isinstance(each, str) else each for each in questions]
    prompts = [models.in_chat_form(tokenizer, each, tokenize=False, add_generation_prompt=True) for each in turns]

    def written(asked: Any) -> list[list[int]]:
        tokens: list[list[int]] = []
        models.complete(asked, tokenizer, prompts, max_new_tokens, tokens=tokens)
        return tokens

    ours, theirs, known = written(model), written(again), tokenizer(prompts, add_special_tokens=False)["input_ids"]
    forks = []  # two rows for each answer that differs: up to its first other token, with the one and with the other
    for prompt, mine, other in zip(known, ours, theirs, strict=True):
        place = next((n for n, pair in enumerate(zip(mine, other, strict=False)) if pair[0] != pair[1]), None)
        if place is not None:
            forks += [[*prompt, *mine[: place + 1]], [*prompt, *mine[:place], other[place]]]
    nats = nats_of(model, tokenizer, forks, [len(row) - 1 for row in forks]) if forks else []
    rows = [[*prompt, *mine] for prompt, mine in zip(known, ours, strict=True)]
    both = [nats_of(each, tokenizer, rows, [1] * len(rows)) for each in (model, again)]
    return Reloaded(
        n=len(ours),
        same=len(ours) - len(forks) // 2,
        gaps=[max(0.0, second - first) for first, second in zip(nats[::2], nats[1::2], strict=True)],
        drift=sum(abs(a - b) for a, b in zip(*both, strict=True)) / sum(len(row) - 1 for row in rows),
    )
