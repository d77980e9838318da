"""The program: what is set up, what runs afterwards, and with which exit status."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from unsloth_course.setup import doing, install, looking, offline
from unsloth_course.setup.doing import SetupError
from unsloth_course.setup.pins import ROOT

from .made import LINUX, READY, WINDOWS, make_package, with_driver

POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and process groups of POSIX")


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course in a folder with a space and letters of three alphabets, in which commands are noted instead of run."""
    root = tmp_path / "Kurs äß 日本"
    root.mkdir()
    shutil.copy(ROOT / "requirements.txt", root)
    (root / "pyproject.toml").write_text("")
    commands = []

    def note(command, folder, doing):
        commands.append(command)
        return 0, ""

    monkeypatch.setattr(doing, "_run", note)
    monkeypatch.setattr(looking, "this_machine", lambda folder: LINUX)
    monkeypatch.setattr(looking, "working_python", lambda python: (3, 12, 3) if commands else None)
    return root, commands


def settle(root: Path) -> None:
    for name, version in READY.items():
        if not (root / f"venv/lib/python3.12/site-packages/{name.replace('-', '_')}-{version}.dist-info").exists():
            make_package(root / "venv", name.replace("-", "_"), version)


def test_the_second_set_up_runs_nothing(course):
    root, commands = course
    said = []
    assert install.set_up(root, said.append) == looking.venv_python(root / "venv")
    settle(root)
    count = len(commands)
    assert count == 7
    install.set_up(root, said.append)
    assert len(commands) == count


def test_a_set_up_that_fails_leaves_no_stamp_and_is_finished_next_time(course, monkeypatch):
    root, commands = course
    run = doing._run
    monkeypatch.setattr(
        doing, "_run", lambda command, *rest: (1, "dns error") if "unsloth" in str(command) else run(command, *rest)
    )
    with pytest.raises(SetupError, match="cannot be reached"):
        install.set_up(root, lambda line: None)
    half = make_package(root / "venv", "torch", "2.13.0+cpu", record=False)
    monkeypatch.setattr(doing, "_run", run)
    said = []
    install.set_up(root, said.append)
    assert "did not get to its end" in said[0]
    assert not half.exists()
    settle(root)
    count = len(commands)
    install.set_up(root, said.append)
    assert len(commands) == count


def test_a_broken_venv_is_emptied_and_made_anew(course):
    root, commands = course
    old = root / "venv" / "lib" / "old.txt"
    old.parent.mkdir(parents=True)
    old.write_text("")
    (root / "venv" / "pyvenv.cfg").write_text("")
    install.set_up(root, lambda line: None)
    assert not old.exists()
    assert commands[0][-1] == str(root / "venv")


def test_the_empty_volume_of_the_container_is_filled_and_not_deleted(course):
    root, commands = course
    (root / "venv").mkdir()
    place = (root / "venv").stat().st_ino
    install.set_up(root, lambda line: None)
    assert commands and (root / "venv").stat().st_ino == place


def test_a_folder_of_somebody_else_is_left_alone(course):
    root, commands = course
    (root / "venv").mkdir()
    (root / "venv" / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupError, match="Move it away"):
        install.set_up(root, lambda line: None)
    assert (root / "venv" / "thesis.txt").exists()
    assert commands == []


def test_a_folder_that_was_not_prepared_changes_nothing(course, tmp_path):
    root, commands = course
    with pytest.raises(SetupError, match="was not prepared"):
        install.set_up(root, lambda line: None, tmp_path)
    assert commands == [] and not (root / "venv").exists()


def test_a_missing_requirements_file_is_a_sentence(course):
    root, _ = course
    (root / "requirements.txt").unlink()
    with pytest.raises(SetupError, match=r"requirements\.txt cannot be read"):
        install.set_up(root, lambda line: None)


def test_a_driver_beside_a_cpu_torch_is_said_every_time(course, monkeypatch):
    root, _ = course
    monkeypatch.setattr(looking, "this_machine", lambda folder: with_driver(WINDOWS))
    said = []
    install.set_up(root, said.append)
    settle(root)
    said.clear()
    install.set_up(root, said.append)
    assert len(said) == 1 and "NVIDIA driver" in said[0]
    (root / "venv/lib/python3.12/site-packages/torch").mkdir()
    (root / "venv/lib/python3.12/site-packages/torch/version.py").write_text("cuda: Optional[str] = '13.0'\n")
    install.set_up(root, said.append)
    assert len(said) == 1


def test_arguments(tmp_path, monkeypatch):
    def command(*arguments):
        return install.command_after(install.options(arguments))

    assert command() == command("--gguf") == []
    tests = command("--test", "-k", "a b", "--help")
    assert tests[:3] == ["-m", "pytest", "-n"] and 1 <= int(tests[3]) <= install.TEST_PROCESSES
    assert tests[4:] == ["--dist", "loadfile", "--no-loadscope-reorder", "-k", "a b", "--help"]
    assert command("--run", "lora", "--gguf") == ["-m", "unsloth_course", "run", "lora", "--gguf"]
    (tmp_path / "wheels").mkdir()
    monkeypatch.chdir(tmp_path)
    both = install.options(["--offline", "wheels", "--run", "lora"])
    assert (both.offline, both.run) == (tmp_path / "wheels", ["lora"])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--run"], "lora"),
        (["--run", "--seed"], "lora"),
        (["--tset"], "--tset"),
        (["--gguf", "q8_0"], "q8_0"),
        (["--gguf", "--test"], "not allowed with"),
        (["--offline"], "--offline"),
        (["--offline", "/no"], "There is no folder /no"),
        (["--cuda"], "--cuda"),
        (["--prepare", "w", "--system", "linux"], "--system"),
        (["--prepare", "w", "--run", "lora"], "not allowed with"),
        (["--prepare", "w", "--offline", "w"], "--offline"),
    ],
)
def test_wrong_arguments_are_a_sentence_and_install_nothing(arguments, word, monkeypatch, capsys):
    monkeypatch.setattr(install, "set_up", lambda root, **more: pytest.fail("set up"))
    monkeypatch.setattr(offline, "prepare", lambda *given: pytest.fail("fetched"))
    assert install.main(arguments) == 1
    captured = capsys.readouterr()
    assert word in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(("driver", "options", "flavour"), [(0, [], "cpu"), (0, ["--cuda"], "cuda"), (1, [], "cuda")])
def test_a_folder_is_prepared_for_this_machine_or_one_with_a_card(monkeypatch, tmp_path, driver, options, flavour):
    given = []
    monkeypatch.setattr(looking, "this_machine", lambda root: replace(LINUX, nvidia_driver=bool(driver)))
    monkeypatch.setattr(offline, "prepare", lambda *arguments: given.extend(arguments))
    assert install.main(["--prepare", str(tmp_path / "wheels"), *options]) == 0
    root, folder, machine = given
    assert (root, folder, machine.torch_flavour) == (ROOT, tmp_path / "wheels", flavour)


KILLED = pytest.param("import os; os.kill(os.getpid(), 9)", 128 + 9, marks=POSIX)


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(7)", 7), ("", 0), KILLED])
def test_the_exit_status_is_passed_on(monkeypatch, code, status):
    monkeypatch.setattr(install, "set_up", lambda root, **more: Path(sys.executable))
    monkeypatch.setattr(install, "command_after", lambda arguments: ["-c", code])
    assert install.main(["--test"]) == status


def test_help_asks_for_the_standard_library_alone():
    """-S leaves site-packages out, so nothing else can be imported."""
    path = ROOT / "unsloth_course" / "setup" / "install.py"
    done = subprocess.run([sys.executable, "-S", str(path), "--help"], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "--run LESSON" in done.stdout


WAITS = """
import signal, sys, time
def end(*_):
    time.sleep(1)
    print("kept what there was", flush=True)
    sys.exit(7)
signal.signal(signal.SIGINT, end)
print("running", flush=True)
time.sleep(60)
"""


@POSIX
def test_ctrl_c_leaves_the_end_to_the_program_that_was_asked_for():
    program = (
        "import sys; from pathlib import Path; from unsloth_course.setup import install; "
        "install.set_up = lambda *_, **__: Path(sys.executable); "
        f"install.command_after = lambda _: ['-c', {WAITS!r}]; sys.exit(install.main([]))"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert started.stdout.readline() == "running\n"
    os.killpg(started.pid, signal.SIGINT)
    said, _ = started.communicate(timeout=300)
    assert (said, started.returncode) == ("kept what there was\n", 7)
