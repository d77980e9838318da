"""Checkpoints of a run: one that was interrupted goes on where it was, and ends at the weights of one left alone.

The checkpoints are those of the transformers Trainer: model, optimizer, scheduler, random state, and the step, from
which the position in the data follows. Here is what it leaves open: which checkpoint is whole, which run owns a folder,
what happens on Ctrl-C, on a full disk, and for GRPO between two generations. What a checkpoint folder holds, and what
equal means, is in docs/interruption.md. Follows transformers' documentation of `Trainer` and `TrainerCallback`.
"""

import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError

KEPT = 2
"""Checkpoints that stay: the newest, and the one before it until the newest is whole."""
MANIFEST = "manifest.json"
"""Written last into a checkpoint. It lists each file with its bytes and SHA-256; without it nothing is whole."""
LOCK = "run.lock"
OWNER = "run.json"
AT_ONCE = 1.0
"""Seconds in which a second SIGTERM is the same request: sent to all processes, and passed on by a chain."""
_NAME = re.compile(r"checkpoint-(\d+)")
_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "a request to end (SIGTERM)"}


class Stopped(CourseError):
    """A run that was told to stop, and saved first. `step`: updates done; `checkpoint`: where; `number`: the signal."""

    def __init__(self, step: int, steps: int, checkpoint: Path, number: int):
        super().__init__(
            f"Stopped by {_SIGNALS[number]} after step {step} of {steps}; all of it is saved in {checkpoint}. The same "
            "command with --resume goes on from there."
        )
        self.step, self.checkpoint, self.number = step, checkpoint, number


def settings(every: int) -> dict[str, Any]:
    """The training arguments that save a checkpoint every so many steps (optimizer updates).

    Without `save_total_limit`, by which the Trainer deletes before the new one is whole: `train` keeps two.

    Raises CourseError when `every` is less than 1.
    """
    if every < 1:
        raise CourseError(f"A checkpoint every {every} steps cannot be; give a whole number of at least 1.")
    return {
        "save_strategy": "steps",
        "save_steps": every,
        # So that early stopping goes on counting where it was.
        "restore_callback_states_from_checkpoint": True,
    }


# --- whose folder it is ---------------------------------------------------------------------------------------------


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
            f"Nothing can be written into {folder} ({_reason(error)}). Choose another --out, or mend that folder."
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


# --- which checkpoints are whole ------------------------------------------------------------------------------------


def last_good(folder: str | Path, say: Callable[[str], None] = print) -> Path | None:
    """The newest whole checkpoint in a folder; None when there is none.

    A newer one that is not whole is renamed, to `unfinished-...` when it was cut off while it was written and to
    `damaged-...` when a file of it changed later, and `say` gets a sentence: which one, why, and what is used instead.
    Of the unfinished ones only the last is kept, since each may be as large as the model. Raises CourseError when a
    folder cannot be read or renamed.
    """
    passed, good = [], None
    try:
        for checkpoint in _newest_first(Path(folder)):
            flaw = _flaw(checkpoint)
            if flaw is None:
                good = checkpoint
                break
            passed.append(f"{checkpoint.name} is passed over: {flaw}. It is now called {_put_aside(checkpoint)}.")
    except OSError as error:
        raise CourseError(
            f"The checkpoints in {folder} cannot be used ({_reason(error)}). Mend that, or choose another --out."
        ) from None
    if passed:
        instead = f"{good.name} is whole and used instead." if good else "No older one is whole: the run starts anew."
        say(" ".join([*passed, instead]))
    return good


def require_none(folder: str | Path) -> None:
    """Raises CourseError when a folder holds checkpoints: a run that starts anew there would mix with the old one."""
    found = [checkpoint.name for checkpoint in _newest_first(Path(folder))]
    if found:
        raise CourseError(
            f"{folder} holds {found[0]} of an earlier run. Add --resume to go on with it, choose another --out, or "
            "delete that folder to start anew."
        )


def newest(folder: str | Path) -> Path | None:
    """The newest checkpoint in a folder that was written to its end; None without one. `last_good` reads it, too."""
    return next((path for path in _newest_first(Path(folder)) if (path / MANIFEST).is_file()), None)


def discard(folder: str | Path) -> None:
    """Deletes the checkpoints in a folder, with TRL's model card beside them: for a run whose result is saved.

    What `last_good` renamed stays; without such a thing the folder goes, too.
    """
    folder = Path(folder)
    for checkpoint in _newest_first(folder):
        shutil.rmtree(checkpoint, ignore_errors=True)
    (folder / "README.md").unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _newest_first(folder: Path) -> list[Path]:
    found = []
    if folder.is_dir():
        found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    return int(_NAME.fullmatch(checkpoint.name)[1])


def _flaw(checkpoint: Path) -> str | None:
    """Why a checkpoint is not whole; None if it is."""
    try:
        written = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {str(name): (entry["bytes"], entry["sha256"]) for name, entry in written.items()}
    except FileNotFoundError:
        return "it was cut off while it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"its {MANIFEST} cannot be read"
    if "trainer_state.json" not in expected:
        return f"its {MANIFEST} does not list its files"
    files = _files(checkpoint)
    for name, (size, checksum) in expected.items():
        if name not in files:
            return f"its file {name} is missing"
        found = files[name].stat().st_size
        if found != size:
            return f"its file {name} has {found} bytes in place of {size}"
        if _checksum(files[name]) != checksum:
            return f"its file {name} is not as it was written"
    return None


def _files(checkpoint: Path) -> dict[str, Path]:
    """The files of a checkpoint but the manifest, by their names inside it."""
    found = {path.relative_to(checkpoint).as_posix(): path for path in sorted(checkpoint.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if name.partition(".part")[0] != MANIFEST}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _write_manifest(checkpoint: Path, finished: bool) -> None:
    """Lists what a checkpoint holds, once all of it is on the disk. From then on it is whole."""
    files = _files(checkpoint)
    listed = {name: {"bytes": path.stat().st_size, "sha256": _checksum(path)} for name, path in files.items()}
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
    if path.is_dir():
        if os.name == "nt":
            return
        handle = os.open(path, os.O_RDONLY)
    else:
        handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- training -------------------------------------------------------------------------------------------------------


class _NothingLeft(Exception):
    """The checkpoint is that of a training that had come to its end."""


class _Saving:
    """Trainer callback: saves between two generations only, and stops after the step in which a signal came."""

    def __new__(cls, *_: Any, **__: Any) -> "_Saving":
        # transformers must be imported after unsloth, so the base class joins when the first one is made.
        from transformers import TrainerCallback

        return object.__new__(type("_Saving", (cls, TrainerCallback), {}))

    def __init__(self, trainer: Any, resume: Path | None, last: bool = True):
        self.trainer, self.resume = trainer, resume
        self.last = last  # whether the last step is saved
        self.at_end: Callable[[], None] = lambda: None
        self.began = 0  # the step that the training began at
        self.loaded = False  # whether all of a checkpoint was
        self.told: int | None = None  # the signal that asked it to stop
        self._due = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = state.global_step
        if self.resume and state.best_global_step:
            # The path in the checkpoint is that of the time: the folder may have been moved, or the file changed.
            best = self.resume.with_name(f"checkpoint-{state.best_global_step}")
            state.best_model_checkpoint = str(best) if _flaw(best) is None else None
        # transformers would train one more step.
        if self.resume and (state.global_step >= state.max_steps or _manifest(self.resume).get("finished")):
            raise _NothingLeft

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loaded = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        due = control.should_save or self._due or self.told is not None
        # Completions that are still to be trained on are in no checkpoint. After the last step none are needed.
        between = self.trainer._step % _generate_every(self.trainer) == 0 if _generates(self.trainer) else True
        control.should_save = due and (between or state.global_step >= state.max_steps)
        self._due = due and not control.should_save
        if state.global_step >= state.max_steps and not self.last:
            control.should_save = False
        if self.told is not None and control.should_save:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at_end()

    def finished(self) -> bool:
        """Whether the training is at its end, early or not, when it saves now."""
        state, control = self.trainer.state, self.trainer.control
        return state.global_step >= state.max_steps or (control.should_training_stop and self.told is None)


def _manifest(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))


def _generates(trainer: Any) -> bool:
    return hasattr(trainer, "_buffered_inputs")  # of TRL's trainers GRPOTrainer


def _generate_every(trainer: Any) -> int:
    """Micro-batches that GRPO trains on before it writes new completions."""
    return trainer.args.steps_per_generation * trainer.num_iterations


def train(trainer: Any, resume: Path | None = None) -> int:
    """Runs `trainer.train()`, from a checkpoint that `last_good` found or from the start, and saves as it goes.

    The trainer needs the arguments of `settings`. Each checkpoint gets its manifest. The first Ctrl-C (or SIGTERM) lets
    the step end, saves, and stops; the second stops at once. Returns the step that the training began at: 0, or that of
    the checkpoint; the steps of this session are `trainer.state.global_step` less that. A checkpoint whose training had
    come to its end is loaded, and nothing is trained. For one process; not under torchrun.

    Raises Stopped after such a signal, and CourseError when a checkpoint cannot be written, when `resume` does not fit
    the trainer, and when a run that starts anew finds checkpoints of an earlier one.
    """
    folder = Path(trainer.args.output_dir)
    if resume is None:
        require_none(folder)
    saving = _Saving(trainer, resume)
    with _held(trainer, saving), _heeded(saving):
        try:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except _NothingLeft:
            if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
                trainer._load_best_model()
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
            if resume is None or saving.loaded:
                raise
            raise _unfit(resume, error) from None
        finally:
            trainer.remove_callback(saving)
    if saving.told is not None:
        saved = _newest_first(folder)[0]
        raise Stopped(_step(saved), trainer.state.max_steps, saved, saving.told)
    return saving.began


def prepare(trainer: Any, resume: Path | None) -> None:
    """Has `trainer.train(resume_from_checkpoint=resume)`, called by a notebook, save and load checkpoints as `train`.

    The trainer needs the arguments of `settings`. Each checkpoint gets its manifest; the last step has none. Signals
    are not heeded.
    """
    saving = _Saving(trainer, resume, last=False)
    until_the_end = ExitStack()
    until_the_end.enter_context(_held(trainer, saving))
    saving.at_end = until_the_end.close


@contextmanager
def _held(trainer: Any, saving: _Saving) -> Iterator[None]:
    """The trainer saves and loads as this module has it, and begins as every run of its seed does."""
    from accelerate.utils import set_seed

    if saving.resume:
        trainer.args.eval_on_start = False  # early stopping would count the same measurement twice
    trainer.add_callback(saving)
    # What ran before, such as questions that a resumed run does not ask again, must not change the order of the rows.
    set_seed(trainer.args.seed, device_specific=_generates(trainer))
    with _whole_checkpoints(trainer, saving), _all_loaded(trainer), _same_order(trainer, saving.resume):
        yield


def _unfit(resume: Path, error: Exception) -> CourseError:
    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return CourseError(
        f"{resume} cannot be resumed by this run ({reason}). It was made with other options, versions or data: use "
        "those, or start anew with another --out."
    )


@contextmanager
def _whole_checkpoints(trainer: Any, saving: _Saving) -> Iterator[None]:
    """Has each checkpoint end with its manifest, and says so when one cannot be written."""
    save = trainer._save_checkpoint  # the method that TRL's trainers override, too

    def saved(*args: Any, **kwargs: Any) -> None:
        folder = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        try:
            save(*args, **kwargs)
            # A pickle of settings that nobody reads: a resumed run has its own.
            (folder / "training_args.bin").unlink(missing_ok=True)
            _write_manifest(folder, saving.finished())
            best = Path(trainer.state.best_model_checkpoint or "").name
            for older in _newest_first(folder.parent)[KEPT:]:
                if older.name != best:
                    shutil.rmtree(older, ignore_errors=True)
        except Exception as error:
            if not _writing_failed(error):
                raise
            raise _unsaved(folder, error) from None

    trainer._save_checkpoint = saved
    try:
        yield
    finally:
        del trainer._save_checkpoint


def _writing_failed(error: Exception) -> bool:
    """Whether an exception says that a file could not be written. safetensors and torch have their own ones for it."""
    from safetensors import SafetensorError

    by_torch = re.compile("inline_container|PytorchStreamWriter|file write")
    if isinstance(error, RuntimeError):
        return by_torch.search(str(error)) is not None
    return isinstance(error, OSError | SafetensorError)


def _unsaved(checkpoint: Path, error: Exception) -> CourseError:
    shutil.rmtree(checkpoint, ignore_errors=True)
    folder = checkpoint.parent
    try:
        room = f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB are free there; what was written of it was removed"
    except OSError:
        room = "the folder cannot be reached"
    good = next((path for path in _newest_first(folder) if _flaw(path) is None), None)
    again = (
        f"{good.name} is whole. Make room, or mend the folder, and start the same command with --resume: it goes on "
        f"from step {_step(good)}."
        if good
        else "No older checkpoint is there. Make room, or choose another --out, and start the same command again."
    )
    return CourseError(f"{checkpoint} could not be saved ({_reason(error)}); {room}. {again}")


def _reason(error: Exception) -> str:
    if isinstance(error, RuntimeError):  # torch tells where in its own source it noticed
        return "a file could not be written to its end"
    return getattr(error, "strerror", None) or str(error).strip().split("\n")[0][:200]


@contextmanager
def _all_loaded(trainer: Any) -> Iterator[None]:
    """Has the adapter that is trained be loaded when DPO's reference lies in a folder beside it.

    transformers 5.17 then loads the reference alone, without a word, and training goes on from fresh weights.
    """
    load = trainer._load_from_checkpoint

    def loaded(checkpoint: str, model: Any = None) -> None:
        load(checkpoint, model)
        model, own = model or trainer.model, "adapter_model.safetensors"
        if (Path(checkpoint) / own).is_file() and any(Path(checkpoint).glob(f"*/{own}")):
            active = model.active_adapters[0]
            model.load_adapter(checkpoint, active, is_trainable=True)
            model.set_adapter(active)

    trainer._load_from_checkpoint = loaded
    try:
        yield
    finally:
        del trainer._load_from_checkpoint


@contextmanager
def _same_order(trainer: Any, resume: Path | None) -> Iterator[None]:
    """Has GRPO's sampler begin with the right epoch: it draws the order of each one after that of the one before."""
    if not _generates(trainer) or resume is None:
        yield
        return
    sampler_for = trainer._get_train_sampler
    epochs = _epochs(resume)

    def sampler(*args: Any, **kwargs: Any) -> Any:
        made = sampler_for(*args, **kwargs)
        for _ in range(epochs):
            next(iter(made), None)
        return made

    trainer._get_train_sampler = sampler
    try:
        yield
    finally:
        del trainer._get_train_sampler


def _epochs(checkpoint: Path) -> int:
    """Epochs that were over when a checkpoint was saved."""
    try:
        return int(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["epoch"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unfit(checkpoint, error) from None


@contextmanager
def _heeded(saving: _Saving) -> Iterator[None]:
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
