"""Writing files whole, tables as text, and a text cut to a length."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    """A table as text: rows of equally many cells, one a line, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ((cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def cut(text: str, most: int, mark: str = "...") -> str:
    """A text of at most `most` characters; where it was longer, it ends with the mark."""
    return text if len(text) <= most else text[: most - len(mark)] + mark


def write_text(path: Path, text: str) -> None:
    """Writes a file in one step, so that an interruption leaves either the old text or the new.

    Raises CourseError when the file or its folder cannot be written.
    """
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise CourseError(
            f"{path} cannot be written ({error.strerror}); free some disk space or choose another OUT folder."
        ) from None


def plain(value: Any) -> Any:
    """The same for JSON: keys as text, and null for a number that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
