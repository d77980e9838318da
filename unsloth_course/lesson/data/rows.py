"""A row with its place, what is said about one that cannot be used, and the report on those that were set aside.

Every shape of data is checked with these. Where rows come from is the concern of `files` and `tables`.
"""

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from unsloth_course.core import markup
from unsloth_course.core.errors import CourseError
from unsloth_course.core.writing import cut

if TYPE_CHECKING:
    from datasets import Dataset

CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
"""ChatML's control tokens, as SmolLM2 has them. For another model pass its tokenizer's `all_special_tokens`."""

REASONS_SHOWN = 8


class Row(NamedTuple):
    """One object and where it came from; `number` counts rows from 1."""

    file: str
    number: int
    values: Mapping[str, Any]


class Broken(NamedTuple):
    """A row that cannot even be read: where it is, why, and what stands there (a value, or text that is no JSON)."""

    file: str
    number: int
    reason: str
    values: Any


Rows: TypeAlias = Iterator[Row | Broken]


class Aside(Exception):
    """Why one row is set aside. The shapes raise it; whoever loops over the rows knows file and number."""


@dataclass(frozen=True)
class SetAside:
    """A row that is of no use for training, and why; of a file that cannot be read on, its first such row."""

    file: str
    row: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.reason}"


@dataclass(repr=False)
class Checked:
    """A checked data set, the rows that were set aside, the columns that were not used, and a note on its origin.

    said: how many of the rows there is something to say of, by what it is, such as a turn that was left out. split:
    the sentence on how many are learned from, tested on and left out, once they are shared out.
    """

    dataset: "Dataset"
    set_aside: list[SetAside]
    unused_columns: list[str]
    note: str = ""
    said: dict[str, int] = field(default_factory=dict)
    split: str = ""

    def _lines(self) -> tuple[str, list[str]]:
        details = [str(row) for row in self.set_aside[:REASONS_SHOWN]]
        if len(self.set_aside) > REASONS_SHOWN:
            details.append(f"and {len(self.set_aside) - REASONS_SHOWN:,} more, all in .set_aside")
        if self.unused_columns:
            details.append(f"columns not used: {listed(self.unused_columns)}")
        details += [f"{what}: {count:,} rows" for what, count in self.said.items()]
        details += filter(None, (self.note, self.split))
        return f"rows ready: {len(self.dataset):,}, set aside: {len(self.set_aside):,}", details

    def __repr__(self) -> str:
        headline, details = self._lines()
        return "\n  ".join([headline, *details])

    def _repr_html_(self) -> str:
        headline, details = self._lines()
        return markup.paragraphs([headline]) + markup.points(details)


class _Unreadable:
    def __repr__(self) -> str:
        return "cannot be read"


UNREADABLE = _Unreadable()  # what stands in a column of a table that cannot be read, while the others can


def shown(path: object) -> str:
    """A path that can be printed: a file name may hold bytes that are no text, and Python keeps them as surrogates."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def quoted(name: object) -> str:
    """A name from a file, made safe to print: quoted, at most 40 characters, control characters escaped."""
    return repr(cut(str(name), 40, "…"))


def key_of(text: str) -> str:
    """What two texts have in common that are the same but for capitals and white space."""
    return " ".join(text.split()).casefold()


def listed(names: Iterable[object]) -> str:
    """Up to eight names, quoted, with a count of the rest."""
    names = list(names)
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(quoted(name) for name in names[:8]) + rest


def kind(value: object) -> str:
    """What a value is, in the words of JSON. The value itself is not shown: it may be huge, or nested without end."""
    if isinstance(value, bool):
        return "true or false"
    if value is UNREADABLE:
        return "a column that cannot be read"
    names = {int: "a number", float: "a number", str: "text", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def present(row: Row, columns: tuple[str, ...]) -> str:
    """The first of these columns that holds something in this row, and the first of all where none does."""
    for column in columns:
        if row.values.get(column) is not None:
            return column
    return columns[0]


def check_columns(row: Row, columns: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raises Aside when the row lacks one of the columns, and names the one that was probably meant.

    A row may do without an optional column, but not with one that is misspelt: its text would be lost unseen.
    """
    columns = tuple(columns)
    missing = [column for column in columns if column not in row.values]
    if not missing:
        return
    others = tuple(column for column in row.values if column not in columns)
    for column in missing:
        meant = did_you_mean(column, others)
        if meant or column not in optional:
            found = f"It has {listed(row.values)}." if row.values else "It has no columns."
            raise Aside(f"column {quoted(column)}: this column is missing. {found}{meant}")


@lru_cache(maxsize=256)  # the rows of a file lack the same columns, and to compare names takes long
def did_you_mean(column: str, others: tuple[str, ...]) -> str:
    """The sentence on the one of these columns that is spelt almost as the one that is missing; "" for none."""
    candidates = {str(other).strip().lower(): other for other in others if len(str(other)) <= 40}
    close = difflib.get_close_matches(column, candidates, n=1, cutoff=0.75)
    return f" Did you mean {quoted(column)} by {quoted(candidates[close[0]])}? Rename it." if close else ""


def is_number(value: object) -> bool:
    """Whether this is a number that can be written down; true, false and NaN are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def text_of(row: Row, column: str, or_number: bool = False) -> str:
    """The text in a column, "" where there is nothing. Raises Aside for a value of another type.

    or_number: a number will do, such as the answer to a sum.
    """
    value = row.values.get(column)
    if isinstance(value, str):
        return value
    if or_number and is_number(value):
        return str(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):  # NaN: how pandas writes "nothing here"
        return ""
    raise Aside(f"column {quoted(column)}: found {kind(value)}, expected text. Write the value in quotes.")


def useless(texts: Mapping[str, str], control_tokens: Iterable[str], optional: Iterable[str] = ()) -> str | None:
    """Why nothing should be learned from these texts by column, or None: empty, a control token, or no Unicode."""
    for column, text in texts.items():
        if column not in optional and (not text or text.isspace()):
            return f"column {quoted(column)} is empty"
        for token in control_tokens:
            if token in text:
                return f"column {quoted(column)} contains the control token {token}"
        if not is_unicode(text):
            return f"column {quoted(column)} contains half of a surrogate pair, which is not text"
    return None


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def nothing_left(set_aside: list[SetAside]) -> str:
    """The sentence for data of which every row was set aside."""
    reason, count = Counter(row.reason for row in set_aside).most_common(1)[0]
    return (
        f"{set_aside[0].file}: nothing is left to train on. Rows set aside: {len(set_aside):,}, most often "
        f"({count:,}) because {reason.rstrip('.')}. Mend these rows, or bring others."
    )


def without_place(error: CourseError, file: str) -> str:
    """A message without the file that it begins with, for a report that names it anyhow."""
    text = str(error).removeprefix(file).lstrip(",: ")
    return f"it {text}" if text.startswith(("is ", "cannot ")) else text


def column_of(batch: Mapping[str, Sequence[Any]], column: str) -> Sequence[Any]:
    """A column of a batch. Raises CourseError where there is none of that name."""
    if column not in batch:
        found = listed(batch) if len(batch) else "none"
        raise CourseError(f"The data set has no column {quoted(column)}; it has {found}. Give it to load() first.")
    return batch[column]
