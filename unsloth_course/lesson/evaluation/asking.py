"""Asking a model: held-out questions in its chat form, and plain text that no lesson trains."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import models
from unsloth_course.lesson.data import general, instruction
from unsloth_course.lesson.data.turns import turn
from unsloth_course.lesson.evaluation import surprise
from unsloth_course.lesson.evaluation.intervals import interval
from unsloth_course.lesson.evaluation.scores import Answers, Measure, Score, score, score_of
from unsloth_course.lesson.evaluation.surprise import Surprise
from unsloth_course.lesson.profile import Profile
from unsloth_course.pocket import datasets
from unsloth_course.pocket.english import is_short

if TYPE_CHECKING:
    from datasets import Dataset

LONGEST_ANSWER = 24  # tokens
READ = 60  # questions with longer answers that are asked, to be read
LONGEST_READ = 64  # tokens
PAIRS = 24  # of questions, with their answers swapped
PROBES_EACH = 40


def is_exact(given: str, expected: str) -> bool:
    """Whether an answer is the expected one, white space around it aside. An answer that does not stop is not exact."""
    return given.strip() == expected.strip()


def ask(model: Any, tokenizer: Any, rows: "Dataset") -> Answers:
    """The model's answers to instruction rows, asked in its chat form and marked by exact match.

    The model has to stop by itself: what it writes on after the answer counts against it.
    """
    questions = [instruction.question(row["instruction"], row["input"]) for row in rows]
    given = models.answer(model, tokenizer, questions, LONGEST_ANSWER)
    expected = list(rows["output"])
    right = [is_exact(mine, theirs) for mine, theirs in zip(given, expected, strict=True)]
    return Answers(questions, expected, given, right, [datasets.skill_of(text) for text in rows["instruction"]])


@dataclass(frozen=True)
class Answered:
    """What a model makes of held-out questions: how likely it finds their answers, and what it answers itself.

    `likelihood` is of the known answers, whatever their length; `asked` holds its own to the questions whose known
    answer is short, or, where too few are, to some of all, unmarked. `form` is how those look: whether it is one line,
    whether it stopped by itself, and its length in characters. `apart` says of pairs of questions whether their two
    answers are likelier where they belong than swapped. `left_out` counts rows whose question fills the length.
    """

    likelihood: Surprise
    asked: Answers
    form: dict[str, list[int]]
    apart: list[bool]
    left_out: int = 0

    @property
    def questions(self) -> list[str]:
        return self.asked.questions

    @property
    def given(self) -> list[str]:
        return self.asked.given

    @property
    def right(self) -> list[bool]:
        return self.asked.right

    def __repr__(self) -> str:
        rows = f"{len(self.likelihood.losses)} rows"
        if self.left_out:
            rows += f"; {self.left_out} more are left out, as their question alone fills the length"
        one_line, stops, length = (sum(marks) / len(marks) for marks in self.form.values())
        exact = f"of {len(self.right)} with a short answer {self.asked}" if self.right else str(self.asked)
        return "\n".join(
            [
                f"known answers:  {self.likelihood}, {rows}",
                f"exact match:    {exact}",
                f"what it writes: {one_line:.0%} are one line, {stops:.0%} stop by themselves, {length:.0f} characters",
            ]
        )


def answered(model: Any, tokenizer: Any, rows: "Dataset", length: int) -> Answered:
    """What a model makes of held-out instruction rows, with answers of any length.

    How likely it finds each known answer, the end token counted and the row read up to `length` tokens; and, asked
    greedily in its chat form, what it answers to those with a short answer, marked by exact match. Where less than a
    quarter are short, up to 60 questions are asked and nothing is marked. Raises CourseError when none leaves room for
    an answer. Taught in lessons colab1 (full fine-tuning) and colab2 (LoRA).
    """
    questions = [instruction.question(row["instruction"], row["input"]) for row in rows]
    known = list(rows["output"])
    prompts = [models.chat_prompt(tokenizer, text) for text in questions]
    room = [length - len(ids) for ids in tokenizer(prompts, add_special_tokens=False, verbose=False)["input_ids"]]
    short = [n for n, text in enumerate(known) if is_short(text) and room[n] >= LONGEST_ANSWER]
    short = short if enough_short(known) else []
    asked = short or [n for n in range(len(known)) if room[n] >= LONGEST_READ][:READ]
    if not asked:
        raise CourseError(
            f"Of {len(rows)} held-out questions none leaves room for an answer within {length} tokens. Raise "
            "--max-length."
        )
    skills = [datasets.skill_of(rows[number]["instruction"]) for number in asked]
    pairs = _pairs(short, known, skills)
    swapped = [(one, other) for pair in pairs for one, other in (pair, pair[::-1])]
    texts = [*zip(questions, known, strict=True), *((questions[one], known[other]) for one, other in swapped)]
    turns = [{"prompt": [turn("user", text)], "completion": [turn("assistant", answer)]} for text, answer in texts]
    each = surprise.each_answer(model, tokenizer, turns, length)
    own, crossed = each[: len(questions)], each[len(questions) :]
    ended: list[bool] = []
    longest = LONGEST_ANSWER if short else LONGEST_READ
    given = models.complete(model, tokenizer, [prompts[number] for number in asked], longest, ended=ended)
    wanted = [known[number] for number in asked]
    right = [*map(is_exact, given, wanted)] if short else []
    return Answered(
        likelihood=surprise.whole(own),
        asked=Answers([questions[n] for n in asked], wanted, given, right, skills),
        form={
            "one_line": ["\n" not in text.strip() for text in given],
            "stops": ended,
            "length": [*map(len, given)],
        },
        apart=_apart(pairs, own, crossed),
        left_out=own.count(None),
    )


def enough_short(answers: Sequence[str]) -> bool:
    """Whether exact match can mark so many of the answers that its share says something: a quarter of them."""
    return 4 * sum(map(is_short, answers)) >= len(answers)


def _pairs(asked: Sequence[int], known: Sequence[str], skills: Sequence[str | None]) -> list[tuple[int, int]]:
    """Up to 24 pairs of questions of one skill, where they have one, that have different answers."""
    pairs: list[tuple[int, int]] = []
    waiting: dict[str | None, int] = {}
    for number, skill in zip(asked, skills, strict=False):
        other = waiting.get(skill)
        if other is None:
            waiting[skill] = number
        elif known[other].strip() != known[number].strip():
            pairs.append((waiting.pop(skill), number))
    return pairs[:PAIRS]


def _apart(pairs: Sequence[tuple[int, int]], own: Sequence[Any], swapped: Sequence[Any]) -> list[bool]:
    """Of each pair whether its answers are likelier where they belong. Their lengths and words count on both sides."""
    found = []
    for (one, other), *crossed in zip(pairs, swapped[::2], swapped[1::2], strict=True):
        figures = [own[one], own[other], *crossed]
        if all(figures):
            found.append(figures[0][0] + figures[1][0] < figures[2][0] + figures[3][0])
    return found


def instruction_score(before: Answered, after: Answered, retained: tuple[Answers, Answers] | None = None) -> Score:
    """The comparison of `answered` before and after: the likelihood judges, and exact match is the metric; where few
    answers are short, the perplexity of the known answers is.

    retained: what was recalled, before and after. Taught in lessons colab1 (full fine-tuning) and colab2.
    """
    judge = surprise.perplexity_measure("answer_perplexity", before.likelihood, after.likelihood, judges=True)
    measures = [judge]
    if after.apart:
        shares = [sum(found.apart) / len(found.apart) for found in (before, after)]
        measures.append(Measure("told_apart", *shares, interval(before.apart, after.apart), len(after.apart)))
    for name, now in after.form.items():
        was = before.form[name]
        measures.append(Measure(name, sum(was) / len(was), sum(now) / len(now), interval(was, now), len(now)))
    if after.right:
        return replace(score(before.asked, after.asked, retained), measures=tuple(measures))
    return score_of(replace(judge, name="perplexity"), retained, measures=tuple(measures))


def probes(machine: Profile) -> "Dataset":
    """Questions that no lesson trains, with columns prompt, answer, skill: what a run should leave as it was.

    For the bundled model its untouched skills, 40 of each; for a model from the Hub sixty facts of general knowledge.
    """
    from datasets import Dataset

    if machine.bundled:
        return datasets.probes(PROBES_EACH, seed=1)
    return Dataset.from_list([{"prompt": prompt, "answer": a, "skill": "general"} for prompt, a in general.FACTS])


def _recalled(text: str, answer: str) -> bool:
    """Whether a completion's first line begins or ends with the answer: alone, or at the end of a sentence."""
    lines = text.partition("<|")[0].strip().splitlines()
    words = re.escape(answer)
    return bool(lines) and bool(re.search(rf"^{words}\b|\b{words}\W*$", lines[0], flags=re.IGNORECASE))


def recall(model: Any, tokenizer: Any, probes: "Dataset") -> Answers:
    """The model's completions of plain-text probes, outside the chat form that a lesson trains."""
    given = models.complete(model, tokenizer, probes["prompt"], 16)
    expected = list(probes["answer"])
    right = [_recalled(mine, theirs) for mine, theirs in zip(given, expected, strict=True)]
    return Answers(list(probes["prompt"]), expected, given, right, list(probes["skill"]))
