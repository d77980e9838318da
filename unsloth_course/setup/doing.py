"""Carries steps out, a line each, and says in a sentence what a failure means and what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from unsloth_course.setup.deciding import Step
from unsloth_course.setup.looking import GB, STAMP


class SetupError(Exception):
    """A sentence for the learner: what was found, where, and what to do next."""


CAUSES = {
    r"No space left on device|not enough space on the disk|WinError 112": "The disk is full. Free some space",
    r"Could not find a suitable TLS CA certificate bundle, invalid path: (?P<what>.+)": "There is no file {what}, "
    "which pip's settings name as the certificate. Mend PIP_CERT or `pip config list`",
    r"CERTIFICATE_VERIFY_FAILED|SSLError": "The network's certificate was not accepted. Give pip the certificate of "
    "your proxy (PIP_CERT)",
    r"\b407\b|Proxy Authentication": "The proxy wants a login. Put it into HTTPS_PROXY",
    r"\b40[13]\b.*(Client Error|Unauthorized|Forbidden)": "The package index refused the login. Check pip's settings "
    "(`pip config list`)",
    r"No CMAKE_C(XX)?_COMPILER could be found|CMAKE_C(XX)?_COMPILER not set|Could not find any instance of Visual": ""
    "There is no C++ compiler. Install one (Debian and Ubuntu: sudo apt install build-essential; macOS: xcode-select "
    "--install; Windows: the Visual Studio build tools for C++)",
    r"Killed signal|out of memory|cannot allocate memory": "The compiler ran out of memory. Close other programs",
    r"name resolution|NameResolutionError|getaddrinfo|Failed to establish|Network is unreachable|Max retries"
    r"|timed out|ConnectionError|Connection (refused|reset|broken)|ProtocolError|dns error|error sending request"
    r"|Failed to fetch": ""
    "The package index cannot be reached. Check the network and pip's settings (`pip config list`)",
    r"No matching distribution found for (?P<what>\S+)": "The package index has no {what} for this Python and this "
    "system. A mirror may lack it; else try Python 3.12",
    r"ensurepip is not available|No module named '?(venv|ensurepip)": "This Python comes without venv. On Debian and "
    "Ubuntu: sudo apt install python3-venv",
    r"WinError (5|32)\b|Permission ?[Dd]enied|PermissionError": "A file could not be written. Close notebooks, VS Code "
    "and terminals that use venv; check who owns the folder",
    r"WinError (126|127|1114)\b|DLL load failed": "A Windows library is missing. Install the Microsoft Visual C++ "
    "Redistributable (x64)",
    r"Failed building|subprocess-exited-with-error": "A package has no ready-made build for this Python and this "
    "system. Try Python 3.12",
}
"""What a command's output means, by the first pattern that is found in it; the order counts."""


def explain(output: str) -> str:
    """What a failed command's output means, in a sentence, and what to do."""
    for pattern, sentence in CAUSES.items():
        if found := re.search(pattern, output):
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


def uv_settings(environment: Mapping[str, str], pip_config: str) -> dict[str, str]:
    """What uv is to be told of pip's settings, which it does not read itself: proxy, certificate and time-out.

    `pip_config` is what `pip config list` prints: lines such as `global.proxy='...'` or `:env:.cert='...'`. What uv
    itself was told in the environment stays. The index is left alone: uv is asked because pip's has no such torch.
    """
    lines = re.findall(r"^(global|install|:env:)\.([\w-]+)='(.*)'$", pip_config, re.MULTILINE)
    # A variable goes before a file, whatever the order of the list.
    lines.sort(key=lambda line: line[0] == ":env:")
    told = {name.removeprefix("default-"): value for _, name, value in lines}
    names = {"HTTPS_PROXY": "proxy", "HTTP_PROXY": "proxy", "SSL_CERT_FILE": "cert", "UV_HTTP_TIMEOUT": "timeout"}
    wanted = {variable: told[name] for variable, name in names.items() if name in told}
    return {name: value for name, value in wanted.items() if not {name, name.lower()} & environment.keys()}


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
            environment = _environment_for(command)
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command, cwd=root, env=environment, **streams)
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


def read_text(path: Path) -> str:
    """The text of a file of the course; SetupError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} cannot be read ({error}). Get a fresh copy of the course.") from None
