"""Which exercises were tried and solved, in one file on this machine. Nothing is sent anywhere."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
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

    _unwritten: dict[Path | None, dict[str, Tries]] = {}  # noqa: RUF012 -- shared by all records of this Python

    def __init__(self) -> None:
        self.note = ""
        self.path = location()
        self._writable = self.path is not None
        self._tries = self._read()
        if self.path in self._unwritten:
            self._tries = dict(self._unwritten[self.path])
            self.note = self.note or self._not_kept()

    def tries(self, exercise: str) -> Tries:
        """What happened at one exercise; an exercise never tried has no failed attempt."""
        return self._tries.get(exercise, Tries())

    def add(self, exercise: str, right: bool) -> Tries:
        """Counts one attempt, and writes the file."""
        self._tries[exercise] = self.tries(exercise).after(right)
        self._write()
        return self._tries[exercise]

    def _read(self) -> dict[str, Tries]:
        if self.path is None:
            self.note = self._not_kept()
            return {}
        try:
            return msgspec.json.decode(self.path.read_text(encoding="utf-8"), type=dict[str, Tries])
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            self._writable = False
            self.note = (
                f"{_shown(self.path)} cannot be read ({error.strerror}); progress is not kept beyond this session."
            )
        except (msgspec.DecodeError, ValueError, RecursionError):
            self._keep_aside()
        return {}

    def _keep_aside(self) -> None:
        names = (self.path.with_name(f"{self.path.stem}-damaged{n or ''}{self.path.suffix}") for n in range(1000))
        aside = next(name for name in names if not name.exists())
        try:
            self.path.replace(aside)
        except OSError as error:
            self._writable = False
            self.note = (
                f"{_shown(self.path)} is damaged and cannot be moved aside ({error.strerror}); progress is not kept "
                "beyond this session."
            )
            return
        self.note = f"{_shown(self.path)} was damaged; it is now called {aside.name}, and progress begins anew."

    def _write(self) -> None:
        entries = {name: {"failed": t.failed, "solved": t.solved} for name, t in sorted(self._tries.items())}
        if self._writable:
            try:
                write_text(self.path, json.dumps(entries, indent=2) + "\n")
                if self._unwritten.pop(self.path, None) is not None:
                    self.note = ""
                return
            except CourseError:
                self.note = self._not_kept()
        self._unwritten[self.path] = self._tries

    def _not_kept(self) -> str:
        why = f"{_shown(self.path)} cannot be written" if self.path else "there is no home folder"
        return f"Progress is not kept beyond this session: {why}. Name a file in {VARIABLE} that can be."


def location() -> Path | None:
    """The progress file: the one named in UNSLOTH_COURSE_PROGRESS, else one where programs keep their data.

    That is `~/.local/share` (or XDG_DATA_HOME) on Linux and Colab, `~/Library/Application Support` on a Mac and
    LOCALAPPDATA on Windows, in a folder `unsloth-course`. None where there is no home folder.
    """
    try:
        named = os.environ.get(VARIABLE)
        if named:
            path = Path(named).expanduser()
            return path / FILE if path.is_dir() else path
        if sys.platform == "win32":
            folder = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            folder = Path.home() / "Library" / "Application Support"
        else:
            folder = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return Path(folder) / "unsloth-course" / FILE
    except RuntimeError:  # Python finds no home folder
        return None


def _shown(path: Path) -> str:
    """The path with `~` for the home folder: a stored notebook must not name somebody's."""
    try:
        return "~/" + path.relative_to(Path.home()).as_posix()
    except (ValueError, RuntimeError):
        return str(path)
