"""A lesson as it was run once: what each cell showed and how long it took. Slides and replays show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import results
from unsloth_course.studio import clock


@dataclass(frozen=True)
class ExecutedCopy:
    """A run: profile, device, date, and by the cell's id its source, outputs, seconds. Without cells there is none."""

    device: str = ""
    date: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, Sequence[NotebookNode]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    profile: str = "cpu"

    def __bool__(self) -> bool:
        return bool(self.outputs)

    @property
    def label(self) -> str:
        """Where and when, in words."""
        return f"{self.device}, {self.date}" if self.date else self.device


def stored(lesson: str, profile: str) -> ExecutedCopy:
    """The run whose outputs the lesson's notebook in `notebooks/` holds; that is one of the cpu profile."""
    if profile != "cpu":
        return ExecutedCopy(profile=profile)
    times = clock.recorded_seconds(lesson, profile)
    notebook = nbformat.read(lessons.notebook_path(lesson), 4)
    return _of(notebook, times.get("cells", {}), device=times.get("device", ""))


def read(lesson: str, folder: Path) -> ExecutedCopy:
    """The run that `run LESSON --out FOLDER` left behind; raises CourseError where there is none."""
    path = folder / lessons.LESSONS[lesson]
    try:
        notebook = lessons.read_notebook(path)
        found = results.read(folder / f"{lesson}.json", results.Place)
        run = _of(notebook, timings(notebook), profile=found.profile, device=found.device, date=day(notebook))
        if not any(run.outputs.values()):
            raise ValueError(f"{path.name} has no outputs")
    except (OSError, ValueError, TypeError, AttributeError, CourseError) as error:
        raise CourseError(
            f"{folder} holds no finished run of the {lesson} lesson ({str(error).rstrip('.')[:160]}); make one with "
            f"`python -m unsloth_course run {lesson} --out {folder}`."
        ) from None
    return run


def timings(notebook: NotebookNode) -> dict[str, float]:
    """Seconds that each code cell of an executed copy took, by its id; cells without a record are left out."""
    found = {}
    for cell in notebook.cells:
        said = cell.metadata.get("execution", {})
        begun, ended = said.get("iopub.execute_input"), said.get("shell.execute_reply")
        if begun and ended:
            begun, ended = map(datetime.fromisoformat, (begun, ended))
            found[cell.id] = round((ended - begun).total_seconds(), 2)
    return found


def day(notebook: NotebookNode) -> str:
    """The day on which an executed copy was run, as 2026-11-21; empty where it does not say."""
    said = (cell.metadata.get("execution", {}).get("shell.execute_reply", "") for cell in notebook.cells)
    return next(filter(None, said), "")[:10]


def _of(notebook: NotebookNode, seconds: Mapping[str, Any], **facts: str) -> ExecutedCopy:
    cells = filter(lessons.is_run, notebook.cells)
    cells = [cell for cell in cells if not lessons.has_tag(cell, "injected-parameters")]
    return ExecutedCopy(
        sources={cell.id: cell.source for cell in cells},
        outputs={cell.id: cell.outputs for cell in cells},
        seconds={id: float(value) for id, value in seconds.items()},
        **facts,
    )
