"""An executed notebook as a page that fetches nothing."""

import re
from pathlib import Path

from nbformat import NotebookNode

from unsloth_course.commands.runner.cleaning import clean
from unsloth_course.core import lessons, markup

CONTENT_POLICY = f"{markup.POLICY}; font-src data:"

# On a wide screen a line of text stays short enough to be read, and stands in the middle.
PAGE_STYLE = "main { max-width: 1080px; margin: 0 auto; }"


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
