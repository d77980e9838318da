"""What the pinned packages ask for, recorded, so that a session knows it before it has any of them.

python -m unsloth_course.lesson.colab.needs    writes the record anew, from the packages that are installed here
"""

import json
from collections.abc import Sequence
from importlib import metadata

from unsloth_course.core import places
from unsloth_course.lesson.colab.decisions import KEPT, SECTIONS
from unsloth_course.setup.pins import name_and_version, tested, versions_of

RECORD = places.RECORDED / "needs.json"


def recorded() -> dict[str, list[str]]:
    """Requirement lines by package, of the pinned versions."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def gathered() -> dict[str, list[str]]:
    """The same, from the metadata of the packages installed here: those a lesson needs, and what these pull in."""
    from packaging.requirements import Requirement

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


def text(needs: dict[str, Sequence[str]]) -> str:
    """The record as it is written, a package a line."""
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(list(asked))}" for name, asked in needs.items())
    return f"{{\n{lines}\n}}\n"


if __name__ == "__main__":
    RECORD.write_text(text(gathered()), encoding="utf-8")
