"""Lessons with the knobs of CI, and the command that runs copies of them. Light, as scripts import it too."""

# `run LESSON`, with the folder that the first argument names in place of the repository's notebooks.
COMMAND = (
    "import sys, pathlib; from unsloth_course import cli; from unsloth_course.core import lessons; "
    "lessons.NOTEBOOKS = pathlib.Path(sys.argv.pop(1)); cli.main()"
)


def shorten(notebook, **other):
    """The notebook with the knobs of `metadata.nbmake.mock` set, as nbmake does it; `other` values take precedence."""
    for cell in notebook.cells:
        if mock := cell.metadata.get("nbmake", {}).get("mock"):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in {**mock, **other}.items())
    return notebook
