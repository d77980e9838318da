"""What is to be done: what was found goes in, steps come out.

All functions are pure, so that each platform is tested on any platform.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unsloth_course.setup.looking import GB, Machine, Venv
from unsloth_course.setup.pins import NEWEST_PYTHON, OLDEST_PYTHON, Pins, applies, name_and_version, pinned

CPU_BYTES, CUDA_BYTES = 4 * GB, 12 * GB
KERNEL, KERNEL_TITLE = "unsloth-course", "Python (unsloth-course)"


@dataclass(frozen=True)
class Verdict:
    """What is to be done with `venv`: "create", "rebuild", "finish", "ready" or "refuse", and why."""

    action: str
    reason: str


@dataclass(frozen=True)
class Step:
    """Commands that run one after the other, and what is tried if one of them fails. reason: why it is tried then."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    reason: str = ""
    otherwise: Step | None = None
    needs_bytes: int = 0
    into: str = ""  # the folder that fills, where it is not the course's own


def refusal(machine: Machine, fresh: bool) -> str | None:
    """Why the course cannot be set up on `machine`, in a sentence, or None. `fresh`: there is no usable `venv` yet."""
    version = ".".join(map(str, machine.python))
    if not OLDEST_PYTHON <= machine.python[:2] <= NEWEST_PYTHON:
        return f"This is Python {version}; the course needs 3.11, 3.12 or 3.13. Install one of them and run this again."
    if machine.bits != 64:
        return (
            f"This Python {version} is a 32-bit one, which PyTorch lacks. Install a 64-bit Python and run this again."
        )
    if machine.system == "Darwin" and machine.architecture == "x86_64":
        return (
            "PyTorch has stopped supporting Macs with an Intel processor (on an Apple processor this means an Intel "
            "Python: install the arm64 one). Use the notebooks in Colab instead."
        )
    if machine.system == "Windows" and machine.architecture.upper() == "ARM64":
        return (
            "PyTorch has no tested build for Windows on ARM. Install the x64 Python 3.12, which Windows runs there too."
        )
    needed = CUDA_BYTES if machine.torch_flavour == "cuda" else CPU_BYTES
    if fresh and machine.free_bytes < needed:
        return (
            f"The disk has {machine.free_bytes / GB:.1f} GB free and the set-up needs about {needed / GB:.0f} GB. "
            "Free some space, or move the course to a bigger disk, and run this again."
        )
    return None


def fingerprint(text: str, python: Sequence[int], flavour: str) -> str:
    """Hash of what decides the contents of `venv`: `text` (requirements.txt and pyproject.toml), Python 3.x, torch."""
    return hashlib.sha256(f"{text}\n{tuple(python[:2])} {flavour}".encode()).hexdigest()[:16]


def decide(venv: Venv, folder: str, wanted: str, pins: Pins, system: str) -> Verdict:
    """What is to be done with `venv` in `folder`. `wanted` is the fingerprint of a finished one with its Python."""
    if not venv.exists:
        return Verdict("create", "there is no venv yet")
    if useless := _useless(venv, folder):
        if venv.ours_to_delete:
            return Verdict("rebuild", useless)
        return Verdict("refuse", f"{folder} is not a virtual environment that can be replaced: {useless}")
    if venv.fingerprint is None:
        return Verdict("finish", "an earlier set-up did not get to its end")
    if venv.fingerprint != wanted:
        return Verdict("finish", "the pins, the Python or the graphics driver changed since it was set up")
    if venv.unfinished:
        return Verdict("finish", f"copied in part: {some(venv.unfinished)}")
    if changed := _changed(venv, pins, system):
        return Verdict("finish", f"not at the tested version any more: {some(changed)}")
    return Verdict("ready", "all is in place")


def _useless(venv: Venv, folder: str) -> str:
    """Why an existing `venv` cannot be finished; "" when it can."""
    if venv.python is None:
        return "its Python or its pip does not work (the folder was moved, or an earlier set-up was stopped)"
    if not OLDEST_PYTHON <= venv.python[:2] <= NEWEST_PYTHON:
        return f"it was made with Python {'.'.join(map(str, venv.python))}, which the course does not support"
    if venv.made_at not in (None, folder):
        return f"it was made in {venv.made_at} and its programs still point there"
    return ""


def _changed(venv: Venv, pins: Pins, system: str) -> list[str]:
    """The packages of a finished `venv` that are missing, or there in another version than a tested one."""
    tested: dict[str, set[str]] = {}
    for pin in (*pins.all, *pins.cuda, *pins.no_deps):
        if applies(pin, system, venv.python or ()):
            name, version = name_and_version(pin)
            tested.setdefault(name, set()).add(version)
    # torch has two tested versions and a suffix that names the build, as in 2.13.0+cpu.
    found = {name: venv.installed.get(name, "").partition("+")[0] for name in tested}
    return sorted(name for name, versions in tested.items() if found[name] not in versions)


def some(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def plan(
    machine: Machine, verdict: Verdict, pins: Pins, python: str, venv: str, wheels: Path | None = None
) -> list[Step]:
    """The steps from what was found to a finished set-up. `python` is (or will be) the one in the folder `venv`.

    `wheels` is a folder that `--prepare` filled: everything comes from there, and pip looks nowhere else.
    """
    # --isolated leaves pip's settings and environment out too.
    source = ("--isolated", "--no-index", "--find-links", str(wheels)) if wheels else ()
    packages, torch = pins.around_torch(machine.torch_flavour)
    prepared = Step(f"PyTorch {torch[0]}", (_pip(python, *source, *torch),))
    steps = [
        # requirements.txt lists all that is needed, so pip looks nothing else up. So it is for Unsloth, which also asks
        # for a certifi that not every index has.
        Step("the pinned packages", (_pip(python, *source, "--no-deps", *packages),)),
        prepared if wheels else _torch(machine, pins, python),
        Step("Unsloth", (_pip(python, *source, "--no-deps", *pins.no_deps),)),
        # Editable: a change in unsloth_course/ takes effect at once.
        Step("this course's package", (_pip(python, *source, "--no-deps", "--no-build-isolation", "-e", "."),)),
        Step(f"Jupyter kernel {KERNEL_TITLE!r}", (kernel_command(python, venv),)),
        Step("PyTorch loads", ((python, "-c", "import torch"),)),  # a missing system library shows now, not in a lesson
    ]
    if verdict.action != "finish":
        base = getattr(sys, "_base_executable", sys.executable)
        steps.insert(0, Step("virtual environment", ((base, "-m", "venv", venv),)))
    if wheels and pins.model:  # into the user's cache
        steps.append(Step("SmolLM2-135M-Instruct", ((python, "-m", "unsloth_course.lesson.smollm2", str(wheels)),)))
    return steps


def kernel_command(python: str, venv: str) -> tuple[str, ...]:
    """The command that registers the Jupyter kernel inside `venv`."""
    kernel = ("--name", KERNEL, "--display-name", KERNEL_TITLE)
    return (python, "-m", "ipykernel", "install", "--prefix", venv, *kernel)


def _pip(python: str, *arguments: str) -> tuple[str, ...]:
    # pip compiles every file, and that is worth its 20 seconds: where PYTHONDONTWRITEBYTECODE is set, as in many
    # containers, `import unsloth` takes twice as long without.
    return (python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments)


def _uv(python: str, pins: Pins, backend: str, *arguments: str) -> tuple[tuple[str, ...], ...]:
    install = (python, "-m", "uv", "pip", "install", "-q", "--python", python, "--torch-backend", backend, *arguments)
    return (_pip(python, *pins.helper), install)


def _torch(machine: Machine, pins: Pins, python: str) -> Step:
    pin = pinned(pins.all, "torch")
    if machine.torch_flavour == "cuda":
        return _cuda_torch(machine, pins, python, pin)
    if machine.system != "Linux":
        return Step(f"PyTorch {pin}", (_pip(python, "--no-deps", pin),))  # the index's own build is the right one
    whole = Step(
        f"PyTorch {pin} with CUDA libraries this machine has no use for (about 3 GB)",
        (_pip(python, pin),),
        "no CPU build was found: the index's Linux build works on a CPU, it is only large",
        needs_bytes=CUDA_BYTES,
    )
    through_uv = Step(
        f"PyTorch {pin} for the CPU, through uv",
        _uv(python, pins, "cpu", "--no-deps", pin),
        "pip's index has no CPU build; uv knows PyTorch's own index",
        otherwise=whole,
    )
    # The CPU build is ten times smaller.
    return Step(f"PyTorch {pin} for the CPU", (_pip(python, "--no-deps", f"{pin}+cpu"),), otherwise=through_uv)


def _cuda_torch(machine: Machine, pins: Pins, python: str, cpu: str) -> Step:
    if machine.system == "Windows":
        last = Step(
            f"PyTorch {cpu} for the CPU", (_pip(python, cpu),), "no CUDA build was found; lessons run on the CPU"
        )
    else:
        last = Step(
            "PyTorch for CUDA, from pip's index", (_pip(python, *pins.cuda),), "the index's Linux build is for CUDA"
        )
    # uv picks the build that fits the driver from PyTorch's own index.
    name = "PyTorch for CUDA, through uv (about 3 GB)"
    return Step(name, _uv(python, pins, "auto", *pins.cuda), otherwise=last)


def driver_notice(torch_version: str, pins: Pins, python: str) -> str:
    """What to say on a machine with an NVIDIA driver whose torch was built without CUDA."""
    commands = _uv(python, pins, "auto", "--reinstall", pinned(pins.cuda, "torch"))
    lines = "".join(f"    {shown([word for word in command if word != '-q'])}\n" for command in commands)
    return (
        f"This machine has an NVIDIA driver, but torch {torch_version} is a CPU build: the graphics card is not used. "
        f"To put a CUDA build in its place:\n{lines}"
        "Until then the lessons run on the CPU (the cpu profile sets UNSLOTH_FORCE_CPU=1, else Unsloth refuses)."
    )


def set_up_command(system: str) -> str:
    """The command that sets the course up, as it is typed on a system."""
    return r"powershell -ExecutionPolicy Bypass -File .\setup_venv.ps1" if system == "Windows" else "./setup_venv.sh"


def shown(command: Sequence[str], windows: bool = os.name == "nt") -> str:
    """A command as it is typed, in PowerShell on Windows."""
    typed = " ".join(quoted(word, windows) for word in command)
    return f"& {typed}" if windows and typed.startswith("'") else typed


def quoted(word: str, windows: bool = os.name == "nt") -> str:
    """A word of a command, in quotes where it needs them."""
    if not windows:
        return shlex.quote(word)
    return word if re.fullmatch(r"[\w.:\\/=+-]+", word) else "'" + word.replace("'", "''") + "'"
