"""Writes how long each cell ran, from executed copies of the lessons, into unsloth_course/recorded/cell_seconds.json.

    python -m unsloth_course run all --profile cpu --out FOLDER
    python upkeep/cell_seconds.py FOLDER --profile cpu [--remark "other work on the machine"]

`run` keeps nbclient's timings in the executed copy. The device is that of the results file beside the copy; where there
is none, say it with --device. Lessons that are not in the folder keep what was recorded before.
"""

import argparse
import json
import sys
from pathlib import Path

import nbformat

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from unsloth_course.core import lessons  # noqa: E402 -- found only now
from unsloth_course.core.errors import CourseError  # noqa: E402
from unsloth_course.lesson.results import write_text  # noqa: E402
from unsloth_course.studio import clock, executed  # noqa: E402


def record(folder: Path, lesson: str, device: str | None, remark: str = "") -> dict | None:
    """Device, date and seconds by cell of a lesson's executed copy; None where the folder has none.

    Raises CourseError for a copy without timings, and where nobody says the device.
    """
    path, results = folder / lessons.LESSONS[lesson], folder / f"{lesson}.json"
    if not path.is_file():
        return None
    notebook = nbformat.read(path, 4)
    taken = executed.timings(notebook)
    known = {cell.id for cell in notebook.cells if not lessons.has_tag(cell, "injected-parameters")}
    if not taken:
        raise CourseError(f"{path} has no timings; execute it with `run`.")
    if device is None and results.is_file():
        device = json.loads(results.read_text(encoding="utf-8"))["device"]
    if device is None:
        raise CourseError(f"{results} is missing, so nothing says what ran {path.name}; say it with --device.")
    found = {"device": device, "date": executed.day(notebook), "remark": remark}
    return found | {"cells": {id: seconds for id, seconds in taken.items() if id in known}}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", choices=("cpu", "gpu"), required=True)
    parser.add_argument("--device")
    parser.add_argument("--remark", default="")
    asked = parser.parse_args(arguments)
    path = clock.RECORDED
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for lesson in lessons.LESSONS:
        found = record(asked.folder, lesson, asked.device, asked.remark)
        if found:
            kept.setdefault(lesson, {})[asked.profile] = found
            print(f"{lesson}: {len(found['cells'])} cells, {sum(found['cells'].values()):.0f} s, {found['device']}")
    write_text(path, json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except CourseError as error:
        sys.exit(str(error))
