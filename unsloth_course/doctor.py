"""Says whether this machine can run the lessons: versions, torch's build, environment, Hub cache, disk and the like.

`gather` looks, `judge` decides (a pure function of `Facts`), `examine` does both, `show` prints. The tested versions
are those of requirements.txt; which others Unsloth and its fellows accept is read from the installed packages' own
metadata, so no version is written down a second time. VENV_SETUP.md lists the faults that are found. Used by
`python -m unsloth_course doctor`.
"""

from __future__ import annotations

import json
import locale
import os
import platform
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path

from . import install
from .install import GB, Pins

FIRST_UNSLOTH_ON_CPU = "2026.10.9"
OLDEST_IPYWIDGETS = "7.7.1"  # Colab's, on which the dials are tested too
CPU_RUN_BYTES, GPU_RUN_BYTES = 1 * GB, 5 * GB
MEMORY_BYTES = 2 * GB  # what a lesson takes
SWITCHES = ("UNSLOTH_ALLOW_CPU", "UNSLOTH_FORCE_CPU", "UNSLOTH_DISABLE_CPU_FALLBACK", "UNSLOTH_FORCE_GPU_PATH")
ENVIRONMENT = (*SWITCHES, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
# Asked for by Unsloth's metadata, but not needed: see requirements.txt.
NOT_NEEDED = ("certifi", "torchvision", "xformers", "diffusers")
# Not among the pins, and able to break them.
UNPINNED = ("torchvision", "torchaudio", "xformers", "mlx", "vllm")
SHADOWED = ("unsloth", "unsloth_zoo", "trl", "transformers", "datasets", "torch", "peft", "accelerate", "tokenizers")
SHADOWED += ("safetensors", "huggingface_hub", "numpy", "matplotlib", "ipywidgets", "bitsandbytes", "triton")


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
    architecture: str = "x86_64"
    prefix: str = ""
    made_at: str = ""  # where the course's venv was made, where that is known
    needs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # package: {another: specifier}
    files: Mapping[str, str] = field(default_factory=dict)  # package: the version that its own files name
    twice: tuple[str, ...] = ()  # packages that lie in one folder in two versions
    unfinished: tuple[str, ...] = ()  # packages that were copied in part
    shadows: Mapping[str, str] = field(default_factory=dict)  # package: the learner's file that hides it
    kernel: str | None = None  # the Python that the Jupyter kernel starts; "" without a kernel, None if none is due
    hub_broken: Mapping[str, str] = field(default_factory=dict)  # "model a/b" or "dataset a/b": what it lacks
    hub_models: tuple[str, ...] = ()  # whose weights are there
    folder: str = "."
    folder_writable: bool = True
    cores: int = 2
    memory_bytes: int = 0  # 0 where it cannot be found out
    encoding: str = "utf-8"
    cuda_works: bool | None = None  # None: torch was not asked
    numpy_problem: str = ""  # why torch and numpy do not understand each other


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


def installed_and_needs(names: Iterable[str]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The versions of installed packages, and what each asks of others here: `{"unsloth": {"trl": "<=1.15.0"}}`."""
    versions, needs = {}, {}
    for name in names:
        try:
            about = metadata.distribution(name).metadata
        except metadata.PackageNotFoundError:
            continue
        versions[name] = about["Version"] or "damaged"
        if asked := _asked(about.get_all("Requires-Dist") or []):
            needs[name] = asked
    return versions, needs


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
            found.append((install.name_and_version(requirement.name)[0], str(requirement.specifier)))
    return found


def _asked(lines: Iterable[str]) -> dict[str, str]:
    """The specifiers of requirements that apply here, by package."""
    asked: dict[str, list[str]] = {}
    for name, specifier in requirements(lines):
        if specifier:
            asked.setdefault(name, []).append(specifier)
    return {name: ",".join(specifiers) for name, specifiers in asked.items()}


def limits_of(needs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Which versions of other packages Unsloth accepts, from what the packages need."""
    limits: dict[str, list[str]] = {}
    for package in ("unsloth", "unsloth-zoo"):
        for name, specifier in needs.get(package, {}).items():
            if name not in NOT_NEEDED:
                limits.setdefault(name, []).append(specifier)
    return {name: ",".join(specifiers) for name, specifiers in limits.items()}


def _first_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _writable(folder: Path) -> bool:
    """Whether a file can be made in a folder, or in the nearest one above it that exists; by trying."""
    try:
        with tempfile.TemporaryFile(dir=_first_existing(folder)):
            return True
    except OSError:
        return False


def _version_in_files(packages: Path) -> dict[str, str]:
    """The versions that torch and numpy name in their own files: another than pip's means mixed installations."""
    found = {}
    for name in ("torch", "numpy"):
        try:
            text = (packages / name / "version.py").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if version := re.search(r"^(?:__version__|version)\b[^=]*=\s*['\"]([^'\"]+)", text, re.MULTILINE):
            found[name] = version[1]
    return found


def _damaged(names: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of packages: those with two versions in one folder, and those that were copied in part."""
    twice, unfinished = set(), set()
    for folder in {Path(place) for place in sys.path if place and Path(place).is_dir()}:
        seen = set()
        for info in folder.glob("*.dist-info"):
            name = install.name_and_version(info.name[: -len(".dist-info")].replace("-", "==", 1))[0]
            if name in names and not (info / "RECORD").exists() and not (info / "INSTALLER").exists():
                unfinished.add(name)
            if name in names and name in seen:
                twice.add(name)
            seen.add(name)
    return tuple(sorted(twice)), tuple(sorted(unfinished))


def shadows(folders: Iterable[Path], home: Path | None) -> dict[str, str]:
    """Files of a learner in `folders` that Python imports in place of a package or of one of its own modules.

    `home` is the folder that the packages are in. A folder without an `__init__.py` hides nothing that is installed.
    """
    found = {}
    for folder in folders:
        if home and folder.resolve() == home.resolve():
            continue
        own = {name for name in sys.stdlib_module_names if (folder / f"{name}.py").is_file()}
        for name in (*SHADOWED, *sorted(own)):
            hits = [path for path in (folder / name / "__init__.py", folder / f"{name}.py") if path.is_file()]
            if hits and not any(folder.glob(f"{name}-*.dist-info")):  # installed there, by pip's --target
                found.setdefault(name, str(hits[0].parent if hits[0].name == "__init__.py" else hits[0]))
    return found


def _kernel(prefix: Path) -> str:
    """The Python that the course's Jupyter kernel starts, "" if it is not registered."""
    try:
        spec = json.loads((prefix / "share/jupyter/kernels" / install.KERNEL / "kernel.json").read_text("utf-8"))
        return str(spec["argv"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def hub_downloads(cache: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The repositories of a Hub cache whose weights are there, and those whose download broke off, with what lacks."""
    whole, broken = [], {}
    for kind in ("models", "datasets"):
        for folder in sorted(cache.glob(f"{kind}--*")):
            name = folder.name.removeprefix(f"{kind}--").replace("--", "/")
            if problem := _half_downloaded(folder):
                broken[f"{kind.removesuffix('s')} {name}"] = problem
            elif kind == "models" and any(folder.glob("snapshots/*/*.safetensors")):
                whole.append(name)
    return tuple(whole), broken


def _half_downloaded(repository: Path) -> str:
    parts = list(repository.glob("blobs/*.incomplete"))
    if parts:
        size = sum(path.stat().st_size for path in parts) / 10**6
        return f"{len(parts)} unfinished file{'s' * (len(parts) > 1)} of {size:.1f} MB"
    snapshots = list(repository.glob("snapshots/*"))
    if not snapshots and (repository / "refs").is_dir():
        return "no file of the revision that it names"
    lacking = {path.name for folder in snapshots for path in folder.rglob("*") if not path.exists()}
    for index in repository.glob("snapshots/*/*.safetensors.index.json"):
        shards = _shards(index)
        if any((index.parent / shard).exists() for shard in shards):
            lacking |= {shard for shard in shards if not (index.parent / shard).exists()}
    return f"missing: {', '.join(sorted(lacking)[:3])}" + " ..." * (len(lacking) > 3) if lacking else ""


def _shards(index: Path) -> set[str]:
    try:
        return set(map(str, json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()


def _memory() -> int:
    """Bytes of memory that this process may have: of the machine, of its container, of `ulimit -v`; 0 if unknown."""
    sizes = []
    try:
        import psutil

        sizes.append(psutil.virtual_memory().total)
    except ImportError:
        pass
    try:
        import resource

        sizes.append(resource.getrlimit(resource.RLIMIT_AS)[0])
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (ImportError, OSError, ValueError):
        pass
    return min((size for size in sizes if size > 0), default=0)


def _tried() -> dict[str, object]:
    """What only a try can say of torch: whether CUDA works, and whether it understands numpy."""
    found: dict[str, object] = {}
    try:
        import torch

        found["cuda_works"] = bool(torch.cuda.is_available())
        import numpy

        torch.from_numpy(numpy.zeros(1))
    except Exception as error:
        found["numpy_problem"] = _one_line(error)
    return found


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def gather(folder: Path | None = None) -> Facts:
    """The facts of this machine and this Python; `folder` is where the lessons write (the current one by default)."""
    pins = read_pins()
    folder = (folder or Path.cwd()).absolute()
    names = {install.name_and_version(pin)[0] for pin in (*pins.all, *pins.no_deps)} | {*UNPINNED}
    prefix = Path(sys.prefix)
    course_venv = (prefix / install.STAMP).exists()
    venv = install.look_at(prefix) if course_venv else install.Venv()
    cache = hub_cache(os.environ, Path.home())
    installed, needs = installed_and_needs(names)
    packages = Path(metadata.distribution("torch").locate_file("")) if "torch" in installed else None
    twice, unfinished = _damaged(names)
    models, broken = hub_downloads(cache)
    python_path = [Path(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    return Facts(
        python=sys.version_info[:3],
        executable=sys.executable or "python",
        system=platform.system(),
        architecture=platform.machine(),
        pins=pins,
        installed=installed,
        needs=needs,
        limits=limits_of(needs),
        cuda_of_torch=install.cuda_of_torch(packages) if packages else None,
        files=_version_in_files(packages) if packages else {},
        twice=twice,
        unfinished=unfinished,
        shadows=shadows((folder, folder / "notebooks", *python_path), packages),
        nvidia_driver=install.nvidia_driver(),
        environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        course_venv=course_venv,
        prefix=str(prefix),
        made_at=venv.made_at or "",
        set_up_finished=not course_venv or bool(venv.fingerprint),
        kernel=_kernel(prefix) if course_venv else None,
        hub_cache=str(cache),
        hub_repositories=sum(1 for kind in ("models", "datasets") for _ in cache.glob(f"{kind}--*")),
        hub_cache_writable=_writable(cache),
        hub_broken=broken,
        hub_models=models,
        folder=str(folder),
        folder_writable=_writable(folder),
        free_bytes=shutil.disk_usage(_first_existing(folder)).free,
        cores=os.cpu_count() or 1,
        memory_bytes=_memory(),
        encoding=locale.getpreferredencoding(False),
    )


# --- judging --------------------------------------------------------------------------------------------------------


def judge(facts: Facts, profile: str) -> list[Check]:
    """The facts and the profile ("cpu" or "gpu") in, one check per line of the report out."""
    versions = _versions(facts, profile)
    checks = [_python(facts), *versions, *_groups(facts), _conflicts(facts, versions), _damage(facts)]
    checks += [_shadows(facts), _torch_build(facts), _numpy(facts), _torchvision(facts), _mlx(facts)]
    checks += [_environment(facts, profile), _threads(facts), _encoding(facts)]
    if facts.course_venv:
        checks += [_set_up(facts), _kernel_check(facts)]
    return [*checks, _hub(facts, profile), _downloads(facts), _memory_check(facts), _disk(facts, profile)]


def _do(sentence: str, *commands: str) -> str:
    """Advice: a sentence, and each command on a line of its own, to be copied."""
    return "\n".join([f"{sentence}:", *(f"    {command}" for command in commands)])


def _again(facts: Facts) -> str:
    return install.WINDOWS_SCRIPT if _windows(facts) else "./setup_venv.sh"


def _windows(facts: Facts) -> bool:
    return facts.system == "Windows"


def _set_up_again(facts: Facts, why: str = "") -> str:
    return _do(f"{why}run the set-up again in the course's folder; it puts the tested versions back", _again(facts))


def _pip(facts: Facts, command: str) -> str:
    return f"{install.quoted(facts.executable, _windows(facts))} -m pip {command}"


def _repair(facts: Facts, why: str, name: str, tested: str) -> str:
    if facts.course_venv:
        return _set_up_again(facts, why)
    return _do(
        f"{why}install the tested version", _pip(facts, f"install --no-deps {name}" + f"=={tested}" * bool(tested))
    )


def _unset(facts: Facts, name: str, why: str) -> str:
    return _do(why, f"Remove-Item Env:{name}" if _windows(facts) else f"unset {name}")


def _set(facts: Facts, name: str, value: str, why: str) -> str:
    words = install.quoted(value, _windows(facts))
    return _do(why, f"$env:{name} = {words}" if _windows(facts) else f"export {name}={words}")


def _python(facts: Facts) -> Check:
    oldest, newest = install.OLDEST_PYTHON, install.NEWEST_PYTHON
    ok = oldest <= facts.python[:2] <= newest
    tested = f"{oldest[0]}.{oldest[1]}-{newest[0]}.{newest[1]}"
    why = f"install Python {tested} (VENV_SETUP.md says how), then let the set-up find it"
    return Check("Python", tested, ".".join(map(str, facts.python)), ok, "" if ok else _do(why, _again(facts)))


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

    def failed(why: str) -> Check:
        return Check(name, tested, found or "missing", False, _repair(facts, why, name, tested))

    if not found:
        return failed("")
    try:
        version = Version(found)
    except InvalidVersion:
        return failed("this is not a version, so the installation is damaged: ")
    if limit and not SpecifierSet(limit).contains(version, prereleases=True):
        refused = [part for part in dict.fromkeys(limit.split(",")) if not SpecifierSet(part).contains(version, True)]
        return failed(f"Unsloth needs {name} {','.join(refused)}: ")
    if name in ("unsloth", "unsloth-zoo") and profile == "cpu" and version < Version(FIRST_UNSLOTH_ON_CPU):
        return failed(f"Unsloth has no CPU backend before {FIRST_UNSLOTH_ON_CPU}: ")
    if name == "ipywidgets" and version < Version(OLDEST_IPYWIDGETS):
        return failed(f"the dials of the lessons need ipywidgets {OLDEST_IPYWIDGETS} or newer: ")
    if not tested or version.public == Version(tested).public:
        return Check(name, tested, found, True)
    if limit and version.major != Version(tested).major:
        return failed("this is another major version than the tested one: ")
    return Check(name, tested, found, True, "not the tested version, but Unsloth accepts it" if limit else "not tested")


def _groups(facts: Facts) -> list[Check]:
    """One line each for what Unsloth imports and for the tools; outside the course's venv tools may be missing."""
    from packaging.markers import Marker

    checks = []
    for section, title in (("unsloth", "packages Unsloth imports"), ("tools", "Jupyter and tests")):
        pins = facts.pins.sections.get(section, ())
        here = [pin for pin in pins if ";" not in pin or Marker(pin.partition(";")[2]).evaluate()]
        missing = [pin.partition(";")[0].strip() for pin in here if _name(pin) not in facts.installed]
        if not here:
            continue
        advice = _do("install what is missing", _pip(facts, f"install --no-deps {' '.join(missing)}"))
        advice = _set_up_again(facts) if facts.course_venv else advice
        ok = not missing or (section == "tools" and not facts.course_venv)
        found = f"missing: {', '.join(map(_name, missing))}" if missing else "all there"
        checks.append(Check(title, f"{len(here)} packages", found, ok, advice if missing else ""))
    return checks


def _name(pin: str) -> str:
    return install.name_and_version(pin)[0]


def _conflicts(facts: Facts, versions: list[Check]) -> Check:
    """Packages that refuse the version of another one; without those whose own version is called wrong already."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    wrong = {check.name for check in versions if not check.ok} | {*NOT_NEEDED, *UNPINNED}
    clashes = []
    for package, asked in sorted(facts.needs.items()):
        for name, specifier in sorted(asked.items()):
            try:
                fits = SpecifierSet(specifier).contains(Version(facts.installed[name]), prereleases=True)
            except (KeyError, InvalidVersion):
                continue
            if not fits and not {package, name} & wrong:
                clashes.append((name, f"{package} needs {name}{specifier}, found {facts.installed[name]}"))
    if not clashes:
        return Check("packages fit together", "", "yes", True)
    tested = dict(map(install.name_and_version, facts.pins.all))
    commands = [_pip(facts, f"install --no-deps {name}=={tested[name]}") for name, _ in clashes if name in tested]
    advice = _do("put the tested versions back", *dict.fromkeys(commands)) if commands else "install what they need"
    advice = _set_up_again(facts) if facts.course_venv else advice
    return Check("packages fit together", "", "; ".join(text for _, text in clashes), False, advice)


def _damage(facts: Facts) -> Check:
    """Installations that were mixed or stopped: pip takes them for whole, and they fail on import."""
    wrong = {name: "copied in part" for name in facts.unfinished} | {name: "there twice" for name in facts.twice}
    for name, version in facts.files.items():
        if name in facts.installed and version.partition("+")[0] != facts.installed[name].partition("+")[0]:
            wrong[name] = f"pip says {facts.installed[name]}, its files say {version}"
    if not wrong:
        return Check("packages are whole", "", "yes", True)
    tested = dict(map(install.name_and_version, (*facts.pins.all, *facts.pins.no_deps)))
    pins = " ".join(f"{name}=={tested[name]}" if name in tested else name for name in wrong)
    delete = "Remove-Item -Recurse venv" if _windows(facts) else "rm -r venv"
    if facts.course_venv:
        why = "delete venv and set the course up anew"
        advice = _set_up_again(facts) if wrong.keys() == {*facts.unfinished} else _do(why, delete, _again(facts))
    else:
        remove = [_pip(facts, f"uninstall -y {name}") for name in facts.twice for _ in range(2)]
        advice = _do("install them anew", *remove, _pip(facts, f"install --no-deps --ignore-installed {pins}"))
    found = "; ".join(f"{name}: {why}" for name, why in wrong.items())
    return Check("packages are whole", "", found, False, advice)


def _shadows(facts: Facts) -> Check:
    if not facts.shadows:
        return Check("nothing hides a package", "", "nothing", True)
    found = "; ".join(f"{path} hides {name}" for name, path in facts.shadows.items())
    move = "Rename-Item" if _windows(facts) else "mv"
    commands = [install.shown((move, path, f"{path}.mine"), _windows(facts)) for path in facts.shadows.values()]
    why = "Python imports your file in place of the package of that name; rename it"
    return Check("nothing hides a package", "", found, False, _do(why, *commands))


def _torch_build(facts: Facts) -> Check:
    tested = "CUDA" if facts.nvidia_driver else "CPU or CUDA"
    found = f"CUDA {facts.cuda_of_torch}" if facts.cuda_of_torch else "CPU"
    found += ", NVIDIA driver found" if facts.nvidia_driver else ", no NVIDIA driver"
    torch = facts.installed.get("torch")
    forced = facts.environment.get("UNSLOTH_FORCE_CPU") == "1"
    if facts.nvidia_driver and torch and forced:
        return Check("torch build", tested, found, True, "UNSLOTH_FORCE_CPU=1 is set: the graphics card is not used")
    if facts.nvidia_driver and facts.cuda_of_torch and facts.cuda_works is False:
        return Check("torch build", tested, f"{found}, which torch cannot use", False, _unused_card(facts))
    if not facts.nvidia_driver or facts.cuda_of_torch or not torch:
        return Check("torch build", tested, found, True)
    if not facts.pins.cuda:
        return Check("torch build", tested, found, False, "put a CUDA build of torch in its place")
    return Check("torch build", tested, found, False, install.driver_notice(torch, None, facts.pins, facts.executable))


def _unused_card(facts: Facts) -> str:
    visible = facts.environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        why = f"CUDA_VISIBLE_DEVICES={visible!r} may hide the graphics card: unset it"
        return _unset(facts, "CUDA_VISIBLE_DEVICES", why)
    why = f"update the driver to one for CUDA {facts.cuda_of_torch} or newer; the driver says at the top what it can do"
    return _do(why, "nvidia-smi")


def _numpy(facts: Facts) -> Check:
    ok = not facts.numpy_problem
    found = facts.numpy_problem or facts.installed.get("numpy", "missing")
    tested = dict(map(install.name_and_version, facts.pins.all)).get("numpy", "")
    why = "torch and numpy were built for different versions of each other: "
    return Check("torch and numpy", "", found, ok, "" if ok else _repair(facts, why, "numpy", tested))


def _torchvision(facts: Facts) -> Check:
    """torchvision and torchaudio are not needed, and each is built for one torch."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    wrong = {}
    torch = facts.installed.get("torch", "")
    for name in ("torchvision", "torchaudio"):
        found, asked = facts.installed.get(name, ""), facts.needs.get(name, {}).get("torch", "")
        # Only Linux has two kinds; the index's own, without a "+cpu" in its version, is the one for CUDA.
        if found and torch and facts.system == "Linux" and "+cpu" not in found and not facts.cuda_of_torch:
            wrong[name] = "built for CUDA, beside a CPU torch"
        try:
            if found and torch and asked and not SpecifierSet(asked).contains(Version(torch).public, prereleases=True):
                wrong[name] = f"built for torch{asked}, found {torch}"
        except InvalidVersion:
            continue
    found = facts.installed.get("torchvision") or "absent"
    if not wrong:
        return Check("torchvision", "absent", found, True)
    why = "; ".join(f"{name} is {reason}" for name, reason in wrong.items())
    why += "; `import unsloth` breaks with it, and no lesson needs it"
    advice = _do(why, _pip(facts, f"uninstall -y {' '.join(wrong)}"))
    return Check("torchvision", "absent", found, False, advice)


def _mlx(facts: Facts) -> Check:
    apple = facts.system == "Darwin" and facts.architecture == "arm64"
    taken = apple and "mlx" in facts.installed and facts.environment.get("UNSLOTH_FORCE_GPU_PATH") != "1"
    why = "with mlx Unsloth takes its MLX way on an Apple processor, whose DPO and GRPO trainers are stubs"
    advice = _do(f"{why}; remove it from here", _pip(facts, "uninstall -y mlx")) if taken else ""
    return Check("mlx", "absent", facts.installed.get("mlx", "absent"), not taken, advice)


def _environment(facts: Facts, profile: str) -> Check:
    wrong = []
    if facts.environment.get("UNSLOTH_ALLOW_CPU") == "1":
        why = "UNSLOTH_ALLOW_CPU makes Unsloth's tests pretend that there is a GPU, and lessons fail with it"
        wrong.append(_unset(facts, "UNSLOTH_ALLOW_CPU", why))
    if profile == "cpu" and facts.environment.get("UNSLOTH_DISABLE_CPU_FALLBACK") == "1":
        why = "with UNSLOTH_DISABLE_CPU_FALLBACK Unsloth refuses to run on a CPU"
        wrong.append(_unset(facts, "UNSLOTH_DISABLE_CPU_FALLBACK", why))
    found = " ".join(f"{name}={value}" for name, value in facts.environment.items()) or "nothing that matters is set"
    return Check("environment", "", found, not wrong, "\n".join(wrong))


def _threads(facts: Facts) -> Check:
    asked = facts.environment.get("OMP_NUM_THREADS")
    tested = f"1 to {facts.cores}"
    if asked is None:
        return Check("threads", tested, "as many as cores", True)
    ok = asked.strip().isdecimal() and 1 <= int(asked) <= facts.cores
    why = f"{asked} threads do not suit {facts.cores} cores: more threads than cores make a run many times slower"
    return Check("threads", tested, asked, ok, "" if ok else _unset(facts, "OMP_NUM_THREADS", why))


def _encoding(facts: Facts) -> Check:
    utf8 = facts.encoding.lower().replace("_", "-") in ("utf-8", "utf8", "cp65001")
    if utf8 or _windows(facts):  # Windows has its own code page, and the course names the encoding of each file
        return Check("text encoding", "", facts.encoding, True)
    why = "letters outside ASCII cannot be read from files with this locale"
    return Check("text encoding", "UTF-8", facts.encoding, False, _set(facts, "PYTHONUTF8", "1", why))


def _set_up(facts: Facts) -> Check:
    if facts.made_at and facts.made_at != facts.prefix:
        found = f"made in {facts.made_at}, now in {facts.prefix}"
        why = "programs in a virtual environment know their folder: run the set-up again, it makes venv anew"
        return Check("set-up", "finished", found, False, _do(why, _again(facts)))
    found = "finished" if facts.set_up_finished else "stopped half-way"
    return Check(
        "set-up", "finished", found, facts.set_up_finished, "" if facts.set_up_finished else _set_up_again(facts)
    )


def _kernel_check(facts: Facts) -> Check:
    moved = facts.made_at and facts.made_at != facts.prefix  # said already, and mended by the set-up
    here, there = (os.path.normcase(os.path.dirname(path)) for path in (facts.executable, facts.kernel or ""))
    ours = bool(facts.kernel) and here == there
    if facts.kernel is None or moved or ours:
        return Check("Jupyter kernel", install.KERNEL, install.KERNEL, True)
    found = f"starts {facts.kernel}" if facts.kernel else "not registered"
    why = "Jupyter would run the notebooks without these packages; register the kernel"
    command = install.shown(install.kernel_command(facts.executable, facts.prefix), _windows(facts))
    return Check("Jupyter kernel", install.KERNEL, found, False, _do(why, command))


def _hub(facts: Facts, profile: str) -> Check:
    from .profile import HUB_MODEL

    found = f"{facts.hub_cache}: {facts.hub_repositories} models and data sets"
    if profile == "cpu":
        return Check("Hub cache", "", found, True, "the cpu profile does not use it")
    if not facts.hub_cache_writable:
        folder = os.path.join(facts.folder, "huggingface")
        why = "nothing can be written there: choose a folder where you may write"
        return Check("Hub cache", "", found, False, _set(facts, "HF_HOME", folder, why))
    switches = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _on(facts.environment.get(name, ""))]
    if switches and HUB_MODEL not in facts.hub_models:
        why = (
            f"{switches[0]} forbids downloads and {HUB_MODEL} is not there: allow them, or set MODEL = DATA = "
            '"pocket" in the knobs of the lesson'
        )
        return Check("Hub cache", "", found, False, _unset(facts, switches[0], why))
    return Check("Hub cache", "", found, True)


def _on(value: str) -> bool:
    return value.upper() in ("1", "ON", "YES", "TRUE")


def _downloads(facts: Facts) -> Check:
    if not facts.hub_broken:
        return Check("Hub downloads", "", "none is half-way", True)
    found = "; ".join(f"{name}: {problem}" for name, problem in facts.hub_broken.items())
    parts = [name.split(" ", 1) for name in facts.hub_broken]
    hf = os.path.join(os.path.dirname(facts.executable), "hf")
    commands = [(hf, "download", *(["--repo-type", "dataset"] * (kind == "dataset")), name) for kind, name in parts]
    commands = [install.shown(command, _windows(facts)) for command in (*commands, (hf, "cache", "prune", "-y"))]
    why = "a download broke off, and loading it fails; go on with it, or delete what is half-way with the last command"
    return Check("Hub downloads", "", found, False, _do(why, *commands))


def _memory_check(facts: Facts) -> Check:
    needed = f">= {MEMORY_BYTES // GB} GB"
    if not facts.memory_bytes:
        return Check("memory", needed, "unknown", True)
    ok = facts.memory_bytes >= MEMORY_BYTES
    why = "a lesson takes about 2 GB: give the container or virtual machine more, or lift the limit of this shell"
    advice = "" if ok else _do(why, "ulimit -v unlimited")
    return Check("memory", needed, f"{facts.memory_bytes / GB:.1f} GB", ok, advice)


def _disk(facts: Facts, profile: str) -> Check:
    needed = CPU_RUN_BYTES if profile == "cpu" else GPU_RUN_BYTES
    tested, found = f">= {needed // GB} GB", f"{facts.free_bytes / GB:.1f} GB"
    if not facts.folder_writable:
        why = f"nothing can be written in {facts.folder}: work in a folder of your own, such as a copy of the course"
        return Check("free disk", tested, "not writable", False, why)
    if facts.free_bytes >= needed:
        return Check("free disk", tested, found, True)
    why = "lessons save adapters, merged models and results; free some space, for example pip's downloads"
    return Check("free disk", tested, found, False, _do(why, _pip(facts, "cache purge")))


# --- the report -----------------------------------------------------------------------------------------------------


def examine(profile: str | None = None, reason: str | None = None, facts: Facts | None = None) -> Report:
    """The report for this machine. `profile` and `reason` come from `unsloth_course.profile` unless given."""
    looked, facts = facts is None, facts or gather()
    failed = []
    if reason is None:
        try:
            profile, reason = _detected(profile)
            facts = replace(facts, **_tried()) if looked else facts
        except Exception as error:  # a doctor that falls ill over a broken torch would be of no use
            advice = "torch does not load; mend the failed checks below first"
            if all(check.ok for check in judge(facts, profile or "cpu")):
                advice = _repair(facts, "torch does not load: ", "torch", facts.installed.get("torch", ""))
            failed = [Check("profile", "cpu or gpu", _one_line(error), False, advice)]
            profile, reason = profile or "cpu", "the machine could not be examined"
    profile = profile or "cpu"
    return Report(profile, reason, failed + judge(facts, profile))


def _detected(profile: str | None) -> tuple[str, str]:
    from . import profile as profiles

    found = profiles.detect(profile)
    reasons = [choice for choice in found.reasons if choice.what == "profile"] or list(found.reasons)
    return found.name, "; ".join(f"{choice.what} {choice.value}: {choice.why}" for choice in reasons)


def show(report: Report, console: object | None = None) -> None:
    """Prints the report to `console` (a rich Console; else standard output), a line per check with its advice below.

    Sentences are broken between words; commands, which are indented in the advice, are not, so that they can be copied.
    """
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
            command = advice.startswith("    ")
            room = max(console.width - 8, 40)
            for part in (
                [advice] if command else textwrap.wrap(advice, room, break_long_words=False, break_on_hyphens=False)
            ):
                console.print(Text(f"       {part}", style="bold" if command else ""), soft_wrap=True)
    failed = [check.name for check in report.checks if not check.ok]
    said = f"{len(failed)} of {len(report.checks)} checks failed: {', '.join(failed)}." if failed else "All is well."
    console.print(Text(said), soft_wrap=True)
