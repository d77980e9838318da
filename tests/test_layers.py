"""What may import what: the contracts of pyproject.toml, and that they find what breaks them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unsloth_course.core.places import PACKAGE, REPOSITORY

LINT = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", str(REPOSITORY / "pyproject.toml")]


def kept(folder):
    """Whether the contracts hold for the package in a folder, and what is said."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(LINT, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def test_the_contracts_hold():
    held, said = kept(REPOSITORY)
    assert held, said


@pytest.mark.parametrize(
    ("room", "planted", "broken"),
    [
        ("lesson/plots/logs.py", "from unsloth_course.commands import chat", "layers BROKEN"),
        ("core/errors.py", "from unsloth_course.lesson import models", "layers BROKEN"),
        ("studio/clock.py", "from unsloth_course.commands import runner", "layers BROKEN"),
        ("lesson/plots/logs.py", "from unsloth_course.lesson import recordings", "no circles BROKEN"),
    ],
)
def test_a_planted_import_breaks_them(tmp_path, room, planted, broken):
    shutil.copytree(
        PACKAGE, tmp_path / "unsloth_course", ignore=shutil.ignore_patterns("__pycache__", "base", "reveal")
    )
    path = tmp_path / "unsloth_course" / room
    path.write_text(f"{path.read_text()}\n\ndef planted():\n    {planted}\n")
    held, said = kept(tmp_path)
    assert not held
    assert broken in said


def test_the_set_up_imports_the_standard_library_alone():
    own = {f"unsloth_course.setup.{path.stem}" for path in (PACKAGE / "setup").glob("*.py")}
    code = f"import sys, importlib; [importlib.import_module(n) for n in {sorted(own)!r}]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - {*sys.stdlib_module_names} <= {"unsloth_course", "__main__"}, done.stderr
    assert {name for name in done.stdout.split() if name.startswith("unsloth_course.")} <= own | {
        "unsloth_course.setup"
    }
