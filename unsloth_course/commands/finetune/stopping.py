"""A training that can be told to stop: it saves first, and goes on from there another time. One run in a folder."""

import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unsloth_course.core import checkpoints, whole
from unsloth_course.core.errors import CourseError

LOCK = "run.lock"
OWNER = "run.txt"  # says which process holds the lock, in words
AT_ONCE = 1.0
"""Seconds in which a second SIGTERM is the same request: sent to all processes, and passed on by a chain."""

_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "a request to end (SIGTERM)"}


class Stopped(CourseError):
    """A run that was told to stop, and saved first. `step`: updates done; `checkpoint`: where; `number`: the signal."""

    def __init__(self, step: int, steps: int, checkpoint: Path, number: int):
        super().__init__(
            f"Stopped by {_SIGNALS[number]} after step {step} of {steps}; all of it is saved in {checkpoint}. The same "
            "command with --resume goes on from there."
        )
        self.step, self.checkpoint, self.number = step, checkpoint, number


def train(trainer: Any, resume: Path | None = None) -> int:
    """Runs `trainer.train()`, from a checkpoint that `last_good` found or from the start, and saves as it goes.

    The trainer needs the arguments of `checkpoints.settings`. The first Ctrl-C (or SIGTERM) lets the step end, saves,
    and stops; the second stops at once. Returns the step that the training began at: 0, or that of the checkpoint. One
    whose training had come to its end is loaded, and nothing is trained. For one process; not under torchrun.

    Raises Stopped after such a signal, and CourseError when a checkpoint cannot be written, when `resume` does not fit
    the trainer, and when a run that starts anew finds checkpoints of an earlier one.
    """
    folder = Path(trainer.args.output_dir)
    if resume is None:
        whole.require_none(folder)
    saving = checkpoints.Saving(trainer, resume)
    with checkpoints.held(trainer, saving), _heeded(saving):
        try:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except checkpoints.NothingLeft:
            if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
                trainer._load_best_model()
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
            if resume is None or saving.loaded:
                raise
            raise checkpoints.unfit(resume, error) from None
        finally:
            trainer.remove_callback(saving)
    if saving.told is not None:
        saved = whole.newest_first(folder)[0]
        raise Stopped(whole.step(saved), trainer.state.max_steps, saved, saving.told)
    return saving.began


@contextmanager
def _heeded(saving: checkpoints.Saving) -> Iterator[None]:
    """Ctrl-C and SIGTERM are noted inside the block; a second one does what it did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    first = 0.0

    def back() -> None:
        while before:
            signal.signal(*before.popitem())

    def noted(number: int, frame: Any) -> None:
        nonlocal first
        if saving.told is not None:
            if number == saving.told == signal.SIGTERM and time.monotonic() - first < AT_ONCE:
                return
            back()
            signal.raise_signal(number)
            return
        saving.told, first = number, time.monotonic()
        # Python refuses to print where it interrupted another print.
        with suppress(RuntimeError, OSError):
            print("\nStopping: this step ends, and is saved first. Once more stops at once.", flush=True)

    for number in _SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, noted)
    try:
        yield
    finally:
        back()


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keeps other runs out of a folder, which is made, inside the block. A killed process leaves nothing to clear up.

    Raises CourseError when another run is in the folder, naming its process, and when nothing can be written there.
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
            f"Nothing can be written into {folder} ({whole.reason(error)}). Choose another --out, or mend that folder."
        ) from None
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
