"""One run in a folder: a second one is refused, with the process that holds it."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.core.whole import reason

LOCK = "run.lock"

OWNER = "run.json"


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keeps other runs out of a folder, which is made, inside the block. A killed process leaves nothing to clear up.

    Raises CourseError when another run is in the folder, naming its process, and when nothing can be written there.
    Under torchrun only the first process calls it.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        (folder / OWNER).write_text(json.dumps(_this_process()), encoding="utf-8")
    except Timeout:
        raise CourseError(
            f"Another run is writing into {folder}: {_owner(folder)}. Wait for its end, or choose another --out."
        ) from None
    except OSError as error:
        lock.release()
        raise CourseError(
            f"Nothing can be written into {folder} ({reason(error)}). Choose another --out, or mend that folder."
        ) from None
    try:
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def _this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": " ".join(sys.argv),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _owner(folder: Path) -> str:
    """The process that holds a folder, in words."""
    try:
        found = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']}, since {found['since']} ({found['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has not said which"
