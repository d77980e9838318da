"""The runner, with toy lessons that take a kernel but no torch."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from unsloth_course.commands import runner
from unsloth_course.commands.runner import cleaning
from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY

KNOBS = 'PROFILE = "auto"\nSEED = 3407\nOUT = "results"'
WRITE_RESULTS = """
import json, pathlib
pathlib.Path(OUT).mkdir(exist_ok=True)
FINDINGS = [{"level": "fatal", "name": "B", "text": "B is zero."}, {"level": "note", "name": "", "text": "By the way."}]
results = {
    "lesson": "lora", "profile": PROFILE, "seed": SEED, "training": {"seconds": 1.25},
    "evaluation": {"metric": "exact_match", "n": 200, "before": 0.02, "after": 0.945, "interval": [0.88, 0.97],
                   "retention": {"metric": "exact_match", "before": 0.7, "after": 0.68}},
    "receipt": {"verdict": VERDICT, "findings": FINDINGS}, "wall_seconds": 0.0,
}
pathlib.Path(OUT, "lora.json").write_text(json.dumps(results))
"""


def lesson_cells(*middle, verdict="trained"):
    return [
        new_markdown_cell("# A toy lesson"),
        new_code_cell("!exit 1 # pip install\nraise SystemError", metadata={"tags": ["skip-execution"]}),
        new_code_cell(KNOBS, metadata={"tags": ["parameters"]}),
        *middle,
        new_markdown_cell("## Save"),
        new_code_cell(f"VERDICT = {verdict!r}\n{WRITE_RESULTS.strip()}"),
    ]


@pytest.fixture
def write_lesson(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(lessons, "NOTEBOOKS", folder)

    def write(*cells):
        path = folder / lessons.LESSONS["lora"]
        nbformat.write(new_notebook(cells=list(cells)), path)
        return path

    return write


def stdout_of(notebook):
    return "".join(o.text for c in notebook.cells if c.cell_type == "code" for o in c.outputs if "text" in o)


def outputs_of(path):
    return stdout_of(nbformat.read(path, as_version=4))


def test_a_lesson_that_trains(write_lesson, tmp_path, capsys):
    source = write_lesson(
        *lesson_cells(
            new_markdown_cell("Text with ![a badge](https://example.org/badge.svg) and $x^2$."),
            new_code_cell(
                "import os, sys, pathlib\n"
                "from unsloth_course.core.frontend import is_interactive\n"
                "print('knobs', PROFILE, SEED, OUT == str(pathlib.Path(OUT).absolute()))\n"
                "print('folder', os.path.basename(os.getcwd()), 'python', sys.executable)\n"
                "print('interactive', is_interactive())\n"
                "print('<script>alert(1)</script>')"
            ),
            new_code_cell(
                "from IPython.display import HTML, Javascript, display\n"
                "display(Javascript('steal()'))\n"
                "HTML('<b>bold</b><script>steal()</script><img src=\"http://example.org/x.png\">')"
            ),
        )
    )
    before = source.read_bytes()
    out = tmp_path / "results"

    started = time.perf_counter() - 1000
    outcome = runner.run("lora", profile="cpu", seed=7, out=out, started=started)

    printed = stdout_of(outcome.notebook)
    assert "knobs cpu 7 True" in printed
    assert f"folder notebooks python {sys.executable}" in printed
    assert "interactive False" in printed
    assert source.read_bytes() == before

    assert outcome.verdict == "trained"
    assert outcome.files == [out / "lora.json", out / "lora.html", out / source.name]
    results = json.loads((out / "lora.json").read_text())
    assert results == outcome.results
    assert 1000 < results["wall_seconds"] < 2000

    copy = nbformat.read(out / source.name, as_version=4)
    injected = [cell for cell in copy.cells if lessons.has_tag(cell, "injected-parameters")]
    assert [cell.source.splitlines()[:2] for cell in injected] == [["PROFILE = 'cpu'", "SEED = 7"]]
    assert copy.cells.index(injected[0]) == 3, "the injected cell comes right after the knobs"
    assert copy.cells[1].execution_count is None, "skip-execution"

    html = (out / "lora.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html, "an output's own script is gone, and so are MathJax and RequireJS"
    assert "<b>bold</b>" in html and "a badge" in html
    assert 'src="http://' not in html.replace('img src="http://example.org/x.png"&gt;', "") and "cdnjs" not in html
    assert "default-src 'none'" in html
    assert "<title>A toy lesson</title>" in html

    text = runner.summary(outcome)
    assert "2.0 % -> 94.5 %  (+92.5 points, 95 % interval +88.0 to +97.0)" in text
    assert "70.0 % -> 68.0 %" in text and "1.2 s training" in text and str(out / "lora.html") in text

    progress = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[-1] for line in progress] == ["A toy lesson", "Save"]
    assert all(line.isprintable() for line in progress)


def test_a_cell_that_raises_leaves_the_part_that_ran(write_lesson, tmp_path):
    source = write_lesson(
        *lesson_cells(
            new_code_cell("print('so far')"),
            new_markdown_cell("## 3 Train\n\nprose"),
            new_code_cell("raise ValueError('\\x1b[31mbad\\nthing')"),
        )
    )
    out = tmp_path / "results"
    with pytest.raises(CourseError) as raised:
        runner.run("lora", out=out)
    where = f"{source.name}, cell 6 (3 Train): ValueError: bad thing."
    assert str(raised.value) == f"{where} The copy in the --out folder shows what ran up to there."
    assert "so far" in outputs_of(out / source.name)
    assert "so far" in (out / "lora.html").read_text()
    assert not (out / "lora.json").exists()


def test_a_page_that_cannot_be_made_costs_nothing_else(write_lesson, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner.cleaning, "page", lambda notebook, path: 1 / 0)
    out = tmp_path / "results"
    write_lesson(*lesson_cells())
    assert runner.run("lora", out=out).files == [out / "lora.json", out / lessons.LESSONS["lora"]]
    assert "lora.html could not be made (ZeroDivisionError" in capsys.readouterr().err
    write_lesson(*lesson_cells(new_code_cell("raise ValueError('why')")))
    with pytest.raises(CourseError, match="ValueError: why"):
        runner.run("lora", out=out)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("from unsloth_course.core import errors\nraise errors.CourseError('no rows')", "^no rows$"),
        ("import os\nos._exit(9)", r"cell 5 \(Big\): the kernel died, most often because memory ran out"),
    ],
)
def test_a_course_error_shows_its_sentence_only_and_a_kernel_that_dies_has_one(write_lesson, tmp_path, code, sentence):
    write_lesson(*lesson_cells(new_markdown_cell("## Big"), new_code_cell(code)))
    with pytest.raises(CourseError, match=sentence):
        runner.run("lora", out=tmp_path / "results")


def first_kernels_die(monkeypatch, number):
    """The first kernels end as one does whose port was taken; those after are real."""
    real, begun = runner.kernel.ThisPython.get_kernel_spec, []

    def spec(self, name):
        begun.append(name)
        found = real(self, name)
        if len(begun) <= number:
            found.argv = [sys.executable, "-c", "raise SystemExit('Address already in use')"]
        return found

    monkeypatch.setattr(runner.kernel.ThisPython, "get_kernel_spec", spec)
    return begun


def test_a_kernel_that_never_starts_is_tried_twice_and_its_last_words_are_said(write_lesson, tmp_path, monkeypatch):
    begun = first_kernels_die(monkeypatch, 3)
    write_lesson(*lesson_cells())
    with pytest.raises(CourseError, match=r"did not start .* Its last words: Address already in use"):
        runner.run("lora", out=tmp_path / "results")
    assert len(begun) == 2
    assert runner.run("lora", out=tmp_path / "results").verdict == "trained"
    assert len(begun) == 4


def test_results_of_an_earlier_run_do_not_count(write_lesson, tmp_path):
    write_lesson(*lesson_cells()[:-1], new_code_cell("x = 1"))
    out = tmp_path / "results"
    out.mkdir()
    (out / "lora.json").write_text('{"receipt": {"verdict": "trained"}}')
    with pytest.raises(CourseError, match="did not write"):
        runner.run("lora", out=out)
    assert (out / "lora.json").exists(), "an earlier result is not thrown away"


def test_store_keeps_sources_and_writes_clean_outputs(write_lesson, tmp_path):
    source = write_lesson(
        *lesson_cells(
            new_code_cell(
                "import os, sys, ipywidgets\n"
                "print('working 1', end='\\r')\nprint('working 2')\n"
                "print(' 50%|#####     | 1/2 [00:00<00:00, 3.1it/s]')\n"
                "print('noise', file=sys.stderr)\n"
                "print('saved to', OUT, 'from', os.getcwd(), 'below', os.path.expanduser('~'))\n"
                "display(ipywidgets.IntSlider())\n"
                "PROFILE"
            ),
        )
    )
    before = nbformat.read(source, as_version=4)
    outcome = runner.store("lora", out=tmp_path / "elsewhere")
    after = nbformat.read(source, as_version=4)

    assert [(cell.id, cell.source) for cell in after.cells] == [(cell.id, cell.source) for cell in before.cells]
    assert [c.execution_count for c in after.cells if c.cell_type == "code"] == [None, 1, 2, 3]
    assert stdout_of(after) == "working 2\nsaved to results from . below ~\n"
    assert after.cells[3].outputs[-1].data["text/plain"] == "'cpu'"
    assert len(after.cells[3].outputs) == 2, "the widget view is gone"
    assert after.metadata.kernelspec == {"name": "python3", "display_name": "Python 3"}
    assert not after.metadata.get("widgets") and not outcome.notebook.metadata.get("widgets")
    assert source.read_text().endswith("}\n")


def run_command(folder, *arguments):
    # A shell starts what runs in its background with Ctrl-C ignored, the tests among it: then none would arrive.
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys, pathlib\nfrom unsloth_course import cli\nfrom unsloth_course.core import lessons\n"
        f"lessons.NOTEBOOKS = pathlib.Path({str(folder)!r})\nsys.argv = ['course', *{list(arguments)!r}]\ncli.main()"
    )
    how = {"cwd": folder.parent, "env": {**os.environ, "PYTHONPATH": str(REPOSITORY)}, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)


@pytest.mark.parametrize("verdict", ["not trained", "suspicious"])
def test_another_verdict_is_exit_status_1_with_all_files(write_lesson, tmp_path, verdict):
    source = write_lesson(*lesson_cells(verdict=verdict))
    command = run_command(source.parent, "run", "lora")
    stdout, stderr = command.communicate(timeout=3000)
    assert command.returncode == 1
    assert f"its verdict is '{verdict}': B is zero." in stderr.splitlines()[-1]
    assert "By the way" not in stderr
    assert "Traceback" not in stderr and "\x1b" not in stderr + stdout
    assert f"verdict      {verdict}" in stdout
    assert {file.name for file in (tmp_path / "results").iterdir()} == {"lora.json", "lora.html", source.name}


@pytest.mark.skipif(sys.platform == "win32", reason="a console Ctrl-C cannot be sent to one process")
def test_ctrl_c_stops_the_kernel_and_keeps_what_ran(write_lesson, tmp_path):
    waiting = "import os, time, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)"
    source = write_lesson(*lesson_cells(new_code_cell("print('so far')"), new_code_cell(waiting)))
    command = run_command(source.parent, "run", "all")
    pid = source.parent / "pid"
    deadline = time.monotonic() + 300
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    command.send_signal(signal.SIGINT)
    _, stderr = command.communicate(timeout=300)
    assert command.returncode == 130
    assert stderr.splitlines()[-1].startswith("Stopped by Ctrl-C during the lora lesson")
    assert "Traceback" not in stderr and "Error" not in stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert "so far" in outputs_of(tmp_path / "results" / source.name)


# Without a kernel


def test_a_lesson_that_is_not_written_yet(write_lesson):
    source = write_lesson()
    with pytest.raises(CourseError, match="dpo lesson is not written yet"):
        lessons.notebook_path("dpo")
    assert lessons.written_lessons() == ["lora"]
    source.unlink()
    with pytest.raises(CourseError, match="There is no lesson"):
        lessons.written_lessons()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cells": 3}', '{"nbformat": 4, "cells": 3}', "\udcff"])
def test_a_broken_notebook_is_a_sentence(write_lesson, tmp_path, text):
    write_lesson().write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CourseError):
        runner.run("lora", out=tmp_path / "results")


def test_folders_that_cannot_take_results_are_refused_before_the_lesson_runs(write_lesson, tmp_path):
    source = write_lesson(*lesson_cells(new_code_cell("raise SystemError")))
    (tmp_path / "file").write_text("")
    for place in [tmp_path / "file", *[Path("/proc/sys")] * (sys.platform == "linux")]:  # which refuses root, too
        with pytest.raises(CourseError, match="cannot be written to"):
            runner.run("lora", out=place)
    with pytest.raises(CourseError, match="notebooks folder itself"):
        runner.run("lora", out=source.parent)


def test_files_of_the_learner_are_found_from_where_the_learner_is(write_lesson, tmp_path, monkeypatch):
    cells = lesson_cells(new_code_cell("print(MODEL, DATA)"))
    cells[2].source = KNOBS + "\nMODEL, DATA = None, None"
    write_lesson(*cells)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "rows.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    outcome = runner.run("lora", out=tmp_path / "results", model="some/model", data="rows.jsonl")
    assert f"some/model {tmp_path / 'here' / 'rows.jsonl'}" in stdout_of(outcome.notebook)
    outcome = runner.run("lora", out=tmp_path / "results", model=".", data="pocket")
    assert f"{tmp_path / 'here'} pocket" in stdout_of(outcome.notebook)


def test_store_refuses_the_gpu_profile():
    with pytest.raises(CourseError, match="cpu profile"):
        runner.store("lora", profile="gpu")


def test_a_knob_that_the_lesson_lacks_is_not_lost_in_silence():
    notebook = new_notebook(cells=[new_code_cell("SEED: int = 1", metadata={"tags": ["parameters"]})])
    assert runner.parameters.with_parameters(notebook, {"SEED": 2}).cells[1].source == "SEED = 2"
    with pytest.raises(CourseError, match="does not set OUT"):
        runner.parameters.with_parameters(notebook, {"SEED": 2, "OUT": "x"})
    other = new_code_cell("SEED = 1")
    with pytest.raises(CourseError, match="0 code cells"):
        runner.parameters.with_parameters(new_notebook(cells=[other]), {})
    other.metadata.tags = ["parameters"]
    with pytest.raises(CourseError, match="2 code cells"):
        runner.parameters.with_parameters(new_notebook(cells=[notebook.cells[0], other]), {})


def test_parameters_clear_the_outputs_of_an_earlier_run():
    cell = new_code_cell("A = 1", outputs=[new_output("stream", text="old")], execution_count=4)
    cell.metadata.tags = ["parameters"]
    fresh = runner.parameters.with_parameters(new_notebook(cells=[cell]), {})
    assert fresh.cells[0].outputs == [] and fresh.cells[0].execution_count is None
    assert cell.outputs, "the given notebook is left alone"


@given(st.text())
def test_an_injected_value_is_the_value_that_was_given(value):
    notebook = new_notebook(cells=[new_code_cell("OUT = 'x'", metadata={"tags": ["parameters"]})])
    names = {}
    exec(runner.parameters.with_parameters(notebook, {"OUT": value}).cells[1].source, names)
    assert names["OUT"] == value


def test_headings_are_the_nearest_above():
    cells = [new_code_cell("1"), new_markdown_cell("# A #\n\ntext\n\n## B"), new_code_cell("2"), new_markdown_cell("c")]
    assert lessons.headings(new_notebook(cells=cells)) == ["", "B", "B", "B"]


def message(kind, **content):
    return {"msg_type": kind, "content": content}


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (message("stream", name="stdout", text="one\ntwo\n"), "two"),
        (message("stream", name="stdout", text="step 1\rstep 2"), "step 2"),
        (message("stream", name="stdout", text="\x1b[31mred\x1b[0m\x07"), "red"),
        (message("stream", name="stderr", text="UserWarning: hm"), ""),
        (message("stream", name="stderr", text=" 50%|##  | 1/2"), "50%|##  | 1/2"),
        (message("update_display_data", data={"text/plain": "step 3"}), "step 3"),
        (message("display_data", data={"text/plain": "<IPython.core.display.HTML object>"}), ""),
        (message("status", execution_state="busy"), ""),
    ],
)
def test_status_lines(given, status):
    assert runner.kernel.status_line(given) == status


def test_the_bar_shows_section_and_status(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    cells = [new_markdown_cell("## Train [bold]"), new_code_cell("1")]
    with runner.kernel.progress_of(new_notebook(cells=cells)) as progress:
        progress.cell("Train [bold]")
        progress.status("step 3 of 9")
        progress.bar.refresh()
    assert "Train [bold] | step 3 of 9" in terminal.getvalue()
    assert "1/1" in terminal.getvalue()


@pytest.mark.parametrize(
    ("score", "text"),
    [
        ({"before": 12.5, "after": 4.2, "interval": [-9, -8]}, "12.50 -> 4.20  (-8.30, 95 % interval -9.00 to -8.00)"),
        ({"before": 12.5, "after": None, "interval": [None, None]}, "12.50 -> not a number"),
        ({"before": None, "after": None, "interval": None}, "not a number -> not a number"),
        ({"before": 2.0, "after": 3.0, "interval": [None, 1.0]}, "2.00 -> 3.00"),
    ],
)
def test_a_perplexity_is_a_plain_number_and_a_run_that_broke_down_has_a_summary_too(score, text):
    assert runner._before_after({"metric": "perplexity", **score}) == text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"receipt": 3}', '{"receipt": {"verdict": "fine"}}', "\udcff"])
def test_results_without_a_verdict_are_refused(tmp_path, text):
    path = tmp_path / "lora.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CourseError, match=r"lora\.json"):
        runner._read_results(path)


# Cleaning


def cleaned(*outputs, names=None):
    notebook = new_notebook(cells=[new_code_cell("x", execution_count=5, outputs=list(outputs))])
    return cleaning.clean(notebook, names).cells[0]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a\r\nb\n", "a\nb\n"),
        ("1 %\r2 %\rdone\n", "done\n"),
        ("Map: 100%|████| 8/8 [00:00<00:00, 1.2k examples/s]\nkept\n", "kept\n"),
        ("12it [00:03,  3.9it/s]\nkept", "kept"),
        ("3.9 it/s is what I measured", "3.9 it/s is what I measured"),
    ],
)
def test_carriage_returns_and_bars(text, left):
    assert cleaned(new_output("stream", text=text)).outputs[0].text == left


def test_what_cleaning_drops_and_joins():
    cell = cleaned(
        new_output("stream", name="stdout", text="a"),
        new_output("stream", name="stderr", text="warning"),
        new_output("stream", name="stdout", text="b\n"),
        new_output("display_data", data={"text/html": "<progress value='3'></progress>"}),
        new_output("display_data", data={cleaning.WIDGET_VIEW: {"model_id": "1"}, "text/plain": "IntSlider()"}),
        new_output("stream", name="stdout", text="50%|##  |"),
        new_output("execute_result", data={"text/plain": "3"}, execution_count=5),
    )
    assert [output.output_type for output in cell.outputs] == ["stream", "execute_result"]
    assert cell.outputs[0].text == "ab"
    assert cell.execution_count == cell.outputs[-1].execution_count == 1


def test_paths_are_replaced_in_text_but_never_in_pictures():
    home = str(Path.home())
    picture = f"AA{home}/BB=="
    cell = cleaned(
        new_output("display_data", data={"text/html": f"<b>{home}/x</b>", "image/png": picture}),
        new_output("stream", text="/elsewhere/deep/lora.json /elsewhere/deeper"),
        names={"/elsewhere/deep": "results"},
    )
    assert cell.outputs[0].data == {"text/html": "<b>~/x</b>", "image/png": picture}
    assert cell.outputs[1].text == "results/lora.json /elsewhere/deeper"


PATHS = ["/home/ada/x", "see /tmp/y", '"/root"', r"C:\Users\ada", r"'D:\\Temp'", "(/work)"]
OTHERS = ["https://host.org/home/x", "</root>", "results/tmp/x", "../work", "~/home", r"A:\n"]


@pytest.mark.parametrize("text", [*PATHS, *OTHERS, "data:image/png;base64,a+/tmp/b"])
def test_absolute_paths_are_found_and_other_text_is_not_taken_for_one(text):
    output = new_output("display_data", data={"text/html": text, "image/png": "/tmp/xx"})
    assert bool(cleaning.absolute_path_in_outputs(new_code_cell("", outputs=[output]))) is (text in PATHS)


@given(st.text(alphabet="a%|/\r\n[]0:t ", max_size=60))
def test_cleaning_twice_changes_nothing_more(text):
    once = cleaned(new_output("stream", text=text)).outputs
    assert cleaned(*once).outputs == once
    assert all("\r" not in output.text for output in once)
