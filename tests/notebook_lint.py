"""What a lesson notebook must look like. Each rule takes a notebook and yields sentences, one per fault."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from unsloth_course.commands.runner.cleaning import ABSOLUTE_PATH, BAR, WIDGET_VIEW, absolute_path_in_outputs
from unsloth_course.core.lessons import has_tag

CELL_LINES = 25
LINE_WIDTH = 76
NOTEBOOK_LINES = 240  # less what installs the course; the core of a method by hand takes up to 30
# A measured number in prose. "95 %" is the width of every interval, and no result.
MEASURED = re.compile(r"(?<![\w.,])(\d[\d,]*(?:\.\d+)?)\s?(?:%|percent|points?|seconds?|s|ms|[KMG]i?B)(?!\w)")
INTERVAL = "95"
INSTALL = re.compile(r"^\s*[%!]?\s*(?:uv\s+)?(?:pip|conda|apt(?:-get)?)\s+install\b|-m\s+pip\s+install\b", re.MULTILINE)


def lint(path: Path) -> list[str]:
    """Every fault of the notebook file, as `cell 3: what is wrong`."""
    # nbformat.read would mend missing and double cell ids in silence.
    notebook = nbformat.v4.reads(path.read_text(encoding="utf-8"))
    rules = [rule for rule in RULES if not ("extras" in path.parent.parts and rule in OF_LESSONS)]
    return [fault for rule in rules for fault in rule(notebook)]


def code_cells(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    return ((number, cell) for number, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code")


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def code_lines(cell: NotebookNode) -> list[str]:
    return [line for line in cell.source.splitlines() if line.strip()]


def valid_format(notebook: NotebookNode) -> Iterator[str]:
    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        yield f"the format is {notebook.nbformat}.{notebook.nbformat_minor}, not 4.5"
        return
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "a cell has no id, or two have the same"
        return
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        yield f"not a valid notebook: {str(error).splitlines()[0]}"


def plain_kernel(notebook: NotebookNode) -> Iterator[str]:
    name = notebook.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        yield f"the kernel is {name!r}; Colab and nbmake know 'python3'"


def cell_size(notebook: NotebookNode) -> Iterator[str]:
    for number, cell in code_cells(notebook):
        if len(code_lines(cell)) > CELL_LINES:
            yield f"cell {number}: {len(code_lines(cell))} lines of code, more than {CELL_LINES}"


def line_width(notebook: NotebookNode) -> Iterator[str]:
    for number, cell in code_cells(notebook):
        for line in cell.source.splitlines():
            if len(line) > LINE_WIDTH:
                yield f"cell {number}: a line of {len(line)} characters, more than {LINE_WIDTH}: {line[:40]}"


def notebook_size(notebook: NotebookNode) -> Iterator[str]:
    lines = sum(len(code_lines(cell)) for _, cell in code_cells(notebook) if not has_tag(cell, "install"))
    if lines > NOTEBOOK_LINES:
        yield f"{lines} lines of code in all, more than {NOTEBOOK_LINES}"


def prose_beside_code(notebook: NotebookNode) -> Iterator[str]:
    prose = sum(cell.cell_type == "markdown" for cell in notebook.cells)
    code = len(list(code_cells(notebook)))
    if prose < code:
        yield f"{prose} prose cells for {code} code cells; at least as many are wanted"


def no_errors(notebook: NotebookNode) -> Iterator[str]:
    for number, cell in code_cells(notebook):
        if any(output.output_type == "error" for output in cell.outputs):
            yield f"cell {number}: an error is stored"


def no_widgets(notebook: NotebookNode) -> Iterator[str]:
    if "widgets" in notebook.metadata:
        yield "widget state is stored"
    for number, cell in code_cells(notebook):
        if any(WIDGET_VIEW in output.get("data", {}) for output in cell.outputs):
            yield f"cell {number}: a widget view is stored, which nothing can draw"


def no_absolute_paths(notebook: NotebookNode) -> Iterator[str]:
    for number, cell in enumerate(notebook.cells, 1):
        if ABSOLUTE_PATH.search(cell.source):
            yield f"cell {number}: the source names a path of one machine"
        if cell.cell_type == "code" and absolute_path_in_outputs(cell):
            yield f"cell {number}: the output names a path of one machine"


def no_debris(notebook: NotebookNode) -> Iterator[str]:
    for number, cell in code_cells(notebook):
        for output in cell.outputs:
            text = output.get("text", "")
            if output.get("name") == "stderr":
                yield f"cell {number}: stderr is stored"
            elif "\r" in text or "it/s]" in text or BAR.search(text):
                yield f"cell {number}: a progress bar is stored"


def no_timings(notebook: NotebookNode) -> Iterator[str]:
    for number, cell in enumerate(notebook.cells, 1):
        if {"execution", "ExecuteTime"} & cell.metadata.keys():
            yield f"cell {number}: timings are stored"


def one_parameters_cell(notebook: NotebookNode) -> Iterator[str]:
    found = sum("parameters" in tags(cell) for _, cell in code_cells(notebook))
    if found != 1:
        yield f"{found} code cells tagged 'parameters', not one"
    if any("injected-parameters" in tags(cell) for cell in notebook.cells):
        yield "a cell injected by a run is stored"


def installs_are_skipped(notebook: NotebookNode) -> Iterator[str]:
    for number, cell in code_cells(notebook):
        if INSTALL.search(cell.source) and "skip-execution" not in tags(cell):
            yield f"cell {number}: installs something without the tag skip-execution"


def executed_in_order(notebook: NotebookNode) -> Iterator[str]:
    """Executed from top to bottom, without gaps, as a fresh kernel does it."""
    expected = 0
    for number, cell in code_cells(notebook):
        if "skip-execution" in tags(cell) or not cell.source.strip():
            continue
        expected += 1
        if cell.execution_count != expected:
            yield f"cell {number}: execution count {cell.execution_count}, where {expected} is due"
            return


def outputs_are_stored(notebook: NotebookNode) -> Iterator[str]:
    for number, cell in code_cells(notebook):
        if "skip-execution" not in tags(cell) and not cell.outputs and prints(cell.source):
            yield f"cell {number}: prints or displays, but no output is stored"


def numbers_in_text(notebook: NotebookNode) -> Iterator[str]:
    """A number with a unit that the text names is one that a cell printed."""
    printed = " ".join(text for _, cell in code_cells(notebook) for text in output_texts(cell))
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown" and not cell.id.endswith("-result"):  # upkeep/first.py has it from the record
            for named in MEASURED.findall(cell.source):
                if named != INTERVAL and not re.search(rf"(?<![\d.,]){re.escape(named)}(?![\d]|[.,]\d)", printed):
                    yield f"cell {number}: the text names {named} with a unit, and no cell prints it"


def output_texts(cell: NotebookNode) -> Iterator[str]:
    for output in cell.outputs:
        yield output.get("text", "")
        yield from (text for kind, text in output.get("data", {}).items() if kind in ("text/plain", "text/html"))


def prints(source: str) -> bool:
    """Whether a top-level statement is a call of print or display, or the last one is a bare name."""
    try:
        body = ast.parse(TransformerManager().transform_cell(source)).body
    except SyntaxError:
        return False
    bare = [statement.value for statement in body if isinstance(statement, ast.Expr)]
    calls = [value.func for value in bare if isinstance(value, ast.Call)]
    if any(isinstance(function, ast.Name) and function.id in ("print", "display") for function in calls):
        return True
    return bool(body) and isinstance(body[-1], ast.Expr) and isinstance(body[-1].value, ast.Name)


RULES = (
    valid_format,
    plain_kernel,
    cell_size,
    line_width,
    notebook_size,
    prose_beside_code,
    no_errors,
    no_widgets,
    no_absolute_paths,
    no_debris,
    no_timings,
    one_parameters_cell,
    installs_are_skipped,
    executed_in_order,
    outputs_are_stored,
    numbers_in_text,
)
# An extra is looked up and not taught in one sitting, and it has nothing to turn.
OF_LESSONS = (notebook_size, one_parameters_cell)
