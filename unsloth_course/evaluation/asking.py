"""Asking a model: held-out questions in its chat form, and plain text that no lesson trains."""

import re
from typing import TYPE_CHECKING, Any

from unsloth_course import models
from unsloth_course.data import instruction
from unsloth_course.evaluation.scores import Answers

if TYPE_CHECKING:
    from datasets import Dataset

    from unsloth_course.profile import Profile

LONGEST_ANSWER = 24  # tokens
PROBES_EACH = 40


def is_exact(given: str, expected: str) -> bool:
    """Whether an answer is the expected one, white space around it aside. An answer that does not stop is not exact."""
    return given.strip() == expected.strip()


def ask(model: Any, tokenizer: Any, rows: "Dataset") -> Answers:
    """The model's answers to instruction rows, asked in its chat form and marked by exact match.

    The model has to stop by itself: what it writes on after the answer counts against it. Taught in lesson colab2.
    """
    from unsloth_course.pocket import datasets

    questions = [instruction.question(row["instruction"], row["input"]) for row in rows]
    given = models.answer(model, tokenizer, questions, LONGEST_ANSWER)
    expected = list(rows["output"])
    right = [is_exact(mine, theirs) for mine, theirs in zip(given, expected, strict=True)]
    return Answers(questions, expected, given, right, [datasets.skill_of(text) for text in rows["instruction"]])


def probes(machine: "Profile") -> "Dataset":
    """Questions that no lesson trains, with columns prompt, answer, skill: what a run should leave as it was.

    For the bundled model its untouched skills, 40 of each; for a model from the Hub sixty facts of general knowledge.
    """
    from datasets import Dataset

    from unsloth_course.data import general
    from unsloth_course.pocket import datasets

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
