"""What the doctor looks at: packages, torch's build, environment, Hub cache, disk. Nothing is decided here."""

import json
import locale
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from unsloth_course.core.places import existing
from unsloth_course.lesson.colab.decisions import NOT_NEEDED, requirements
from unsloth_course.setup import looking
from unsloth_course.setup.deciding import KERNEL
from unsloth_course.setup.looking import GB
from unsloth_course.setup.pins import Pins, name_and_version, tested, versions_of

SWITCHES = ("UNSLOTH_ALLOW_CPU", "UNSLOTH_FORCE_CPU", "UNSLOTH_DISABLE_CPU_FALLBACK", "UNSLOTH_FORCE_GPU_PATH")
ENVIRONMENT = (*SWITCHES, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
# Not among the pins, and able to break them.
UNPINNED = ("torchvision", "torchaudio", "xformers", "mlx", "vllm")
SHADOWED = ("unsloth", "unsloth_zoo", "trl", "transformers", "datasets", "torch", "peft", "accelerate", "tokenizers")
SHADOWED += ("safetensors", "huggingface_hub", "numpy", "matplotlib", "ipywidgets", "bitsandbytes", "triton")


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

    @property
    def windows(self) -> bool:
        """Whether commands are typed into PowerShell."""
        return self.system == "Windows"


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
        if asked := _joined(requirements(about.get_all("Requires-Dist") or [])):
            needs[name] = asked
    return versions, needs


def limits_of(needs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Which versions of other packages Unsloth accepts, from what the packages need."""
    asked = [found for package in ("unsloth", "unsloth-zoo") for found in needs.get(package, {}).items()]
    return _joined((name, specifier) for name, specifier in asked if name not in NOT_NEEDED)


def _joined(asked: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Packages and specifiers in, one specifier for each package out; those that accept every version left out."""
    found: dict[str, str] = {}
    for name, specifier in asked:
        if specifier:
            found[name] = f"{found[name]},{specifier}" if name in found else specifier
    return found


def _writable(folder: Path) -> bool:
    """Whether a file can be made in a folder, or in the nearest one above it that exists; by trying."""
    try:
        with tempfile.TemporaryFile(dir=existing(folder)):
            return True
    except OSError:
        return False


def _damaged(names: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of packages: those with two versions in one folder, and those that were copied in part."""
    twice, unfinished = set(), set()
    for folder in {Path(place) for place in sys.path if place and Path(place).is_dir()}:
        seen = set()
        for info in folder.glob("*.dist-info"):
            name = name_and_version(info.name[: -len(".dist-info")].replace("-", "==", 1))[0]
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
        spec = json.loads((prefix / "share/jupyter/kernels" / KERNEL / "kernel.json").read_text("utf-8"))
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
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # no index as it should be
            shards = {index.parent / str(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
            absent = {shard for shard in shards if not shard.exists()}
            lacking |= {shard.name for shard in absent if absent != shards}
    return f"missing: {', '.join(sorted(lacking)[:3])}" + " ..." * (len(lacking) > 3) if lacking else ""


def _memory() -> int:
    """Bytes of memory that this process may have: of the machine, of its container, of `ulimit -v`; 0 if unknown."""
    sizes = []
    with suppress(ImportError):
        import psutil

        sizes.append(psutil.virtual_memory().total)
    with suppress(ImportError, OSError, ValueError):
        import resource

        sizes.append(resource.getrlimit(resource.RLIMIT_AS)[0])
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min((size for size in sizes if size > 0), default=0)


def tried() -> dict[str, object]:
    """What only a try can say of torch: whether CUDA works, and whether it understands numpy."""
    found: dict[str, object] = {}
    try:
        import torch

        found["cuda_works"] = bool(torch.cuda.is_available())
        import numpy

        torch.from_numpy(numpy.zeros(1))
    except Exception as error:
        found["numpy_problem"] = one_line(error)
    return found


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def gather(folder: Path | None = None) -> Facts:
    """The facts of this machine and this Python; `folder` is where the lessons write (the current one by default)."""
    pins = tested()
    folder = (folder or Path.cwd()).absolute()
    names = {*versions_of((*pins.all, *pins.no_deps)), *UNPINNED}
    prefix = Path(sys.prefix)
    course_venv = (prefix / looking.STAMP).exists()
    venv = looking.state_of(prefix) if course_venv else looking.Venv()
    cache = hub_cache(os.environ, Path.home())
    installed, needs = installed_and_needs(names)
    packages = Path(metadata.distribution("torch").locate_file("")) if "torch" in installed else None
    named = ("torch", "numpy") if packages else ()  # whose files name another version than pip, where two were mixed
    files = {name: looking.noted_in(packages / name, "__version__|version") for name in named}
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
        cuda_of_torch=looking.noted_in(packages / "torch", "cuda") if packages else None,
        files={name: version for name, version in files.items() if version},
        twice=twice,
        unfinished=unfinished,
        shadows=shadows((folder, folder / "notebooks", *python_path), packages),
        nvidia_driver=looking.nvidia_driver(),
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
        free_bytes=shutil.disk_usage(existing(folder)).free,
        cores=os.cpu_count() or 1,
        memory_bytes=_memory(),
        encoding=locale.getpreferredencoding(False),
    )
