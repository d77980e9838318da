"""The slide deck: nbconvert's reveal slides in one file that fetches nothing."""

import html
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from unsloth_course.core import markup
from unsloth_course.studio import screen, script
from unsloth_course.studio.clock import Board, Scene, stamp
from unsloth_course.studio.executed import ExecutedCopy

HERE = Path(__file__).parent
REVEAL = HERE / "reveal"
# Scripts and styles are in the file; frames are the two previews of the speaker view, of this same file.
POLICY = f"{markup.POLICY}; script-src 'unsafe-inline'; font-src data:; frame-src 'self' file:"


def page(board: Board, run: ExecutedCopy) -> str:
    """The deck as HTML. Key S opens the speaker view with the notes."""
    from nbconvert import SlidesExporter

    exporter = SlidesExporter(
        template_name="deck",
        extra_template_basedirs=[str(HERE)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    css, js = (
        [(REVEAL / name).read_text(encoding="utf-8") for name in names]
        for names in (("reset.css", "reveal.css", "../deck/deck.css"), ("reveal.js", "notes.js", "../deck/deck.js"))
    )
    css, js = "\n".join([*css[:2], screen.colours(), css[2]]), "\n".join(js)
    resources = {
        "deck": {"policy": POLICY, "title": board.title, "css": css, "js": js.replace("</script", "<\\/script")}
    }
    found, _ = exporter.from_notebook_node(slides(board, run), resources)
    return found


def slides(board: Board, run: ExecutedCopy) -> NotebookNode:
    """A notebook with a slide for each page of each cell; the notes of a cell are on each of its slides."""
    cells: list[NotebookNode] = []
    for scenes, shown, place in _pages(board, run):
        first = scenes[0]
        left, right = html.escape(first.section), f"{html.escape(first.segment)} · {stamp(first.start)}"
        strip = f'<p class="strip"><span>{left}</span><span>{right}</span></p>'
        cells.append(_typed(new_markdown_cell(strip), "slide"))
        cells.append(_typed(new_markdown_cell(_notes(board, scenes, place)), "notes"))
        cells.append(_typed(shown[0], "-"))
        cells += [_typed(later, "fragment") for later in shown[1:]]
    notebook = new_notebook(cells=cells)
    nbformat.validate(notebook)
    return notebook


def _pages(board: Board, run: ExecutedCopy) -> Iterator[tuple[list[Scene], list[NotebookNode], str]]:
    """Scenes, cells and place of each slide; a short text shares the first slide of the code that follows it."""
    waiting: tuple[list[Scene], list[NotebookNode]] = ([], [])
    for scene in board.scenes:
        pages = screen.pages(scene.cell, run.outputs.get(scene.cell.id, ()))
        if not pages:
            continue
        if waiting[0] and not (scene.cell.cell_type == "code" and screen.fit_together([*waiting[1], *pages[0][:1]])):
            yield *waiting, ""
            waiting = ([], [])
        elif waiting[0] and not screen.fit_together([*waiting[1], *pages[0]]):
            pages = [pages[0][:1], pages[0][1:], *pages[1:]]
        if len(pages) == 1 and scene.cell.cell_type == "markdown":
            waiting = ([scene], pages[0])
            continue
        for number, shown in enumerate(pages, 1):
            place = f"slide {number} of {len(pages)} of this cell" if len(pages) > 1 else ""
            yield [*waiting[0], scene], [*waiting[1], *shown], place
            waiting = ([], [])
    if waiting[0]:
        yield *waiting, ""


def _typed(cell: NotebookNode, kind: str) -> NotebookNode:
    cell.metadata["slideshow"] = {"slide_type": kind}
    return cell


def _notes(board: Board, scenes: list[Scene], place: str) -> str:
    said = []  # this and the strip are one block of HTML on one line: Markdown leaves such a block as it is
    for scene in scenes:
        times = " · ".join(filter(None, (f"{stamp(scene.start)} of {stamp(board.seconds)}", place)))
        runs = f"<br><i>{html.escape(script.running(scene, board.device))}</i>" if scene.is_felt else ""
        if scene.parts or scene.is_felt or len(scenes) == 1:
            said.append(f"<div><small>{times}</small><br>{script.spoken(scene.parts)}{runs}</div>")
    return "".join(said)
