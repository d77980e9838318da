"""The problem shape, known from GSM8K: a `question`, and an `answer` with worked steps that ends in `#### number`.

Taught in the GRPO lesson. GSM8K: Cobbe et al. 2021, github.com/openai/grade-school-math. That the number can be read by
a program makes the answer verifiable: a reward needs no judge and no second model.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsloth_course.lesson import models
from unsloth_course.lesson.data import reading
from unsloth_course.lesson.data.files import Source
from unsloth_course.lesson.data.rows import Checked, column_of
from unsloth_course.lesson.data.shapes import MARK, final
from unsloth_course.lesson.data.turns import turn

if TYPE_CHECKING:
    from datasets import Dataset


def load(source: Source, name: str | None = None) -> Checked:
    """Problems from anywhere, checked: `reading.load` in the shape "problems".

    `dataset` has exactly the columns question and answer, both text. A row is set aside for what `instruction.load`
    sets one aside for, and where its answer ends in no number, which no reward could verify. Raises CourseError as
    `reading.load` does.
    """
    return reading.load(source, "problems", name)


def to_grpo(batch: Mapping[str, Sequence[Any]]) -> dict[str, list]:
    """Turns a batch into TRL's conversational `prompt` column and an `answer` column with the final number as text.

    The trainer hands `answer` on to the reward functions; the worked steps are left behind, and nobody sees them. Use
    it as the functions of `instruction`. Taught in lesson colab4 (GRPO).
    """
    return {
        "prompt": [[turn("user", text)] for text in column_of(batch, "question")],
        "answer": [final(text) for text in column_of(batch, "answer")],
    }


def warm_up(rows: "Dataset", worked: float) -> "Dataset":
    """Rows for a supervised warm-up: TRL's conversational `prompt` and `completion` columns.

    worked: the share of rows, from 0 to 1, whose completion shows its steps; the others hold `#### number` alone. Which
    rows those are follows from their number, spread evenly: at 0.25 every fourth. Taught in lesson colab4 (GRPO).
    """

    def converted(batch: Mapping[str, Sequence[Any]], numbers: Sequence[int]) -> dict[str, list]:
        texts = [
            answer if int((number + 1) * worked) > int(number * worked) else f"{MARK} {final(answer)}"
            for number, answer in zip(numbers, column_of(batch, "answer"), strict=True)
        ]
        return {
            "prompt": [[turn("user", text)] for text in column_of(batch, "question")],
            "completion": [[turn("assistant", text)] for text in texts],
        }

    return rows.map(converted, with_indices=True, batched=True, remove_columns=rows.column_names)


def longest_prompt(rows: "Dataset", tokenizer: Any) -> int:
    """The tokens of the longest question in its chat form, up to where the answer begins."""
    asked = [models.chat_prompt(tokenizer, text) for text in rows["question"]]
    return max(map(len, tokenizer(asked, add_special_tokens=False)["input_ids"]))
