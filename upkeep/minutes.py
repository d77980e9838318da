"""The minutes that the notebooks say of their sections, compared with what their speaker notes take.

    python upkeep/minutes.py            # prints minutes of segments, what is out of range, and what would change
    python upkeep/minutes.py --write    # puts `metadata.course.minutes` on the first cell of each section

Minutes are those of the cpu profile, rounded to halves; the pace is 140 words a minute.
"""

import argparse
import math
import sys
from pathlib import Path

import nbformat

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from unsloth_course.core import lessons  # noqa: E402 -- found only now
from unsloth_course.lesson.results import write_text  # noqa: E402
from unsloth_course.studio import clock  # noqa: E402


def half_minutes(seconds: float) -> float | int:
    """Minutes as a notebook's metadata says them: rounded to halves, at least one of them."""
    minutes = max(0.5, math.floor(seconds / 30 + 0.5) / 2)
    return int(minutes) if minutes == int(minutes) else minutes


def with_minutes(notebook: nbformat.NotebookNode, board: clock.Board) -> list[str]:
    """Sets `metadata.course.minutes` on the first cell of each section, and takes it from all others.

    Returns what was changed, a line for each cell.
    """
    due = {section.first: half_minutes(section.seconds) for section in board.sections}
    changed = []
    for cell in notebook.cells:
        course = cell.metadata.get("course", {})
        was, now = course.get("minutes"), due.get(cell.id)
        if was == now:
            continue
        changed.append(f"{cell.id}: {was} -> {now}")
        course.pop("minutes", None)
        if now is not None:
            cell.metadata.setdefault("course", course)["minutes"] = now
    return changed


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args(arguments).write
    for lesson in lessons.LESSONS:
        path = lessons.notebook_path(lesson)
        notebook = nbformat.read(path, 4)
        for profile in ("cpu", "gpu"):
            board = clock.board(lesson, notebook, profile)
            segments = ", ".join(f"{stretch.name} {stretch.minutes:.1f}" for stretch in board.segments)
            print(f"{lesson} {profile}: {board.minutes:.1f} min ({segments})")
            print("".join(f"    {fault}\n" for fault in board.faults()), end="")
        changed = with_minutes(notebook, clock.board(lesson, notebook))
        print("".join(f"    minutes of {line}\n" for line in changed), end="")
        if write and changed:
            write_text(path, nbformat.writes(notebook) + "\n")


if __name__ == "__main__":
    main()
