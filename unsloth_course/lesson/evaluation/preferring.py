"""Preferences: how often a model writes in the preferred way, and whether what it says is still right."""

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsloth_course.lesson import models
from unsloth_course.lesson.data.turns import turn
from unsloth_course.lesson.evaluation import surprise
from unsloth_course.lesson.evaluation.intervals import interval, share_above_a_coin
from unsloth_course.lesson.evaluation.scores import Answers, Measure, Retention, Score, score_of
from unsloth_course.lesson.evaluation.surprise import Surprise

if TYPE_CHECKING:
    from datasets import Dataset

LONGEST_PREFERRED = 32  # tokens
COMPARED = 200  # words of a text that are compared; the comparison grows with their square
ALIKE = 0.5  # a model that rambles on shares a few words with any sentence, and more than with a bare answer
BETA = 0.1  # the default of TRL and of `training.preference_trainer`
SHORT = 24  # characters: a rejected answer up to here is a bare answer, which a right one has to contain


@dataclass(frozen=True)
class Preferred:
    """What a model answered, which answers are in the preferred way, and which are right.

    `correct` is empty where being right cannot be told: the pair's answers are essays, not facts.
    """

    questions: list[str]
    chosen: list[str]
    rejected: list[str]
    given: list[str]
    preferred: list[bool]
    correct: list[bool]

    @property
    def share(self) -> float:
        """The share of answers in the preferred way, from 0 to 1."""
        return sum(self.preferred) / len(self.preferred)

    @property
    def correctness(self) -> float | None:
        """The share of right answers, from 0 to 1, or None where it cannot be told."""
        return sum(self.correct) / len(self.correct) if self.correct else None

    def as_answers(self) -> Answers:
        """The same for `diagnosis.receipt`, which shows answers whose mark changed: right means preferred."""
        return Answers(self.questions, self.chosen, self.given, self.preferred)

    def __repr__(self) -> str:
        line = f"{sum(self.preferred)} of {len(self.given)} in the preferred way ({100 * self.share:.1f} %)"
        return line + (f", {sum(self.correct)} right ({100 * self.correctness:.1f} %)" if self.correct else "")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())[:COMPARED]


def likeness(first: str, second: str) -> float:
    """How much two texts share, from 0 to 1: twice the words that they have in the same order, over all their words."""
    return difflib.SequenceMatcher(None, _words(first), _words(second), autojunk=False).ratio()


def is_preferred(given: str, chosen: str, rejected: str, at_least: float = 0.0) -> bool:
    """Whether an answer is more like the chosen text than like the rejected one, and at least so much. A tie is not."""
    near = likeness(given, chosen)
    return near >= at_least and near > likeness(given, rejected)


def _begun(text: str, given: str) -> str:
    """As many words of a text as an answer has.

    An essay is cut off at the limit of tokens. Beside whole texts such a beginning is always more like the shorter one.
    """
    return " ".join(_words(text)[: len(_words(given))])


def is_correct(given: str, short: str) -> bool:
    """Whether an answer is the short one, or one sentence that ends in it."""
    return bool(re.search(rf"(^|\W){re.escape(short.strip())}\W*$", given.strip())) and "\n" not in given.strip()


def prefer(model: Any, tokenizer: Any, rows: "Dataset", max_new_tokens: int = LONGEST_PREFERRED) -> Preferred:
    """The model's answers to held-out prompts, each compared with the prompt's chosen and rejected text.

    rows: columns prompt (a list of chat turns), chosen, rejected (text). What counts is what the model writes: the
    rewards of DPO rise on text that it never writes. Essays are compared up to the length of the answer. Taught in
    lesson colab3 (DPO).
    """
    prompts = [
        models.in_chat_form(tokenizer, turns, tokenize=False, add_generation_prompt=True) for turns in rows["prompt"]
    ]
    given = models.complete(model, tokenizer, prompts, max_new_tokens)
    chosen, rejected = list(rows["chosen"]), list(rows["rejected"])
    bare = all(len(text) <= SHORT for text in rejected)
    texts = list(zip(given, chosen, rejected, strict=True))
    if not bare:
        texts = [(mine, _begun(good, mine), _begun(bad, mine)) for mine, good, bad in texts]
    return Preferred(
        questions=[turns[-1]["content"] for turns in rows["prompt"]],
        chosen=chosen,
        rejected=rejected,
        given=given,
        preferred=[is_preferred(*compared, at_least=ALIKE if bare else 0.0) for compared in texts],
        correct=[*map(is_correct, given, rejected)] if bare else [],
    )


@dataclass(frozen=True)
class PairLikelihood:
    """How likely a model finds the chosen and the rejected answer of each held-out pair. Before the training it is the
    reference, against which DPO measures what an answer gained.
    """

    chosen: Surprise
    rejected: Surprise

    def gains(self, reference: "PairLikelihood") -> list[float]:
        """For each pair how many nats more the chosen answer gained than the rejected one since the reference."""
        figures = self.chosen.losses, reference.chosen.losses, self.rejected.losses, reference.rejected.losses
        return [(good_was - good) - (bad_was - bad) for good, good_was, bad, bad_was in zip(*figures, strict=True)]

    def __repr__(self) -> str:
        return f"chosen: {self.chosen}; rejected: {self.rejected}"


def pair_likelihood(model: Any, tokenizer: Any, rows: "Dataset", length: int) -> PairLikelihood:
    """How likely the model finds the two answers of held-out pairs, each read up to `length` tokens of its row.

    rows: as for `prefer`; a pair of which one answer begins beyond the length is left out. Raises CourseError when none
    is left. Taught in lesson colab3 (DPO).
    """
    sides = []
    for side in ("chosen", "rejected"):
        both = zip(rows["prompt"], rows[side], strict=True)
        turns = [{"prompt": asked, "completion": [turn("assistant", text)]} for asked, text in both]
        sides.append(surprise.each_answer(model, tokenizer, turns, length))
    read = [all(pair) for pair in zip(*sides, strict=True)]
    return PairLikelihood(
        *(surprise.whole([one if both else None for one, both in zip(side, read, strict=True)]) for side in sides)
    )


def preference_score(
    before: Preferred,
    after: Preferred,
    retained: tuple[Answers, Answers] | None = None,
    likelihood: tuple[PairLikelihood, PairLikelihood] | None = None,
    beta: float = BETA,
) -> Score:
    """The comparison of what was written before and after, with its interval and what became of being right.

    likelihood: that of held-out pairs before, which is the reference, and after. From it follow the preference
    accuracy, which judges: the share of pairs whose chosen answer gained more log-probability than the rejected one,
    beside the 0.5 of a coin; the margin, beta (that of the training) times the mean difference of the two gains; and
    the perplexity of the chosen answers. Taught in lesson colab3 (DPO).
    """
    length = interval([*map(len, before.given)], [*map(len, after.given)])
    characters = [sum(map(len, found.given)) / len(found.given) for found in (before, after)]
    measures = [Measure("length", *characters, length, len(after.given))]
    if likelihood:
        reference, now = likelihood
        gains = now.gains(reference)
        count = len(gains)
        share = (sum(gain > 0 for gain in gains) + sum(gain == 0 for gain in gains) / 2) / count
        above = share_above_a_coin(share, count)
        spread = interval([0.0] * count, [beta * gain for gain in gains])
        measures = [
            Measure("preference_accuracy", 0.5, share, above, count, judges=True),
            Measure("margin", 0.0, beta * sum(gains) / count, spread, count),
            surprise.perplexity_measure("chosen_perplexity", reference.chosen, now.chosen),
            *measures,
        ]
    change = interval(before.preferred, after.preferred)
    own = Measure("preference_rate", before.share, after.share, change, len(after.given))
    right = Retention("correct", before.correctness, after.correctness) if after.correct else None
    return score_of(own, retained, correctness=right, measures=tuple(measures))
