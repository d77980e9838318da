"""Checkpoints of a run: one that was interrupted goes on where it was, and ends at the weights of one left alone.

The checkpoints are those of the transformers Trainer: model, optimizer, scheduler, random state, and the step, from
which the position in the data follows. Here is what it leaves open: what happens on a full disk, for GRPO between two
generations, and to DPO's reference. What a checkpoint folder holds, and what
equal means, is in docs/interruption.md. Follows transformers' documentation of `Trainer` and `TrainerCallback`.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from unsloth_course.core import whole
from unsloth_course.core.callback import Callback
from unsloth_course.core.errors import CourseError


def settings(every: int) -> dict[str, Any]:
    """The training arguments that save a checkpoint every so many steps (optimizer updates).

    Without `save_total_limit`, by which the Trainer deletes before the new one is whole: here two are kept.

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


class NothingLeft(Exception):
    """The checkpoint is that of a training that had come to its end."""


class Saving(Callback):
    """Trainer callback: saves between two generations only, and stops after the step in which a signal came."""

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
            state.best_model_checkpoint = str(best) if whole.flaw(best) is None else None
        # transformers would train one more step.
        if self.resume and (state.global_step >= state.max_steps or whole.manifest(self.resume).get("finished")):
            raise NothingLeft

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loaded = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        due = control.should_save or self._due or self.told is not None
        # Completions that are still to be trained on are in no checkpoint. After the last step none are needed.
        between = True
        if _generates(self.trainer):  # new ones are written after so many micro-batches
            every = self.trainer.args.steps_per_generation * self.trainer.num_iterations
            between = self.trainer._step % every == 0
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


def _generates(trainer: Any) -> bool:
    return hasattr(trainer, "_buffered_inputs")  # of TRL's trainers GRPOTrainer


def prepare(trainer: Any, resume: Path | None) -> None:
    """Has `trainer.train(resume_from_checkpoint=resume)`, called by a notebook, save and load whole checkpoints.

    The trainer needs the arguments of `settings`. Each checkpoint gets its manifest; the last step has none. Signals
    are not heeded.
    """
    saving = Saving(trainer, resume, last=False)
    until_the_end = ExitStack()
    until_the_end.enter_context(held(trainer, saving))
    saving.at_end = until_the_end.close


@contextmanager
def held(trainer: Any, saving: Saving) -> Iterator[None]:
    """The trainer saves and loads as this module has it, and begins as every run of its seed does."""
    from accelerate.utils import set_seed

    if saving.resume:
        trainer.args.eval_on_start = False  # early stopping would count the same measurement twice
    trainer.add_callback(saving)
    # What ran before, such as questions that a resumed run does not ask again, must not change the order of the rows.
    set_seed(trainer.args.seed, device_specific=_generates(trainer))
    ways = {"_save_checkpoint": _whole_checkpoints(trainer, saving), "_load_from_checkpoint": _all_loaded(trainer)}
    if saving.resume and _generates(trainer):
        ways["_get_train_sampler"] = _same_order(trainer, saving.resume)
    vars(trainer).update(ways)  # in place of the class's own, which they call
    try:
        yield
    finally:
        for name in ways:
            delattr(trainer, name)


def unfit(resume: Path, error: Exception) -> CourseError:
    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return CourseError(
        f"{resume} cannot be resumed by this run ({reason}). It was made with other options, versions or data: use "
        "those, or start anew with another --out."
    )


def _whole_checkpoints(trainer: Any, saving: Saving) -> Callable[..., None]:
    """A way to save by which each checkpoint ends with its manifest, and which says so when one cannot be written."""
    from safetensors import SafetensorError

    save = trainer._save_checkpoint  # the method that TRL's trainers override, too

    def saved(*args: Any, **kwargs: Any) -> None:
        folder = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        try:
            save(*args, **kwargs)
            # A pickle of settings that nobody reads: a resumed run has its own.
            (folder / "training_args.bin").unlink(missing_ok=True)
            whole.write_manifest(folder, saving.finished())
            best = Path(trainer.state.best_model_checkpoint or "").name
            for older in whole.newest_first(folder.parent)[whole.KEPT :]:
                if older.name != best:
                    shutil.rmtree(older, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            raise _unsaved(folder, error) from None
        except RuntimeError as error:  # torch has none of its own for a file that cannot be written
            if not re.search("inline_container|PytorchStreamWriter|file write", str(error)):
                raise
            raise _unsaved(folder, error) from None

    return saved


def _unsaved(checkpoint: Path, error: Exception) -> CourseError:
    shutil.rmtree(checkpoint, ignore_errors=True)
    folder = checkpoint.parent
    try:
        room = f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB are free there; what was written of it was removed"
    except OSError:
        room = "the folder cannot be reached"
    good = next((path for path in whole.newest_first(folder) if whole.flaw(path) is None), None)
    again = (
        f"{good.name} is whole. Make room, or mend the folder, and start the same command with --resume: it goes on "
        f"from step {whole.step(good)}."
        if good
        else "No older checkpoint is there. Make room, or choose another --out, and start the same command again."
    )
    return CourseError(f"{checkpoint} could not be saved ({whole.reason(error)}); {room}. {again}")


def _all_loaded(trainer: Any) -> Callable[..., None]:
    """A way to load by which the adapter that is trained is loaded when DPO's reference lies in a folder beside it.

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

    return loaded


def _same_order(trainer: Any, resume: Path) -> Callable[..., Any]:
    """GRPO's sampler from the right epoch on: it draws the order of each one after that of the one before."""
    sampler_for = trainer._get_train_sampler
    try:
        over = int(json.loads((resume / "trainer_state.json").read_text(encoding="utf-8"))["epoch"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unfit(resume, error) from None

    def sampler(*args: Any, **kwargs: Any) -> Any:
        made = sampler_for(*args, **kwargs)
        for _ in range(over):
            next(iter(made), None)
        return made

    return sampler
