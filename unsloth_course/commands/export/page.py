"""The table of an export: sizes and scores of all formats, as text, as a page and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unsloth_course.commands.export import proof
from unsloth_course.core import markup

if TYPE_CHECKING:
    from unsloth_course.commands.export import Format

HEADERS = ("format", "size", "score", "same answers", "drift")


def cells(made: "Format") -> tuple[str, ...]:
    """A row of the table, in the order of `HEADERS`."""
    drift = "" if made.drift is None else f"{made.drift:.4f}"
    same = f"{made.same} of {made.compared}"
    return made.name, f"{made.bytes / 1e6:,.1f} MB", f"{100 * made.score:.1f} %", same, drift


def sentences(formats: Sequence["Format"], notes: Sequence[str] = ()) -> list[str]:
    """What stands below the table: the first difference of each format, what the score is, and what else is to say."""
    first = formats[0]
    return [
        *(f"{made.name}: {made.difference}" for made in formats if made.difference),
        *notes,
        f"score: {proof.METRICS[first.metric]}, {first.questions} held-out prompts; drift: how far the tokens' "
        "leads over the next ones are from those of the first row (logits, mean); every format made its round trip",
    ]


def write(formats: Sequence["Format"], notes: Sequence[str], folder: Path) -> list[Path]:
    """Writes `formats.png` and `formats.html` into a folder and returns their paths."""
    from unsloth_course.commands.export import picture as drawn

    first = formats[0]
    picture = drawn.formats(
        [(made.name, made.bytes, made.score) for made in formats],
        score=f"{proof.METRICS[first.metric]}, {first.questions} held-out prompts",
        within=proof.MOST_POINTS / 100,
    )
    png, text = folder / "formats.png", folder / "formats.html"
    image = picture._repr_png_()
    body = markup.table(map(cells, formats), HEADERS) + markup.paragraphs(sentences(formats, notes))
    png.write_bytes(image)
    text.write_text(markup.page("Formats", body, image, picture.caption), encoding="utf-8")
    return [png, text]
