"""The site: the pages of docs/ and the notebooks with their stored outputs, for reading and searching.

    pip install -r docs/site/requirements.txt
    sphinx-build -W -j auto -c docs/site . results/site

Then open results/site/index.html, from the file: no server and no network is needed. Sphinx with MyST-NB, since pages
and notebooks stay where they are, as GitHub shows them: the sources need no syntax of the site's own. Jupyter Book
stands on the same two and brings a command and a configuration more.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

project = "unsloth-course"
author = "the unsloth-course authors"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "benchmarks/README.md", "notebooks/*.ipynb", "notebooks/extras/*.ipynb"]
include_patterns += [
    f"{name}.md" for name in ("TROUBLESHOOTING", "VENV_SETUP", "CHANGELOG", "CONTRIBUTING", "SECURITY")
]
exclude_patterns = ["**/.ipynb_checkpoints"]
nb_execution_mode = "off"  # the stored outputs are shown
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
# A link to a folder or a file of code leads nowhere on the site; on GitHub it does.
suppress_warnings = ["myst.xref_missing", "myst.header", "mystnb.unknown_mime_type"]
html_theme = "furo"  # dark and light, and for a phone
html_title = project
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_extra_path = ["index.html"]  # of the whole site, which leads to docs/index

# The reference: every name of the lesson door, with its docstring. What a room imports is not installed for the site.
autodoc_mock_imports = ["torch", "numpy", "datasets", "transformers", "trl", "peft", "pandas", "matplotlib"]
autodoc_typehints = "none"
default_role = "code"


def setup(app):
    app.connect("autodoc-process-docstring", lambda *event: event[-1].__setitem__(slice(None), marked(event[-1])))


def marked(docstring):
    """Lines of a docstring, which is plain text, for Sphinx: those that are set in, as in a list, stay lines."""
    lines = []
    for line in docstring:
        line = f"| {line.strip()}" if line.startswith(" ") else line
        if lines and lines[-1] and line.startswith("| ") != lines[-1].startswith("| "):
            lines.append("")
        lines.append(line)
    return lines
