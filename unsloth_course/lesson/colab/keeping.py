"""Checkpoints of a notebook's training, in a folder that outlives the session: Google Drive, or any other."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError

DRIVE = "drive"
MOUNT = Path("/content/drive")
FOLDER = "unsloth-course"  # the folder in the learner's Drive
KNOBS = "knobs.json"
WATCHED = ("max_steps", "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "seed")


@dataclass(frozen=True)
class Kept:
    """Where the checkpoints of a lesson's training are kept; None when they are not."""

    folder: Path | None = None

    def last(self, trainer: Any) -> str | None:
        """The checkpoint for `trainer.train(resume_from_checkpoint=...)`, or None to begin at the beginning.

        Has the trainer save three checkpoints on its way and keep the last two, each with its files' sizes, so that one
        that was cut off while it was written is passed over. The end is not saved: the lesson saves its result itself.
        Without a folder nothing is changed. Raises CourseError when the checkpoints are of a run with other knobs.
        """
        if self.folder is None:
            return None
        from unsloth_course.core import checkpoints, whole

        _same_knobs(self.folder, trainer)
        found = whole.last_good(self.folder)
        if found:
            print(f"going on from {found.name}; to begin anew, delete {self.folder}")
        else:
            print(f"checkpoints go to {self.folder}")
        trainer.args.output_dir = str(self.folder)
        trainer.args.save_strategy = type(trainer.args.save_strategy)("steps")
        trainer.args.save_steps = max(1, trainer.args.max_steps // 4)
        checkpoints.prepare(trainer, found)
        return str(found) if found else None


def checkpoints(keep: str | Path | None, lesson: str) -> Kept:
    """Where the checkpoints of a lesson are kept: "drive" (Google Drive, in Colab), a folder, or None for nowhere.

    Mounts Drive, which asks for permission, when it is asked for. Raises CourseError when there is no Drive here, or
    when nothing can be written into the folder. Taught in lesson colab2 (LoRA).
    """
    if keep is None:
        return Kept()
    folder = (_drive() if keep == DRIVE else Path(keep).expanduser()) / f"{lesson}-checkpoints"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / KNOBS).touch()
    except OSError as error:
        raise CourseError(f"Nothing can be written into {folder} ({error.strerror}); choose another folder.") from None
    return Kept(folder)


def _drive() -> Path:
    try:
        from google.colab import drive
    except ImportError:
        raise CourseError(
            "Google Drive can be mounted in Colab only; here, give a folder, or None to keep no checkpoints."
        ) from None
    drive.mount(str(MOUNT))
    return MOUNT / "MyDrive" / FOLDER


def _same_knobs(folder: Path, trainer: Any) -> None:
    """Notes what decides a run, and refuses checkpoints of another one: they would be trained on without a word."""
    knobs = {name: getattr(trainer.args, name) for name in WATCHED}
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    knobs |= {"rows": len(trainer.train_dataset), "trained": trained}
    if any(folder.glob("checkpoint-*")):
        try:
            before = dict(json.loads((folder / KNOBS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            before = {}
        other = [f"{name} {before.get(name)} then, {now} now" for name, now in knobs.items() if before.get(name) != now]
        if other:
            raise CourseError(
                f"The checkpoints in {folder} are of a run with other knobs ({'; '.join(other)}). Set those again to "
                "go on with it, or delete that folder to begin anew."
            )
    (folder / KNOBS).write_text(json.dumps(knobs), encoding="utf-8")
