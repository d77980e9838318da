"""The instruction shape, known from Alpaca: a row has an `instruction`, an `output` and, optionally, an `input`.

Taught in the LoRA lesson. Alpaca: Taori et al. 2023, github.com/tatsu-lab/stanford_alpaca. The columns that are
handed to the trainer follow TRL's "Dataset formats and types".
"""

import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data.files import (
    CONTROL_TOKENS,
    Aside,
    Checked,
    Row,
    SetAside,
    Source,
    check_columns,
    key_of,
    listed,
    nothing_left,
    quoted,
    rows_of,
    text_of,
    useless,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("instruction", "input", "output")
BATCH_ROWS = 1000


def load(source: Source, name: str | None = None, control_tokens: Iterable[str] = CONTROL_TOKENS) -> Checked:
    """Reads and checks instruction data.

    Args:
        source: the path of a .json, .jsonl or .jsonl.gz file, a `datasets.Dataset`, or a list of dicts.
        name: what messages call data that comes from memory, for example "yahma/alpaca-cleaned".
        control_tokens: a row with one of these in its text is set aside. A tokenizer turns the words `<|im_end|>` in
            a question into the token that ends the turn, so the row could write turns that nobody wrote.

    Returns:
        `dataset` with exactly the columns instruction, input and output, all text ("" where a row has no input), in
        the order of the source; and the rows set aside: empty instruction, empty output, a control token, or text that
        is not valid Unicode.

    Raises:
        CourseError: a file that cannot be read, a column that is missing or misspelt, a value that is not text (each
            with file, row and column), or nothing left.
    """
    from datasets import Dataset, Features, Value

    tokens = [token for token in control_tokens if token]
    kept: dict[str, list[str]] = {column: [] for column in COLUMNS}
    set_aside: list[SetAside] = []
    layouts: dict[tuple[str, ...], None] = {}
    for row in rows_of(source, name):
        layout = tuple(row.values)
        if layout not in layouts:
            check_columns(row, COLUMNS, optional=("input",))
            layouts[layout] = None
        try:
            texts = read(row, tokens)
        except Aside as aside:
            set_aside.append(SetAside(row.file, row.number, str(aside)))
            continue
        for column, text in texts.items():
            kept[column].append(text)
    if not kept["output"]:
        raise CourseError(nothing_left(set_aside))
    unused = dict.fromkeys(str(column) for layout in layouts for column in layout)
    dataset = Dataset.from_dict(kept, features=Features({column: Value("string") for column in COLUMNS}))
    return Checked(dataset, set_aside, [column for column in unused if column not in COLUMNS])


def read(row: Row, tokens: Iterable[str] = CONTROL_TOKENS) -> dict[str, str]:
    """The three texts of one row, checked, without a look at its other columns.

    Raises Aside when nothing can be learned from it, and CourseError for a value that is not text.
    """
    texts = {column: text_of(row, column) for column in COLUMNS}
    if reason := useless(texts, tokens, optional=("input",)):
        raise Aside(reason)
    return texts


def question(instruction: str, input: str | None = "") -> str:
    """What the user says: the instruction and, where there is an input, the input after a blank line."""
    return f"{instruction}\n\n{input}" if input and not input.isspace() else instruction


def to_prompt_completion(batch: Mapping[str, Sequence[Any]]) -> dict[str, list]:
    """Turns a batch into TRL's conversational `prompt` and `completion` columns; the trainer learns the completion.

    Use: `dataset.map(to_prompt_completion, batched=True, remove_columns=dataset.column_names)`.
    """
    return {
        "prompt": [[_user(text)] for text in _questions(batch)],
        "completion": [[_assistant(text)] for text in _column(batch, "output")],
    }


def to_messages(batch: Mapping[str, Sequence[Any]]) -> dict[str, list]:
    """Turns a batch into TRL's conversational `messages` column: a user turn and an assistant turn per row.

    Use: `dataset.map(to_messages, batched=True, remove_columns=dataset.column_names)`.
    """
    pairs = zip(_questions(batch), _column(batch, "output"), strict=True)
    return {"messages": [[_user(asked), _assistant(answer)] for asked, answer in pairs]}


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _questions(batch: Mapping[str, Sequence[Any]]) -> list[str]:
    instructions = _column(batch, "instruction")
    inputs = batch["input"] if "input" in batch else [""] * len(instructions)
    return [question(*pair) for pair in zip(instructions, inputs, strict=True)]


def _column(batch: Mapping[str, Sequence[Any]], column: str) -> Sequence[Any]:
    if column not in batch:
        found = listed(batch) if len(batch) else "none"
        raise CourseError(f"The data set has no column {quoted(column)}; it has {found}. Give it to load() first.")
    return batch[column]


def render(dataset: "Dataset", tokenizer: "PreTrainedTokenizerBase") -> "Dataset":
    """Adds a `text` column: each row as the tokenizer's own chat template writes it, one call per 1,000 rows.

    It is for reading. A trainer that is given `text` appends one more end-of-sequence token; give it the columns of
    `to_prompt_completion` instead.

    Raises CourseError when the tokenizer has no chat template, or one that refuses a user turn and an assistant turn.
    """
    return dataset.map(
        lambda batch: {"text": _templated(batch, tokenizer)},
        batched=True,
        batch_size=BATCH_ROWS,
        desc="Chat template",
    )


def _templated(batch: Mapping[str, Sequence[Any]], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise CourseError(
            "This tokenizer has no chat template, so it cannot say how a chat is written. Load the tokenizer of an "
            "instruction-tuned model (its name often ends in -Instruct), or set tokenizer.chat_template."
        )
    try:
        return tokenizer.apply_chat_template(to_messages(batch)["messages"], tokenize=False)
    except TemplateError as error:
        raise CourseError(
            f"The chat template refuses a user turn with an answer: {error}. Mend the template."
        ) from None


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


def lengths(dataset: "Dataset", tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Lengths:
    """Measures every row in tokens, as a chat, and says what share a `max_length` (tokens) would cut.

    Raises CourseError like `render`, and for a data set without rows.
    """
    counts: list[int] = []
    for batch in dataset.with_format(None).iter(batch_size=BATCH_ROWS):
        # The template writes the special tokens itself.
        ids = tokenizer(_templated(batch, tokenizer), add_special_tokens=False, verbose=False)["input_ids"]
        counts.extend(len(row) for row in ids)
    return Lengths.of(counts, max_length)


def keys(dataset: "Dataset") -> list[str]:
    """A key for each row's question, without capitals and white space: rows with one key ask the same."""
    return [*map(key_of, _questions(dataset.with_format(None)[:]))]


def split(dataset: "Dataset", held_out: int, seed: int) -> tuple["Dataset", "Dataset"]:
    """Splits into (train, held out), with `held_out` distinct questions and all of their rows held out.

    Rows with the same question, capitals and white space aside, stay on one side, so no question that is asked in the
    evaluation was answered in training. The order of the rows is kept.

    Raises CourseError when that leaves no question to train on.
    """
    questions = keys(dataset)
    distinct = list(dict.fromkeys(questions))
    if not 1 <= held_out < len(distinct):
        raise CourseError(
            f"Cannot hold out {held_out:,} questions: the data set has {len(distinct):,} distinct ones. "
            f"Hold out at least 1 and leave at least 1 to train on, or bring more rows."
        )
    chosen = set(random.Random(seed).sample(distinct, held_out))
    train = [index for index, text in enumerate(questions) if text not in chosen]
    evaluation = [index for index, text in enumerate(questions) if text in chosen]
    return dataset.select(train), dataset.select(evaluation)
