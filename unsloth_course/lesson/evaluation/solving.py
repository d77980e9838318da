"""Problems with an answer that can be verified: how many are solved, at the first try and in several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import models
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
    from unsloth_course.lesson.data import problems

    number = problems.final(given)
    return number is not None and number == problems.final(solution)


def solve(model: Any, tokenizer: Any, rows: "Dataset", max_new_tokens: int = LONGEST_SOLUTION) -> Answers:
    """The model's answers to problems, asked in its chat form, greedily, and verified by their final number.

    rows: columns question and answer, the answer ending in `#### number` as in GSM8K (Cobbe et al. 2021). The
    expected answers are the worked solutions. Taught in lesson colab4 (GRPO).
    """
    given = models.answer(model, tokenizer, rows["question"], max_new_tokens)
    expected = list(rows["answer"])
    return Answers(list(rows["question"]), expected, given, [*map(is_solved, given, expected)])


def pass_at(k: int, right: Sequence[Sequence[bool]]) -> float:
    """The chance, from 0 to 1, that at least one of k tries solves a problem, averaged over the problems.

    right: one list per problem, a mark for each of its n >= k tries. The estimate 1 - C(n - c, k) / C(n, k) with c
    right tries has no bias (Chen et al. 2021, section 2.1). Raises ValueError when there is no problem, or fewer tries
    than k.
    """
    if not right or any(len(tries) < k for tries in right) or k < 1:
        raise ValueError(f"pass@{k} needs at least one problem, and at least {max(k, 1)} tries of each.")
    missed = [math.comb(len(tries) - sum(tries), k) / math.comb(len(tries), k) for tries in right]
    return 1 - sum(missed) / len(missed)


@dataclass(frozen=True)
class Attempts:
    """Several answers to each problem, drawn at random: one list of answers and of marks for each.

    `ended` says which stopped by themselves, before the limit; it may be empty where that is not known.
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
    def steps(self) -> list[list[bool]]:
        """Which of the answers show a step: something is equal to something."""
        return [["=" in text for text in answers] for answers in self.given]

    @property
    def worked(self) -> float:
        """The share of the answers, from 0 to 1, that show a step."""
        return _share([mark for marks in self.steps for mark in marks])

    def accuracy_of(self, worked: bool) -> tuple[int, int]:
        """Of the answers with steps, or of those without: how many are right, and how many there are."""
        right = [mark for shown, mark in self._marked(self.right) if shown == worked]
        return sum(right), len(right)

    @property
    def clean(self) -> list[list[bool]]:
        """Which of the answers end by themselves, and with a number behind their only `####`."""
        from unsloth_course.lesson import rewards

        ended = self.ended or [[True] * len(answers) for answers in self.given]
        return [
            [bool(form) and stopped for form, stopped in zip(rewards.form(answers), stops, strict=True)]
            for answers, stops in zip(self.given, ended, strict=True)
        ]

    @property
    def ends(self) -> float:
        """The share of the answers, from 0 to 1, that end by themselves with exactly one `#### number`."""
        return _share([mark for marks in self.clean for mark in marks])

    @property
    def worked_ends(self) -> float:
        """The same of the answers with steps alone."""
        return _share([mark for shown, mark in self._marked(self.clean) if shown])

    def _marked(self, marks: list[list[bool]]) -> list[tuple[bool, bool]]:
        """For each answer whether it shows steps, and its mark."""
        both = zip(self.steps, marks, strict=True)
        return [pair for shown, found in both for pair in zip(shown, found, strict=True)]

    @property
    def mixed(self) -> int:
        """The number of a problem to look at: with two right and two wrong answers or more, and most often with steps.

        0 where there is none.
        """
        found = [n for n, marks in enumerate(self.right) if 2 <= sum(marks) <= len(marks) - 2]
        return max(found, key=lambda n: sum("=" in text for text in self.given[n]), default=0)

    def __str__(self) -> str:
        times, (right, shown), (others, bare) = self.times, self.accuracy_of(True), self.accuracy_of(False)
        return (
            f"pass@1 {100 * pass_at(1, self.right):.1f} %, pass@{times} {100 * pass_at(times, self.right):.1f} % "
            f"of {len(self.right)} problems\n"
            f"{100 * self.ends:.1f} % of the tries end by themselves with one {_MARKED}\n"
            f"{100 * self.worked:.1f} % show steps: {right} of {shown} are right; without steps {others} of {bare}"
        )

    __repr__ = __str__


def _share(marks: Sequence[bool]) -> float:
    return sum(marks) / len(marks) if marks else 0.0


@dataclass(frozen=True)
class Gate:
    """Whether GRPO has something to sort, and the sentence that says so or what to change."""

    open: bool
    text: str

    def require(self) -> None:
        """Raises CourseError with the sentence where it is closed."""
        if not self.open:
            raise CourseError(self.text)

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def gate(tries: Attempts) -> Gate:
    """Whether real tries are good enough for GRPO to begin.

    At least 80 % of the tries with steps have to end by themselves with one `#### number`, or the reward cannot read
    them; and one of all tries has to be right by at least 20 points more often than one alone, or the groups have no
    spread. Taught in lesson colab4 (GRPO).
    """
    times = tries.times
    first, best = (pass_at(k, tries.right) for k in (1, times))
    shown = f"pass@1 {first:.0%}, pass@{times} {best:.0%}"
    if not any(map(any, tries.steps)):
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
    model: Any,
    tokenizer: Any,
    rows: "Dataset",
    times: int = 8,
    max_new_tokens: int = LONGEST_SOLUTION,
    seed: int = 0,
) -> Attempts:
    """Several answers to each problem, drawn at a temperature of 1, verified by their final number.

    rows: columns question and answer, as for `solve`. The draw follows `seed` and leaves torch's own random state as it
    was. Taught in lesson colab4 (GRPO).
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

    def each_problem(name: str, marks: list[list[list[bool]]]) -> Measure:
        """A share of the tries, drawn anew by the problem: the tries of one go together."""
        shares = [[_share(tries) for tries in found] for found in marks]
        return Measure(name, *(sum(found) / count for found in shares), interval(*shares), count)

    found = [each_problem("pass_at_1", [tries.right for tries in both])]
    if after.times > 1:
        solved = [[any(marks) for marks in tries.right] for tries in both]
        ends = interval(*solved)
        found.append(Measure(f"pass_at_{after.times}", *(sum(marks) / count for marks in solved), ends, count))
    found.append(each_problem("worked", [tries.steps for tries in both]))
    for name, worked in (("accuracy_with_steps", True), ("accuracy_without_steps", False)):
        totals = [tries.accuracy_of(worked) for tries in both]
        if all(asked for _, asked in totals):
            # Drawn by the problem, since its tries go together; and at least as wide as so few tries make it.
            ends = zip(ratio_interval(*(_by_problem(tries, worked) for tries in both)), apart(*totals), strict=True)
            low, high = (one(pair) for one, pair in zip((min, max), ends, strict=True))
            found.append(Measure(name, *(right / asked for right, asked in totals), (low, high), totals[1][1]))
    return found


def _by_problem(tries: Attempts, worked: bool) -> tuple[list[int], list[int]]:
    """For each problem how many of the tries with steps, or of those without, are right, and how many there are."""
    pairs = [[*zip(*found, strict=True)] for found in zip(tries.steps, tries.right, strict=True)]
    right = [sum(mark for shown, mark in found if shown == worked) for found in pairs]
    return right, [sum(shown == worked for shown, _ in found) for found in pairs]
