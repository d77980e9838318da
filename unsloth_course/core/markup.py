"""HTML that notebooks and pages show: tables and lists whose text is escaped, and pages that fetch nothing."""

import base64
import html
from collections.abc import Iterable, Sequence

CELL = "text-align:left;vertical-align:top;padding:1px 12px 1px 4px"  # inside a widget the page gives no room
# A page shows what it carries, and nothing else: no script runs, nothing is fetched.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Html(str):
    """Text that is HTML already, and is not escaped."""


def escaped(text: str) -> str:
    """The text as HTML; `Html` stays as it is."""
    return text if isinstance(text, Html) else html.escape(text)


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table of text cells, or `Html` ones; the last cell of a short row goes on to the end. head: above them."""
    rows = [*rows]
    wide = max(map(len, [head, *rows]))

    def line(cells: Sequence[str], tag: str) -> str:
        span = f' colspan="{wide - len(cells) + 1}"' if len(cells) < wide else ""
        spans = [""] * (len(cells) - 1) + [span]
        inside = (f'<{tag} style="{CELL}"{s}>{escaped(c)}</{tag}>' for c, s in zip(cells, spans, strict=True))
        return f"<tr>{''.join(inside)}</tr>"

    return f"<table>{line(head, 'th') if head else ''}{''.join(line(row, 'td') for row in rows)}</table>"


def code(text: str) -> Html:
    """Text in a fixed width."""
    return Html(f"<code>{html.escape(text)}</code>")


def paragraphs(texts: Iterable[str]) -> str:
    """A paragraph for each text."""
    return "".join(f"<p>{escaped(text)}</p>" for text in texts)


def points(texts: Iterable[str]) -> str:
    """A list of the texts; nothing where there is none."""
    items = "".join(f"<li>{escaped(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def document(title: str, body: str, style: str = "", policy: str = POLICY) -> str:
    """A whole page. body: its element in HTML. style: CSS. policy: what the page may do."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{style}</style></head>{body}</html>\n"
    )


def page(title: str, body: str, png: bytes, alt: str) -> str:
    """A whole page: title, HTML, and a picture below it with its description."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    picture = f'<img style="max-width:100%" alt="{html.escape(alt)}" src="{source}">'
    # On a phone a wide table breaks its words and keeps its last column in sight.
    style = "body{font-family:sans-serif;max-width:70rem;margin:1rem auto;padding:0 .5rem}"
    style += "td:not(:first-child){overflow-wrap:anywhere}"
    return document(title, f"<body><h1>{html.escape(title)}</h1>{body}{picture}</body>", style)
