"""Which exercises were tried and solved, in one file on this machine. Nothing is sent anywhere."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import platformdirs
from msgspec import Meta

from unsloth_course.core.errors import CourseError
from unsloth_course.core.writing import write_text

VARIABLE = "UNSLOTH_COURSE_PROGRESS"
FILE = "progress.json"


@dataclass(frozen=True)
class Tries:
    """What happened at one exercise: failed attempts so far, and the number of the attempt that was right."""

    failed: Annotated[int, Meta(ge=0)] = 0
    solved: Annotated[int, Meta(gt=0)] | None = None

    def after(self, right: bool) -> "Tries":
        """The same after one more attempt. An exercise that was solved stays solved."""
        if right:
            return Tries(self.failed, self.solved or self.failed + 1)
        return Tries(self.failed + 1, self.solved)


class Record:
    """All tries, as the file holds them.

    A damaged file is set aside under another name. What cannot be written is kept until this Python ends. `note` is a
    sentence about either, and otherwise "".
    """

    _unwritten: dict[Path, dict[str, Tries]] = {}  # noqa: RUF012 -- shared by all records of this Python

    def __init__(self) -> None:
        self.path = location()
        self.note, self._writable = "", True
        self._tries = self._read()
        if self.path in self._unwritten:
            self._tries = dict(self._unwritten[self.path])
            self.note = self.note or self._not_kept("cannot be written")

    def tries(self, exercise: str) -> Tries:
        """What happened at one exercise; an exercise never tried has no failed attempt."""
        return self._tries.get(exercise, Tries())

    def add(self, exercise: str, right: bool) -> Tries:
        """Counts one attempt, and writes the file."""
        self._tries[exercise] = self.tries(exercise).after(right)
        waiting = self._unwritten.pop(self.path, None)
        try:
            if self._writable:
                write_text(self.path, json.dumps(dict(sorted(self._tries.items())), indent=2, default=asdict) + "\n")
                self.note = "" if waiting else self.note
                return self._tries[exercise]
        except CourseError:
            self.note = self._not_kept("cannot be written")
        self._unwritten[self.path] = self._tries
        return self._tries[exercise]

    def _read(self) -> dict[str, Tries]:
        try:
            return msgspec.json.decode(self.path.read_text(encoding="utf-8"), type=dict[str, Tries])
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            self._writable, self.note = False, self._not_kept(f"cannot be read ({error.strerror})")
        except (msgspec.DecodeError, ValueError, RecursionError):
            aside = self.path.with_name(f"{self.path.stem}-damaged{self.path.suffix}")
            try:
                self.path.replace(aside)
                self.note = f"{_shown(self.path)} was damaged; it is now called {aside.name}, and progress begins anew."
            except OSError as error:
                self._writable = False
                self.note = self._not_kept(f"is damaged and cannot be moved aside ({error.strerror})")
        return {}

    def _not_kept(self, why: str) -> str:
        return (
            f"Progress is not kept beyond this session: {_shown(self.path)} {why}. Name a file in {VARIABLE} that can "
            "be."
        )


def location() -> Path:
    """The progress file: the one named in UNSLOTH_COURSE_PROGRESS, else one where programs keep their data.

    That is a folder `unsloth-course` in `~/.local/share` on Linux and Colab, in `~/Library/Application Support` on a
    Mac and in LOCALAPPDATA on Windows, or where the system's own variables say; without a home, a temporary one.
    """
    try:
        if named := os.environ.get(VARIABLE):
            path = Path(named).expanduser()
            return path / FILE if path.is_dir() else path
        Path.home()  # without one, platformdirs would make a folder that is called "~"
        return platformdirs.user_data_path("unsloth-course", appauthor=False) / FILE
    except RuntimeError:  # Python finds no home folder
        return Path(tempfile.gettempdir(), "unsloth-course", FILE)


def _shown(path: Path) -> str:
    """The path with `~` for the home folder: a stored notebook must not name somebody's."""
    try:
        return "~/" + path.relative_to(Path.home()).as_posix()
    except (ValueError, RuntimeError):
        return str(path)
