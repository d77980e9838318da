"""Control and canary: the pinned versions, and the newest that Unsloth allows. Which package broke what?

    python upkeep/canary.py --out DIR [--only peft,accelerate] [--uncapped] [--no-run]

Control is the environment that this script runs in, with the pins of requirements.txt. Canary is the same with the
newest versions in front that nobody's metadata rules out: the caps are those of the newest Unsloth, and of the other
packages. Each new version lies in a folder of its own that PYTHONPATH puts in front, so any combination costs nothing
to make. A short smoke runs in each: `import unsloth`, then the LoRA lesson with the knobs of CI. If the canary fails
and control does not, each new version is tried alone, and if none fails alone, the smallest combination that does is
looked for. DIR/canary.json and DIR/canary.md say what was found; the exit status is 0 when all of it works.

torch stays as it is: its builds are gigabytes, and a new one is a new set-up (VENV_SETUP.md). Needs the package index.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from unsloth_course.core import lessons  # noqa: E402
from unsloth_course.lesson.colab.decisions import NOT_NEEDED, SECTIONS, requirements  # noqa: E402
from unsloth_course.lesson.colab.session import needs  # noqa: E402
from unsloth_course.setup.pins import name_and_version, tested  # noqa: E402

TOGETHER = {"unsloth-zoo": "unsloth"}
"""Packages that are only tried with another one."""
STAYS = ("torch", "triton")
SMOKE_SECONDS = 900


@dataclass(frozen=True)
class Smoke:
    """Whether a smoke ended well, and its last words."""

    ok: bool
    said: str = ""


@dataclass
class Found:
    """What the canary says. `new`: version by package; `culprits`: the sets that fail, each with the last words."""

    control: Smoke
    new: dict[str, str]
    canary: Smoke | None = None
    culprits: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    rest: Smoke | None = None

    @property
    def ok(self) -> bool:
        """Whether control and canary both ended well."""
        return self.control.ok and (self.canary is None or self.canary.ok)

    def __str__(self) -> str:
        if not self.control.ok:
            return f"The pinned versions fail themselves: {self.control.said}"
        if not self.new:
            return "The pinned versions are the newest that are allowed."
        lines = ["| package | tested | newest allowed | verdict |", "|---|---|---|---|"]
        for name, version in sorted(self.new.items()):
            lines.append(f"| {name} | {_version(name)} | {version} | {self.verdict(name)} |")
        return "\n".join(lines)

    def verdict(self, name: str) -> str:
        """One package's, in words."""
        for group, said in self.culprits:
            if name in group:
                others = [other for other in group if other != name]
                return f"breaks it{' together with ' + ', '.join(others) if others else ''}: {said}"
        return "not tried" if self.canary is None else "works" if self.canary.ok or self.rest else "unclear"


# --- which versions -------------------------------------------------------------------------------------------------


def newest(available: Iterable[str], asked: Iterable[str]) -> str | None:
    """The newest final version among those available that all specifiers accept; None when there is none."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    limit = SpecifierSet(",".join(filter(None, asked)))
    versions = []
    for text in available:
        try:
            version = Version(text)
        except InvalidVersion:
            continue
        if not version.is_prerelease and limit.contains(version):
            versions.append(version)
    return str(max(versions)) if versions else None


def candidates(
    pinned: Mapping[str, str], available: Callable[[str], Sequence[str]], asks: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The newest allowed version by package, where it is newer than the pinned one. asks: requirement lines."""
    from packaging.version import Version

    caps = _caps(asks)
    found = {}
    for name, version in pinned.items():
        new = newest(available(name), caps.get(name, ()))
        if new and Version(new) > Version(version):
            found[name] = new
    return found


def _caps(asks: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    caps: dict[str, list[str]] = {}
    for name, specifier in requirements(line for lines in asks.values() for line in lines):
        caps.setdefault(name, []).append(specifier)
    return caps


def pinned_versions() -> dict[str, str]:
    """The packages that are tried: those a lesson needs, but what stays as it is."""
    pins = tested()
    lines = [*(pin for section in SECTIONS for pin in pins.sections[section]), *pins.no_deps]
    names = dict(map(name_and_version, lines))
    out = {*STAYS, *NOT_NEEDED}
    return {name: version for name, version in names.items() if name not in out and _installed(name)}


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def _version(name: str) -> str:
    return metadata.version(name) if _installed(name) else "-"


def on_index(name: str) -> list[str]:
    """Versions of a package that pip's index has for this Python, newest first."""
    done = _pip("index", "versions", name)
    line = re.search(r"Available versions: (.+)", done.stdout)
    return [version.strip() for version in line[1].split(",")] if line else []


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- which of them breaks it ----------------------------------------------------------------------------------------


def search(new: Mapping[str, str], smoke: Callable[[Sequence[str]], Smoke]) -> Found:
    """Smokes control, canary and, if that fails, its parts. `smoke` gets the names of the packages that are new."""
    found = Found(smoke(()), dict(new))
    if not found.control.ok or not new:
        return found
    units = _units(new)
    found.canary = found.rest = smoke(_all(units))
    while not found.rest.ok and units:
        alone = {unit: smoke(unit) for unit in units} if len(units) > 1 else {units[0]: found.rest}
        bad = [(unit, tried.said) for unit, tried in alone.items() if not tried.ok]
        if not bad:
            group = smallest(units, lambda some: not smoke(_all(some)).ok)
            bad = [(_all(group), smoke(_all(group)).said)]
        found.culprits += bad
        out = {name for group, _ in bad for name in group}
        units = [unit for unit in units if not out & set(unit)]
        found.rest = smoke(_all(units)) if units else found.control
    return found


def smallest(units: Sequence[tuple[str, ...]], fails: Callable[[Sequence[tuple[str, ...]]], bool]) -> list:
    """A smallest set of units that still fails: parts are dropped as long as it does (ddmin, Zeller 2002)."""
    left, parts = list(units), 2
    while len(left) > 1:
        size = -(-len(left) // parts)
        pieces = [left[i : i + size] for i in range(0, len(left), size)]
        for piece in pieces:
            others = [unit for unit in left if unit not in piece]
            if others and fails(others):
                left, parts = others, max(parts - 1, 2)
                break
        else:
            if parts >= len(left):
                break
            parts = min(2 * parts, len(left))
    return left


def _units(new: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Names that are tried at once: Unsloth with its zoo, all others alone."""
    units: dict[str, list[str]] = {}
    for name in new:
        units.setdefault(TOGETHER.get(name, name), []).append(name)
    return [tuple(sorted(unit)) for unit in units.values()]


def _all(units: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(name for unit in units for name in unit)


# --- the smoke ------------------------------------------------------------------------------------------------------


class Runner:
    """Runs the smoke with some new versions in front, each of which it fetches once."""

    def __init__(self, new: Mapping[str, str], out: Path):
        self.new, self.out = new, out.resolve()  # the lesson's kernel begins in another folder
        self.done: dict[frozenset[str], Smoke] = {}

    def __call__(self, names: Sequence[str]) -> Smoke:
        key = frozenset(names)
        if key not in self.done:
            try:
                folders = [self.layer(name) for name in names]
            except RuntimeError as error:
                self.done[key] = Smoke(False, str(error))
            else:
                self.done[key] = self.smoke(folders)
            said = "works" if self.done[key].ok else f"fails: {self.done[key].said}"
            print(f"{', '.join(names) or 'control'}: {said}", flush=True)
        return self.done[key]

    def layer(self, name: str) -> Path:
        """The folder with the new version of a package. Raises RuntimeError when pip cannot get it."""
        folder = self.out / "layers" / f"{name}-{self.new[name]}"
        if not folder.exists():
            done = _pip("install", "-q", "--no-deps", "--target", str(folder), f"{name}=={self.new[name]}")
            if done.returncode:
                raise RuntimeError(last_words(done.stderr))
        return folder

    def smoke(self, folders: Sequence[Path]) -> Smoke:
        """`import unsloth`, then the LoRA lesson."""
        environment = dict(os.environ)
        environment |= {
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "UNSLOTH_COMPILE_LOCATION": str(self.out / "cc"),
        }
        lesson = str(lessons.notebook_path("lora"))
        for arguments in (
            ["-c", "from unsloth_course import profile; profile.detect('cpu'); import unsloth, trl"],
            ["-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", lesson],
        ):
            try:
                done = subprocess.run(
                    [sys.executable, *arguments],
                    cwd=ROOT,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=SMOKE_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return Smoke(False, f"no end after {SMOKE_SECONDS} s")
            if done.returncode:
                return Smoke(False, last_words(done.stdout + "\n" + done.stderr))
        return Smoke(True)


def last_words(text: str) -> str:
    """The line of an output that says why it failed, in one line of a table."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [stripped for line in text.splitlines() if (stripped := re.sub(r"^E\s+", "", line).strip(" |"))]
    errors = [line for line in lines if re.match(r"(ERROR|[\w.]*(Error|Exception|Interrupt)\b).{2,}", line)]
    return ([*lines, "it said nothing"] if not lines else errors or lines)[-1][:300].replace("|", "/")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="these packages alone, with commas")
    parser.add_argument(
        "--uncapped", action="store_true", help="also what is ruled out: what would lifting caps break?"
    )
    parser.add_argument("--no-run", action="store_true", help="say the new versions, and run nothing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pinned = pinned_versions()
    if options.only:
        pinned = {name: pinned[name] for name in options.only.split(",")}
    asks = {name: lines for name, lines in needs().items() if name not in ("unsloth", "unsloth-zoo")}
    unsloth = {
        name: candidates({name: pinned[name]}, on_index, {}) for name in TOGETHER | {"unsloth": ""} if name in pinned
    }
    new = {name: version for found in unsloth.values() for name, version in found.items()}
    run = Runner(new, options.out)
    for name in ("unsloth", "unsloth-zoo"):  # the caps of the newest one, or else those of the pinned one
        (info,) = list(run.layer(name).glob("*.dist-info")) if name in new else (None,)
        asks[name] = metadata.PathDistribution(info).requires or [] if info else needs()[name]
    rest = {name: version for name, version in pinned.items() if name not in unsloth}
    run.new = new | candidates(rest, on_index, {} if options.uncapped else asks)
    found = Found(Smoke(True), run.new) if options.no_run else search(run.new, run)
    (options.out / "canary.json").write_text(json.dumps(asdict(found), indent=2) + "\n")
    (options.out / "canary.md").write_text(f"{found}\n")
    print(found)
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
