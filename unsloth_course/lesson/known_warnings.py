"""Lines that this stack prints and that worry people: what each means, whether it matters, what to do.

Fine-tuning prints many lines that look like failures and are none, and a few that look like nothing and spoil a run.
`explain` knows a line from its text, and `gathered` counts them during a run: the harmless ones are kept off the screen
and counted, the others stay and get a word of advice, and what is not known goes through untouched. The lines stand in
`recorded/known_warnings.json`.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from unsloth_course.core import places


@dataclass(frozen=True)
class Known:
    """A line that is known. name: a few words for it; pattern: what its text holds; benign: whether it may be ignored.

    meaning: what happened. advice: what to do, "" for nothing.
    """

    name: str
    pattern: re.Pattern[str]
    benign: bool
    meaning: str
    advice: str = ""

    def __str__(self) -> str:
        verdict = "harmless" if self.benign else "look into it"
        return f"{self.name} ({verdict}): {' '.join(filter(None, (self.meaning, self.advice)))}"


# The first that matches is taken, so those that matter come first in the file.
KNOWN = tuple(
    Known(**one | {"pattern": re.compile(one["pattern"], re.IGNORECASE)})
    for one in json.loads((places.RECORDED / "known_warnings.json").read_text(encoding="utf-8"))
)


def explain(text: str) -> Known | None:
    """What is known about a line, or about an error's text, from any library of the stack; None if nothing is."""
    return next((known for known in KNOWN if known.pattern.search(text)), None)


@dataclass
class Seen:
    """The known lines of a run, each with how many times it came, in the order of their first coming."""

    counts: dict[Known, int] = field(default_factory=dict)

    def add(self, text: str) -> Known | None:
        """Counts a line if it is known, and returns what it is."""
        known = explain(text)
        if known is not None:
            self.counts[known] = self.counts.get(known, 0) + 1
        return known

    def to_list(self) -> list[dict[str, Any]]:
        """For a results file: name, count, benign, meaning, advice of each."""
        return [
            {"name": k.name, "count": n, "benign": k.benign, "meaning": k.meaning, "advice": k.advice}
            for k, n in self.counts.items()
        ]

    def __str__(self) -> str:
        """One line for each, those that matter first; "" if there were none."""
        ordered = sorted(self.counts.items(), key=lambda item: item[0].benign)
        return "\n".join(f"{count} x {known}" for known, count in ordered)


@contextmanager
def gathered() -> Iterator[Seen]:
    """Gathers the known lines that libraries log or warn about inside the block; `str` of what it gives explains them.

    Benign ones are kept off the screen and counted. Known ones that matter appear as their library shows them, and are
    counted. All others go through untouched. What a library prints is not seen: `Seen.add` takes such a line.
    """
    seen, watching = Seen(), True
    handle, show = logging.Logger.callHandlers, warnings.showwarning

    def kept_off(text: str) -> bool:
        # After the block a library may have kept our functions for its own: then they only hand on.
        known = seen.add(text) if watching else None
        return known is not None and known.benign

    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING or not kept_off(_text(record)):
            handle(logger, record)

    def show_warning(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if not kept_off(f"{category.__name__}: {message}"):
            show(message, category, *place, **more)

    # Every record is seen before any handler sees it, also of libraries that are imported inside the block.
    logging.Logger.callHandlers, warnings.showwarning = call_handlers, show_warning
    try:
        yield seen
    finally:
        watching = False
        if logging.Logger.callHandlers is call_handlers:
            logging.Logger.callHandlers = handle
        if warnings.showwarning is show_warning:
            warnings.showwarning = show


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a library's own mistake in its format string, which logging reports by itself
        return str(record.msg)
