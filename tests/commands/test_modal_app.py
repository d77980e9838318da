"""The Modal app against a stand-in: the image of requirements.txt, the named GPUs, the same command line."""

import contextlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from unsloth_course.commands import modal_app
from unsloth_course.core.errors import CourseError


class Recorder:
    """An object that notes every call made on it and returns itself."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*arguments, **named):
            self.calls.append((name, arguments, named))
            return self

        return call

    def named(self, name):
        return [(arguments, named) for called, arguments, named in self.calls if called == name]


@pytest.fixture
def modal(monkeypatch):
    """A stand-in for the package, which runs the function here."""
    image, lines, made_functions = Recorder(), [], []

    class App:
        def __init__(self, name):
            self.name = name

        def function(self, **settings):
            def decorate(made):
                made_functions.append((made, settings))
                return SimpleNamespace(remote=lambda line: lines.append(line) or 3)

            return decorate

        def run(self):
            return contextlib.nullcontext()

    stand_in = SimpleNamespace(
        Image=SimpleNamespace(debian_slim=lambda **named: image.debian_slim(**named)),
        App=App,
        Volume=SimpleNamespace(from_name=lambda name, **_: f"volume {name}"),
        enable_output=contextlib.nullcontext,
        image=image,
        lines=lines,
        functions=made_functions,
    )
    monkeypatch.setitem(sys.modules, "modal", stand_in)
    return stand_in


def test_importing_it_needs_no_modal():
    code = "import sys; sys.modules['modal'] = None; import unsloth_course.commands.modal_app"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_modal_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "modal", None)
    with pytest.raises(CourseError, match=r'pip install "\.\[modal\]"'):
        modal_app.build("T4")


def test_the_image_has_the_pins_of_requirements_txt(modal):
    modal_app.build("T4")
    (first, _), (second, how) = modal.image.named("pip_install")
    torch = [pin for pin in first if pin.startswith("torch==")]
    text = (modal_app.REPOSITORY / "requirements.txt").read_text()
    assert len(torch) == 1 and f"#cuda {torch[0]}" in text
    assert any(pin.startswith("trl==") for pin in first) and not any(pin.startswith("unsloth") for pin in first)
    assert {pin.partition("==")[0] for pin in second} == {"unsloth", "unsloth_zoo"}
    assert how == {"extra_options": "--no-deps"}


@pytest.mark.parametrize(("gpu", "count"), [("T4", 1), ("A10G", 2), ("H100", 8)])
def test_the_gpus_are_those_that_were_named(modal, gpu, count):
    modal_app.build(gpu, count)
    _, settings = modal.functions[-1]
    assert settings["gpu"] == f"{gpu}:{count}" and settings["volumes"] == {"/results": "volume unsloth-course"}


@pytest.mark.parametrize("words", ["--gpu TPU", "--count 0", "--count 9"])
def test_what_modal_has_not_is_refused(modal, capsys, words):
    with pytest.raises(SystemExit):
        modal_app.main(words.split())
    assert "invalid choice" in capsys.readouterr().err


def test_the_command_line_is_the_same_and_the_data_goes_along(modal, tmp_path):
    rows = tmp_path / "rows.json"
    rows.write_text("[]")
    status = modal_app.main(["--gpu", "H100", "--count", "2", "--", "--method", "lora", "--data", str(rows), "--merge"])
    assert status == 3, "the exit status is that of the command over there"
    (line,) = modal.lines
    assert line[0] == "torchrun" and "--nproc-per-node=2" in line
    assert " ".join(line).endswith(" finetune --method lora --merge --data /course/data/rows.json")
    assert ((rows, "/course/data/rows.json"), {}) in modal.image.named("add_local_file")


def test_names_are_left_as_they_are(modal):
    options = ["--data=pocket", "--model", "rows.json"]
    assert modal_app.packed(options) == (options, [])
    assert modal_app.command(options, 1) == ["python", "-m", "unsloth_course", "finetune", *options]


def test_a_data_file_that_is_not_there_is_a_sentence(modal):
    with pytest.raises(CourseError, match=r"no file gone\.json"):
        modal_app.main(["--", "--data", "gone.json"])


def test_the_function_runs_the_command(modal, monkeypatch, tmp_path):
    monkeypatch.setattr(modal_app, "RESULTS", str(tmp_path))
    modal_app.build("T4")
    train, _ = modal.functions[-1]
    assert train([sys.executable, "-c", "import sys; sys.exit(4)"]) == 4
