"""Says whether this machine can run the lessons: versions, torch's build, environment, Hub cache, disk.

`gather` looks, `judge` decides (a pure function of `Facts`), `examine` does both, `show` prints. The tested versions
are those of requirements.txt; which others Unsloth accepts is read from the installed Unsloth's own metadata, so no
version is written down a second time. Used by `python -m unsloth_course doctor`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from . import install
from .install import GB, Pins

FIRST_UNSLOTH_ON_CPU = "2026.10.9"
CPU_RUN_BYTES, GPU_RUN_BYTES = 1 * GB, 5 * GB
ENVIRONMENT = ("UNSLOTH_ALLOW_CPU", "UNSLOTH_FORCE_CPU", "UNSLOTH_DISABLE_CPU_FALLBACK", "HF_HUB_OFFLINE")
# Asked for by Unsloth's metadata, but not needed: see requirements.txt.
NOT_NEEDED = ("certifi", "torchvision", "xformers", "diffusers")


@dataclass(frozen=True)
class Check:
    """One line of the report. `advice` is what to do when `ok` is False, else a note or empty."""

    name: str
    tested: str
    found: str
    ok: bool
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """The profile, the reason for it, and the checks."""

    profile: str
    reason: str
    checks: list[Check]

    @property
    def ok(self) -> bool:
        """True when no check failed."""
        return all(check.ok for check in self.checks)

    def to_json(self) -> str:
        """`{"profile", "reason", "checks": [{"name", "tested", "found", "ok", "advice"}]}` as text."""
        return json.dumps(asdict(self), indent=2)


@dataclass(frozen=True)
class Facts:
    """What the verdicts depend on; sizes in bytes, versions as written, `limits` as Unsloth's own specifiers."""

    python: tuple[int, int, int] = (3, 12, 0)
    executable: str = "python"
    system: str = "Linux"
    pins: Pins = field(default_factory=lambda: Pins({}))
    installed: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    cuda_of_torch: str | None = None
    nvidia_driver: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    course_venv: bool = True
    set_up_finished: bool = True
    hub_cache: str = ""
    hub_repositories: int = 0
    hub_cache_writable: bool = True
    free_bytes: int = 100 * GB


# --- looking --------------------------------------------------------------------------------------------------------


def read_pins() -> Pins:
    """The tested versions: requirements.txt of the repository, or a copy inside the package (Colab); else none."""
    for folder in (install.ROOT, Path(__file__).parent):
        try:
            return install.read_pins((folder / "requirements.txt").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
    return Pins({})


def hub_cache(environment: Mapping[str, str], home: Path) -> Path:
    """The Hugging Face Hub's cache folder, as huggingface_hub finds it, without importing it."""
    cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    hf_home = Path(environment.get("HF_HOME") or cache / "huggingface")
    return Path(environment.get("HF_HUB_CACHE") or hf_home / "hub").expanduser()


def _installed(names: set[str]) -> dict[str, str]:
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name) or "damaged"
        except metadata.PackageNotFoundError:
            continue
    return versions


def unsloth_limits() -> dict[str, str]:
    """Which versions of other packages the installed Unsloth accepts, such as `{"trl": "<=1.15.0,>=0.18.2"}`."""
    from packaging.requirements import InvalidRequirement, Requirement

    limits: dict[str, list[str]] = {}
    for package in ("unsloth", "unsloth_zoo"):
        try:
            lines = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            continue
        for line in lines:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue
            name = install.name_and_version(requirement.name)[0]
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and requirement.specifier and name not in NOT_NEEDED:
                limits.setdefault(name, []).append(str(requirement.specifier))
    return {name: ",".join(specifiers) for name, specifiers in limits.items()}


def _first_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def gather(folder: Path | None = None) -> Facts:
    """The facts of this machine and this Python; `folder` is where the lessons write (the current one by default)."""
    pins = read_pins()
    names = {install.name_and_version(pin)[0] for pin in (*pins.all, *pins.no_deps)}
    prefix = Path(sys.prefix)
    course_venv = (prefix / install.STAMP).exists()
    cache = hub_cache(os.environ, Path.home())
    torch = metadata.distribution("torch") if _installed({"torch"}) else None
    return Facts(
        python=sys.version_info[:3],
        executable=sys.executable or "python",
        system=platform.system(),
        pins=pins,
        installed=_installed(names | {"torchvision"}),
        limits=unsloth_limits(),
        cuda_of_torch=install.cuda_of_torch(Path(torch.locate_file(""))) if torch else None,
        nvidia_driver=install.nvidia_driver(),
        environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        course_venv=course_venv,
        set_up_finished=not course_venv
        or bool(install.look_at(prefix).fingerprint and not install.unfinished_packages(prefix)),
        hub_cache=str(cache),
        hub_repositories=sum(1 for kind in ("models", "datasets") for _ in cache.glob(f"{kind}--*")),
        hub_cache_writable=os.access(_first_existing(cache), os.W_OK),
        free_bytes=shutil.disk_usage(_first_existing((folder or Path.cwd()).absolute())).free,
    )


# --- judging --------------------------------------------------------------------------------------------------------


def judge(facts: Facts, profile: str) -> list[Check]:
    """The facts and the profile ("cpu" or "gpu") in, one check per line of the report out."""
    checks = [_python(facts), *_versions(facts, profile), *_groups(facts), _torch_build(facts)]
    checks += [_torchvision(facts), _environment(facts, profile)]
    if facts.course_venv:
        checks.append(_set_up(facts))
    return [*checks, _hub(facts, profile), _disk(facts, profile)]


def _again(facts: Facts) -> str:
    script = r".\setup_venv.ps1" if facts.system == "Windows" else "./setup_venv.sh"
    return f"run {script} again; it puts the tested versions back"


def _repair(facts: Facts, name: str, tested: str) -> str:
    if facts.course_venv:
        return _again(facts)
    return f"{facts.executable} -m pip install --no-deps {name}=={tested}"


def _python(facts: Facts) -> Check:
    oldest, newest = install.OLDEST_PYTHON, install.NEWEST_PYTHON
    ok = oldest <= facts.python[:2] <= newest
    tested = f"{oldest[0]}.{oldest[1]}-{newest[0]}.{newest[1]}"
    advice = "" if ok else f"install Python {tested} and set the course up with it (VENV_SETUP.md)"
    return Check("Python", tested, ".".join(map(str, facts.python)), ok, advice)


def _versions(facts: Facts, profile: str) -> list[Check]:
    tested = dict(map(install.name_and_version, (*facts.pins.sections.get("course", ()), *facts.pins.no_deps)))
    if facts.cuda_of_torch:
        tested |= {name: version for name, version in map(install.name_and_version, facts.pins.cuda) if name in tested}
    if not tested:  # a package without its requirements.txt can still be held against Unsloth's limits
        tested = dict.fromkeys(("unsloth", "unsloth-zoo", *sorted(facts.limits)), "")
    return [_version(facts, profile, name, version) for name, version in tested.items()]


def _version(facts: Facts, profile: str, name: str, tested: str) -> Check:
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    found, limit = facts.installed.get(name, ""), facts.limits.get(name)
    repair = _repair(facts, name, tested)
    if not found:
        return Check(name, tested, "missing", False, repair)
    try:
        version = Version(found)
    except InvalidVersion:
        return Check(name, tested, found, False, f"not a version: {repair}")
    if limit and not SpecifierSet(limit).contains(version, prereleases=True):
        return Check(name, tested, found, False, f"Unsloth needs {name} {limit}: {repair}")
    if name in ("unsloth", "unsloth-zoo") and profile == "cpu" and version < Version(FIRST_UNSLOTH_ON_CPU):
        return Check(name, tested, found, False, f"no CPU backend before {FIRST_UNSLOTH_ON_CPU}: {repair}")
    if not tested or version.public == Version(tested).public:
        return Check(name, tested, found, True)
    if limit and version.major != Version(tested).major:
        return Check(name, tested, found, False, f"another major version than the tested one: {repair}")
    return Check(name, tested, found, True, "not the tested version, but Unsloth accepts it" if limit else "not tested")


def _groups(facts: Facts) -> list[Check]:
    """One line each for what Unsloth imports and for the tools; outside the course's venv tools may be missing."""
    from packaging.markers import Marker

    checks = []
    for section, title in (("unsloth", "packages Unsloth imports"), ("tools", "Jupyter and tests")):
        pins = facts.pins.sections.get(section, ())
        here = [pin for pin in pins if ";" not in pin or Marker(pin.partition(";")[2]).evaluate()]
        missing = [pin for pin in here if install.name_and_version(pin)[0] not in facts.installed]
        if not here:
            continue
        names = ", ".join(install.name_and_version(pin)[0] for pin in missing)
        advice = _again(facts) if facts.course_venv else f"{facts.executable} -m pip install {' '.join(missing)}"
        ok = not missing or (section == "tools" and not facts.course_venv)
        found = f"missing: {names}" if missing else "all there"
        checks.append(Check(title, f"{len(here)} packages", found, ok, advice if missing else ""))
    return checks


def _torch_build(facts: Facts) -> Check:
    tested = "CUDA" if facts.nvidia_driver else "CPU or CUDA"
    found = f"CUDA {facts.cuda_of_torch}" if facts.cuda_of_torch else "CPU"
    found += ", NVIDIA driver found" if facts.nvidia_driver else ", no NVIDIA driver"
    torch = facts.installed.get("torch")
    if not facts.nvidia_driver or facts.cuda_of_torch or not torch:
        return Check("torch build", tested, found, True)
    if facts.environment.get("UNSLOTH_FORCE_CPU") == "1":
        return Check("torch build", tested, found, True, "UNSLOTH_FORCE_CPU=1 is set: the graphics card is not used")
    if not facts.pins.cuda:
        return Check("torch build", tested, found, False, "put a CUDA build of torch in its place")
    return Check("torch build", tested, found, False, install.driver_notice(torch, None, facts.pins, facts.executable))


def _torchvision(facts: Facts) -> Check:
    found = facts.installed.get("torchvision", "")
    # Only Linux has two kinds; the index's own, without a "+cpu" in its version, is the one for CUDA.
    clash = facts.system == "Linux" and found and "+cpu" not in found and not facts.cuda_of_torch
    clash = clash and "torch" in facts.installed
    advice = f"for CUDA beside a CPU torch it breaks `import unsloth`: {facts.executable} -m pip uninstall torchvision"
    return Check("torchvision", "absent", found or "absent", not clash, advice if clash else "")


def _environment(facts: Facts, profile: str) -> Check:
    wrong = []
    if facts.environment.get("UNSLOTH_ALLOW_CPU") == "1":
        wrong.append(
            "unset UNSLOTH_ALLOW_CPU: it makes Unsloth's tests pretend that there is a GPU, and lessons fail with it"
        )
    if profile == "cpu" and facts.environment.get("UNSLOTH_DISABLE_CPU_FALLBACK") == "1":
        wrong.append("unset UNSLOTH_DISABLE_CPU_FALLBACK: with it Unsloth refuses to run on a CPU")
    found = " ".join(f"{name}={value}" for name, value in facts.environment.items()) or "nothing that matters is set"
    return Check("environment", "", found, not wrong, "; ".join(wrong))


def _set_up(facts: Facts) -> Check:
    found = "finished" if facts.set_up_finished else "stopped half-way"
    return Check("set-up", "finished", found, facts.set_up_finished, "" if facts.set_up_finished else _again(facts))


def _hub(facts: Facts, profile: str) -> Check:
    ok = facts.hub_cache_writable or profile == "cpu"
    found = f"{facts.hub_cache}: {facts.hub_repositories} models and data sets"
    note = "the cpu profile does not use it" if profile == "cpu" else ""
    return Check("Hub cache", "", found, ok, note if ok else "not writable: set HF_HOME to a folder that is")


def _disk(facts: Facts, profile: str) -> Check:
    needed = CPU_RUN_BYTES if profile == "cpu" else GPU_RUN_BYTES
    ok = facts.free_bytes >= needed
    advice = "" if ok else "free some space: lessons save adapters, merged models and results"
    return Check("free disk", f">= {needed // GB} GB", f"{facts.free_bytes / GB:.1f} GB", ok, advice)


# --- the report -----------------------------------------------------------------------------------------------------


def examine(profile: str | None = None, reason: str | None = None, facts: Facts | None = None) -> Report:
    """The report for this machine. `profile` and `reason` come from `unsloth_course.profile` unless given."""
    facts = facts or gather()
    failed = []
    if reason is None:
        try:
            profile, reason = _detected(profile)
        except Exception as error:  # a doctor that falls ill over a broken torch would be of no use
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            failed = [Check("profile", "cpu or gpu", problem, False, "mend the failed checks below first")]
            profile, reason = profile or "cpu", "the machine could not be examined"
    profile = profile or "cpu"
    return Report(profile, reason, failed + judge(facts, profile))


def _detected(profile: str | None) -> tuple[str, str]:
    from . import profile as profiles

    found = profiles.detect(profile)
    reasons = [choice for choice in found.reasons if choice.what == "profile"] or list(found.reasons)
    return found.name, "; ".join(f"{choice.what} {choice.value}: {choice.why}" for choice in reasons)


def show(report: Report, console: object | None = None) -> None:
    """Prints the report to `console` (a rich Console; else standard output), a line per check with its advice below."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    console.print(Text(f"profile {report.profile} ({report.reason})"), soft_wrap=True)
    width = max((len(check.name) for check in report.checks), default=0)
    for check in report.checks:
        line = Text("[OK]   " if check.ok else "[FAIL] ", style="green" if check.ok else "bold red")
        line.append(f"{check.name:<{width}}  {check.found}", style="default")
        if check.tested and check.tested != check.found:
            line.append(f"  (tested: {check.tested})", style="dim")
        console.print(line, soft_wrap=True)
        for advice in check.advice.splitlines():
            console.print(Text(f"       {advice}"), soft_wrap=True)
    failures = sum(not check.ok for check in report.checks)
    console.print(Text("All is well." if not failures else f"{failures} of {len(report.checks)} checks failed."))
