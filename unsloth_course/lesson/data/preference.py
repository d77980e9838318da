"""The preference shape: a prompt with two answers, the `chosen` one and the `rejected` one.

DPO: Rafailov et al. 2023, arxiv.org/abs/2305.18290. The forms that are read: the columns of Intel/orca_dpo_pairs; TRL's
preference type ("Dataset formats and types"); the nested form of Anthropic/hh-rlhf (Bai et al. 2022,
arxiv.org/abs/2204.05862), where the prompt stands inside both answers; and what else `pairs` names.
"""

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import models
from unsloth_course.lesson.data import reading
from unsloth_course.lesson.data.files import Source
from unsloth_course.lesson.data.pairs import ANSWERS
from unsloth_course.lesson.data.rows import Checked, column_of
from unsloth_course.lesson.data.turns import turn

if TYPE_CHECKING:
    from datasets import Dataset


def load(source: Source, name: str | None = None) -> Checked:
    """Preferences from anywhere, checked: `reading.load` in the shape "preference", in one of the forms of `pairs`.

    `dataset` has exactly the columns prompt (a list of turns {role, content}, the last of them the user's), chosen and
    rejected (text); functions and calls are written out in them, and reasoning is left out, which `said` says. A row is
    set aside for what `instruction.load` sets one aside for, for two answers that are the same, for turns that are no
    prompt with one answer, and for two histories that differ. Raises CourseError as `reading.load` does. Taught in
    lesson colab3 (DPO).
    """
    return reading.load(source, "preference", name)


def to_chat(batch: Mapping[str, Sequence[Any]]) -> dict[str, list]:
    """Turns a batch into TRL's conversational `prompt`, `chosen` and `rejected` columns, each a list of turns. Use it
    as the functions of `instruction`. Taught in lesson colab3 (DPO).
    """
    answers = {column: [[turn("assistant", text)] for text in column_of(batch, column)] for column in ANSWERS}
    return {"prompt": list(column_of(batch, "prompt"))} | answers


def warm_up(dataset: "Dataset", share: float, seed: int) -> "Dataset":
    """Rows to learn answering from, before any preference: each prompt with one of its two answers.

    share: of the prompts, from 0 to 1, that come with the chosen answer. So the model can write both ways: DPO raises
    what it already writes now and then, and cannot raise what it never writes. Returns TRL's conversational columns
    prompt and completion. Raises CourseError for a share that is none. Taught in lesson colab3 (DPO).
    """
    from datasets import Dataset

    if not 0 <= share <= 1:
        raise CourseError(f"The share of chosen answers is {share}; give a number from 0 to 1, such as 0.35.")
    rng = random.Random(seed)
    return Dataset.from_list(
        [
            {
                "prompt": row["prompt"],
                "completion": [turn("assistant", row["chosen" if rng.random() < share else "rejected"])],
            }
            for row in dataset
        ]
    )


def fitting(dataset: "Dataset", tokenizer: Any, length: int, room: int) -> tuple["Dataset", str]:
    """The pairs whose prompt leaves room for so many tokens of an answer within `length` tokens, and a sentence on how
    many were left out: of those nothing of the answers would be read in training. Raises CourseError when no pair is
    left. Taught in lesson colab3 (DPO).
    """

    def size(turns: list[dict[str, str]]) -> int:
        return len(models.chat_ids(tokenizer, turns, add_generation_prompt=True))

    kept = [number for number, turns in enumerate(dataset["prompt"]) if size(turns) + room <= length]
    without = f"no room for {room} tokens of an answer within {length} tokens"
    if not kept:
        raise CourseError(f"All {len(dataset):,} prompts leave {without}. Raise the row length, or take shorter rows.")
    left_out = len(dataset) - len(kept)
    if not left_out:
        return dataset, f"All {len(dataset):,} prompts leave room for {room} tokens of an answer."
    return dataset.select(kept), f"{left_out:,} of {len(dataset):,} pairs are left out: their prompt leaves {without}."


def longest(dataset: "Dataset", tokenizer: Any) -> tuple[int, int]:
    """The longest prompt with an answer, and the longest answer alone, in tokens: what memory follows. For `predict`.

    Raises CourseError as `models.in_chat_form` does. Taught in lesson colab3 (DPO).
    """
    whole = answer = 0
    for row in dataset:
        asked = models.chat_ids(tokenizer, row["prompt"], add_generation_prompt=True)
        for column in ANSWERS:
            turns = [*row["prompt"], turn("assistant", row[column])]
            length = len(models.chat_ids(tokenizer, turns))
            whole, answer = max(whole, length), max(answer, length - len(asked))
    return whole, answer
