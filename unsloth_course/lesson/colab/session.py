"""Installs in a Colab session what it lacks, and leaves its torch and numpy alone. Elsewhere it does nothing."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import metadata

from unsloth_course.core import places
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.colab.decisions import Decision, decide
from unsloth_course.setup.pins import NEWEST_PYTHON, OLDEST_PYTHON, name_and_version, tested

VARIABLES = ("COLAB_RELEASE_TAG", "COLAB_BACKEND_VERSION", "COLAB_JUPYTER_TRANSPORT")
NEEDS = places.RECORDED / "needs.json"
"""The requirement lines of the pinned packages, so that a session knows them before it has any; `upkeep/needs.py`."""


def present() -> bool:
    """Whether this is a kernel of Colab: its package is loaded, or one of its variables is set."""
    return "google.colab" in sys.modules or any(name in os.environ for name in VARIABLES)


def install() -> None:
    """Prints what is found, tested and decided, package by package, and installs what is missing or not accepted.

    Before anything is downloaded it says whether a restart will be needed. When all is there it installs nothing. On
    anything but Colab it does nothing. Raises CourseError when the session cannot be used, when pip fails, and, at the
    very end, when the session has to be restarted. Taught in lesson colab2 (LoRA).
    """
    if not present():
        return
    started = time.monotonic()
    decision = decide_here()
    print(decision)
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        raise CourseError(
            f"This session runs Python {found}, and the course was tested with 3.11 to 3.13. Choose another runtime "
            "version under Runtime > Change runtime type."
        )
    if decision.conflicts:
        reasons = "; ".join(f"{row.name} {row.found or 'missing'}: {row.why}" for row in decision.conflicts)
        raise CourseError(
            f"This session cannot run the lessons as they were tested ({reasons}). Choose an older runtime version "
            "under Runtime > Change runtime type, or a newer copy of the course. Nothing was downloaded."
        )
    if not decision.pins:
        print("\nAll is there; nothing is installed.")
        return
    print(f"\n{announcement(decision)}", flush=True)
    carry_out(decision)
    print(f"Done in {time.monotonic() - started:.0f} s.")
    if decision.loaded:
        raise CourseError(
            "Restart this session now (Runtime > Restart session), then run the cells again from the top: "
            f"{', '.join(decision.loaded)} of before the installation is still loaded. All is installed already, so "
            "the second time takes a moment."
        )


def decide_here() -> Decision:
    """The decision for this very session."""
    names = {name_and_version(found.name)[0] for found in metadata.distributions() if found.name}
    installed = {name: metadata.version(name) or "damaged" for name in names}
    asks = {name: metadata.requires(name) or [] for name in installed}
    return decide(installed, asks, tested(), needs(), loaded(installed))


def needs() -> dict[str, list[str]]:
    """The requirement lines of the pinned packages, by package, as recorded."""
    return json.loads(NEEDS.read_text(encoding="utf-8"))


def loaded(names: Iterable[str], modules: Mapping[str, object] = sys.modules) -> set[str]:
    """Which of the installed packages this kernel has imported."""
    tops = {name.partition(".")[0] for name in modules}
    found = set()
    for module, owners in metadata.packages_distributions().items():
        if module in tops and module != "google":  # which several packages share
            found.update(name_and_version(owner)[0] for owner in owners)
    return found & set(names)


def announcement(decision: Decision) -> str:
    """What is going to happen, and whether the session must be restarted afterwards."""
    text = f"{len(decision.pins)} packages are installed, without their dependencies; torch and numpy stay as they are."
    if not decision.loaded:
        return f"{text} No restart is needed."
    return (
        f"{text} A RESTART IS NEEDED afterwards, since {', '.join(decision.loaded)} is loaded here already in a "
        "version that is replaced; this cell will say when. Nothing was downloaded yet."
    )


def carry_out(decision: Decision) -> None:
    """Runs pip once, and checks what it left. Raises CourseError when it fails.

    With `--no-deps`, because pip would else replace torch to please somebody's metadata.
    """
    options = ["-q", "--no-deps", "--disable-pip-version-check", "--root-user-action=ignore"]
    pip = [sys.executable, "-m", "pip", "install", *options, *decision.pins]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("ERROR")]
        reason = (said or (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"])[-1]
        raise CourseError(
            f"pip could not install the packages ({reason[:300]}). Run this cell again; if it stays so, look whether "
            "the session has a network."
        )
    importlib.invalidate_caches()
    left = decide_here().pins
    if left:
        raise CourseError(f"pip ended well, and yet these are not in place: {', '.join(left)}. Restart the session.")
