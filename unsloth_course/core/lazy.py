"""Packages whose names are resolved when they are asked for, so that importing a room loads what is used of it."""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path


def names(package: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """A package's `__getattr__`, `__dir__` (PEP 562) and `__all__`, from what it imports under `if TYPE_CHECKING:`.

    package, file: its `__name__` and `__file__`. So each name stands once, and type checkers read it there too.
    """
    body = ast.parse(Path(file).read_text(encoding="utf-8")).body
    found = {
        alias.asname or alias.name: (line.module, alias.name)
        for block in body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }

    def resolve(name: str) -> object:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, there = found[name]
        if module == package:
            return importlib.import_module(f"{package}.{there}")
        return getattr(importlib.import_module(module), there)

    return resolve, lambda: sorted(found), sorted(found)
