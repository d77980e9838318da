"""The problem shape, known from GSM8K: a `question`, and an `answer` with worked steps that ends in `#### number`.

Taught in the GRPO lesson. GSM8K: Cobbe et al. 2021, github.com/openai/grade-school-math. That the number can be read by
a program makes the answer verifiable: a reward needs no judge and no second model.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
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

COLUMNS = ("question", "answer")
MARK = "####"
# A sign and a currency sign in either order, then digits that may be grouped by commas, then decimals.
_NUMBER = re.compile(r"\s*(?P<sign>[-+\u2212])?\s*[$€£]?\s*(?P<late>[-+\u2212])?(?P<whole>[0-9,]*)(?P<part>\.[0-9]+)?")
_GROUPED = re.compile(r"[0-9]{1,3}(,[0-9]{3})+|[0-9]+")
_DIGIT = re.compile(r"[0-9]")


def final(text: str | None) -> str | None:
    """The number that a solution ends in: the one behind the last `####`, or None where there is none.

    The number comes back in one spelling, so that equal numbers are equal texts: without commas, currency signs, plus
    sign, needless zeros ("$1,234.50" is "1234.5", "-0" is "0"). Words may follow it ("18 dollars"), but no further
    digit: "#### 17 or 18" names no number, for otherwise a model could answer twice. Safe on any text, of any length:
    nothing is evaluated and nothing is converted. Taught in lesson colab4 (GRPO).
    """
    if not isinstance(text, str) or MARK not in text:
        return None
    tail = text[text.rindex(MARK) + len(MARK) :]
    found = _NUMBER.match(tail)
    whole, part = found["whole"].rstrip(","), found["part"] or ""
    if not (_GROUPED.fullmatch(whole) or (not whole and part)) or (found["sign"] and found["late"]):
        return None
    if _DIGIT.search(tail, found.end()):
        return None
    whole, part = whole.replace(",", "").lstrip("0") or "0", part.rstrip("0").rstrip(".")
    negative = (found["sign"] or found["late"] or "+") != "+" and (whole, part) != ("0", "")
    return f"{'-' if negative else ''}{whole}{part}"


def load(source: Source, name: str | None = None, control_tokens: Iterable[str] = CONTROL_TOKENS) -> Checked:
    """Reads and checks problems.

    Args:
        source: the path of a .json, .jsonl or .jsonl.gz file, a `datasets.Dataset`, or a list of dicts.
        name: what messages call data that comes from memory, for example "openai/gsm8k".
        control_tokens: a row with one of these in its text is set aside, as in `instruction.load`.

    Returns:
        `dataset` with exactly the columns question and answer, both text, in the order of the source; and the rows set
        aside: an empty question or answer, a control token, text that is not valid Unicode, and an answer that ends in
        no number, which no reward could verify.

    Raises:
        CourseError: a file that cannot be read, a column that is missing or misspelt, a value that is not text (each
            with file, row and column), or nothing left.

    Taught in lesson colab4 (GRPO).
    """
    from datasets import Dataset, Features, Value

    tokens = [token for token in control_tokens if token]
    kept: dict[str, list[str]] = {column: [] for column in COLUMNS}
    set_aside: list[SetAside] = []
    layouts: dict[tuple[str, ...], None] = {}
    for row in rows_of(source, name):
        layout = tuple(row.values)
        if layout not in layouts:
            check_columns(row, COLUMNS)
            layouts[layout] = None
        try:
            texts = verifiable(read(row, tokens))
        except Aside as aside:
            set_aside.append(SetAside(row.file, row.number, str(aside)))
            continue
        for column, text in texts.items():
            kept[column].append(text)
    if not kept["answer"]:
        raise CourseError(nothing_left(set_aside))
    unused = dict.fromkeys(str(column) for layout in layouts for column in layout)
    dataset = Dataset.from_dict(kept, features=Features({column: Value("string") for column in COLUMNS}))
    return Checked(dataset, set_aside, [column for column in unused if column not in COLUMNS])


def read(row: Row, tokens: Iterable[str] = CONTROL_TOKENS) -> dict[str, str]:
    """The question and the answer of one row, checked, without a look at its other columns.

    Raises Aside when nothing can be learned from it, and CourseError for a value that is not text.
    """
    texts = {column: text_of(row, column) for column in COLUMNS}
    if reason := useless(texts, tokens):
        raise Aside(reason)
    return texts


def verifiable(texts: dict[str, str]) -> dict[str, str]:
    """The same problem. Raises Aside where its answer ends in no number, which no reward could verify."""
    if final(texts["answer"]) is None:
        raise Aside(f"column 'answer' ends in no number behind {MARK}")
    return texts


def to_grpo(batch: Mapping[str, Sequence[Any]]) -> dict[str, list]:
    """Turns a batch into TRL's conversational `prompt` column and an `answer` column with the final number as text.

    The trainer hands `answer` on to the reward functions; the worked steps are left behind, and nobody sees them.
    Use: `dataset.map(to_grpo, batched=True, remove_columns=dataset.column_names)`. Taught in lesson colab4 (GRPO).
    """
    return {
        "prompt": [[{"role": "user", "content": text}] for text in _column(batch, "question")],
        "answer": [final(text) for text in _column(batch, "answer")],
    }


def warm_up(rows: "Dataset", worked: float) -> "Dataset":
    """Rows for a supervised warm-up: TRL's conversational `prompt` and `completion` columns.

    worked: the share of rows, from 0 to 1, whose completion shows its steps; the others hold `#### number` alone. Which
    rows those are follows from their number, spread evenly: at 0.25 every fourth. Taught in lesson colab4 (GRPO).
    """

    def converted(batch: Mapping[str, Sequence[Any]], numbers: Sequence[int]) -> dict[str, list]:
        texts = [
            answer if int((number + 1) * worked) > int(number * worked) else f"{MARK} {final(answer)}"
            for number, answer in zip(numbers, _column(batch, "answer"), strict=True)
        ]
        return {
            "prompt": [[{"role": "user", "content": text}] for text in _column(batch, "question")],
            "completion": [[{"role": "assistant", "content": text}] for text in texts],
        }

    return rows.map(converted, with_indices=True, batched=True, remove_columns=rows.column_names)


def longest_prompt(rows: "Dataset", tokenizer: "PreTrainedTokenizerBase") -> int:
    """The tokens of the longest question in its chat form, up to where the answer begins."""
    from unsloth_course.lesson import models

    asked = [models.chat_prompt(tokenizer, text) for text in rows["question"]]
    return max(map(len, tokenizer(asked, add_special_tokens=False)["input_ids"]))


def _column(batch: Mapping[str, Sequence[Any]], column: str) -> Sequence[Any]:
    if column not in batch:
        found = listed(batch) if len(batch) else "none"
        raise CourseError(f"The data set has no column {quoted(column)}; it has {found}. Give it to load() first.")
    return batch[column]


def keys(dataset: "Dataset") -> list[str]:
    """A key for each row's question, without capitals and white space: rows with one key ask the same."""
    return [*map(key_of, dataset["question"])]
