"""Documents, each of which is one text, and the files of a folder with the reasons to leave some of them out."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data.rows import Row

DOCUMENTS = (".txt", ".md", ".py", ".txt.gz")
MAX_FILE_BYTES = 64 * 2**20
"""A document above this is set aside: it is a dump rather than a text, and all of it would be held in memory."""


def read(stream: BinaryIO, file: str) -> Iterator[Row]:
    """The one row of a document, with the column text: UTF-8, or UTF-16 with a byte order mark.

    stream: of its bytes, unpacked. file: what messages call it. Raises CourseError with the file, and the position of
    the byte that is amiss, for what is too large, binary, or in another encoding; OSError where it cannot be read.
    """
    raw = stream.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        limit = f"{MAX_FILE_BYTES / 2**20:,.0f} MiB"
        raise CourseError(f"{file}: it has more than {limit}, which is the limit. Cut it into several files.")
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    binary = raw.find(b"\0") if encoding == "utf-8" else -1
    if binary >= 0:
        raise CourseError(
            f"{file}: byte {binary} (from 0) is zero, so it is binary, or UTF-16 without a byte order mark. "
            "Leave it out, or save it as UTF-8."
        )
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        place = f"{file}: byte {error.start} (from 0)"
        raise CourseError(f"{place} is not {encoding.upper()}. Save the file as UTF-8.") from None
    if "\0" in text:
        raise CourseError(f"{file}: it holds the character zero, so it is binary. Leave it out, or save it as UTF-8.")
    text = text.removeprefix("\ufeff")
    if text and not text.isspace():
        yield Row(file, 1, {"text": text})


def check_plain(path: Path, file: str) -> None:
    """Raises CourseError for what is not there, and for what is no plain file: to read a pipe can take for ever."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name
        folder = "" if path.is_absolute() else f" in {os.getcwd()}"
        raise CourseError(f"There is no file {file}{folder}. Check the name and the folder.") from None
    except OSError as error:
        raise CourseError(f"{file} cannot be read: {error.strerror or error}.") from None
    if not stat.S_ISREG(mode):
        raise CourseError(f"{file} is not a plain file. Name one.")


def files_in(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Each file below a folder, in the order of the paths, with a reason to set it aside or None; no hidden ones."""
    try:
        with os.scandir(folder) as entries:
            inside = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        yield folder, f"it cannot be read: {error.strerror or error}"
        return
    for name, is_dir in inside:
        path = folder / name
        if name.startswith("."):
            continue
        if path.is_symlink():
            yield path, "it is a link, and links are not followed"
        elif is_dir:
            yield from files_in(path)
        else:
            yield path, None
