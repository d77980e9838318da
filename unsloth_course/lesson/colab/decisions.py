"""Which packages a session keeps, and which are installed: versions in, decisions out."""

import platform
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from unsloth_course.core.writing import in_columns
from unsloth_course.setup.pins import Pins, applies, name_and_version, versions_of

# Asked for by Unsloth's metadata, but not needed: see requirements.txt.
NOT_NEEDED = ("certifi", "torchvision", "xformers", "diffusers")
KEPT = ("torch", "numpy", "triton")
"""Never replaced: another torch or numpy under a running kernel forces a restart, and triton belongs to its torch."""
SECTIONS = ("course", "unsloth")  # the sections of requirements.txt that a lesson needs


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


def accepts(specifier: str, version: str) -> bool | None:
    """Whether a specifier such as "<2,>=1.4" takes a version, be it a pre-release; None when that is no version."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(specifier).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return None


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
        return in_columns([(r.name, r.found or "-", r.tested or "-", r.verdict, r.why) for r in (head, *self.rows)])


def decide(
    installed: Mapping[str, str],
    asks: Mapping[str, Sequence[str]],
    pins: Pins,
    needs: Mapping[str, Sequence[str]],
    loaded: Collection[str] = (),
) -> Decision:
    """Keeps what is accepted, replaces what is not, and installs what is missing, with what that in turn asks for.

    installed: versions by normalized name. asks: the requirement lines of the installed packages. pins: the tested
    versions. needs: the requirement lines of those, as `session.needs` has them. loaded: names of packages that the
    running kernel has imported.
    """
    lines = {
        name_and_version(pin)[0]: pin
        for pin in (*pins.all, *pins.no_deps)
        if applies(pin, platform.system(), sys.version_info)
    }
    tested = versions_of(lines.values())
    taken: set[str] = set()  # in the tested version
    course = [pin for section in SECTIONS for pin in pins.sections.get(section, ())]
    direct = [name for name in versions_of((*course, *pins.no_deps)) if name in tested]
    active = list(direct)
    # Unsloth itself has to be the tested one: the caps on everything else are those of that version.
    exact = {name: [("the course", f"=={version}")] for name, version in versions_of(pins.no_deps).items()}
    while new := _to_take(active, taken, wanted := _wanted(active, taken, asks, needs, exact), installed, tested):
        taken.update(new)
        for name, _ in (found for pin in new for found in requirements(needs.get(pin, ()))):
            if name not in active and name not in NOT_NEEDED:
                active.append(name)
    if "+cu" in installed.get("torch", ""):  # tested with CUDA, too, in another version
        tested |= {name: version for name, version in versions_of(pins.cuda).items() if name not in taken}
    rows = [_row(name, installed.get(name, ""), tested.get(name, ""), name in taken, wanted) for name in active]
    rows = [row for row in rows if row.name in direct or row.verdict != "kept"]
    replaced = [row.name for row in rows if row.verdict == "replaced"]
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
    """The packages that are put to their tested version in this round.

    First those that are missing, or that another package refuses as they are. Where none of them can be moved, the
    packages that refuse even the tested version of another one are.
    """

    def movable(name: str) -> bool:
        there = installed.get(name, "")
        new = name in tested and name not in taken and _public(there) != tested[name]
        return new and not (name in KEPT and there)

    def fits(name: str) -> bool:
        asked = ",".join(what for _, what in wanted.get(name, ()))
        return bool(accepts(asked, (tested if name in taken else installed).get(name, "")))

    refused = [name for name in active if not fits(name)]
    if found := {name for name in refused if movable(name)}:
        return found
    asked = [(who, what, tested.get(name, "")) for name in refused for who, what in wanted.get(name, ())]
    return {who for who, what, version in asked if not accepts(what, version) and movable(who)}


def _row(name: str, found: str, tested: str, taken: bool, wanted: Mapping[str, Sequence[tuple[str, str]]]) -> Row:
    def refusals(version: str) -> list[str]:
        return [f"{who} asks for {what}" for who, what in wanted.get(name, ()) if not accepts(what, version)]

    against = refusals(tested if taken else found)
    if taken and not against:
        why = refusals(found)[0] if found and refusals(found) else ""
        return Row(name, found, tested, "replaced" if found else "installed", why)
    if against or not found:
        return Row(name, found, tested, "conflict", "; ".join(against) or "missing, and no tested version is known")
    return Row(name, found, tested, "kept", "" if _public(found) == tested else "accepted")


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


def _public(version: str) -> str:
    return version.partition("+")[0]
