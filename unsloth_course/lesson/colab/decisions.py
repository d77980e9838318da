"""Which packages a session keeps, and which are installed: versions in, decisions out."""

import platform
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from unsloth_course.setup.pins import Pins, applies, name_and_version

# Asked for by Unsloth's metadata, but not needed: see requirements.txt.
NOT_NEEDED = ("certifi", "torchvision", "xformers", "diffusers")
KEPT = ("torch", "numpy", "triton")
"""Never replaced: another torch or numpy under a running kernel forces a restart, and triton belongs to its torch."""
SECTIONS = ("course", "unsloth")
"""The sections of requirements.txt that a lesson needs."""


def requirements(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Requirement lines of metadata in, (name, specifier) out, of those that apply here without an extra."""
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for line in lines:
        if "extra" in line.partition(";")[2]:  # most lines; parsing them would double the doctor's time
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            found.append((name_and_version(requirement.name)[0], str(requirement.specifier)))
    return found


@dataclass(frozen=True)
class Row:
    """One package: the version that was found, the tested one, and what becomes of it.

    `verdict` is "kept", "installed", "replaced" or "conflict"; `why` says so in words, or is empty.
    """

    name: str
    found: str
    tested: str
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Decision:
    """All rows, the pins to hand to pip, and the packages that are loaded already in a version that is replaced."""

    rows: tuple[Row, ...]
    pins: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()

    @property
    def conflicts(self) -> tuple[Row, ...]:
        """What can be neither kept nor replaced."""
        return tuple(row for row in self.rows if row.verdict == "conflict")

    def __str__(self) -> str:
        head = Row("package", "found", "tested", "verdict")
        lines = [
            f"{row.name:<19}{row.found or '-':<15}{row.tested or '-':<11}{row.verdict:<11}{row.why}".rstrip()
            for row in (head, *self.rows)
        ]
        return "\n".join(lines)


def decide(
    installed: Mapping[str, str],
    asks: Mapping[str, Sequence[str]],
    pins: Pins,
    needs: Mapping[str, Sequence[str]],
    loaded: Collection[str] = (),
) -> Decision:
    """Keeps what is accepted, replaces what is not, and installs what is missing, with what that in turn asks for.

    installed: versions by normalized name. asks: the requirement lines of the installed packages. pins: the tested
    versions. needs: the requirement lines of those, as `needs.recorded` has them. loaded: names of packages that the
    running kernel has imported.
    """
    tested = _tested(pins)
    taken: set[str] = set()  # in the tested version
    active = [name for section in SECTIONS for name in _names(pins.sections.get(section, ()))]
    active += [name for name in _names(pins.no_deps) if name not in active]
    active = [name for name in active if name in tested]
    # Unsloth itself has to be the tested one: the caps on everything else are those of that version.
    exact = {name: [("the course", f"=={tested[name]}")] for name in _names(pins.no_deps)}
    while new := _to_take(active, taken, wanted := _wanted(active, taken, asks, needs, exact), installed, tested):
        taken.update(new)
        for name, _ in (found for pin in new for found in requirements(needs.get(pin, ()))):
            if name not in active and name not in NOT_NEEDED:
                active.append(name)
    direct = set(_tested(pins, SECTIONS))
    if "+cu" in installed.get("torch", ""):  # tested with CUDA, too, in another version
        tested |= {name: version for name, version in map(name_and_version, pins.cuda) if name not in taken}
    rows = [_row(name, installed.get(name, ""), tested.get(name, ""), name in taken, wanted) for name in active]
    rows = [row for row in rows if row.name in direct or row.verdict != "kept"]
    replaced = [row.name for row in rows if row.verdict == "replaced"]
    lines = {name_and_version(pin)[0]: pin for pin in (*_here(pins.all), *pins.no_deps)}
    return Decision(
        tuple(rows),
        tuple(lines[row.name].partition(";")[0].strip() for row in rows if row.name in taken),
        tuple(name for name in replaced if name in loaded),
    )


def _to_take(
    active: Sequence[str],
    taken: Collection[str],
    wanted: Mapping[str, Sequence[tuple[str, str]]],
    installed: Mapping[str, str],
    tested: Mapping[str, str],
) -> set[str]:
    """What has to go to its tested version next: a package that is missing or refused, or else who refuses it there."""

    def free(name: str) -> bool:
        there = installed.get(name, "")
        new = name in tested and name not in taken and _public(there) != tested[name]
        return new and not (name in KEPT and there)

    refused = [
        name
        for name in active
        if not _fits((tested if name in taken else installed).get(name, ""), wanted.get(name, ()))
    ]
    if found := {name for name in refused if free(name)}:
        return found
    askers = {
        who for name in refused for who, what in wanted.get(name, ()) if not _fits(tested.get(name, ""), [(who, what)])
    }
    return {who for who in askers if free(who)}


def _row(name: str, found: str, tested: str, taken: bool, wanted: Mapping[str, Sequence[tuple[str, str]]]) -> Row:
    asked = wanted.get(name, ())
    against = [f"{who} asks for {what}" for who, what in asked if not _fits(tested if taken else found, [(who, what)])]
    if taken and not against:
        refusals = [f"{who} asks for {what}" for who, what in asked if found and not _fits(found, [(who, what)])]
        return Row(name, found, tested, "replaced" if found else "installed", (refusals or [""])[0])
    if against or not found:
        return Row(name, found, tested, "conflict", "; ".join(against) or "missing, and no tested version is known")
    return Row(name, found, tested, "kept", "" if _public(found) == tested else "accepted")


def _tested(pins: Pins, sections: Iterable[str] | None = None) -> dict[str, str]:
    """Tested versions by name, of the pins that apply to this Python and system; of some sections, or of all."""
    lines = pins.all if sections is None else [pin for name in sections for pin in pins.sections.get(name, ())]
    return dict(map(name_and_version, (*_here(lines), *pins.no_deps)))


def _here(pins: Iterable[str]) -> list[str]:
    return [pin for pin in pins if applies(pin, platform.system(), sys.version_info)]


def _names(pins: Iterable[str]) -> list[str]:
    return [name_and_version(pin)[0] for pin in pins]


def _wanted(
    active: Iterable[str],
    taken: Collection[str],
    asks: Mapping[str, Sequence[str]],
    needs: Mapping[str, Sequence[str]],
    exact: Mapping[str, Sequence[tuple[str, str]]],
) -> dict[str, list[tuple[str, str]]]:
    """By package, who of the active ones asks for which versions of it; `exact` is asked for in any case."""
    wanted = {name: list(asked) for name, asked in exact.items()}
    for who in active:
        for name, versions in requirements((needs if who in taken else asks).get(who, ())):
            if versions and name not in NOT_NEEDED:
                wanted.setdefault(name, []).append((who, versions))
    return wanted


def _fits(version: str, asked: Sequence[tuple[str, str]]) -> bool:
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return bool(version) and all(SpecifierSet(w).contains(Version(version), prereleases=True) for _, w in asked)
    except InvalidVersion:
        return False


def _public(version: str) -> str:
    return version.partition("+")[0]
