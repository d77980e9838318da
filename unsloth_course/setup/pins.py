"""The tested versions: requirements.txt, read by the set-up, the doctor and Colab."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)


@dataclass(frozen=True)
class Pins:
    """The lines of requirements.txt, such as `torch==2.13.0`, by what is done with them."""

    sections: Mapping[str, tuple[str, ...]]
    cuda: tuple[str, ...] = ()
    no_deps: tuple[str, ...] = ()
    helper: tuple[str, ...] = ()
    model: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every line that pip itself would read, in order."""
        return tuple(line for lines in self.sections.values() for line in lines)

    def around_torch(self, flavour: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """For a torch built for "cpu" or "cuda": all lines but torch's, and torch with what belongs to that build."""
        torch = self.cuda if flavour == "cuda" else (pinned(self.all, "torch"),)
        return tuple(pin for pin in self.all if name_and_version(pin)[0] not in versions_of(torch)), torch


def read_pins(text: str) -> Pins:
    """The text of requirements.txt in, its pins out: `# == NAME` starts a section, `#cuda` and the like tag a line."""
    sections: dict[str, list[str]] = {}
    special: dict[str, list[str]] = {"cuda": [], "no-deps": [], "helper": [], "model": []}
    section = ""
    for line in map(str.strip, text.splitlines()):
        heading = re.match(r"# == ([^:]+)", line)
        tagged = re.match(r"#(cuda|no-deps|helper|model) (.+)", line)
        if heading:
            section = heading[1].strip()
        elif tagged:
            special[tagged[1]].append(tagged[2])
        elif line and not line.startswith(("#", "-")):  # -e is for pip alone
            sections.setdefault(section, []).append(line)
    return Pins({name: tuple(lines) for name, lines in sections.items()}, *map(tuple, special.values()))


def name_and_version(pin: str) -> tuple[str, str]:
    """`Hf_Xet==1.8.0 ; python_version < "3.12"` in, `("hf-xet", "1.8.0")` out; a pin without a version gives ""."""
    name, _, version = pin.partition(";")[0].strip().partition("==")
    return re.sub(r"[-_.]+", "-", name).lower(), version.strip()


def versions_of(pins: Iterable[str]) -> dict[str, str]:
    """The versions that pins name, by the normalised name of the package."""
    return dict(map(name_and_version, pins))


def applies(pin: str, system: str, python: Sequence[int]) -> bool:
    """Whether a pin is for this system and Python; its marker, if any, compares one variable with one value."""
    found = re.fullmatch(r"\s*(\w+)\s*(==|!=|<|>=)\s*[\"']([^\"']+)[\"']\s*", pin.partition(";")[2])
    if not found:
        return True
    name, operator, value = found.groups()
    facts = {
        "sys_platform": {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}.get(system, system.lower()),
        "platform_system": system,
        "os_name": "nt" if system == "Windows" else "posix",
    }
    if name in facts:
        return (facts[name] == value) == (operator == "==")
    here, there = tuple(python[:2]), tuple(map(int, value.split(".")[:2]))
    return {"==": here == there, "!=": here != there, "<": here < there, ">=": here >= there}[operator]


def pinned(pins: Sequence[str], name: str) -> str:
    """The pin of the package `name` among `pins`."""
    return next(pin for pin in pins if name_and_version(pin)[0] == name)


def tested() -> Pins:
    """The tested versions: requirements.txt of the repository, or a copy inside the package (Colab); else none."""
    for folder in (ROOT, ROOT / "unsloth_course"):
        try:
            return read_pins((folder / "requirements.txt").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
    return Pins({})
