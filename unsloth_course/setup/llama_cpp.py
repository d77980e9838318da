"""llama.cpp, for the export to GGUF: built once, in a folder outside the course."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from unsloth_course.setup import doing
from unsloth_course.setup.deciding import Step
from unsloth_course.setup.doing import SetupError, say_now
from unsloth_course.setup.looking import GB, cache_folder

# The source archive on the package index holds the whole llama.cpp tree, its converter too; nothing else is fetched.
PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
BYTES = 1 * GB
PROGRAMS = ("llama-quantize", "llama-server")


def home() -> Path:
    """Where llama.cpp is, or will be: `UNSLOTH_LLAMA_CPP_PATH` if it is set, else a folder in the platform's cache."""
    if own := os.environ.get("UNSLOTH_LLAMA_CPP_PATH"):
        return Path(own).expanduser()
    return cache_folder(platform.system(), os.environ, Path.home()) / f"llama.cpp-{VERSION}"


def program(folder: Path, name: str) -> Path:
    """The program `name` of the llama.cpp in `folder`, where Unsloth looks for it."""
    return folder / (f"{name}.exe" if os.name == "nt" else name)


def missing(folder: Path) -> list[str]:
    """What of llama.cpp is not in `folder`: the programs and the converter; empty when it is complete."""
    wanted = [*(program(folder, name) for name in PROGRAMS), folder / "convert_hf_to_gguf.py"]
    return [path.name for path in wanted if not path.is_file()]


def steps(folder: Path, cmake: str, processes: int) -> list[Step]:
    """The two commands that build the programs from the sources in `folder`; both go on where they were stopped."""
    into = str(folder / "build")
    # No web page in the server, no HTTPS: neither is needed, and the page would be downloaded. GGML_NATIVE off, because
    # a cache may be shared by machines with different processors.
    off = ("BUILD_SHARED_LIBS", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_APP", "LLAMA_BUILD_UI")
    off += ("LLAMA_USE_PREBUILT_UI", "LLAMA_OPENSSL", "GGML_NATIVE")
    options = ("-DCMAKE_BUILD_TYPE=Release", *(f"-D{name}=OFF" for name in off))
    parallel, targets = ("--config", "Release", "--parallel", str(processes)), ("--target", *PROGRAMS)
    return [
        Step("llama.cpp is configured", ((cmake, "-S", str(folder), "-B", into, *options),)),
        Step("llama.cpp is built (about 7 minutes on two cores)", ((cmake, "--build", into, *parallel, *targets),)),
    ]


def build(python: str, folder: Path, say: Callable[[str], None] = say_now) -> Path:
    """Builds llama.cpp in `folder` from the source archive on pip's index, unless it is there; returns `folder`.

    May be stopped at any time and run again: the archive is checked by its hash, the sources appear in `folder` all at
    once, CMake goes on where it was, and the programs that say "complete" are put in place last. SetupError with a
    sentence when CMake or a compiler is missing, the index cannot be reached or the build fails.
    """
    if not missing(folder):
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
        _fetch(python, folder, say)
    doing.carry_out(steps(folder, cmake, os.cpu_count() or 1), folder, say)
    for name in PROGRAMS:
        target = program(folder, name)
        found = next(folder.glob(f"build/bin/**/{target.name}"), None)  # Visual Studio builds into bin/Release
        if found is None:
            raise SetupError(f"The build ended without {target.name} in {folder}. Delete that folder, run this again.")
        whole = target.with_name(f".{target.name}.part")
        shutil.copy2(found, whole)
        whole.replace(target)
    say(f"llama.cpp is built in {folder}")
    return folder


def _fetch(python: str, folder: Path, say: Callable[[str], None]) -> None:
    """Puts the sources of llama.cpp into `folder`, whole or not at all."""
    if folder.exists():
        raise SetupError(f"{folder} holds something else than llama.cpp's sources. Move it away and run this again.")
    pin = f"{PACKAGE}=={VERSION}"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as place:
        fetch = (python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps")
        command = (*fetch, "--no-binary", PACKAGE, "--dest", place, pin)
        name = f"the source archive of {pin} (77 MB)"
        step = Step(name, (command,), needs_bytes=BYTES, into=place)
        doing.carry_out([step], folder.parent, say)
        archive = next(Path(place).glob("*.tar.gz"), None)
        if archive is None or hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            raise SetupError(f"What pip brought as {pin} is not the archive that was tested. Check pip's index.")
        shutil.unpack_archive(archive, Path(place) / "sources")  # what it holds is known by its hash
        next(Path(place).glob("sources/*/vendor/llama.cpp")).replace(folder)
