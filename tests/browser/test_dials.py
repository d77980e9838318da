"""All five dials in JupyterLab: in both themes, in a narrow window, run twice, and after the kernel was restarted."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from browser import lab
from unsloth_course import dials
from unsloth_course.commands.runner import cleaning

CELLS = {
    "lora": "dials.AdapterDial([dials.Setting(f, min(1, f), 0, 1 - f / 9, [('2?', str(f))]) for f in dials.FACTORS])",
    "full": "dials.learning_rate()",
    "cpt": "dials.replay()",
    "dpo": "dials.preference(beta=5.0, chosen=1.0, rejected=-1.0)",
    "grpo": "dials.advantages()",
}


@pytest.fixture(scope="module")
def notebook(browser, server, pictures):
    """A notebook with one dial in each cell, which has been run; leave it so."""
    cells = [new_code_cell(f"from unsloth_course import dials\n\n{code}.show()") for code in CELLS.values()]
    written = cleaning.with_clean_metadata(new_notebook(cells=cells))
    nbformat.write(written, server.folder / "dials.ipynb")
    opened = lab.Notebook(browser, server, "dials.ipynb", pictures)
    opened.run_all()
    yield opened
    opened.close()


def turned(notebook, name):
    """Turns the dial of a lesson by a step; whether that changed what is seen."""
    dial = notebook.dial(list(CELLS).index(name))
    before = notebook.drawn(dial)
    notebook.turn(dial)
    return notebook.drawn(dial) != before


def test_the_lessons_dials_are_all_here():
    assert {name.rpartition("Dial")[0] for name in dials.__all__ if name.endswith("Dial")} == {
        "Adapter",
        "Group",
        "Preference",
        "Sweep",
    }


def test_every_dial_turns_in_both_themes(notebook):
    for theme in ("Light", "Dark"):
        notebook.theme(theme)
        for number, name in enumerate(CELLS):
            assert turned(notebook, name), (theme, name)
            notebook.picture(f"dial-{name}-{theme}", notebook.dial(number))
    assert notebook.errors() == notebook.complaints == []


def test_dials_turn_after_a_second_run_and_after_a_restart(notebook):
    notebook.run_all()
    assert turned(notebook, "lora")
    notebook.restart_and_run_all()
    assert notebook.cells[0]["execution_count"] == 1
    assert turned(notebook, "lora") and turned(notebook, "grpo")
    assert notebook.errors() == notebook.complaints == []


def test_choosing_a_group_moves_all_sliders(notebook):
    dial = notebook.dial(list(CELLS).index("grpo"))
    dial.locator("select").select_option("all 8 alike")
    dial.get_by_text("nothing to learn").wait_for()
    assert {text.strip() for text in dial.locator(".widget-readout").all_inner_texts()} == {"0.00"}
    assert notebook.complaints == []


def test_a_dial_is_not_wider_than_its_cell(notebook):
    notebook.page.set_viewport_size({"width": 900, "height": 800})
    for number, name in enumerate(CELLS):
        cell = notebook.cell(number).locator(".jp-OutputArea-output").first
        assert cell.evaluate("cell => cell.scrollWidth <= cell.clientWidth + 1"), name
