"""Which checkpoints are whole: each has a marker, written last, and those without it are passed over."""

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError

KEPT = 2
"""Checkpoints that stay: the newest, and the one before it until the newest is whole."""

MANIFEST = "manifest.json"
"""Written last into a checkpoint. It lists each file with its bytes; without it nothing is whole."""

_NAME = re.compile(r"checkpoint-(\d+)")


def last_good(folder: str | Path, say: Callable[[str], None] = print) -> Path | None:
    """The newest whole checkpoint in a folder; None when there is none.

    A newer one that is not whole is renamed, to `unfinished-...` when it was cut off while it was written and to
    `damaged-...` when a file of it is gone or cut, and `say` gets a sentence: which one, why, and what is used instead.
    Of the unfinished ones only the last is kept, since each may be as large as the model. Raises CourseError when a
    folder cannot be read or renamed.
    """
    passed, good = [], None
    try:
        for checkpoint in newest_first(Path(folder)):
            why = flaw(checkpoint)
            if why is None:
                good = checkpoint
                break
            passed.append(f"{checkpoint.name} is passed over: {why}. It is now called {_put_aside(checkpoint)}.")
    except OSError as error:
        raise CourseError(
            f"The checkpoints in {folder} cannot be used ({reason(error)}). Mend that, or choose another --out."
        ) from None
    if passed:
        instead = f"{good.name} is whole and used instead." if good else "No older one is whole: the run starts anew."
        say(" ".join([*passed, instead]))
    return good


def require_none(folder: str | Path) -> None:
    """Raises CourseError when a folder holds checkpoints: a run that starts anew there would mix with the old one."""
    found = [checkpoint.name for checkpoint in newest_first(Path(folder))]
    if found:
        raise CourseError(
            f"{folder} holds {found[0]} of an earlier run. Add --resume to go on with it, choose another --out, or "
            "delete that folder to start anew."
        )


def newest(folder: str | Path) -> Path | None:
    """The newest checkpoint in a folder that was written to its end; None without one. `last_good` reads it, too."""
    return next((path for path in newest_first(Path(folder)) if (path / MANIFEST).is_file()), None)


def discard(folder: str | Path) -> None:
    """Deletes the checkpoints in a folder, with TRL's model card beside them: for a run whose result is saved.

    What `last_good` renamed stays; without such a thing the folder goes, too.
    """
    folder = Path(folder)
    for checkpoint in newest_first(folder):
        shutil.rmtree(checkpoint, ignore_errors=True)
    (folder / "README.md").unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def newest_first(folder: Path) -> list[Path]:
    found = []
    if folder.is_dir():
        found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step, reverse=True)


def step(checkpoint: Path) -> int:
    return int(_NAME.fullmatch(checkpoint.name)[1])


def flaw(checkpoint: Path) -> str | None:
    """Why a checkpoint is not whole; None if it is."""
    try:
        written = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {str(name): int(size) for name, size in written.items()}
    except FileNotFoundError:
        return "it was cut off while it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return f"its {MANIFEST} cannot be read"
    if "trainer_state.json" not in expected:
        return f"its {MANIFEST} does not list its files"
    files = _files(checkpoint)
    for name, size in expected.items():
        if name not in files:
            return f"its file {name} is missing"
        if (found := files[name].stat().st_size) != size:
            return f"its file {name} has {found} bytes in place of {size}"
    return None


def _files(checkpoint: Path) -> dict[str, Path]:
    """The files of a checkpoint but the manifest, by their names inside it."""
    found = {path.relative_to(checkpoint).as_posix(): path for path in sorted(checkpoint.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if name.partition(".part")[0] != MANIFEST}


def _put_aside(checkpoint: Path) -> str:
    """Renames a checkpoint that is not whole and returns its new name, one that no program takes for a checkpoint."""
    if (checkpoint / MANIFEST).exists():
        taken = [path.name for path in checkpoint.parent.glob(f"damaged-{checkpoint.name}*")]
        name = f"damaged-{checkpoint.name}" + (f"-{len(taken) + 1}" if taken else "")
    else:
        name = f"unfinished-{checkpoint.name}"
        for older in checkpoint.parent.glob("unfinished-checkpoint-*"):
            shutil.rmtree(older)
    checkpoint.rename(checkpoint.with_name(name))
    return name


def write_manifest(checkpoint: Path, finished: bool) -> None:
    """Lists what a checkpoint holds, once all of it is on the disk. From then on it is whole."""
    files = _files(checkpoint)
    listed = {name: path.stat().st_size for name, path in files.items()}
    for path in files.values():
        _to_disk(path)
    part = checkpoint / f"{MANIFEST}.part"
    part.write_text(json.dumps({"finished": finished, "files": listed}, indent=1), encoding="utf-8")
    _to_disk(part)
    os.replace(part, checkpoint / MANIFEST)
    for folder in {checkpoint, *(path.parent for path in files.values()), checkpoint.parent}:
        _to_disk(folder)


def _to_disk(path: Path) -> None:
    """Has the system write what it still holds in memory of a file or, where it can, of a folder's list of names."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def manifest(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))


def reason(error: Exception) -> str:
    if isinstance(error, RuntimeError):  # torch tells where in its own source it noticed
        return "a file could not be written to its end"
    return getattr(error, "strerror", None) or str(error).strip().split("\n")[0][:200]
