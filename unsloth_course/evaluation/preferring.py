"""Preferences: how often a model writes in the preferred way, and whether what it says is still right."""

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsloth_course import models
from unsloth_course.errors import CourseError
from unsloth_course.evaluation.scores import Answers, Retention, Score, interval

if TYPE_CHECKING:
    from datasets import Dataset

LONGEST_PREFERRED = 32  # tokens
COMPARED = 200  # words of a text that are compared; the comparison grows with their square
# A model that rambles on shares a few words with any sentence, and more than with a bare answer.
ALIKE = 0.5
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

    def __str__(self) -> str:
        line = f"{sum(self.preferred)} of {len(self.given)} in the preferred way ({100 * self.share:.1f} %)"
        return line + (f", {sum(self.correct)} right ({100 * self.correctness:.1f} %)" if self.correct else "")

    __repr__ = __str__


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
    rewards of DPO rise on text that it never writes. Where the rejected texts are essays, both are compared up to the
    length of the answer. Taught in lesson colab3 (DPO).
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


def follow(trainer: Any, rows: "Dataset", every: int, max_new_tokens: int = LONGEST_PREFERRED) -> None:
    """Has a trainer measure what its model writes, at the start and every so many steps, and note it in its own log.

    rows: as for `prefer`. The log gets written/preferred and, where being right can be told, written/right, as shares
    from 0 to 1 beside the step, so that `plots.traces` can draw them under the margins. It costs the time of the
    answers and changes nothing in the training. Raises CourseError for a distance below one step. Taught in lesson
    colab3 (DPO).
    """
    from transformers import TrainerCallback

    if every < 1:
        raise CourseError(f"every is {every}; give a whole number of steps of at least 1.")

    class Written(TrainerCallback):
        def note(self, state: Any, model: Any) -> None:
            found = prefer(model, trainer.processing_class, rows, max_new_tokens)
            marks = {"written/preferred": found.share}
            if found.correctness is not None:
                marks["written/right"] = found.correctness
            state.log_history.append({"step": state.global_step, **marks})

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            self.note(state, model)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step % every == 0:
                self.note(state, model)

    trainer.add_callback(Written())


def preference_score(before: Preferred, after: Preferred, retained: tuple[Answers, Answers] | None = None) -> Score:
    """The comparison of what was written before and after, with its interval and what became of being right."""
    return Score(
        metric="preference_rate",
        n=len(after.given),
        before=before.share,
        after=after.share,
        interval=interval(before.preferred, after.preferred),
        retention=Retention("exact_match", retained[0].share, retained[1].share) if retained else None,
        correctness=Retention("correct", before.correctness, after.correctness) if after.correct else None,
    )
