"""Writing files whole, tables as text, and reading JSON that anybody may have changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    """A table as text: rows of equally many cells, one a line, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ((cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


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


class Wrong(Exception):
    """What is wrong with a JSON file that anybody may have changed, in words for the sentence around it."""


def need(found: Any, keys: Mapping[str, Any], where: str) -> None:
    """Raises Wrong unless `found` is an object that has these keys, each of its kind: a type, or a tuple of types."""
    if not isinstance(found, dict):
        raise Wrong(f"{where} is not an object")
    for key, kind in keys.items():
        if not isinstance(found.get(key), kind) or isinstance(found.get(key), bool):
            raise Wrong(f'{where} has no "{key}" of the right kind')
