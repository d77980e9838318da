"""The scripts that find a Python, CI's command and the dev container's file."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from unsloth_course.setup.pins import NEWEST_PYTHON, OLDEST_PYTHON, ROOT


def with_shim(folder, script):
    """A course with such a name that has the script, and an install.py that prints its arguments."""
    home = folder / "Kurs äß 日本"
    place = home / "unsloth_course" / "setup"
    place.mkdir(parents=True)
    shutil.copy(ROOT / script, home)
    (place / "install.py").write_text("import sys; print(*sys.argv[1:], sep='|'); sys.exit(5)")
    return home


@pytest.fixture
def shim(tmp_path):
    """setup_venv.sh in such a folder, beside an install.py that prints its arguments."""
    if os.name == "nt":
        pytest.skip("POSIX shell")
    home = with_shim(tmp_path, "setup_venv.sh")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "dirname").symlink_to(shutil.which("dirname"))

    def run(*arguments, cwd="/"):
        command = [shutil.which("sh"), str(home / "setup_venv.sh"), *arguments]
        return subprocess.run(command, env={"PATH": str(tools)}, cwd=cwd, capture_output=True, text=True, check=False)

    def python(name: str, works: bool):
        program = tools / name
        program.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" "$@"\n' if works else "#!/bin/sh\necho no such version\nexit 127\n"
        )
        program.chmod(0o755)

    return run, python


PYTHONS = ("python3", "python3.12", "python3.13", "python3.11", "python")


@pytest.mark.parametrize("name", PYTHONS)
def test_the_shim_goes_past_programs_that_do_not_work_and_passes_arguments_and_the_exit_status_on(shim, name):
    run, python = shim
    for other in PYTHONS:
        python(other, works=other == name)
    done = run("--run", "a b", "--seed", "1")
    assert (done.stdout, done.returncode) == ("--run|a b|--seed|1\n", 5)


def test_the_shim_without_any_python_is_a_sentence(shim):
    run, python = shim
    python("python3", works=False)
    done = run()
    assert done.returncode == 1
    assert "No Python 3.11, 3.12 or 3.13 was found" in done.stderr


def test_the_windows_shim_is_ascii_and_hands_over():
    text = (ROOT / "setup_venv.ps1").read_bytes().decode("ascii")
    assert "install.py" in text
    assert "@args" in text
    assert "exit $LASTEXITCODE" in text


def test_ci_calls_the_test_command():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "./setup_venv.sh --test"
    assert os.name == "nt" or os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.fixture
def powershell(tmp_path):
    """setup_venv.ps1 beside an install.py that prints its arguments, and a Python on the PATH."""
    program = shutil.which("pwsh") or shutil.which("powershell")
    if program is None:
        pytest.skip("no PowerShell here")
    home = with_shim(tmp_path, "setup_venv.ps1")
    tools = tmp_path / "tools"
    tools.mkdir()

    def run(*arguments, python=True):
        environment = dict(os.environ)
        if os.name != "nt":
            environment["PATH"] = str(tools)
            if python:
                (tools / "python").symlink_to(sys.executable)
        elif not python:
            pytest.skip("Windows finds its launcher without the PATH")
        script = [program, "-NoProfile", "-NonInteractive", "-File", str(home / "setup_venv.ps1")]
        return subprocess.run([*script, *arguments], env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_windows_shim_passes_arguments_and_the_exit_status_on(powershell):
    done = powershell("--run", "a b", "--seed", "1")
    assert (done.stdout.strip(), done.returncode) == ("--run|a b|--seed|1", 5)


def test_the_windows_shim_without_any_python_is_a_sentence(powershell):
    done = powershell(python=False)
    assert done.returncode == 1 and "No Python 3.11, 3.12 or 3.13 was found" in done.stdout


def test_the_dev_container_is_a_supported_python_that_runs_the_set_up():
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    container = json.loads(text)
    version = tuple(map(int, container["image"].partition(":")[2].split(".")))
    assert OLDEST_PYTHON <= version <= NEWEST_PYTHON
    assert container["postCreateCommand"] == "./setup_venv.sh"
    settings = container["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith("venv/bin/python")
    (mount,) = container["mounts"]
    assert "target=${containerWorkspaceFolder}/venv," in mount and "type=volume" in mount
