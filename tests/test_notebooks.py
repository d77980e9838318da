"""The notebook lint: over the lessons, and over a notebook made bad in each way."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import notebook_lint
import pytest
from conftest import twice
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from unsloth_course.commands.runner import cleaning
from unsloth_course.core import lessons

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(
    path for path in (REPOSITORY / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)


def test_the_lora_lesson_exists():
    assert lessons.notebook_path("lora") in NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_lessons_keep_the_rules(path):
    assert notebook_lint.lint(path) == []


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff_is_content_with_code_and_notebooks(check):
    found = subprocess.run([sys.executable, "-m", "ruff", *check, "."], cwd=REPOSITORY, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def good_notebook():
    cells = [
        new_markdown_cell("# A lesson"),
        new_code_cell("%pip install unsloth", metadata={"tags": ["skip-execution"]}),
        new_markdown_cell("## Knobs"),
        new_code_cell("SEED = 3407", metadata={"tags": ["parameters"]}, execution_count=1),
        new_markdown_cell("## Look"),
        new_code_cell("print(SEED)", execution_count=2, outputs=[new_output("stream", text="3407\n")]),
    ]
    return cleaning.with_clean_metadata(new_notebook(cells=cells))


def test_a_good_notebook_has_no_fault(tmp_path):
    nbformat.write(good_notebook(), tmp_path / "good.ipynb")
    assert notebook_lint.lint(tmp_path / "good.ipynb") == []


def test_faults_that_nbformat_would_mend_are_found_in_the_file(tmp_path):
    notebook = good_notebook()
    notebook.cells[5].id = notebook.cells[4].id
    (tmp_path / "bad.ipynb").write_text(json.dumps(notebook))
    assert notebook_lint.lint(tmp_path / "bad.ipynb") == ["a cell has no id, or two have the same"]


def printed(text, name="stdout"):
    return [new_output("stream", name=name, text=text)]


def spoil(change):
    notebook = good_notebook()
    change(notebook)
    return notebook


BAD = {
    "valid_format": [
        lambda nb: nb.update(nbformat_minor=4),
        lambda nb: nb.cells[5].update(id=nb.cells[4].id),
        lambda nb: nb.cells[5].pop("id"),
        lambda nb: nb.cells[5].update(surprise=1),
    ],
    "plain_kernel": [lambda nb: nb.metadata.kernelspec.update(name="course"), lambda nb: nb.metadata.pop("kernelspec")],
    "cell_size": [lambda nb: nb.cells[5].update(source="print(1)\n" * 26)],
    "line_width": [lambda nb: nb.cells[5].update(source="print(" + "1" * 70 + ")")],
    "notebook_size": [lambda nb: nb.cells[5].update(source="print(1)\n" * 239)],
    "prose_beside_code": [lambda nb: nb.cells.pop(0)],
    "no_errors": [lambda nb: nb.cells[5].outputs.append(new_output("error", ename="E", evalue="", traceback=[]))],
    "no_widgets": [
        lambda nb: nb.metadata.update(widgets={}),
        lambda nb: nb.cells[5].outputs.append(new_output("display_data", data={cleaning.WIDGET_VIEW: {}})),
    ],
    "no_absolute_paths": [
        lambda nb: nb.cells[0].update(source="see /home/ada/course"),
        lambda nb: nb.cells[3].update(source="SEED = open('/tmp/seed')"),
        lambda nb: nb.cells[5].update(outputs=printed("/Users/ada/results\n")),
        lambda nb: nb.cells[5].update(outputs=printed("C:\\Users\\ada\n")),
        lambda nb: nb.cells[5].outputs.append(new_output("display_data", data={"text/html": "<p>/tmp/x</p>"})),
    ],
    "no_debris": [
        lambda nb: nb.cells[5].update(outputs=printed("a warning", "stderr")),
        lambda nb: nb.cells[5].update(outputs=printed("1\r2")),
        lambda nb: nb.cells[5].update(outputs=printed("8.1it/s]")),
        lambda nb: nb.cells[5].update(outputs=printed("50%|###   | 1/2")),
    ],
    "no_timings": [lambda nb: nb.cells[5].metadata.update(execution={})],
    "one_parameters_cell": [
        lambda nb: nb.cells[3].metadata.pop("tags"),
        lambda nb: nb.cells[5].metadata.update(tags=["parameters"]),
        lambda nb: nb.cells[5].metadata.update(tags=["injected-parameters"]),
    ],
    "installs_are_skipped": [
        lambda nb: nb.cells[1].metadata.pop("tags"),
        lambda nb: nb.cells[5].update(source="!uv pip install trl\nprint(1)"),
        lambda nb: nb.cells[5].update(source="!python -m pip install trl\nprint(1)"),
    ],
    "executed_in_order": [
        lambda nb: nb.cells[5].update(execution_count=3),
        lambda nb: nb.cells[5].update(execution_count=None),
        lambda nb: nb.cells[3].update(execution_count=2),
    ],
    "outputs_are_stored": [
        lambda nb: nb.cells[5].update(outputs=[]),
        lambda nb: nb.cells[5].update(outputs=[], source="display(SEED)"),
        lambda nb: nb.cells[5].update(outputs=[], source="%matplotlib inline\nSEED"),
    ],
    "numbers_in_text": [
        lambda nb: nb.cells[0].update(source="It rises to 93.5 %."),
        lambda nb: nb.cells[0].update(source="It takes 407 s, with a 95 % interval."),
        lambda nb: nb.cells[0].update(source="The file has 3,407 MiB, and that is SEED 3407."),
        lambda nb: nb.cells[0].update(source="340 seconds"),
    ],
}


def test_every_rule_is_tried():
    assert list(BAD) == [rule.__name__ for rule in notebook_lint.RULES]


@pytest.mark.parametrize(("rule", "change"), [(rule, change) for rule, changes in BAD.items() for change in changes])
def test_a_bad_notebook_is_told(rule, change):
    faults = list(getattr(notebook_lint, rule)(spoil(change)))
    assert len(faults) == 1, faults


def test_a_number_that_a_cell_prints_may_be_named():
    notebook = good_notebook()
    notebook.cells[0].source = "It takes 3407 s; the interval holds 95 %; `r` = 16 is no measurement."
    assert list(notebook_lint.numbers_in_text(notebook)) == []


@pytest.mark.parametrize("source", ["x = 1", "def f():\n    print(1)", "if x:\n    print(1)", "trainer.train()", "f("])
def test_quiet_cells_need_no_output(source):
    assert not notebook_lint.prints(source)


def test_a_kernel_that_died_at_its_start_gets_a_second_try():
    tries = []

    def run(*errors):
        tries.append(1)
        if len(tries) <= len(errors):
            raise errors[len(tries) - 1]

    died, failed = RuntimeError("Kernel died before replying to kernel_info"), RuntimeError("A cell failed.")
    twice(lambda: run(died))()
    assert len(tries) == 2
    for errors, count in (((failed,), 1), ((died, died), 2), ((died, failed), 2)):
        tries.clear()
        with pytest.raises(RuntimeError, match=str(errors[-1])):
            twice(lambda errors=errors: run(*errors))()
        assert len(tries) == count
