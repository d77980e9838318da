"""Sets up the course on this computer: `venv/`, the tested packages, Unsloth, this package, a Jupyter kernel.

Run by path with any Python 3.11-3.13, before anything is installed:

    python unsloth_course/setup/install.py [--offline FOLDER] [--run LESSON [ARGUMENTS] | --test [ARGUMENTS] | --gguf]
    python unsloth_course/setup/install.py --prepare FOLDER [--system SYSTEM] [--python VERSION] [--cuda]

Only the standard library, and no other module of the course, is imported here. What to do is decided by pure functions
(`refusal`, `judge`, `plan`: a `Machine`, a `Venv` and the pins in; steps with their reasons out), so that each platform
is tested on any platform; `carry_out` does it. VENV_SETUP.md describes the same steps by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # run by its path, from a Python that knows no package of ours

from unsloth_course.setup.pins import Pins, applies, name_and_version, pinned, read_pins  # noqa: E402 -- found only now

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
GB = 10**9
CPU_BYTES, CUDA_BYTES = 4 * GB, 12 * GB
KERNEL, KERNEL_TITLE = "unsloth-course", "Python (unsloth-course)"
TEST_PROCESSES = 4  # at most, of `--test`
WINDOWS_SCRIPT = r"powershell -ExecutionPolicy Bypass -File .\setup_venv.ps1"
STAMP = "unsloth-course.json"
PREPARED = "prepared.json"  # in a folder that `--prepare` filled
SYSTEMS = {"linux": ("Linux", "x86_64"), "macos": ("Darwin", "arm64"), "windows": ("Windows", "AMD64")}
# What pip calls the systems that `--prepare` can fetch for; manylinux only up to the glibc that torch needs too.
MANYLINUX = ("linux", "manylinux1", "manylinux2010", "manylinux2014", *(f"manylinux_2_{n}" for n in range(5, 29)))
PLATFORMS = {
    "Linux": tuple(f"{name}_x86_64" for name in MANYLINUX),
    "Darwin": ("macosx_14_0_arm64",),
    "Windows": ("win_amd64",),
}

USAGE = """\
Sets up the course in venv/, or finishes what an earlier try left.

  ./setup_venv.sh                      set up only            (Windows: .\\setup_venv.ps1)
  ./setup_venv.sh --run LESSON [...]   set up, then run a lesson: full, lora, dpo, grpo, cpt or all
  ./setup_venv.sh --test [...]         set up, then run the tests
  ./setup_venv.sh --gguf               set up, then build llama.cpp once, for the export to GGUF (about 7 minutes)

Without network: fetch everything into a folder where there is one, copy the folder, and install from it.

  ./setup_venv.sh --prepare FOLDER [--system linux|macos|windows] [--python 3.12] [--cuda]
  ./setup_venv.sh --offline FOLDER [--run LESSON [...] | --test [...]]

What follows LESSON goes to `python -m unsloth_course run`, what follows --test goes to pytest.
"""


class SetupError(Exception):
    """A sentence for the learner: what was found, where, and what to do next."""


# --- what was found ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What the decisions depend on. `system` and `architecture` as `platform` spells them; `free_bytes` on the disk."""

    system: str = "Linux"
    architecture: str = "x86_64"
    python: tuple[int, int, int] = (3, 12, 0)
    bits: int = 64
    nvidia_driver: bool = False
    free_bytes: int = 100 * GB

    @property
    def torch_flavour(self) -> str:
        """Which torch belongs here: "cuda" or "cpu"."""
        return "cuda" if self.nvidia_driver and self.system in ("Linux", "Windows") else "cpu"


@dataclass(frozen=True)
class Venv:
    """What is in the folder `venv`. `python` is None when its Python or its pip does not work."""

    exists: bool = False
    ours_to_delete: bool = True
    python: tuple[int, int, int] | None = None
    made_at: str | None = None
    fingerprint: str | None = None
    installed: Mapping[str, str] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What is to be done with `venv`: "create", "rebuild", "finish", "ready" or "refuse", and why."""

    action: str
    reason: str


@dataclass(frozen=True)
class Step:
    """Commands that run one after the other, the reason for them, and what is tried if one of them fails."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    reason: str
    otherwise: Step | None = None
    needs_bytes: int = 0
    into: str = ""  # the folder that fills, where it is not the course's own


def nvidia_driver() -> bool:
    """Whether an NVIDIA driver answers on this machine: nvidia-smi lists a GPU, or Linux has the driver loaded."""
    places = ["nvidia-smi", r"C:\Windows\System32\nvidia-smi.exe", "/usr/lib/wsl/lib/nvidia-smi"]
    for command in filter(None, map(shutil.which, places)):
        try:
            found = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            continue
        if found.returncode == 0 and "GPU" in found.stdout:
            return True
    return Path("/proc/driver/nvidia/version").exists() and Path("/dev/nvidia0").exists()


def this_machine(root: Path) -> Machine:
    """The facts of this computer and the Python that runs this file."""
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        python=sys.version_info[:3],
        bits=64 if sys.maxsize > 2**32 else 32,
        nvidia_driver=nvidia_driver(),
        free_bytes=shutil.disk_usage(root).free,
    )


def venv_python(venv: Path) -> Path:
    """The Python inside a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def site_packages(venv: Path) -> list[Path]:
    """The folders inside `venv` that packages are installed into."""
    return [*venv.glob("lib/python3.*/site-packages"), *venv.glob("Lib/site-packages")][:1]


def unfinished_packages(venv: Path) -> list[Path]:
    """What a killed pip leaves: pip writes RECORD last, so a `.dist-info` without it is a package copied in part, which
    pip would take for installed; folders that begin with `~` are half removed."""
    found = []
    for folder in site_packages(venv):
        found += [info for info in folder.glob("*.dist-info") if not (info / "RECORD").exists()]
        found += folder.glob("~*")
    return found


def installed_versions(venv: Path) -> dict[str, str]:
    """Names and versions of the packages in `venv`, read off the names of their `.dist-info` folders (milliseconds)."""
    infos = [info.name for folder in site_packages(venv) for info in folder.glob("*.dist-info")]
    return dict(name_and_version(info[: -len(".dist-info")].replace("-", "==", 1)) for info in infos)


def cuda_of_torch(packages: Path) -> str | None:
    """The CUDA version that the torch in a site-packages folder was built for; None for a CPU build."""
    try:
        text = (packages / "torch" / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^cuda\b.*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return found[1] if found else None


def look_at(venv: Path) -> Venv:
    """The state of the folder `venv`."""
    if not venv.exists() and not venv.is_symlink():
        return Venv()
    try:
        stamp = dict(json.loads((venv / STAMP).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        stamp = {}
    known = (venv / STAMP).exists() or (venv / "pyvenv.cfg").exists()
    empty = venv.is_dir() and not any(venv.iterdir())
    return Venv(
        exists=True,
        ours_to_delete=venv.is_dir() and not venv.is_symlink() and (known or empty),
        python=working_python(venv_python(venv)),
        made_at=stamp.get("folder"),
        fingerprint=stamp.get("fingerprint"),
        installed=installed_versions(venv),
        unfinished=tuple(sorted(path.name for path in unfinished_packages(venv))),
    )


def working_python(python: Path) -> tuple[int, int, int] | None:
    """The version of a Python whose pip can be imported, else None."""
    question = "import pip, sys; print(*sys.version_info[:3])"
    try:
        answer = subprocess.run([str(python), "-c", question], capture_output=True, text=True, timeout=60, check=False)
        major, minor, patch = map(int, answer.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return (major, minor, patch) if answer.returncode == 0 else None


# --- decisions --------------------------------------------------------------------------------------------------------


def refusal(machine: Machine, fresh: bool) -> str | None:
    """Why the course cannot be set up on `machine`, in a sentence, or None. `fresh`: there is no usable `venv` yet."""
    version = ".".join(map(str, machine.python))
    if not OLDEST_PYTHON <= machine.python[:2] <= NEWEST_PYTHON:
        return f"This is Python {version}; the course needs 3.11, 3.12 or 3.13. Install one of them and run this again."
    if machine.bits != 64:
        return (
            f"This Python {version} is a 32-bit one, which PyTorch lacks. Install a 64-bit Python and run this again."
        )
    if machine.system == "Darwin" and machine.architecture == "x86_64":
        return (
            "PyTorch has stopped supporting Macs with an Intel processor (on an Apple processor this means an Intel "
            "Python: install the arm64 one). Use the notebooks in Colab instead."
        )
    if machine.system == "Windows" and machine.architecture.upper() == "ARM64":
        return (
            "PyTorch has no tested build for Windows on ARM. Install the x64 Python 3.12, which Windows runs there too."
        )
    needed = CUDA_BYTES if machine.torch_flavour == "cuda" else CPU_BYTES
    if fresh and machine.free_bytes < needed:
        return (
            f"The disk has {machine.free_bytes / GB:.1f} GB free and the set-up needs about {needed / GB:.0f} GB. "
            "Free some space, or move the course to a bigger disk, and run this again."
        )
    return None


def fingerprint(text: str, python: Sequence[int], flavour: str) -> str:
    """Hash of what decides the contents of `venv`: `text` (requirements.txt and pyproject.toml), Python 3.x, torch."""
    return hashlib.sha256(f"{text}\n{tuple(python[:2])} {flavour}".encode()).hexdigest()[:16]


def judge(
    venv: Venv,
    folder: str,
    wanted: Callable[[Sequence[int]], str],
    pins: Pins,
    system: str = platform.system(),
) -> Verdict:
    """What is to be done with `venv` in `folder`. `wanted` gives the fingerprint of a finished one for its Python."""
    if not venv.exists:
        return Verdict("create", "there is no venv yet")
    verdict = _judge_existing(venv, folder, wanted, pins, system)
    if verdict.action == "rebuild" and not venv.ours_to_delete:
        return Verdict("refuse", f"{folder} is not a virtual environment that can be replaced: {verdict.reason}")
    return verdict


def _judge_existing(
    venv: Venv, folder: str, wanted: Callable[[Sequence[int]], str], pins: Pins, system: str
) -> Verdict:
    if venv.python is None:
        return Verdict(
            "rebuild", "its Python or its pip does not work (the folder was moved, or an earlier set-up was stopped)"
        )
    if not OLDEST_PYTHON <= venv.python[:2] <= NEWEST_PYTHON:
        return Verdict(
            "rebuild", f"it was made with Python {'.'.join(map(str, venv.python))}, which the course does not support"
        )
    if venv.made_at not in (None, folder):
        return Verdict("rebuild", f"it was made in {venv.made_at} and its programs still point there")
    if venv.fingerprint is None:
        return Verdict("finish", "an earlier set-up did not get to its end")
    if venv.fingerprint != wanted(venv.python):
        return Verdict("finish", "the pins, the Python or the graphics driver changed since it was set up")
    if venv.unfinished:
        return Verdict("finish", f"copied in part: {_some(venv.unfinished)}")
    changed = _changed(venv, pins, system)
    if changed:
        return Verdict("finish", f"not at the tested version any more: {_some(changed)}")
    return Verdict("ready", "all is in place")


def _changed(venv: Venv, pins: Pins, system: str) -> list[str]:
    """The packages of a finished `venv` that are missing, or there in another version than a tested one."""
    tested: dict[str, set[str]] = {}
    for pin in (*pins.all, *pins.cuda, *pins.no_deps):
        if applies(pin, system, venv.python or ()):
            name, version = name_and_version(pin)
            tested.setdefault(name, set()).add(version)
    # torch has two tested versions and a suffix that names the build, as in 2.13.0+cpu.
    found = {name: venv.installed.get(name, "").partition("+")[0] for name in tested}
    return sorted(name for name, versions in tested.items() if found[name] not in versions)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def plan(
    machine: Machine, verdict: Verdict, pins: Pins, python: str, venv: str, wheels: Path | None = None
) -> list[Step]:
    """The steps from what was found to a finished set-up. `python` is (or will be) the one in the folder `venv`.

    `wheels` is a folder that `--prepare` filled: everything comes from there, and pip looks nowhere else.
    """
    if verdict.action == "ready":
        return []
    cuda = machine.torch_flavour == "cuda"
    special = {name_and_version(pin)[0] for pin in pins.cuda} if cuda else {"torch"}
    packages = tuple(pin for pin in pins.all if name_and_version(pin)[0] not in special)
    steps = [
        Step(
            "the pinned packages",
            (_pip(python, "--no-deps", *packages),),
            "requirements.txt lists all that is needed, so pip looks nothing else up",
        ),
        _torch(machine, pins, python, wheels),
        Step(
            "Unsloth",
            (_pip(python, "--no-deps", *pins.no_deps),),
            "without its dependencies, which are all there: it asks for a certifi that not every index has",
        ),
        Step(
            "this course's package",
            (_pip(python, "--no-deps", "--no-build-isolation", "-e", "."),),
            "editable: a change in unsloth_course/ takes effect at once",
        ),
        Step(
            f"Jupyter kernel {KERNEL_TITLE!r}",
            (kernel_command(python, venv),),
            "inside venv, so that nothing outside it is touched",
        ),
        Step("PyTorch loads", ((python, "-c", "import torch"),), "a missing system library shows now, not in a lesson"),
    ]
    if verdict.action != "finish":
        base = getattr(sys, "_base_executable", sys.executable)
        steps.insert(0, Step("virtual environment", ((base, "-m", "venv", venv),), verdict.reason))
    if wheels and pins.model:
        make = (python, "-m", "unsloth_course.lesson.smollm2", str(wheels))
        steps.append(Step("SmolLM2-135M-Instruct", (make,), "the model smollm2, into the user's cache"))
    return [_from_folder(step, wheels) for step in steps] if wheels else steps


def _from_folder(step: Step, wheels: Path) -> Step:
    """The same step with pip confined to a folder: --isolated leaves its settings and environment out too."""

    def confined(command: tuple[str, ...]) -> tuple[str, ...]:
        if command[1:4] != ("-m", "pip", "install"):
            return command
        return (*command[:4], "--isolated", "--no-index", "--find-links", str(wheels), *command[4:])

    return replace(step, commands=tuple(map(confined, step.commands)))


def _torch(machine: Machine, pins: Pins, python: str, wheels: Path | None) -> Step:
    cuda = machine.torch_flavour == "cuda"
    if wheels is None:
        return _cuda_torch(machine, pins, python) if cuda else _cpu_torch(machine, pins, python)
    if cuda:
        return Step("PyTorch for CUDA", (_pip(python, *pins.cuda),), "as prepared")
    pin = pinned(pins.all, "torch")
    alone = machine.system != "Linux" or any(wheels.glob(f"{pin.replace('==', '-')}+cpu-*.whl"))
    return Step(f"PyTorch {pin}", (_pip(python, *(["--no-deps"] if alone else []), pin),), "as prepared")


def kernel_command(python: str, venv: str) -> tuple[str, ...]:
    """The command that registers the Jupyter kernel inside `venv`."""
    kernel = ("--name", KERNEL, "--display-name", KERNEL_TITLE)
    return (python, "-m", "ipykernel", "install", "--prefix", venv, *kernel)


def _pip(python: str, *arguments: str) -> tuple[str, ...]:
    # pip compiles every file, and that is worth its 20 seconds: where PYTHONDONTWRITEBYTECODE is set, as in many
    # containers, `import unsloth` takes twice as long without.
    return (python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments)


def uv_settings(environment: Mapping[str, str], pip_config: str) -> dict[str, str]:
    """What uv is to be told of pip's settings, which it does not read itself: proxy, certificate and time-out.

    `pip_config` is what `pip config list` prints: lines such as `global.proxy='...'` or `:env:.cert='...'`. What uv
    itself was told in the environment stays. The index is left alone: uv is asked because pip's has no such torch.
    """
    lines = re.findall(r"^(global|install|:env:)\.([\w-]+)='(.*)'$", pip_config, re.MULTILINE)
    # A variable goes before a file, whatever the order of the list.
    told = {name: value for where, name, value in sorted(lines, key=lambda line: line[0] == ":env:")}
    names = {
        "proxy": ("HTTPS_PROXY", "HTTP_PROXY"),
        "cert": ("SSL_CERT_FILE",),
        "default-timeout": ("UV_HTTP_TIMEOUT",),
    }
    names["timeout"] = names["default-timeout"]
    wanted = {name: told[setting] for setting, all_names in names.items() if setting in told for name in all_names}
    return {name: value for name, value in wanted.items() if not {name, name.lower()} & environment.keys()}


def _uv(python: str, pins: Pins, backend: str, *arguments: str) -> tuple[tuple[str, ...], ...]:
    install = (python, "-m", "uv", "pip", "install", "-q", "--python", python, "--torch-backend", backend, *arguments)
    return (_pip(python, *pins.helper), install)


def _cpu_torch(machine: Machine, pins: Pins, python: str) -> Step:
    pin = pinned(pins.all, "torch")
    if machine.system != "Linux":
        return Step(f"PyTorch {pin}", (_pip(python, "--no-deps", pin),), "the index's own build is the right one here")
    whole = Step(
        f"PyTorch {pin} with CUDA libraries this machine has no use for (about 3 GB)",
        (_pip(python, pin),),
        "no CPU build was found: the index's Linux build works on a CPU, it is only large",
        needs_bytes=CUDA_BYTES,
    )
    through_uv = Step(
        f"PyTorch {pin} for the CPU, through uv",
        _uv(python, pins, "cpu", "--no-deps", pin),
        "pip's index has no CPU build; uv knows PyTorch's own index",
        otherwise=whole,
    )
    return Step(
        f"PyTorch {pin} for the CPU",
        (_pip(python, "--no-deps", f"{pin}+cpu"),),
        "no NVIDIA driver was found, and the CPU build is ten times smaller",
        otherwise=through_uv,
    )


def _cuda_torch(machine: Machine, pins: Pins, python: str) -> Step:
    if machine.system == "Windows":
        cpu = pinned(pins.all, "torch")
        last = Step(
            f"PyTorch {cpu} for the CPU", (_pip(python, cpu),), "no CUDA build was found; lessons run on the CPU"
        )
    else:
        last = Step(
            "PyTorch for CUDA, from pip's index", (_pip(python, *pins.cuda),), "the index's Linux build is for CUDA"
        )
    return Step(
        "PyTorch for CUDA, through uv (about 3 GB)",
        _uv(python, pins, "auto", *pins.cuda),
        "an NVIDIA driver was found; uv picks the build that fits it from PyTorch's own index",
        otherwise=last,
    )


def driver_notice(torch_version: str | None, cuda: str | None, pins: Pins, python: str) -> str:
    """What to say on a machine with an NVIDIA driver whose torch was built without CUDA; "" if torch has CUDA."""
    if cuda or not torch_version:
        return ""
    torch = pinned(pins.cuda, "torch")
    commands = [_pip(python, *pins.helper)]
    commands += [
        (python, "-m", "uv", "pip", "install", "--python", python, "--torch-backend", "auto", "--reinstall", torch)
    ]
    return (
        f"This machine has an NVIDIA driver, but torch {torch_version} is a CPU build: the graphics card is not used. "
        f"To put a CUDA build in its place:\n    " + "\n    ".join(map(shown, commands)) + "\n"
        "Until then the lessons run on the CPU (the cpu profile sets UNSLOTH_FORCE_CPU=1, else Unsloth refuses)."
    )


def shown(command: Sequence[str], windows: bool = os.name == "nt") -> str:
    """A command as it is typed, in PowerShell on Windows."""
    if not windows:
        return shlex.join(command)
    first, *rest = (quoted(word, windows) for word in command)
    return " ".join(["& " * first.startswith("'") + first, *rest])


def quoted(word: str, windows: bool = os.name == "nt") -> str:
    """A word of a command, in quotes where it needs them."""
    if not windows:
        return shlex.quote(word)
    return word if re.fullmatch(r"[\w.:\\/=+-]+", word) else "'" + word.replace("'", "''") + "'"


# --- doing it ---------------------------------------------------------------------------------------------------------

CAUSES = (
    (
        r"No space left on device|not enough space on the disk|WinError 112",
        "The disk is full. Free some space",
    ),
    (
        r"Could not find a suitable TLS CA certificate bundle, invalid path: (?P<what>.+)",
        "There is no file {what}, which pip's settings name as the certificate. Mend PIP_CERT or `pip config list`",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "The network's certificate was not accepted. Give pip the certificate of your proxy (PIP_CERT)",
    ),
    (
        r"\b407\b|Proxy Authentication",
        "The proxy wants a login. Put it into HTTPS_PROXY",
    ),
    (
        r"\b40[13]\b.*(Client Error|Unauthorized|Forbidden)",
        "The package index refused the login. Check pip's settings (`pip config list`)",
    ),
    (
        r"No CMAKE_C(XX)?_COMPILER could be found|CMAKE_C(XX)?_COMPILER not set|Could not find any instance of Visual",
        "There is no C++ compiler. Install one (Debian and Ubuntu: sudo apt install build-essential; macOS: "
        "xcode-select --install; Windows: the Visual Studio build tools for C++)",
    ),
    (
        r"Killed signal|out of memory|cannot allocate memory",
        "The compiler ran out of memory. Close other programs",
    ),
    (
        r"name resolution|NameResolutionError|getaddrinfo|Failed to establish|Network is unreachable|Max retries"
        r"|timed out|ConnectionError|Connection (refused|reset|broken)|ProtocolError|dns error|error sending request"
        r"|Failed to fetch",
        "The package index cannot be reached. Check the network and pip's settings (`pip config list`)",
    ),
    (
        r"No matching distribution found for (?P<what>\S+)",
        "The package index has no {what} for this Python and this system. A mirror may lack it; else try Python 3.12",
    ),
    (
        r"ensurepip is not available|No module named '?(venv|ensurepip)",
        "This Python comes without venv. On Debian and Ubuntu: sudo apt install python3-venv",
    ),
    (
        r"WinError (5|32)\b|Permission ?[Dd]enied|PermissionError",
        "A file could not be written. Close notebooks, VS Code and terminals that use venv; check who owns the folder",
    ),
    (
        r"WinError (126|127|1114)\b|DLL load failed",
        "A Windows library is missing. Install the Microsoft Visual C++ Redistributable (x64)",
    ),
    (
        r"Failed building|subprocess-exited-with-error",
        "A package has no ready-made build for this Python and this system. Try Python 3.12",
    ),
)


def explain(output: str) -> str:
    """What a failed command's output means, in a sentence, and what to do."""
    for pattern, sentence in CAUSES:
        found = re.search(pattern, output)
        if found:
            return sentence.format(**found.groupdict()) + ", then run this again; it goes on from here."
    return "Run this again, it goes on from here; if it stops at the same place, the lines above say why."


def say_now(line: str) -> None:
    """Prints a line at once, also into a pipe or a log."""
    print(line, flush=True)


def carry_out(steps: Sequence[Step], root: Path, say: Callable[[str], None] = say_now) -> None:
    """Runs the steps in `root`, a line each with its seconds; SetupError at the first that fails for good."""
    for number, step in enumerate(steps, 1):
        label = f"[{number}/{len(steps)}]"
        while output := _run_step(step, root, label, say):
            if step.otherwise is None:
                tail = "\n".join("    " + line for line in output.strip().splitlines()[-12:])
                raise SetupError(f"Step {number} of {len(steps)}, {step.name}, failed:\n{tail}\n{explain(output)}")
            say(f"{label} {step.name}: did not work; {step.otherwise.reason}")
            step = step.otherwise


def _environment_for(command: Sequence[str]) -> dict[str, str] | None:
    """The environment of a command; None for this process's own."""
    if command[1:3] != ("-m", "uv"):
        return None
    listing = subprocess.run([command[0], "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    return {**os.environ, **uv_settings(os.environ, listing.stdout)}


def _run_step(step: Step, root: Path, label: str, say: Callable[[str], None]) -> str:
    """Runs the commands of a step; "" when all went well, else the output of the one that failed."""
    free = shutil.disk_usage(step.into or root).free
    if free < step.needs_bytes:
        return f"No space left on device: {free / GB:.1f} GB are free, {step.needs_bytes / GB:.0f} GB are needed"
    start = time.monotonic()
    for command in step.commands:
        code, output = _run(command, root, f"{label} {step.name}")
        if code:
            return output.strip() or f"exit status {code} without a word"
    say(f"{label} {step.name}: {time.monotonic() - start:.0f} s")
    return ""


def _run(command: Sequence[str], root: Path, doing: str) -> tuple[int, str]:
    """Exit status and output of a command; on a terminal the seconds count while it runs."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command,
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment_for(command),
            )
        except OSError as error:
            return 1, str(error)
        while True:
            try:
                code = process.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                _show_seconds(f"{doing} ... {time.monotonic() - start:.0f} s")
            except KeyboardInterrupt:
                process.wait()
                raise
        _show_seconds("")
        log.seek(0)
        return code, log.read().decode("utf-8", "replace")


def _show_seconds(text: str) -> None:
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns - 1, 1)  # a longer one would leave a line each second
        print(f"\r{text[:width]:<{width}}\r", end="", flush=True)


def write_stamp(venv: Path, finished: str | None) -> None:
    """Notes in `venv` where it was made and, when it is finished, the fingerprint of what is in it."""
    venv.mkdir(parents=True, exist_ok=True)
    (venv / STAMP).write_text(json.dumps({"folder": str(venv), "fingerprint": finished}) + "\n", encoding="utf-8")


def remove(paths: Sequence[Path]) -> None:
    """Deletes folders and files; SetupError if one of them is in use."""
    for path in paths:
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError as error:
            raise SetupError(
                f"{path} cannot be deleted ({error}). Close notebooks, VS Code and terminals that use it, "
                "then run this again."
            ) from None


def set_up(root: Path, say: Callable[[str], None] = say_now, wheels: Path | None = None) -> Path:
    """Brings `root`/venv into the tested state and returns its Python; SetupError with a sentence if that cannot be.

    `wheels` is a folder that `prepare` filled: it is checked before anything is changed, and nothing else is asked.
    """
    venv = root / "venv"
    python = venv_python(venv)
    machine, found = this_machine(root), look_at(venv)
    text = "".join(_read(root / name) for name in ("requirements.txt", "pyproject.toml"))
    pins = read_pins(_read(root / "requirements.txt"))

    def wanted(version: Sequence[int]) -> str:
        return fingerprint(text, version, machine.torch_flavour)

    verdict = judge(found, str(venv), wanted, pins, machine.system)
    if verdict.action == "refuse":
        raise SetupError(f"{verdict.reason}. Move it away and run this again.")
    problem = refusal(machine, fresh=verdict.action == "create") if verdict.action != "ready" else None
    if problem:
        raise SetupError(problem)
    if wheels and verdict.action != "ready":
        kept = found.python if verdict.action == "finish" and found.python else machine.python
        check_prepared(wheels, Target(machine.system, machine.architecture, kept[:2], machine.torch_flavour), pins)
    if verdict.action != "ready":
        say(f"Setting up in {venv} ({verdict.reason})")
        write_stamp(venv, None)
        rebuild = verdict.action == "rebuild"
        # The stamp stays to the last: if this is killed half-way, the next run still knows the folder as its own.
        remove([path for path in venv.iterdir() if path.name != STAMP] if rebuild else unfinished_packages(venv))
        start = time.monotonic()
        carry_out(plan(machine, verdict, pins, str(python), str(venv), wheels), root, say)
        write_stamp(venv, wanted(working_python(python) or machine.python))
        say(f"The course is set up ({time.monotonic() - start:.0f} s). Its Python: {python}")
    if machine.torch_flavour == "cuda":
        cuda = next(map(cuda_of_torch, site_packages(venv)), None)
        notice = driver_notice(installed_versions(venv).get("torch"), cuda, pins, str(python))
        if notice:
            say(notice)
    return python


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} cannot be read ({error}). Get a fresh copy of the course.") from None


# --- a set-up without network -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What a prepared folder is for: system and architecture as `platform` spells them, Python 3.x, "cpu" or "cuda"."""

    system: str
    architecture: str
    python: tuple[int, int]
    flavour: str

    def __str__(self) -> str:
        names = {"Darwin": "macOS", "AMD64": "x86_64"}
        machine = f"{names.get(self.system, self.system)} {names.get(self.architecture, self.architecture)}"
        return f"{machine}, Python {'.'.join(map(str, self.python))}, torch for {self.flavour.upper()}"

    @property
    def options(self) -> str:
        """The arguments of `--prepare` that ask for it."""
        system = next((name for name, where in SYSTEMS.items() if where[0] == self.system), self.system)
        cuda = " --cuda" if self.flavour == "cuda" else ""
        return f"--system {system} --python {'.'.join(map(str, self.python))}{cuda}"


def target_of(arguments: Sequence[str], machine: Machine) -> Target:
    """The options of `--prepare` in, what is to be fetched out: this machine, or what they name, with CUDA if asked."""
    system, architecture, python, cuda = machine.system, machine.architecture, machine.python[:2], False
    words = list(arguments)
    while words:
        option = words.pop(0)
        value = words.pop(0) if option in ("--system", "--python") and words else ""
        if option == "--system" and value in SYSTEMS:
            if SYSTEMS[value][0] != machine.system:
                system, architecture = SYSTEMS[value]
        elif option == "--python" and re.fullmatch(r"3\.\d+", value):
            python = (3, int(value[2:]))
        elif option == "--cuda":
            cuda = True
        else:
            raise SetupError(
                f"{option} {value}".strip() + " is not understood. After --prepare FOLDER there may be --system with "
                "linux, macos or windows, --python with 3.11, 3.12 or 3.13, and --cuda."
            )
    problem = refusal(Machine(system, architecture, (*python, 0)), fresh=False)
    if problem:
        raise SetupError(problem)
    if not arguments:
        cuda = machine.torch_flavour == "cuda"
    return Target(system, architecture, python, "cuda" if cuda and system != "Darwin" else "cpu")


def pins_for(target: Target, pins: Pins) -> tuple[str, ...]:
    """The pins that a prepared folder must hold, without their markers."""
    cuda = pins.cuda if target.flavour == "cuda" else ()
    special = {name_and_version(pin)[0] for pin in cuda}
    wanted = [pin for pin in pins.all if name_and_version(pin)[0] not in special]
    wanted = [pin for pin in (*wanted, *cuda, *pins.no_deps, *pins.model) if applies(pin, target.system, target.python)]
    return tuple(pin.partition(";")[0].strip() for pin in wanted)


def prepare_steps(python: str, target: Target, machine: Machine, pins: Pins, folder: str) -> list[Step]:
    """The steps that fetch what `target` needs into `folder`, with the pip of `python`."""
    pip = (python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--only-binary", ":all:")
    pip += ("--dest", folder)
    same_system = (target.system, target.architecture) == (machine.system, machine.architecture)
    if not same_system or target.python != machine.python[:2]:
        usual = (target.system, target.architecture) in SYSTEMS.values()
        platforms = PLATFORMS[target.system] if usual else ()
        pip += tuple(word for name in platforms for word in ("--platform", name))
        pip += ("--implementation", "cp", "--python-version", ".".join(map(str, target.python)))
    wanted = pins_for(target, pins)
    torch = pinned(wanted, "torch")
    rest = tuple(pin for pin in wanted if pin != torch)
    alone = Step(f"PyTorch {torch}", ((*pip, "--no-deps", torch),), "the index's own build is the right one there")
    name = f"PyTorch {torch} and CUDA's libraries (about 3 GB)"
    whole = Step(name, ((*pip, torch),), "CUDA", needs_bytes=CUDA_BYTES, into=folder)
    if target.system != "Linux":
        step = alone
    elif not same_system:  # markers of torch's own dependencies are judged for the machine that pip runs on
        step = replace(alone, name=f"PyTorch {torch} for the CPU", commands=((*pip, "--no-deps", f"{torch}+cpu"),))
    elif target.flavour == "cuda":
        step = whole
    else:
        whole = replace(whole, reason="pip's index has no CPU build; PIP_EXTRA_INDEX_URL can name PyTorch's own index")
        step = Step(f"PyTorch {torch} for the CPU", ((*pip, "--no-deps", f"{torch}+cpu"),), "small", otherwise=whole)
    return [Step("the pinned packages", ((*pip, "--no-deps", *rest),), "requirements.txt lists all"), step]


def prepare(root: Path, folder: Path, arguments: Sequence[str], say: Callable[[str], None] = say_now) -> Target:
    """Fetches into `folder` all that a set-up of `target_of(arguments)` installs, and notes each file's SHA-256."""
    machine, pins = this_machine(root), read_pins(_read(root / "requirements.txt"))
    target = target_of(arguments, machine)
    if target.flavour == "cuda" and target.system == "Linux" and machine.system != "Linux":
        raise SetupError("CUDA's libraries for Linux can only be gathered on Linux. Run this there, or without --cuda.")
    if problem := refusal(machine, fresh=False):
        raise SetupError(problem)
    folder = folder.expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PREPARED).unlink(missing_ok=True)
    say(f"Fetching into {folder} what the course needs on {target}")
    with tempfile.TemporaryDirectory() as place:
        python = venv_python(root / "venv")
        steps = []
        if (working_python(python) or ())[:2] != machine.python[:2]:
            base, python = getattr(sys, "_base_executable", sys.executable), venv_python(Path(place, "venv"))
            made = ((base, "-m", "venv", str(Path(place, "venv"))),)
            steps = [Step("a virtual environment, for its pip", made, "thrown away afterwards")]
        carry_out([*steps, *prepare_steps(str(python), target, machine, pins, str(folder))], root, say)
    if missing := missing_wheels([path.name for path in folder.glob("*.whl")], pins_for(target, pins)):
        raise SetupError(f"pip did not bring {_some(missing)}. Run this again; it goes on from here.")
    if target.flavour == "cuda" and target.system == "Windows" and not any(folder.glob("torch-*+cu*.whl")):
        raise SetupError(
            "pip's index has only CPU builds of torch for Windows. Set PIP_EXTRA_INDEX_URL to PyTorch's index for "
            "CUDA, delete the torch file in the folder, and run this again; or leave --cuda out."
        )
    files = {path.name: _sha256(path) for path in sorted(folder.glob("*.whl"))}
    note = {"target": asdict(target), "files": files}
    (folder / PREPARED).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.glob("*.whl")) / GB
    windows = target.system == "Windows"
    script = WINDOWS_SCRIPT if windows else "./setup_venv.sh"
    say(
        f"{folder} holds {len(files)} files, {size:.1f} GB. Copy it into the course on the other machine and run there:"
    )
    say(f"    {script} --offline {quoted(folder.name, windows)}")
    return target


def missing_wheels(files: Sequence[str], pins: Sequence[str]) -> list[str]:
    """The pins for which there is no wheel among the file names."""
    there = set()
    for file in files:
        name, _, rest = file.partition("-")
        version = rest.partition("-")[0].partition("+")[0]
        there.add((name_and_version(name)[0], version))
    return [pin for pin in pins if name_and_version(pin) not in there]


def check_prepared(folder: Path, target: Target, pins: Pins) -> None:
    """SetupError with a sentence unless `folder` holds, undamaged, all that `target` needs."""
    windows = target.system == "Windows"
    script = WINDOWS_SCRIPT if windows else "./setup_venv.sh"
    again = f"Where there is network, run: {script} --prepare {quoted(folder.name, windows)} {target.options}"
    try:
        note = json.loads((folder / PREPARED).read_text(encoding="utf-8"))
        made_for = Target(**{**note["target"], "python": tuple(note["target"]["python"])})
        files = {str(name): str(digest) for name, digest in note["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise SetupError(
            f"{folder} was not prepared for the course, or not to its end ({PREPARED} is missing or damaged). {again}"
        ) from None
    if made_for != target:
        python = ".".join(map(str, made_for.python))
        if replace(made_for, python=target.python) == target:
            program = f"py -{python}" if windows else f"python{python}"
            again += f". Or, if there is a Python {python}: {program} unsloth_course/setup/install.py --offline FOLDER"
        raise SetupError(f"{folder} was prepared for {made_for}; this is {target}. {again}")
    if missing := missing_wheels(list(files), pins_for(target, pins)):
        raise SetupError(f"{folder} was prepared for other versions of the course: {_some(missing)} lack. {again}")
    if absent := [name for name in files if not (folder / name).is_file()]:
        raise SetupError(f"{folder} is not complete, these files lack: {_some(absent)}. Copy it anew.")
    if damaged := [name for name, digest in files.items() if _sha256(folder / name) != digest]:
        raise SetupError(f"{folder} was damaged on its way: {_some(damaged)}. Copy it anew.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- llama.cpp, for the export to GGUF --------------------------------------------------------------------------------

# The source archive on the package index holds the whole llama.cpp tree, its converter too; nothing else is fetched.
LLAMA_CPP, LLAMA_CPP_VERSION = "llama-cpp-python", "0.3.36"
LLAMA_CPP_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
LLAMA_CPP_BYTES = 1 * GB
LLAMA_CPP_PROGRAMS = ("llama-quantize", "llama-server")


def cache_folder(system: str, environment: Mapping[str, str], home: Path) -> Path:
    """Where this system keeps what can be made again: the course's own folder in it."""
    if system == "Windows":
        base = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif system == "Darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "unsloth-course"


def llama_cpp_folder() -> Path:
    """Where llama.cpp is, or will be: `UNSLOTH_LLAMA_CPP_PATH` if it is set, else a folder in the platform's cache."""
    if own := os.environ.get("UNSLOTH_LLAMA_CPP_PATH"):
        return Path(own).expanduser()
    return cache_folder(platform.system(), os.environ, Path.home()) / f"llama.cpp-{LLAMA_CPP_VERSION}"


def llama_cpp_program(folder: Path, name: str) -> Path:
    """The program `name` of the llama.cpp in `folder`, where Unsloth looks for it."""
    return folder / (f"{name}.exe" if os.name == "nt" else name)


def llama_cpp_missing(folder: Path) -> list[str]:
    """What of llama.cpp is not in `folder`: the programs and the converter; empty when it is complete."""
    wanted = [*(llama_cpp_program(folder, name) for name in LLAMA_CPP_PROGRAMS), folder / "convert_hf_to_gguf.py"]
    return [path.name for path in wanted if not path.is_file()]


def llama_cpp_steps(folder: Path, cmake: str, processes: int) -> list[Step]:
    """The two commands that build the programs from the sources in `folder`; both go on where they were stopped."""
    build = str(folder / "build")
    # No web page in the server, no HTTPS: neither is needed, and the page would be downloaded. GGML_NATIVE off, because
    # a cache may be shared by machines with different processors.
    off = ("BUILD_SHARED_LIBS", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_APP", "LLAMA_BUILD_UI")
    off += ("LLAMA_USE_PREBUILT_UI", "LLAMA_OPENSSL", "GGML_NATIVE")
    options = ("-DCMAKE_BUILD_TYPE=Release", *(f"-D{name}=OFF" for name in off))
    targets = ("--target", *LLAMA_CPP_PROGRAMS)
    return [
        Step("llama.cpp is configured", ((cmake, "-S", str(folder), "-B", build, *options),), "CMake"),
        Step(
            "llama.cpp is built (about 7 minutes on two cores)",
            ((cmake, "--build", build, "--config", "Release", "--parallel", str(processes), *targets),),
            "the programs that quantise a model and run it",
        ),
    ]


def build_llama_cpp(python: str, folder: Path, say: Callable[[str], None] = say_now) -> Path:
    """Builds llama.cpp in `folder` from the source archive on pip's index, unless it is there; returns `folder`.

    May be stopped at any time and run again: the archive is checked by its hash, the sources appear in `folder` all at
    once, CMake goes on where it was, and the programs that say "complete" are put in place last. SetupError with a
    sentence when CMake or a compiler is missing, the index cannot be reached or the build fails.
    """
    if not llama_cpp_missing(folder):
        say(f"llama.cpp is in {folder}")
        return folder
    cmake = shutil.which("cmake")
    if cmake is None:
        raise SetupError(
            "CMake was not found, and llama.cpp is built with it. Install it (Debian and Ubuntu: sudo apt install "
            "cmake build-essential; macOS: brew install cmake; Windows: winget install Kitware.CMake), run this again."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not (folder / "CMakeLists.txt").is_file():
        _fetch_llama_cpp(python, folder, say)
    carry_out(llama_cpp_steps(folder, cmake, os.cpu_count() or 1), folder, say)
    for name in LLAMA_CPP_PROGRAMS:
        target = llama_cpp_program(folder, name)
        built = [place / target.name for place in (folder / "build" / "bin", folder / "build" / "bin" / "Release")]
        found = next((path for path in built if path.is_file()), None)
        if found is None:
            raise SetupError(
                f"The build ended without {target.name} in {built[0].parent}. Delete {folder}, run this again."
            )
        whole = target.with_name(f".{target.name}.part")
        shutil.copy2(found, whole)
        whole.replace(target)
    say(f"llama.cpp is built in {folder}")
    return folder


def _fetch_llama_cpp(python: str, folder: Path, say: Callable[[str], None]) -> None:
    """Puts the sources of llama.cpp into `folder`, whole or not at all."""
    if folder.exists():
        raise SetupError(f"{folder} holds something else than llama.cpp's sources. Move it away and run this again.")
    pin = f"{LLAMA_CPP}=={LLAMA_CPP_VERSION}"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as place:
        fetch = (python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps")
        command = (*fetch, "--no-binary", LLAMA_CPP, "--dest", place, pin)
        name = f"the source archive of {pin} (77 MB)"
        step = Step(name, (command,), "llama.cpp", needs_bytes=LLAMA_CPP_BYTES, into=place)
        carry_out([step], folder.parent, say)
        archive = next(Path(place).glob("*.tar.gz"), None)
        if archive is None or hashlib.sha256(archive.read_bytes()).hexdigest() != LLAMA_CPP_SHA256:
            raise SetupError(f"What pip brought as {pin} is not the archive that was tested. Check pip's index.")
        unpack(archive, "vendor/llama.cpp", Path(place) / "sources").replace(folder)


def unpack(archive: Path, inside: str, target: Path) -> Path:
    """Unpacks the folder `inside` the one top folder of a .tar.gz archive; returns where it lies, in `target`."""
    with tarfile.open(archive) as tar:
        top = tar.next().name.partition("/")[0]
        wanted = [member for member in tar.getmembers() if member.name.startswith(f"{top}/{inside}/")]
        if not wanted:
            raise SetupError(f"{archive.name} has no folder {inside}.")
        # The filter refuses paths that lead out of the target; Pythons before 3.11.4 lack it.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(target, members=wanted, **safe)
    return target / top / inside


# --- the program ------------------------------------------------------------------------------------------------------


def command_after(arguments: Sequence[str]) -> list[str]:
    """The arguments of this program in, what the venv's Python is to run after the set-up out; [] for nothing."""
    if not arguments or list(arguments) == ["--gguf"]:
        return []
    option, *rest = arguments
    if option == "--test":
        # A file's tests stay together: they share what the file trained. Each process takes about 2 GiB. Files go in
        # the order of their folders, notebooks first: a long one at the end would leave the other process idle.
        processes = min(os.cpu_count() or 1, TEST_PROCESSES)
        return ["-m", "pytest", "-n", str(processes), "--dist", "loadfile", "--no-loadscope-reorder", *rest]
    if option == "--run" and rest and not rest[0].startswith("-"):
        return ["-m", "unsloth_course", "run", *rest]
    if option == "--run":
        raise SetupError("--run needs the name of a lesson: full, lora, dpo, grpo, cpt or all. For example: --run lora")
    if option == "--gguf":
        raise SetupError(f"--gguf stands alone; what is {rest[0]} for?")
    raise SetupError(f"Unknown option {option}. There are --run, --test, --gguf, --offline, --prepare and --help.")


def offline_folder(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The folder that `--offline` names and the arguments after it; None and all of them without it."""
    if not arguments or arguments[0] != "--offline":
        return None, list(arguments)
    if len(arguments) < 2 or arguments[1].startswith("-"):
        raise SetupError("--offline needs the folder that --prepare filled. For example: --offline wheels")
    folder = Path(arguments[1]).expanduser().absolute()
    if not folder.is_dir():
        raise SetupError(f"There is no folder {folder}. --prepare makes one, on a machine with network.")
    return folder, list(arguments[2:])


def main(arguments: Sequence[str]) -> int:
    """The program: sets up, then runs what was asked for and passes its exit status on."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a Windows console may not know every letter that pip prints
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    try:
        if "--prepare" in arguments[:1]:
            if len(arguments) < 2 or arguments[1].startswith("-"):
                raise SetupError("--prepare needs a folder to fetch into. For example: --prepare wheels")
            prepare(ROOT, Path(arguments[1]), arguments[2:])
            return 0
        wheels, arguments = offline_folder(arguments)
        command = command_after(arguments)
        python = set_up(ROOT, wheels=wheels)
        if "--gguf" in arguments[:1]:
            build_llama_cpp(str(python), llama_cpp_folder())
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error}. {explain(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run this again, it goes on from here.", file=sys.stderr)
        return 130
    if not command:
        return 0
    sys.stdout.flush()
    with subprocess.Popen([str(python), *command], cwd=ROOT) as process:
        while (status := process.poll()) is None:
            try:
                status = process.wait()
            except KeyboardInterrupt:
                continue  # the program got the same Ctrl-C: it keeps what there is, and says how it ended
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
