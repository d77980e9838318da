"""The instruction shape, known from Alpaca: a row has an `instruction`, an `output` and, optionally, an `input`.

Alpaca: Taori et al. 2023, github.com/tatsu-lab/stanford_alpaca. What is handed to the trainer has the columns of TRL's
"Dataset formats and types". Use the functions of batches as `dataset.map(to_prompt_completion, batched=True,
remove_columns=dataset.column_names)`.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import models
from unsloth_course.lesson.data import reading, shapes
from unsloth_course.lesson.data.files import Source
from unsloth_course.lesson.data.rows import Checked, column_of
from unsloth_course.lesson.data.shapes import question
from unsloth_course.lesson.data.turns import turn

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = shapes.INSTRUCTION


def load(source: Source, name: str | None = None) -> Checked:
    """Instructions from anywhere, checked: `reading.load` in the shape "instruction".

    `dataset` has exactly the columns instruction, input and output, all text ("" where a row has no input). A row is
    set aside whose instruction or output is empty, that holds a control token, that is no valid Unicode, or in which a
    column is missing, misspelt or no text. Raises CourseError as `reading.load` does.
    """
    return reading.load(source, "instruction", name)


def to_prompt_completion(batch: Mapping[str, Sequence[Any]]) -> dict[str, list]:
    """Turns a batch into TRL's conversational `prompt` and `completion` columns; the trainer learns the completion."""
    return {
        "prompt": [[turn("user", text)] for text in _questions(batch)],
        "completion": [[turn("assistant", text)] for text in column_of(batch, "output")],
    }


def to_messages(batch: Mapping[str, Sequence[Any]]) -> dict[str, list]:
    """Turns a batch into TRL's conversational `messages` column: a user turn and an assistant turn per row."""
    pairs = zip(_questions(batch), column_of(batch, "output"), strict=True)
    return {"messages": [[turn("user", asked), turn("assistant", answer)] for asked, answer in pairs]}


def _questions(batch: Mapping[str, Sequence[Any]]) -> list[str]:
    instructions = column_of(batch, "instruction")
    inputs = batch["input"] if "input" in batch else [""] * len(instructions)
    return [question(*pair) for pair in zip(instructions, inputs, strict=True)]


def in_chat_form(dataset: "Dataset", tokenizer: Any) -> list[str]:
    """Each row as the tokenizer's own chat template writes it, to be read: a trainer that is given such a text appends
    one more end-of-sequence token. Raises CourseError as `models.in_chat_form` does.
    """
    return [models.in_chat_form(tokenizer, turns, tokenize=False) for turns in to_messages(dataset[:])["messages"]]


@dataclass(frozen=True)
class Lengths:
    """Lengths of the rows in tokens, template included; `share_over` (0 to 1) of them are longer than `max_length`.

    `mean` and `spread`, the standard deviation, are those of the rows after that cut.
    """

    rows: int
    shortest: int
    median: float
    longest: int
    max_length: int
    share_over: float
    mean: float
    spread: float

    @classmethod
    def of(cls, counts: list[int], max_length: int) -> "Lengths":
        """The same of rows that were counted elsewhere. Raises CourseError when there are none."""
        if not counts:
            raise CourseError("The data set is empty: there are no lengths to measure.")
        over = sum(count > max_length for count in counts) / len(counts)
        cut = [min(count, max_length) for count in counts]
        ends = len(counts), min(counts), statistics.median(counts), max(counts)
        return cls(*ends, max_length, over, statistics.fmean(cut), statistics.pstdev(cut))

    def together(self, rows: int) -> int:
        """Tokens of about the largest batch of `rows` rows in a training, strung together without padding.

        The largest of some hundred random sums lies about three standard deviations above their mean.
        """
        largest = self.mean * rows + 3 * self.spread * math.sqrt(rows)
        return round(min(largest, rows * min(self.longest, self.max_length)))

    @property
    def sizes(self) -> dict[str, Any]:
        """What memory depends on in the rows: `longest` and `together`, as `memory.plan` takes them."""
        return {"longest": self.longest, "together": self.together}

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows: {self.shortest:,} to {self.longest:,} tokens, median {self.median:,.10g}; "
            f"{self.share_over:.1%} are longer than {self.max_length:,} and would be cut"
        )


def lengths(dataset: "Dataset", tokenizer: Any, max_length: int) -> Lengths:
    """Measures every row in tokens, as a chat, and says what share a `max_length` (tokens) would cut.

    Raises CourseError as `in_chat_form` does, and for a data set without rows.
    """
    # The template writes the special tokens itself.
    texts = in_chat_form(dataset, tokenizer)
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return Lengths.of([*map(len, ids)], max_length)
