"""Problems with an answer that can be verified: how many are solved, at the first try and in several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsloth_course import models
from unsloth_course.evaluation.scores import Answers, Retention, Score, interval

if TYPE_CHECKING:
    from datasets import Dataset

LONGEST_SOLUTION = 64  # tokens: four steps and the answer of a bundled problem are up to 56
SAMPLES_AT_ONCE = 256


def is_solved(given: str, solution: str) -> bool:
    """Whether an answer ends in the number that the worked solution ends in, both behind `####` as in GSM8K."""
    from unsloth_course.data import problems

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


def sample(
    model: Any,
    tokenizer: Any,
    questions: Sequence[str],
    times: int,
    max_new_tokens: int = LONGEST_SOLUTION,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[list[str]]:
    """`times` answers to each question, drawn at a temperature: one list per question.

    The draw follows `seed` and leaves torch's own random state as it was. Taught in lesson colab4 (GRPO).
    """
    import torch

    made: list[list[str]] = []
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    devices = [model.device] if model.device.type == "cuda" else []
    together = max(1, SAMPLES_AT_ONCE // times)
    try:
        with models.answering(model), torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for start in range(0, len(questions), together):
                asked = [models.chat_prompt(tokenizer, text) for text in questions[start : start + together]]
                batch = tokenizer(
                    asked, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False
                ).to(model.device)
                ids = model.generate(
                    **batch,
                    max_new_tokens=max_new_tokens,
                    do_sample=True,
                    temperature=temperature,
                    top_k=0,
                    top_p=1.0,
                    num_return_sequences=times,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
                written = [models.until_end(tokenizer, row) for row in ids[:, batch["input_ids"].shape[1] :].tolist()]
                made += [written[first : first + times] for first in range(0, len(written), times)]
    finally:
        tokenizer.padding_side = side
    return made


def pass_at(k: int, right: Sequence[Sequence[bool]]) -> float:
    """The chance, from 0 to 1, that at least one of k tries solves a problem, averaged over the problems.

    right: one list per problem, a mark for each of its n >= k tries. The estimate 1 - C(n - c, k) / C(n, k) with c
    right tries has no bias (Chen et al. 2021, section 2.1). Raises ValueError when there is no problem, or fewer tries
    than k. Taught in lesson colab4 (GRPO).
    """
    if not right or any(len(tries) < k for tries in right) or k < 1:
        raise ValueError(f"pass@{k} needs at least one problem, and at least {max(k, 1)} tries of each.")
    missed = [math.comb(len(tries) - sum(tries), k) / math.comb(len(tries), k) for tries in right]
    return 1 - sum(missed) / len(missed)


@dataclass(frozen=True)
class Attempts:
    """Several answers to each problem, drawn at random: one list of answers and of marks for each."""

    questions: list[str]
    expected: list[str]
    given: list[list[str]]
    right: list[list[bool]]

    def pass_at(self, k: int) -> float:
        """The chance, from 0 to 1, that one of k tries solves a problem: see `pass_at`."""
        return pass_at(k, self.right)

    @property
    def worked(self) -> float:
        """The share of the answers, from 0 to 1, that show a step: something is equal to something."""
        texts = [text for answers in self.given for text in answers]
        return sum("=" in text for text in texts) / len(texts)

    @property
    def mixed(self) -> int:
        """The number of a problem to look at: with two right and two wrong answers or more, and most often with steps.

        0 where there is none.
        """
        found = [n for n, marks in enumerate(self.right) if 2 <= sum(marks) <= len(marks) - 2]
        return max(found, key=lambda n: sum("=" in text for text in self.given[n]), default=0)

    def __str__(self) -> str:
        times = len(self.right[0])
        return (
            f"pass@1 {100 * self.pass_at(1):.1f} %, pass@{times} {100 * self.pass_at(times):.1f} % "
            f"of {len(self.right)} problems; {100 * self.worked:.1f} % of the tries show steps"
        )

    __repr__ = __str__


def attempt(
    model: Any,
    tokenizer: Any,
    rows: "Dataset",
    times: int = 8,
    max_new_tokens: int = LONGEST_SOLUTION,
    temperature: float = 1.0,
    seed: int = 0,
) -> Attempts:
    """Several answers to each problem, as `sample` draws them, verified by their final number.

    rows: columns question and answer, as for `solve`. Taught in lesson colab4 (GRPO).
    """
    expected = list(rows["answer"])
    given = sample(model, tokenizer, list(rows["question"]), times, max_new_tokens, temperature, seed)
    right = [[is_solved(text, answer) for text in texts] for texts, answer in zip(given, expected, strict=True)]
    return Attempts(list(rows["question"]), expected, given, right)


def accuracy_score(before: Answers, after: Answers, retained: tuple[Answers, Answers] | None = None) -> Score:
    """The comparison of verified answers before and after, with its interval. Taught in lesson colab4 (GRPO)."""
    return Score(
        metric="accuracy",
        n=len(after.right),
        before=before.share,
        after=after.share,
        interval=interval(before.right, after.right),
        retention=Retention("exact_match", retained[0].share, retained[1].share) if retained else None,
    )
