"""A lesson's knobs, set from outside."""

import ast
import copy
from collections.abc import Mapping

import nbformat
from nbformat import NotebookNode

from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError


def with_parameters(notebook: NotebookNode, values: Mapping[str, str | int]) -> NotebookNode:
    """A copy of the notebook, without outputs, with a cell of `NAME = value` lines after the one tagged `parameters`.

    The convention is papermill's (https://papermill.readthedocs.io/en/latest/usage-parameterize.html). Raises
    CourseError unless exactly one code cell has the tag and it assigns every name in `values`.
    """
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    code = [number for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    tagged = [number for number in code if lessons.has_tag(notebook.cells[number], "parameters")]
    if len(tagged) != 1:
        raise CourseError(f"The notebook has {len(tagged)} code cells tagged 'parameters'; it needs exactly one.")
    missing = sorted(set(values) - _assigned(notebook.cells[tagged[0]].source))
    if missing:
        raise CourseError(
            f"The cell tagged 'parameters' does not set {', '.join(missing)}, so a value given would be lost."
        )
    if values:
        lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        injected = nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]})
        notebook.cells.insert(tagged[0] + 1, injected)
    return notebook


def _assigned(source: str) -> set[str]:
    """Names that a piece of Python assigns; none when it does not parse."""
    try:
        nodes = ast.walk(ast.parse(source))
    except SyntaxError:
        return set()
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
