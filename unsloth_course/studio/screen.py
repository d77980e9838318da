"""What the viewer sees of a cell: cells cut into pages that fit a 1920 x 1080 screen, and their HTML."""

import base64
import html
import io
import itertools
import math
import re
import textwrap
from collections.abc import Iterator, Sequence

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

PAGE_LINES = 17  # of prose, at the deck's size of letters
CODE_LINES = 21
LINE_CHARACTERS = 92  # of prose
OUTPUT_CHARACTERS = 98
PICTURE_LINES = 16
TALL = 1.4  # times as high as wide: more than a wide screen can show
IMAGE = re.compile(r"\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\)|!\[[^\]]*\]\([^)]*\)")
BLOCKS = re.compile(r"\n[ \t]*\n")
LINKS = re.compile(r"https?:|mailto:|#|[\w./-]+$")  # what a click may open


def pages(cell: NotebookNode, outputs: Sequence[NotebookNode]) -> list[list[NotebookNode]]:
    """The pages of a cell; each is a list of cells that appear on it one after another (an output after its code).

    outputs: what to show below a code cell.
    """
    if cell.cell_type == "markdown":
        return [[new_markdown_cell(text, metadata=cell.metadata)] for text in _prose(IMAGE.sub("", cell.source))]
    if cell.cell_type != "code" or not cell.source.strip():
        return []
    found = [[_code(text)] for text in _chunks(cell.source.splitlines(), CODE_LINES)]
    left = CODE_LINES - len(found[-1][0].source.splitlines()) - 1
    for shown in _shown(outputs):
        if _lines(shown) > left:
            found.append([])
            left = CODE_LINES
        found[-1].append(_code("", [shown]))
        left -= _lines(shown)
    return found


def to_html(cell: NotebookNode) -> str:
    """A page's cell as HTML; data is escaped, and what an output brings as HTML has no script and fetches nothing."""
    from nbconvert.filters import ansi2html
    from nbconvert.filters.highlight import Highlight2HTML
    from nbconvert.filters.markdown import markdown2html

    if cell.cell_type == "markdown":
        return f'<div class="prose">{harmless(markdown2html(cell.source))}</div>'
    parts = [Highlight2HTML(pygments_lexer="ipython3")(cell.source)] if cell.source else []
    for output in cell.outputs:
        if "text/html" in output.data:
            parts.append(f'<div class="table">{output.data["text/html"]}</div>')
        elif "image/png" in output.data:
            picture = html.escape(output.data["image/png"].replace("\n", ""))
            parts.append(f'<img alt="picture" src="data:image/png;base64,{picture}">')
        else:
            parts.append(f"<pre>{ansi2html(output.data['text/plain'])}</pre>")
    return "\n".join(parts)


def fit_together(cells: Sequence[NotebookNode]) -> bool:
    """Whether these cells of pages fit one page together."""
    lines = 0.0
    for cell in cells:
        if cell.cell_type == "markdown":
            lines += sum(_block_lines(block) for block in _blocks(cell.source)) * CODE_LINES / PAGE_LINES
        else:
            lines += len(cell.source.splitlines()) + sum(map(_lines, cell.outputs)) + 1
    return lines <= CODE_LINES


def harmless(text: str) -> str:
    """HTML without scripts, frames, handlers and anything that is fetched; links stay, to be clicked."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(text, "html.parser")
    for tag in soup.find_all(["script", "iframe", "object", "embed", "link", "meta", "base", "form"]):
        tag.decompose()
    for tag in soup.find_all(True):
        for name in list(tag.attrs):
            value = re.sub(r"[\x00-\x20]", "", str(tag.attrs[name])).lower()  # browsers leave these out of an address
            fetched = name in ("src", "srcset", "data", "poster", "background") and not value.startswith("data:image/")
            link = name in ("href", "xlink:href", "action", "formaction")
            if name.startswith("on") or fetched or (link and not LINKS.match(value)) or "javascript:" in value:
                del tag.attrs[name]
    return str(soup)


def colours() -> str:
    """The style sheet of highlighted code."""
    from pygments.formatters import HtmlFormatter

    return HtmlFormatter(style="default").get_style_defs(".highlight")


def _code(source: str, outputs: Sequence[NotebookNode] = ()) -> NotebookNode:
    # An output's page has no code to show; nbconvert's templates know this mark.
    return new_code_cell(
        source, outputs=list(outputs), metadata={} if source else {"transient": {"remove_source": True}}
    )


def _chunks(lines: Sequence[str], most: int) -> Iterator[str]:
    """The lines in pieces of about the same length, cut at an empty line where there is one near."""
    lines = list(lines)
    while len(lines) > most:
        even = math.ceil(len(lines) / math.ceil(len(lines) / most))
        empty = [i for i in range(max(1, even - 6), min(most, even + 6) + 1) if i < len(lines) and not lines[i].strip()]
        cut = min(empty, key=lambda i: abs(i - even)) if empty else even
        yield "\n".join(lines[:cut]).strip("\n")
        lines = lines[cut:]
    yield "\n".join(lines).strip("\n")


def _prose(source: str) -> Iterator[str]:
    """Blocks of Markdown, packed into pages; a heading stays with what follows it."""
    page, used = [], 0
    for block in _blocks(source):
        need = _block_lines(block)
        if used > 3 and used + need > PAGE_LINES and not all(part.startswith("#") for part in page):
            yield "\n\n".join(page)
            page, used = [], 0
        page.append(block)
        used += need
    if page:
        yield "\n\n".join(page)


def _blocks(source: str) -> list[str]:
    """Paragraphs, headings, tables; what is indented below a paragraph (code, a list's item) stays one with itself."""
    blocks: list[str] = []
    for block in filter(str.strip, BLOCKS.split(source)):
        if blocks and block.startswith("    ") and blocks[-1].startswith("    "):
            blocks[-1] += "\n\n" + block
        else:  # of a long list five items at a time
            items = _items(block)
            blocks += ["\n".join(items[i : i + 5]) for i in range(0, len(items), 5)]
    return blocks


def _items(block: str) -> list[str]:
    """The items of a Markdown list, or the block itself."""
    if not re.match(r"(\d+\.|[-*]) ", block):
        return [block]
    return re.split(r"\n(?=(?:\d+\.|[-*]) )", block)


def _block_lines(block: str) -> float:
    lines = block.splitlines()
    if block.startswith("#"):
        return 2.5
    if block.startswith("    "):
        return len(lines) + 1
    if lines[0].lstrip().startswith("|"):
        return sum(1.4 * math.ceil(len(line) / LINE_CHARACTERS) for line in lines) + 0.5
    return sum(math.ceil(len(item.replace("\n", " ")) / LINE_CHARACTERS) for item in _items(block)) + 0.7


def _shown(outputs: Sequence[NotebookNode]) -> Iterator[NotebookNode]:
    """Outputs as a page can hold them: long text in pieces, one form of each, no widgets, no scripts."""
    cut = {"text/html": _html_pieces, "image/png": _picture_pieces, "text/plain": _text_pieces}
    for output in outputs:
        data = {"text/plain": output.text} if output.output_type == "stream" else output.get("data", {})
        if kind := next((kind for kind in cut if kind in data), None):
            yield from (new_output("display_data", {kind: piece}) for piece in cut[kind](data[kind]))


def _picture_pieces(png: str) -> list[str]:
    """A picture much higher than wide in pieces that a wide screen can show, cut at rows where nothing is drawn."""
    import numpy as np
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    wide, high = picture.size
    if high <= TALL * wide:
        return [png]
    pixels = np.asarray(picture)
    blank = (pixels == pixels[0, 0]).all(axis=(1, 2))
    bands = [list(rows) for empty, rows in itertools.groupby(range(high), key=blank.__getitem__) if empty]
    count = math.ceil(high / (0.6 * wide))
    cuts = [0]
    for number in range(1, count):
        even = high * number // count
        near = [band for band in bands if abs(band[len(band) // 2] - even) < high // (2 * count)]
        band = max(near, key=len, default=[even])  # a title has less space below than above it
        cuts.append(band[len(band) // 2])
    pieces = []
    for top, bottom in itertools.pairwise([*cuts, high]):
        picture.crop((0, top, wide, bottom)).save(file := io.BytesIO(), "PNG", optimize=True)
        pieces.append(base64.b64encode(file.getvalue()).decode())
    return pieces


def _html_pieces(text: str) -> list[str]:
    """HTML, made harmless, in pieces that fit a page: cut between its blocks, never within one."""
    from bs4 import BeautifulSoup

    text = harmless(text)
    if _html_lines(text) <= CODE_LINES:
        return [text]
    blocks = BeautifulSoup(text, "html.parser").find_all(recursive=False)
    opening, closing = "", ""
    if len(blocks) == 1 and blocks[0].name == "div":
        opening, _, closing = str(blocks[0]).partition(blocks[0].decode_contents())
        blocks = blocks[0].find_all(recursive=False)
    found, used = [""], 0.0
    for block in map(str, blocks):
        used += _html_lines(block)
        if found[-1] and used > CODE_LINES:
            found.append("")
            used = _html_lines(block)
        found[-1] += block
    return [f"{opening}{piece}{closing}" for piece in found]


def _text_pieces(text: str) -> Iterator[str]:
    """Text in pieces for a page; longer lines are cut where the screen would wrap them, at a space if there is one."""
    wrap = textwrap.TextWrapper(OUTPUT_CHARACTERS, expand_tabs=False, replace_whitespace=False, drop_whitespace=False)
    lines = [part for line in text.rstrip("\n").splitlines() for part in wrap.wrap(line) or [""]]
    return _chunks(lines, CODE_LINES)


def _lines(output: NotebookNode) -> float:
    """About how many lines of code an output is high."""
    if "image/png" in output.data:
        return PICTURE_LINES
    if "text/html" in output.data:
        return _html_lines(output.data["text/html"])
    return len(output.data["text/plain"].splitlines()) + 1


def _html_lines(text: str) -> float:
    """About how many lines of code a piece of HTML is high."""
    rows = re.split(r"</(?:tr|p|li|div)>|<br/?>", re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL))
    plain = [re.sub(r"(<[^>]+>|\s)+", " ", row).strip() for row in rows]
    return sum(1.5 * math.ceil(len(row) / LINE_CHARACTERS) for row in plain if row) + 1
