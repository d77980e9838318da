"""The table of an export: sizes and scores of all formats, as text, as a page and as a picture."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unsloth_course.commands.export import proof
from unsloth_course.core.errors import CourseError

if TYPE_CHECKING:
    from unsloth_course.commands.export import Format

HEADERS = ("format", "size", "score", "same answers", "drift")
# A page shows what it carries, and nothing else: no script runs, nothing is fetched.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
    """Writes `formats.png` and `formats.html` into a folder and returns their paths.

    Raises CourseError when one cannot be written.
    """
    from unsloth_course.lesson import plots

    first = formats[0]
    picture = plots.formats(
        [(made.name, made.bytes, made.score) for made in formats],
        score=f"{proof.METRICS[first.metric]}, {first.questions} held-out prompts",
        within=proof.MOST_POINTS / 100,
    )
    png, text = folder / "formats.png", folder / "formats.html"
    image = picture._repr_png_()
    try:
        png.write_bytes(image)
        text.write_text(_html(formats, notes, image, picture.caption), encoding="utf-8")
    except OSError as error:
        raise CourseError(f"The table could not be written into {folder} ({error}). Choose another --out.") from None
    return [png, text]


def _html(formats: Sequence["Format"], notes: Sequence[str], image: bytes, caption: str) -> str:
    def row(texts: Sequence[str], tag: str) -> str:
        inside = "".join(f'<{tag} style="text-align:left;padding:2px 12px">{html.escape(t)}</{tag}>' for t in texts)
        return f"<tr>{inside}</tr>"

    table = row(HEADERS, "th") + "".join(row(cells(made), "td") for made in formats)
    below = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences(formats, notes))
    picture = base64.b64encode(image).decode()
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width"><title>Formats</title></head>'
        f'<body style="font-family:sans-serif"><h1>Formats</h1><table>{table}</table>{below}'
        f'<img style="max-width:100%" alt="{html.escape(caption)}" src="data:image/png;base64,{picture}">'
        "</body></html>\n"
    )
