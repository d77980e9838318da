"""The files of recorded runs: which one a run is compared with, reading and writing them."""

import json
from pathlib import Path

from unsloth_course.core import places
from unsloth_course.core.writing import write_text
from unsloth_course.lesson.fingerprint import fingerprint
from unsloth_course.lesson.profile import Profile, is_pocket
from unsloth_course.lesson.recordings.recorded import SEEDS, Recording, Run

RECORDED = places.RECORDED / "runs"
DEVICES = {"cpu": "a CPU", "gpu": "a GPU"}


def find(machine: Profile, lesson: str, folder: Path = RECORDED) -> Recording:
    """The recording to compare a run with: same lesson and profile, same weights and rows; or one that says why none.

    Taught in all five lessons.
    """
    real = not is_pocket(machine.model)
    recording = read(lesson, machine.name, folder, real)
    why = recording.why
    if recording:
        if recording.fingerprint:
            mine, kept = fingerprint(machine.model, machine.data, lesson), recording.fingerprint
        else:  # a record of older results: the names have to do
            mine, kept = (
                {part: {"name": name, "sha": name} for part, name in (("weights", one.model), ("rows", one.data))}
                for one in (machine, recording)
            )
        if other := next((part for part in ("weights", "rows") if mine[part]["sha"] != kept[part]["sha"]), ""):
            found, theirs = mine[other]["name"], kept[other]["name"]
            theirs = f"other {other} of that name" if found == theirs else f"those of {theirs}"
            why = f"No band yet for these {other}: this run has the {other} of {found}, and the recorded ones have "
            why += f"{theirs}."
        elif recording.banded:
            return recording
        else:
            why = f"No band yet: of these weights and rows only {len(recording.runs)} of {SEEDS} runs are recorded."
    elif real:
        why = f"No run with SmolLM2 on {DEVICES[machine.name]} is recorded yet, so there is no band."
    if real:
        why += f" Three runs with seeds of their own make one: send results/{lesson}.json of each in an issue."
    return Recording(lesson, machine.name, why=why)


def file_name(lesson: str, profile: str, real: bool = False) -> str:
    """What the file of a recording is called; real: that of SmolLM2, not of the bundled model."""
    return f"{lesson}-{profile}{'-smollm2' if real else ''}.json"


def read(lesson: str, profile: str, folder: Path = RECORDED, real: bool = False) -> Recording:
    """The recorded runs of a lesson in a profile, "cpu" or "gpu"; where there are none, a recording that says so.

    real: those of SmolLM2, and not of the bundled model.
    """
    path = Path(folder) / file_name(lesson, profile, real)
    if not path.exists():
        what = f"{DEVICES[profile]}{' with SmolLM2' if real else ''}"
        why = f"No run of the {lesson} lesson on {what} is recorded yet, so there is none to look at here."
        return Recording(lesson, profile, why=why)
    found = json.loads(path.read_text(encoding="utf-8"))
    runs = tuple(Run(**run) for run in found.pop("runs"))
    return Recording(**found, runs=runs)


def write(recording: Recording, folder: Path = RECORDED) -> Path:
    """Writes a recording under its `file_name`; for `upkeep/record.py`."""
    kept = {key: value for key, value in vars(recording).items() if key not in ("runs", "why")}
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in kept.items()]
    runs = ",\n".join(json.dumps(vars(run), allow_nan=False) for run in recording.runs)
    path = Path(folder) / file_name(recording.lesson, recording.profile, not is_pocket(recording.model))
    write_text(path, "{" + ",\n".join([*lines, f'"runs": [\n{runs}\n]']) + "}\n")
    return path
