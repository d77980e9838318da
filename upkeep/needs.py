"""Records what the pinned packages ask for, from the packages that are installed here.

    python upkeep/needs.py

A session of Colab goes by the record before it has any of them (`lesson/colab/session.py`).
"""

import json
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unsloth_course.lesson.colab.decisions import KEPT, SECTIONS
from unsloth_course.lesson.colab.session import NEEDS
from unsloth_course.setup.pins import name_and_version, tested, versions_of


def gathered() -> dict[str, list[str]]:
    """Requirement lines by package: of those that a lesson needs, and of what these pull in."""
    pins = tested()
    names = [*versions_of(pin for section in SECTIONS for pin in pins.sections[section]), *versions_of(pins.no_deps)]
    found: dict[str, list[str]] = {}
    for name in names:  # grows
        if name in found or name in KEPT:
            continue
        try:
            lines = asked_by(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = lines
        names += [name_and_version(Requirement(line).name)[0] for line in lines]
    return dict(sorted(found.items()))


def asked_by(name: str) -> list[str]:
    """The requirement lines of an installed package, those of its extras left out, in a fixed order."""
    return sorted(line for line in metadata.requires(name) or [] if "extra ==" not in line)


def main() -> None:
    """Writes the record, a package a line."""
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(asked)}" for name, asked in gathered().items())
    NEEDS.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
