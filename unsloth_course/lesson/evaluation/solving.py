"""Problems with an answer that can be verified: how many are solved, at the first try and in several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import models, rewards
from unsloth_course.lesson.data import problems
from unsloth_course.lesson.evaluation.intervals import apart, interval, ratio_interval
from unsloth_course.lesson.evaluation.scores import Answers, Measure, Score, score_of

if TYPE_CHECKING:
    from datasets import Dataset

LONGEST_SOLUTION = 64  # tokens: four steps and the answer of a bundled problem are up to 56
SAMPLES_AT_ONCE = 256
ENDING = 0.8  # of the tries with steps, so many have to end as the reward reads them
ROOM = 0.2  # from pass@1 to pass@8: what GRPO has to sort
_MARKED = "`#### number`"


def is_solved(given: str, solution: str) -> bool:
    """Whether an answer ends in the number that the worked solution ends in, both behind `####` as in GSM8K."""
    number = problems.final(given)
    return number is not None and number == problems.final(solution)


def solve(model: Any, tokenizer: Any, rows: "Dataset", max_new_tokens: int = LONGEST_SOLUTION) -> Answers:
    """The model's answers to problems, asked in its chat form, greedily, and verified by their final number.

    rows: columns question and answer, a worked solution that ends in `#### number` as in GSM8K (Cobbe et al. 2021).
    Taught in lesson colab4 (GRPO).
    """
    given = models.answer(model, tokenizer, rows["question"], max_new_tokens)
    expected = list(rows["answer"])
    return Answers(list(rows["question"]), expected, given, [*map(is_solved, given, expected)])


def pass_at(k: int, right: Sequence[Sequence[bool]]) -> float:
    """The chance, from 0 to 1, that at least one of k tries solves a problem, averaged over the problems.

    right: one list per problem, a mark for each of its n >= k tries. The estimate 1 - C(n - c, k) / C(n, k) with c
    right tries has no bias (Chen et al. 2021, section 2.1).
    """
    missed = [math.comb(len(tries) - sum(tries), k) / math.comb(len(tries), k) for tries in right]
    return 1 - sum(missed) / len(missed)


@dataclass(frozen=True)
class Attempts:
    """Several answers to each problem, drawn at random: one list of answers and of marks for each. `ended` says which
    stopped by themselves, before the limit; it may be empty where that is not known.
    """

    questions: list[str]
    expected: list[str]
    given: list[list[str]]
    right: list[list[bool]]
    ended: list[list[bool]] = field(default_factory=list)

    @property
    def times(self) -> int:
        """The number of tries of each problem."""
        return len(self.right[0])

    @property
    def steps(self) -> np.ndarray:
        """Which of the answers show a step, problems x tries: something is equal to something."""
        return np.array([["=" in text for text in answers] for answers in self.given])

    @property
    def worked(self) -> float:
        """The share of the answers, from 0 to 1, that show a step."""
        return float(self.steps.mean())

    def accuracy_of(self, worked: bool) -> tuple[int, int]:
        """Of the answers with steps, or of those without: how many are right, and how many there are."""
        shown = self.steps == worked
        return int((shown & self.right).sum()), int(shown.sum())

    @property
    def clean(self) -> np.ndarray:
        """Which of the answers end by themselves, and with a number behind their only `####`; problems x tries."""
        return np.array([rewards.form(answers) for answers in self.given], bool) & (self.ended or True)

    @property
    def ends(self) -> float:
        """The share of the answers, from 0 to 1, that end by themselves with exactly one `#### number`."""
        return float(self.clean.mean())

    @property
    def worked_ends(self) -> float:
        """The same of the answers with steps alone; there has to be one."""
        return float(self.clean[self.steps].mean())

    @property
    def mixed(self) -> int:
        """The number of a problem to look at: two or more right and wrong answers, and most often steps; else 0."""
        right = np.sum(self.right, axis=1)
        return int(np.argmax((1 + self.steps.sum(axis=1)) * ((right >= 2) & (right <= self.times - 2))))

    def __repr__(self) -> str:
        times, (right, shown), (others, bare) = self.times, self.accuracy_of(True), self.accuracy_of(False)
        return (
            f"pass@1 {100 * pass_at(1, self.right):.1f} %, pass@{times} {100 * pass_at(times, self.right):.1f} % "
            f"of {len(self.right)} problems\n"
            f"{100 * self.ends:.1f} % of the tries end by themselves with one {_MARKED}\n"
            f"{100 * self.worked:.1f} % show steps: {right} of {shown} are right; without steps {others} of {bare}"
        )


@dataclass(frozen=True)
class Gate:
    """Whether GRPO has something to sort, and the sentence that says so or what to change."""

    open: bool
    text: str

    def require(self) -> None:
        """Raises CourseError with the sentence where it is closed."""
        if not self.open:
            raise CourseError(self.text)

    def __repr__(self) -> str:
        return self.text


def gate(tries: Attempts) -> Gate:
    """Whether real tries are good enough for GRPO to begin.

    At least 80 % of the tries with steps have to end by themselves with one `#### number`, or the reward cannot read
    them; and one of all tries has to be right by at least 20 points more often than one alone, or the groups have no
    spread. Taught in lesson colab4 (GRPO).
    """
    times = tries.times
    first, best = (pass_at(k, tries.right) for k in (1, times))
    shown = f"pass@1 {first:.0%}, pass@{times} {best:.0%}"
    if not tries.steps.any():
        reason = "No try shows a step. Mix more worked rows into the warm-up, or make it longer."
    elif tries.worked_ends < ENDING:
        reason = (
            f"Only {tries.worked_ends:.0%} of the tries with steps end by themselves with one `#### number`, and "
            f"{ENDING:.0%} should: the reward cannot read the others. Make the warm-up longer, or completions longer."
        )
    elif best - first < ROOM and first >= 0.5:
        reason = f"There is little left to sort ({shown}). Take harder problems."
    elif best - first < ROOM:
        reason = (
            f"The model is hardly ever right ({shown}), so most groups have no spread. Take easier problems, or make "
            "the warm-up longer."
        )
    else:
        ends = f"{tries.worked_ends:.0%} of the tries with steps end as they should"
        return Gate(True, f"The gate is open: {ends}, and there is something to sort ({shown}).")
    return Gate(False, f"The gate is closed. {reason}")


def attempt(
    model: Any, tokenizer: Any, rows: "Dataset", times: int = 8, max_new_tokens: int = LONGEST_SOLUTION, seed: int = 0
) -> Attempts:
    """Several answers to each problem, drawn at a temperature of 1, verified by their final number.

    rows: as for `solve`. The draw follows `seed` and leaves torch's random state alone. Taught in lesson colab4 (GRPO).
    """
    import torch

    questions, expected = list(rows["question"]), list(rows["answer"])
    ended: list[bool] = []
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        made = models.complete(
            model,
            tokenizer,
            [models.chat_prompt(tokenizer, text) for text in questions],
            max_new_tokens,
            at_once=max(1, SAMPLES_AT_ONCE // times),
            ended=ended,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=times,
        )
    given, stopped = ([each[n : n + times] for n in range(0, len(each), times)] for each in (made, ended))
    right = [[is_solved(text, answer) for text in texts] for texts, answer in zip(given, expected, strict=True)]
    return Attempts(questions, expected, given, right, stopped)


def accuracy_score(
    before: Answers,
    after: Answers,
    retained: tuple[Answers, Answers] | None = None,
    tries: tuple[Attempts, Attempts] | None = None,
) -> Score:
    """The comparison of verified answers before and after, with its interval. The accuracy judges.

    tries: of the same problems, before and after; from them come pass@1 and pass@8, the share of tries with steps, and
    the accuracy of tries with and without them. Taught in lesson colab4 (GRPO).
    """
    change = interval(before.right, after.right)
    judge = Measure("accuracy", before.share, after.share, change, len(after.right), judges=True)
    return score_of(judge, retained, measures=(judge, *(_of_tries(*tries) if tries else ())))


def _of_tries(before: Attempts, after: Attempts) -> list[Measure]:
    """What tries of the same problems before and after show; what no try was there for is left out."""
    both, count = (before, after), len(after.right)

    def of_problems(name: str, marks: Any) -> Measure:
        """The mean of a mark for each problem, since the tries of one go together."""
        return Measure(name, *(sum(found) / count for found in marks), interval(*marks), count)

    found = [of_problems("pass_at_1", [np.mean(tries.right, axis=1).tolist() for tries in both])]
    if after.times > 1:
        found.append(of_problems(f"pass_at_{after.times}", [[*map(any, tries.right)] for tries in both]))
    found.append(of_problems("worked", [tries.steps.mean(axis=1).tolist() for tries in both]))
    for name, worked in (("accuracy_with_steps", True), ("accuracy_without_steps", False)):
        totals = [tries.accuracy_of(worked) for tries in both]
        if all(asked for _, asked in totals):
            shown = [tries.steps == worked for tries in both]
            # Drawn by the problem, and at least as wide as so few tries make it.
            drawn = ratio_interval(
                *(((one & tries.right).sum(axis=1), one.sum(axis=1)) for one, tries in zip(shown, both, strict=True))
            )
            (low, high), (few_low, few_high) = drawn, apart(*totals)
            ends = min(low, few_low), max(high, few_high)
            found.append(Measure(name, *(right / asked for right, asked in totals), ends, totals[1][1]))
    return found
