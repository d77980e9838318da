"""A notebook whose outputs can be stored in the repository and shown anywhere; and a page that fetches nothing."""

import copy
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from unsloth_course.core import lessons, markup
from unsloth_course.core.places import REPOSITORY

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d+%\|.*\||\[\d+:\d\d.*(?:it/s|s/it|B/s)")
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.+=<}~-])/(?:home|root|Users|tmp|work)\b|(?<!\w)[A-Za-z]:\\{1,2}(?:[A-Z]|te?mp\b)",
)
DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[\w/+=\s]+")
CONTENT_POLICY = f"{markup.POLICY}; font-src data:"

# On a wide screen a line of text stays short enough to be read, and stands in the middle.
PAGE_STYLE = "main { max-width: 1080px; margin: 0 auto; }"


def clean(notebook: NotebookNode, names: Mapping[str, str] | None = None) -> NotebookNode:
    """A copy whose outputs are fit to be stored or shown anywhere; sources stay as they are.

    Gone are stderr, progress bars, widget views (their state is not stored), timings, and beginnings of paths of this
    machine. `names` maps further absolute folders to what stands in for them. Executed cells are counted 1, 2, 3.
    """
    notebook = copy.deepcopy(notebook)
    # Folders of this machine, and what stands in for them as seen from the notebooks folder, where lessons run.
    folders = {str(REPOSITORY): "..", sys.prefix: "venv", str(Path.home()): "~", tempfile.gettempdir(): "tmp"}
    folders |= names or {}
    # Longest folder first, so that a folder inside another keeps its own name; never the root of a disk.
    ordered = sorted((folder for folder in folders if Path(folder) != Path(folder).anchor), key=len, reverse=True)
    # The characters excluded before and after are those of longer names and of base64, in which a path means nothing.
    replacements = [(re.compile(rf"(?<![\w+=]){re.escape(one)}(?![\w-])"), folders[one]) for one in ordered]
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        executed = cell.get("execution_count") is not None
        count += executed
        cell.execution_count = count if executed else None
        cell.outputs = [_with_paths_replaced(output, replacements) for output in _clean_outputs(cell.outputs)]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
    return with_clean_metadata(notebook)


def with_clean_metadata(notebook: NotebookNode) -> NotebookNode:
    """The same notebook, changed in place: no timings, no widget state, and the plain `python3` kernel."""
    for cell in notebook.cells:
        for key in ("execution", "ExecuteTime"):
            cell.metadata.pop(key, None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata.language_info = {"name": "python", "pygments_lexer": "ipython3"}
    return notebook


def _clean_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    kept = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
                continue
        elif WIDGET_VIEW in output.get("data", {}) or "<progress" in output.get("data", {}).get("text/html", ""):
            continue
        kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = _as_left_on_screen(output.text)
    return [output for output in kept if output.output_type != "stream" or output.text.strip()]


def _as_left_on_screen(text: str) -> str:
    """What a terminal still shows of a text with carriage returns, without the lines that are progress bars."""
    lines = text.replace("\r\n", "\n").split("\n")
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines]
    return "\n".join(line for line in lines if not BAR.search(line))


def _with_paths_replaced(value: Any, replacements: list[tuple[re.Pattern[str], str]]) -> Any:
    if isinstance(value, str):
        for pattern, name in replacements:
            value = pattern.sub(lambda _, name=name: name, value)
        return value
    if isinstance(value, list):
        return [_with_paths_replaced(item, replacements) for item in value]
    if isinstance(value, dict):
        items = {
            key: item
            if key.startswith("image/") and key != "image/svg+xml"
            else _with_paths_replaced(item, replacements)
            for key, item in value.items()
        }
        return NotebookNode(items)
    return value


def absolute_path_in_outputs(cell: NotebookNode) -> str:
    """The first absolute path of somebody's machine in a code cell's outputs, or "" when there is none."""
    for output in cell.outputs:
        texts = [output.get("text", ""), *output.get("traceback", [])]
        texts += [text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")]
        for text in texts:
            found = ABSOLUTE_PATH.search(DATA_URI.sub("", text if isinstance(text, str) else json.dumps(text)))
            if found:
                return found.string[found.start() : found.start() + 60].split()[0]
    return ""


def page(notebook: NotebookNode, path: Path) -> str:
    """The notebook as one HTML page that fetches nothing and runs no script; formulas therefore show as their source.

    `path` is the notebook's file; pictures its Markdown names are read from beside it.
    """
    from bs4 import BeautifulSoup
    from nbconvert import HTMLExporter

    notebook = clean(notebook, {str(path.parent): "."})
    notebook.metadata.setdefault("title", next(filter(None, lessons.headings(notebook)), path.stem))
    resources = {"metadata": {"name": path.stem, "path": str(path.parent)}}
    html, _ = HTMLExporter(embed_images=True).from_notebook_node(notebook, resources)
    soup = BeautifulSoup(html, "html.parser")
    for script in soup.find_all("script"):
        script.decompose()
    for image in soup.find_all("img", src=re.compile("^(https?:)?//")):
        image.replace_with(image.get("alt") or "picture")
    policy = soup.new_tag("meta", attrs={"http-equiv": "Content-Security-Policy", "content": CONTENT_POLICY})
    soup.head.insert(0, policy)
    style = soup.new_tag("style")
    style.string = PAGE_STYLE
    soup.head.append(style)
    return str(soup)
