"""Machines, pins and packages for the tests of the set-up."""

import zipfile
from dataclasses import replace
from pathlib import Path

from unsloth_course.setup.deciding import Verdict
from unsloth_course.setup.looking import Machine
from unsloth_course.setup.pins import tested, versions_of

PINS = tested()
READY = versions_of((*PINS.all, *PINS.no_deps))
LINUX = Machine("Linux", "x86_64", (3, 12, 3))
WINDOWS = Machine("Windows", "AMD64", (3, 11, 9))
MAC = Machine("Darwin", "arm64", (3, 13, 0))
CREATE = Verdict("create", "there is no venv yet")
FOLDER = "/course/venv"


def with_driver(machine: Machine) -> Machine:
    return replace(machine, nvidia_driver=True)


def make_package(venv: Path, name: str, version: str, record: bool = True) -> Path:
    """What pip notes of an installed package; without its RECORD, as after a pip that was killed."""
    info = venv / f"lib/python3.12/site-packages/{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("")
    if record:
        (info / "RECORD").write_text("")
    return info


def a_wheel(folder: Path, pin: str) -> Path:
    """An empty package of that name and version."""
    name, version = pin.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    info, tag = f"{stem}.dist-info", "py3-none-any"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return folder / f"{stem}-{tag}.whl"
