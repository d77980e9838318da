"""How long each cell of a take lasts, and what follows: segments, sections, chapters."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nbformat import NotebookNode

from unsloth_course.core import lessons, places
from unsloth_course.core.errors import CourseError
from unsloth_course.studio import notes

PACE = 140.0  # spoken words a minute
SLOWEST, FASTEST = 60.0, 260.0
REPLAY_SECONDS = 10.0  # so much of a cell's running time is in a take; the rest is left out by a replay
SEGMENTS = {  # minutes, from and to
    "introduction": (2, 3),
    "code walkthrough": (10, 15),
    "deep dive": (5, 10),
    "data format": (3, 5),
    "results": (5, 10),
    "best practices": (2, 3),
}
TOTAL = (25, 40)
SHORTEST_CHAPTER = 10.0  # seconds; video sites ignore a list with a shorter one
RECORDED = places.RECORDED / "cell_seconds.json"


@dataclass(frozen=True)
class Scene:
    """A cell of the take. Times in seconds; `start` counts from the beginning of the take.

    measured: how long the cell ran when it was recorded; None for prose and for what nobody has measured.
    """

    cell: NotebookNode
    segment: str
    section: str
    parts: tuple[notes.Part, ...]
    start: float
    speaking: float
    pausing: float
    measured: float | None

    @property
    def running(self) -> float:
        """The running time that the take shows."""
        return min(self.measured or 0.0, REPLAY_SECONDS)

    @property
    def is_felt(self) -> bool:
        """Whether the running time is worth a word."""
        return self.running >= 0.5

    @property
    def replayed(self) -> bool:
        """Whether the cell ran longer than a take shows."""
        return (self.measured or 0.0) > REPLAY_SECONDS

    @property
    def seconds(self) -> float:
        """Speaking, pausing and running."""
        return self.speaking + self.pausing + self.running


@dataclass(frozen=True)
class Stretch:
    """A section or a segment: its name, where it first begins and how long all of it lasts, in seconds."""

    name: str
    start: float
    seconds: float
    first: str = ""  # id of its first cell

    @property
    def minutes(self) -> float:
        return self.seconds / 60

    @property
    def wanted(self) -> str:
        """The range of minutes that a segment keeps to."""
        return "{} to {}".format(*SEGMENTS.get(self.name, ("?", "?")))


@dataclass(frozen=True)
class Board:
    """The storyboard of a lesson on a machine: its cells with their times."""

    lesson: str
    profile: str
    pace: float
    title: str
    notebook: NotebookNode = field(repr=False)
    scenes: tuple[Scene, ...] = field(repr=False)
    device: str = ""

    @property
    def seconds(self) -> float:
        return sum(scene.seconds for scene in self.scenes)

    @property
    def minutes(self) -> float:
        return self.seconds / 60

    @cached_property
    def segments(self) -> list[Stretch]:
        """The segments in the order in which they begin; a segment may come back later, its time is that of all."""
        return _stretches((scene.segment, scene) for scene in self.scenes)

    @cached_property
    def sections(self) -> list[Stretch]:
        """The `##` sections in order; what comes before the first is a section with the lesson's title."""
        return _stretches((scene.section, scene) for scene in self.scenes)

    @property
    def chapters(self) -> list[tuple[float, str]]:
        """Start and title of each chapter: a section; one that is too short belongs to the chapter before it."""
        found: list[tuple[float, str]] = []
        for section in self.sections:
            if not found or section.start - found[-1][0] >= SHORTEST_CHAPTER:
                found.append((section.start, section.name))
        while len(found) > 1 and self.seconds - found[-1][0] < SHORTEST_CHAPTER:
            found.pop()
        return found

    @property
    def unmeasured(self) -> list[str]:
        """Ids of code cells that run in a take and whose time nobody has measured."""
        return [scene.cell.id for scene in self.scenes if scene.measured is None and lessons.is_run(scene.cell)]

    def faults(self) -> list[str]:
        """What keeps the take from the six segments and the length of a walkthrough, as sentences; empty if nothing."""
        found = []
        if not TOTAL[0] <= self.minutes <= TOTAL[1]:
            found.append(f"{self.lesson}: {self.minutes:.1f} minutes in all, not {TOTAL[0]} to {TOTAL[1]}")
        lengths = {segment.name: segment.minutes for segment in self.segments}
        for name, (low, high) in SEGMENTS.items():
            minutes = lengths.pop(name, 0.0)
            if not low <= minutes <= high:
                found.append(f"{self.lesson}: {name} takes {minutes:.1f} minutes, not {low} to {high}")
        found += [f"{self.lesson}: no segment is called {name!r}" for name in lengths]
        for scene in self.scenes:
            for mark in notes.unknown_marks(scene.cell.metadata.get("course", {}).get("notes", "")):
                found.append(f"{scene.cell.id}: {mark} in the notes is neither [pause 5 s] nor [point: ...]")
        return found


def board(
    lesson: str,
    notebook: NotebookNode,
    profile: str = "cpu",
    pace: float = PACE,
    seconds: Mapping[str, Any] | None = None,
) -> Board:
    """The storyboard of a lesson's notebook; `seconds` is what `recorded_seconds` gives.

    Raises CourseError for a pace at which nobody speaks.
    """
    if not SLOWEST <= pace <= FASTEST:
        raise CourseError(f"A pace of {pace:g} words a minute is no speech; choose {SLOWEST:g} to {FASTEST:g}.")
    record = recorded_seconds(lesson, profile) if seconds is None else seconds
    times = record.get("cells", {})
    title = next((text for cell in notebook.cells for level, text in lessons.cell_headings(cell) if level == 1), lesson)
    scenes, section, segment, now = [], title, next(iter(SEGMENTS)), 0.0
    for cell in notebook.cells:
        course = cell.metadata.get("course", {})
        segment = course.get("segment", segment)
        section = next((text for level, text in lessons.cell_headings(cell) if level == 2), section)
        parts = notes.parse(course.get("notes", ""))
        speaking = sum(part.words for part in parts) * 60 / pace
        pausing = sum(part.seconds for part in parts)
        scene = Scene(
            cell, segment, section, parts, now, speaking, pausing, times.get(cell.id) if lessons.is_run(cell) else None
        )
        scenes.append(scene)
        now += scene.seconds
    return Board(lesson, profile, pace, title, notebook, tuple(scenes), record.get("device", ""))


def recorded_seconds(lesson: str, profile: str) -> Mapping[str, Any]:
    """Device, date and the seconds of each cell by its id, of a recorded run; empty where nobody has recorded one."""
    return json.loads(RECORDED.read_text(encoding="utf-8")).get(lesson, {}).get(profile, {})


def stamp(seconds: float) -> str:
    """The running clock: 04:09, and 1:02:03 from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def _stretches(named: Iterable[tuple[str, Scene]]) -> list[Stretch]:
    gathered: dict[str, list[Scene]] = {}
    for name, scene in named:
        gathered.setdefault(name, []).append(scene)
    return [
        Stretch(name, scenes[0].start, sum(scene.seconds for scene in scenes), scenes[0].cell.id)
        for name, scenes in gathered.items()
    ]
