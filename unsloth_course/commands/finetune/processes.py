"""Several processes of one training, as torchrun starts them: which one this is, taking turns, and the end of all.

torchrun numbers the processes and ends all of them when one has died; Unsloth and accelerate share the rows and average
the gradients. Here is what they leave open: who prints and saves, that the others wait for it, and a sentence where a
run ends because one process did. Follows torch's documentation of torchrun (Elastic Launch); see docs/several-gpus.md.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from unsloth_course.core.errors import CourseError

HUNG = 180
"""Seconds that a process waits for another one in the midst of a step before it gives the run up."""
ENDED_FROM_OUTSIDE = 128 + signal.SIGTERM
INTERRUPTED = 128 + signal.SIGINT
NOTICED = 5.0  # seconds within which torchrun has noticed that a process died
_LOST = "nothing of this run was saved yet"
_AGAIN = f"start the same command again; {_LOST}"


@dataclass(frozen=True)
class Process:
    """Which process of a run this is. `number` of `count` over all hosts; `here` of `count_here` on this host."""

    number: int = 0
    count: int = 1
    here: int = 0
    count_here: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that prints, evaluates and saves."""
        return self.number == 0

    @property
    def several(self) -> bool:
        return self.count > 1

    def __str__(self) -> str:
        return f"Process {self.number} of {self.count} on host {socket.gethostname()}"


def current() -> Process:
    """This process as torchrun numbered it; without torchrun the only one. Raises CourseError when a number lacks."""
    if "WORLD_SIZE" not in os.environ:
        return Process()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    try:
        return Process(*(int(os.environ[name]) for name in names))
    except (KeyError, ValueError):
        raise CourseError(
            f"WORLD_SIZE is set, and {', '.join(names)} are not all numbers. Start the command with torchrun, which "
            "sets all four, or unset WORLD_SIZE to train in one process."
        ) from None


def share(rows: int, process: Process) -> int:
    """How many of an update's rows each process takes. Raises CourseError when they cannot be shared evenly."""
    if rows % process.count:
        nearest = max(process.count, round(rows / process.count) * process.count)
        raise CourseError(
            f"{rows} rows of an update cannot be shared evenly by {process.count} processes. Choose --batch {nearest}, "
            "or another number of processes."
        )
    return rows // process.count


def take_gpu(process: Process) -> None:
    """Has this process use its own GPU of the host. Call it before anything else touches CUDA.

    Raises CourseError when the host has fewer GPUs than processes.
    """
    import torch

    found = torch.cuda.device_count()
    if process.count_here > found:
        raise CourseError(
            f"{process.count_here} processes were started on host {socket.gethostname()}, which has {found} GPUs that "
            f"torch can use; each process needs one of its own. Start it with --nproc-per-node {max(1, found)}."
        )
    torch.cuda.set_device(process.here)


def arguments(process: Process, on_gpu: bool) -> dict[str, Any]:
    if not process.several:
        return {}
    # Every weight that is trained takes part in every step, so DDP need not search for ones that did not.
    settings: dict[str, Any] = {"ddp_find_unused_parameters": False, "ddp_timeout": HUNG}
    return settings if on_gpu else settings | {"ddp_backend": "gloo"}


@contextmanager
def before_the_others(process: Process, what: str) -> Iterator[None]:
    """The first process goes through the block before the others do, which wait as long as it takes.

    what: a name for the block, used once in a run.
    """
    if not process.several:
        yield
        return
    from torch import distributed

    # torchrun's own table of names and values, which all processes reach.
    store = distributed.PrefixStore("course", next(distributed.rendezvous("env://"))[0])
    while not process.first and not store.check([what]):
        time.sleep(0.2)  # in small pieces, so that Ctrl-C is heard
    yield
    if process.first:
        store.set(what, "done")


def after_the_first(process: Process, what: str) -> None:
    """Returns on the other processes when the first one has come to this call."""
    with before_the_others(process, what):
        pass


@contextmanager
def together(process: Process) -> Iterator[None]:
    """Inside the block only the first process prints, and a process that fails or dies ends all with a sentence.

    It comes from the process itself when that can still speak, and otherwise from another one on its host, since
    torchrun sends these SIGTERM. A thread takes that signal: the main one may wait inside a library forever.
    """
    if not process.several:
        yield
        return
    _note(process, "pid", str(os.getpid()))
    _listen(process)
    try:
        if process.first:
            yield
        else:
            with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                yield
        after_the_first(process, "the end")
        from torch import distributed

        if distributed.is_initialized():  # a GPU's library complains of a process that ends inside its group
            distributed.destroy_process_group()
    except CourseError as error:
        if process.here:  # all of them may have found the same; then the first one says it, and torchrun ends this one
            time.sleep(NOTICED)
        _fail(process, str(error))
    except Exception as error:
        if _lost(process, NOTICED):  # not a failure of its own: it waited for one that is gone
            _leave(process, signal.SIGTERM)
        import traceback

        traceback.print_exc()
        _fail(process, _explained(error))
    _note(process, "left")


def _explained(error: Exception) -> str:
    text = shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...").rstrip(" .")
    if "OutOfMemory" in type(error).__name__:
        return f"{text}. Lower --batch, or use more processes, and {_AGAIN}."
    if any(word in str(error).lower() for word in ("timed out", "timeout")):
        return f"{text}. Another process hangs: look for it on the other hosts, end what is left, and {_AGAIN}."
    if any(word in str(error).lower() for word in ("closed by peer", "connection reset", "nccl", "gloo")):
        return f"{text}. A process on another host is gone; see what it said there, and {_AGAIN}."
    return f"{text}. The lines above say where; mend that, and {_AGAIN}."


def _fail(process: Process, sentence: str) -> None:
    """Says why this process stops, notes it for the others and for torchrun's report, and stops at once.

    Leaving the ordinary way would wait for the others, which wait for this one.
    """
    sentence = f"{process} stopped: {sentence}"
    told = {"py_callstack": sentence, "timestamp": str(int(time.time()))}
    _note(process, "error.json", json.dumps({"message": {"message": sentence, "extraInfo": told}}))
    _say(sentence)
    os._exit(1)


def _say(sentence: str) -> None:
    sys.stdout.flush()
    print(f"\n{sentence}\n", file=sys.stderr, flush=True)


def _listen(process: Process) -> None:
    """A thread that takes SIGTERM and SIGINT, whatever the main thread is doing."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writing)

    threading.Thread(target=lambda: _leave(process, os.read(reading, 1)[0]), daemon=True).start()


def _leave(process: Process, number: int) -> None:
    """Ends this process because it was told to, and says why if no other one does."""
    if number == signal.SIGINT:
        _note(process, "left")
        if process.first:
            _say(f"Stopped by Ctrl-C; {_LOST}.")
        os._exit(INTERRUPTED)
    dead = _lost(process)
    speaks = process.here == min(set(range(process.count_here)) - {sibling for sibling, _ in dead}, default=0)
    _note(process, "left")
    silent = [(sibling, pid) for sibling, pid in dead if not _noted(sibling, "error.json")]
    if dead and not silent:
        os._exit(ENDED_FROM_OUTSIDE)  # it has said why
    if speaks and silent:
        sibling, pid = silent[0]
        other = Process(process.number - process.here + sibling, process.count, sibling, process.count_here)
        _say(
            f"{other} (pid {pid}) died without a word, so the whole run was ended. Most often the system killed it "
            f"because memory ran out (`dmesg` says so on Linux): lower --batch. Then {_AGAIN}."
        )
    elif speaks:
        _say(
            f"{process} was told to end (SIGTERM), by hand, by a scheduler, or because a process on another host "
            f"ended; see what was said there, and {_AGAIN}."
        )
    os._exit(ENDED_FROM_OUTSIDE)


def _folder(here: int) -> Path | None:
    """The folder that torchrun keeps for a process of this host, beside that of this process; None without torchrun."""
    own = os.environ.get("TORCHELASTIC_ERROR_FILE")
    return Path(own).parent.parent / str(here) if own else None


def _note(process: Process, name: str, text: str = "") -> None:
    folder = _folder(process.here)
    if folder is not None and folder.is_dir():
        (folder / name).write_text(text, encoding="utf-8")


def _noted(here: int, name: str) -> str | None:
    folder = _folder(here)
    try:
        return (folder / name).read_text(encoding="utf-8") if folder else None
    except OSError:
        return None


def _lost(process: Process, within: float = 0.0) -> list[tuple[int, int]]:
    """The processes of this host that ended before their time: number on the host, and pid. Looks for so many seconds.

    One that failed by itself is among them as soon as it has noted so, which is just before it ends.
    """
    import psutil

    def runs(pid: int) -> bool:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        return False

    end = time.monotonic() + within
    while True:
        pids = {sibling: _noted(sibling, "pid") for sibling in set(range(process.count_here)) - {process.here}}
        here = [(sibling, int(pid)) for sibling, pid in pids.items() if pid and _noted(sibling, "left") is None]
        found = [(sibling, pid) for sibling, pid in here if _noted(sibling, "error.json") is not None or not runs(pid)]
        if found or time.monotonic() >= end:
            return found
        time.sleep(0.1)
