"""What the presenter says at a cell: the form that `metadata.course.notes` is written in."""

import re
from dataclasses import dataclass
from typing import Literal

MARK = re.compile(r"\[\s*(?:pause\s+(?P<seconds>\d+(?:\.\d+)?)\s*s|point:\s*(?P<what>[^\[\]\s][^\[\]]*?))\s*\]")
BRACKETS = re.compile(r"\[[^\]]*\]?")


@dataclass(frozen=True)
class Part:
    """A stretch of notes: spoken words, a pause of so many seconds, or what to point at."""

    kind: Literal["say", "pause", "point"]
    text: str
    seconds: float = 0.0

    @property
    def words(self) -> int:
        """How many words are spoken; marks are not."""
        return len(self.text.split()) if self.kind == "say" else 0


def parse(notes: str) -> tuple[Part, ...]:
    """The parts of the notes, in order; `[pause 5 s]` and `[point: the second bar]` are marks, all else is spoken."""
    said = iter(MARK.split(notes))
    parts = [Part("say", next(said).strip())]
    for seconds, what, text in zip(said, said, said, strict=True):  # of each mark its two groups, and what follows it
        parts.append(Part("pause", f"{float(seconds):g} s", float(seconds)) if seconds else Part("point", what))
        parts.append(Part("say", text.strip()))
    return tuple(part for part in parts if part.text)


def unknown_marks(notes: str) -> list[str]:
    """Brackets in the notes that are neither a pause nor a pointing: a slip of the writer, who would speak them."""
    return BRACKETS.findall(MARK.sub("", notes))
