"""How far a lesson has come, on the terminal or in a log."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nbformat import NotebookNode

from unsloth_course.core import lessons

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def printable(text: str) -> str:
    """The text without escape sequences and control characters: a dataset row must not steer the terminal."""
    return "".join(character for character in ANSI.sub("", text) if character.isprintable())


class Progress:
    """One line per section, for logs: no control characters, nothing is overwritten."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.title, self.started = total, 0, "", time.perf_counter()

    def cell(self, title: str) -> None:
        """A code cell under this heading begins."""
        self.done += 1
        if title != self.title:
            self.title = title
            elapsed = time.perf_counter() - self.started
            print(f"{elapsed:6.1f} s  cell {self.done}/{self.total}  {printable(title)}", file=sys.stderr, flush=True)

    def status(self, text: str) -> None:
        """The running cell said this; a log keeps the sections only."""


class _InTerminal(Progress):
    """A bar over the cells, with the section and what the running cell last said."""

    def __init__(self, bar: Any, total: int) -> None:
        super().__init__(total)
        self.bar, self.task = bar, bar.add_task("starting the kernel", total=total)

    def cell(self, title: str) -> None:
        self.title = printable(title)
        self.bar.update(self.task, completed=self.done, description=self.title)
        self.done += 1

    def status(self, text: str) -> None:
        self.bar.update(self.task, description=f"{self.title} | {text[:60]}")


@contextmanager
def progress_of(notebook: NotebookNode) -> Iterator[Progress]:
    total = sum(map(lessons.is_run, notebook.cells))
    if not sys.stderr.isatty():
        yield Progress(total)
        return
    from rich import progress as rich
    from rich.console import Console

    text = rich.TextColumn("{task.description}", markup=False)
    columns = (rich.BarColumn(bar_width=20), rich.MofNCompleteColumn(), rich.TimeElapsedColumn(), text)
    with rich.Progress(*columns, console=Console(stderr=True)) as bar:
        shown = _InTerminal(bar, total)
        yield shown
        bar.update(shown.task, completed=shown.done, description="done")
