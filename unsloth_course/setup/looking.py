"""What is there: this computer, its Python, and the folder `venv`. Nothing is decided here.

Like all of `setup`, it imports the standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unsloth_course.setup.pins import name_and_version

GB = 10**9
STAMP = "unsloth-course.json"
"""In `venv`: where it was made, and the fingerprint of what is in it once it is finished."""


@dataclass(frozen=True)
class Machine:
    """What the decisions depend on. `system` and `architecture` as `platform` spells them; `free_bytes` on the disk."""

    system: str = "Linux"
    architecture: str = "x86_64"
    python: tuple[int, int, int] = (3, 12, 0)
    bits: int = 64
    nvidia_driver: bool = False
    free_bytes: int = 100 * GB

    @property
    def torch_flavour(self) -> str:
        """Which torch belongs here: "cuda" or "cpu"."""
        return "cuda" if self.nvidia_driver and self.system in ("Linux", "Windows") else "cpu"


@dataclass(frozen=True)
class Venv:
    """What is in the folder `venv`. `python` is None when its Python or its pip does not work."""

    exists: bool = False
    ours_to_delete: bool = True
    python: tuple[int, int, int] | None = None
    made_at: str | None = None
    fingerprint: str | None = None
    installed: Mapping[str, str] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()


def nvidia_driver() -> bool:
    """Whether an NVIDIA driver answers on this machine: nvidia-smi lists a GPU, or Linux has the driver loaded."""
    places = ["nvidia-smi", r"C:\Windows\System32\nvidia-smi.exe", "/usr/lib/wsl/lib/nvidia-smi"]
    for command in filter(None, map(shutil.which, places)):
        try:
            found = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            continue
        if found.returncode == 0 and "GPU" in found.stdout:
            return True
    return Path("/proc/driver/nvidia/version").exists() and Path("/dev/nvidia0").exists()


def this_machine(root: Path) -> Machine:
    """The facts of this computer and the Python that runs this file."""
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        python=sys.version_info[:3],
        bits=64 if sys.maxsize > 2**32 else 32,
        nvidia_driver=nvidia_driver(),
        free_bytes=shutil.disk_usage(root).free,
    )


def venv_python(venv: Path) -> Path:
    """The Python inside a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def site_packages(venv: Path) -> list[Path]:
    """The folders inside `venv` that packages are installed into."""
    return [*venv.glob("lib/python3.*/site-packages"), *venv.glob("Lib/site-packages")][:1]


def unfinished_packages(venv: Path) -> list[Path]:
    """What a killed pip leaves: pip writes RECORD last, so a `.dist-info` without it is a package copied in part, which
    pip would take for installed; folders that begin with `~` are half removed."""
    found = []
    for folder in site_packages(venv):
        found += [info for info in folder.glob("*.dist-info") if not (info / "RECORD").exists()]
        found += folder.glob("~*")
    return found


def installed_versions(venv: Path) -> dict[str, str]:
    """Names and versions of the packages in `venv`, read off the names of their `.dist-info` folders (milliseconds)."""
    infos = [info.name for folder in site_packages(venv) for info in folder.glob("*.dist-info")]
    return dict(name_and_version(info[: -len(".dist-info")].replace("-", "==", 1)) for info in infos)


def noted_in(package: Path, name: str) -> str | None:
    """What the `version.py` in a package's folder says of `name` (a pattern); None where it says nothing.

    For torch and "cuda": the CUDA version that it was built for, None for a CPU build.
    """
    try:
        text = (package / "version.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(rf"^(?:{name})\b[^=]*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return found[1] if found else None


def state_of(venv: Path) -> Venv:
    """The state of the folder `venv`."""
    if not venv.exists() and not venv.is_symlink():
        return Venv()
    try:
        stamp = dict(json.loads((venv / STAMP).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        stamp = {}
    known = (venv / STAMP).exists() or (venv / "pyvenv.cfg").exists()
    empty = venv.is_dir() and not any(venv.iterdir())
    return Venv(
        exists=True,
        ours_to_delete=venv.is_dir() and not venv.is_symlink() and (known or empty),
        python=working_python(venv_python(venv)),
        made_at=stamp.get("folder"),
        fingerprint=stamp.get("fingerprint"),
        installed=installed_versions(venv),
        unfinished=tuple(sorted(path.name for path in unfinished_packages(venv))),
    )


def working_python(python: Path) -> tuple[int, int, int] | None:
    """The version of a Python whose pip can be imported, else None."""
    question = "import pip, sys; print(*sys.version_info[:3])"
    try:
        answer = subprocess.run([str(python), "-c", question], capture_output=True, text=True, timeout=60, check=False)
        major, minor, patch = map(int, answer.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return (major, minor, patch) if answer.returncode == 0 else None


def cache_folder(system: str, environment: Mapping[str, str], home: Path) -> Path:
    """Where this system keeps what can be made again: the course's own folder in it."""
    if system == "Windows":
        base = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif system == "Darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "unsloth-course"
