"""requirements.txt: that it is complete, and how it is read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course.setup import pins
from unsloth_course.setup.pins import ROOT, Pins, versions_of

from .made import PINS


def test_every_line_is_one_exact_pin_and_none_is_there_twice():
    names = [pins.name_and_version(pin) for pin in (*PINS.all, *PINS.no_deps, *PINS.helper)]
    assert all(version for _, version in names)
    assert len({name for name, _ in names}) == len(names)


def test_the_pins_of_a_cpu_install_leave_out_what_breaks_it():
    names = versions_of(PINS.all).keys()
    assert names.isdisjoint({"torchvision", "xformers", "diffusers", "unsloth", "unsloth-zoo", "mlx"})
    assert not any(name.startswith("nvidia-") for name in names)


def test_platform_packages_have_their_markers():
    line = {pins.name_and_version(pin)[0]: pin for pin in PINS.all}
    assert 'sys_platform == "linux"' in line["triton"]
    assert all('sys_platform == "win32"' in line[name] for name in ("triton-windows", "colorama"))
    assert 'sys_platform == "darwin"' in line["appnope"]
    assert 'os_name != "nt"' in line["ptyprocess"]


def test_requirements_txt_is_complete():
    """Every dependency of every pinned package that is installed here is pinned too, at an allowed version."""
    from importlib import metadata

    from packaging.requirements import Requirement

    versions = versions_of(PINS.all)
    exceptions = {"certifi", "torchvision", "xformers", "diffusers"}
    missing = []
    for name in [*versions, "unsloth", "unsloth_zoo"]:
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            needed = pins.name_and_version(requirement.name)[0]
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if not applies or needed in exceptions | {"unsloth-zoo"} or needed.startswith(("nvidia-", "cuda-")):
                continue
            if needed not in versions or not requirement.specifier.contains(versions[needed], prereleases=True):
                missing.append(f"{name} -> {requirement}")
    assert missing == []


def test_the_hand_written_guide_names_the_pinned_versions():
    guide = (ROOT / "VENV_SETUP.md").read_text(encoding="utf-8")
    pinned = set(map(pins.name_and_version, (*PINS.all, *PINS.no_deps, *PINS.cuda)))
    named = {(pins.name_and_version(name)[0], version) for name, version in re.findall(r"([\w-]+)==([\w.]+)", guide)}
    assert named
    assert named <= pinned


def test_no_registry_host_is_written_anywhere():
    rooms = [path for room in ("setup", "commands/doctor") for path in (ROOT / "unsloth_course" / room).glob("*.py")]
    for path in (ROOT / "requirements.txt", ROOT / "VENV_SETUP.md", *rooms):
        text = path.read_text(encoding="utf-8")
        assert "http" + "s://" not in text
        assert "pytorch" + ".org" not in text


def test_read_pins_sorts_lines_by_what_is_done_with_them():
    found = pins.read_pins(
        "# == a: first\nx==1\n\n# a comment\n# == b\ny==2 ; m\n#cuda x==3\n#no-deps z==4\n#helper uv==5\n#model w==6\n"
    )
    assert found == Pins({"a": ("x==1",), "b": ("y==2 ; m",)}, ("x==3",), ("z==4",), ("uv==5",), ("w==6",))


@given(st.text())
def test_read_pins_takes_any_text(text):
    assert all(pin.strip() for pin in pins.read_pins(text).all)


def test_names_are_normalised():
    assert pins.name_and_version('Hf_Xet==1.8.0 ; python_version < "3.12"') == ("hf-xet", "1.8.0")
    assert pins.name_and_version("torch==2.13.0+cpu") == ("torch", "2.13.0+cpu")


@pytest.mark.parametrize("pin", [pin for pin in (*PINS.all, *PINS.cuda) if ";" in pin])
def test_markers_are_understood_as_pip_understands_them(pin):
    from packaging.markers import Marker

    marker = Marker(pin.partition(";")[2])
    for system, platform in {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}.items():
        there = {"sys_platform": platform, "os_name": "nt" if system == "Windows" else "posix"}
        there["platform_system"] = system
        for minor in (11, 12, 13):
            there |= {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.4"}
            assert pins.applies(pin, system, (3, minor)) == marker.evaluate(there)


def test_torch_goes_with_what_belongs_to_its_build():
    for flavour, torch in (("cpu", (pins.pinned(PINS.all, "torch"),)), ("cuda", PINS.cuda)):
        rest, found = PINS.around_torch(flavour)
        assert found == torch and versions_of(rest).keys().isdisjoint(versions_of(torch))
        assert {*versions_of(rest), *versions_of(torch)} == versions_of(PINS.all).keys()
