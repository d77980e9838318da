"""One run in a folder: a second one is refused, with the process that holds it."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unsloth_course.core.errors import CourseError
from unsloth_course.core.whole import reason

LOCK = "run.lock"
OWNER = "run.txt"  # says which process holds the lock, in words


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keeps other runs out of a folder, which is made, inside the block. A killed process leaves nothing to clear up.

    Raises CourseError when another run is in the folder, naming its process, and when nothing can be written there.
    Under torchrun only the first process calls it.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    lock, owner = FileLock(folder / LOCK, timeout=0), folder / OWNER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        since, command = time.strftime("%Y-%m-%d %H:%M:%S"), " ".join(sys.argv)
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {since} ({command})", "utf-8")
    except Timeout:
        try:
            named = owner.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            named = "a process that has not said which"
        raise CourseError(
            f"Another run is writing into {folder}: {named}. Wait for its end, or choose another --out."
        ) from None
    except OSError as error:
        lock.release()
        raise CourseError(
            f"Nothing can be written into {folder} ({reason(error)}). Choose another --out, or mend that folder."
        ) from None
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
