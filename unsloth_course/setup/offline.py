"""A set-up without network: a folder is filled where there is one, and checked where there is none."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from unsloth_course.setup import doing, looking
from unsloth_course.setup.deciding import CUDA_BYTES, Step, quoted, refusal, set_up_command, some
from unsloth_course.setup.doing import SetupError, say_now
from unsloth_course.setup.looking import GB, Machine
from unsloth_course.setup.pins import Pins, read_pins

PREPARED = "prepared.json"
"""In a folder that `prepare` filled: the kind of machine, the pins, and each file with its SHA-256."""


def kind(machine: Machine) -> str:
    """What two machines share that can use the same files, as a learner reads it."""
    system = {"Darwin": "macOS"}.get(machine.system, machine.system)
    python = ".".join(map(str, machine.python[:2]))
    return f"{system} {machine.architecture}, Python {python}, torch for {machine.torch_flavour.upper()}"


def wanted(machine: Machine, pins: Pins) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The pins that a folder for `machine` holds: what comes without dependencies, and torch with its own."""
    packages, torch = pins.around_torch(machine.torch_flavour)
    return (*packages, *pins.no_deps, *pins.model), torch


def prepare_steps(python: str, machine: Machine, pins: Pins, folder: str) -> list[Step]:
    """The steps that fetch into `folder` what `machine` needs, with the pip of `python`, which is one like it."""
    pip = (python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--only-binary", ":all:")
    pip += ("--dest", folder)
    packages, torch = wanted(machine, pins)
    name = f"PyTorch {torch[0]}"
    whole = Step(
        f"{name} and CUDA's libraries (about 3 GB)",
        ((*pip, *torch),),
        "pip's index has no CPU build; PIP_EXTRA_INDEX_URL can name PyTorch's own index",
        needs_bytes=CUDA_BYTES,
        into=folder,
    )
    if machine.system != "Linux":
        whole = Step(name, ((*pip, "--no-deps", *torch),))
    elif machine.torch_flavour == "cpu":
        whole = Step(f"{name} for the CPU", ((*pip, "--no-deps", f"{torch[0]}+cpu"),), otherwise=whole)
    return [Step("the pinned packages", ((*pip, "--no-deps", *packages),)), whole]


def prepare(root: Path, folder: Path, machine: Machine, say: Callable[[str], None] = say_now) -> None:
    """Fetches into `folder` all that a set-up of a machine like this one installs; SetupError when that cannot be.

    machine: this one, or this one with an NVIDIA driver.
    """
    pins = read_pins(doing.read_text(root / "requirements.txt"))
    if problem := refusal(machine, fresh=False):
        raise SetupError(problem)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PREPARED).unlink(missing_ok=True)
    say(f"Fetching into {folder} what the course needs on {kind(machine)}")
    with tempfile.TemporaryDirectory() as place:
        python = looking.venv_python(root / "venv")
        steps = []
        if (looking.working_python(python) or ())[:2] != machine.python[:2]:
            base, python = getattr(sys, "_base_executable", sys.executable), looking.venv_python(Path(place, "venv"))
            made = ((base, "-m", "venv", str(Path(place, "venv"))),)
            steps = [Step("a virtual environment, for its pip", made)]
        doing.carry_out([*steps, *prepare_steps(str(python), machine, pins, str(folder))], root, say)
    files = sorted(folder.glob("*.whl"))
    if (machine.system, machine.torch_flavour) == ("Windows", "cuda") and not any(folder.glob("torch-*+cu*.whl")):
        raise SetupError(
            "pip's index has only CPU builds of torch for Windows. Set PIP_EXTRA_INDEX_URL to PyTorch's index for "
            f"CUDA, delete the torch file in {folder}, and run this again."
        )
    packages, torch = wanted(machine, pins)
    note = {"for": kind(machine), "pins": [*packages, *torch], "files": {path.name: _sha256(path) for path in files}}
    (folder / PREPARED).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in files) / GB
    say(
        f"{folder} holds {len(files)} files, {size:.1f} GB. Copy it into the course on the other machine and run there:"
    )
    say(f"    {set_up_command(machine.system)} --offline {quoted(folder.name, machine.system == 'Windows')}")


def check_prepared(folder: Path, machine: Machine, pins: Pins) -> None:
    """SetupError with a sentence unless `folder` holds, undamaged, all that `machine` needs."""
    again = f"{set_up_command(machine.system)} --prepare {quoted(folder.name, machine.system == 'Windows')}"
    again = f"Where there is network, on a machine like this one, run: {again}"
    try:
        note = json.loads((folder / PREPARED).read_text(encoding="utf-8"))
        made_for, held, files = note["for"], set(note["pins"]), dict(note["files"])
    except (OSError, ValueError, LookupError, TypeError):
        raise SetupError(
            f"{folder} was not prepared for the course, or not to its end ({PREPARED} is missing or damaged). {again}"
        ) from None
    packages, torch = wanted(machine, pins)
    if made_for != kind(machine):
        raise SetupError(f"{folder} was prepared for {made_for}; this is {kind(machine)}. {again}")
    if lacking := [pin for pin in (*packages, *torch) if pin not in held]:
        raise SetupError(f"{folder} was prepared for other versions of the course: {some(lacking)} lack. {again}")
    if absent := [name for name in files if not (folder / name).is_file()]:
        raise SetupError(f"{folder} is not complete, these files lack: {some(absent)}. Copy it anew.")
    if damaged := [name for name, digest in files.items() if _sha256(folder / name) != digest]:
        raise SetupError(f"{folder} was damaged on its way: {some(damaged)}. Copy it anew.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
