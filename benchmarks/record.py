"""Makes the recording of a lesson from the results files of three or more runs that differ in the seed alone.

    python benchmarks/record.py results-1/lora.json results-2/lora.json results-3/lora.json

Writes `unsloth_course/recorded/runs/<lesson>-<profile>.json`. The samples are those of the first file, so name the run
with the lesson's own seed first. Refuses runs that differ in what must be equal, and a run whose verdict is not
"trained".
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from unsloth_course import recordings  # noqa: E402 -- found only now
from unsloth_course.errors import CourseError  # noqa: E402
from unsloth_course.profile import POCKET  # noqa: E402

EQUAL = (
    "lesson",
    "profile",
    "device",
    "model",
    "data",
    "versions",
    "parameters",
    "training.steps",
    "training.learning_rate",
    "training.micro_batch",
    "training.accumulation",
    "evaluation.metric",
)


def recording(files: Sequence[Path], day: str) -> recordings.Recording:
    """The recording that these results files make. Raises CourseError, with the file, where they make none."""
    found = [(path.name if len({p.name for p in files}) > 1 else str(path), _read(path)) for path in files]
    for name, run in found:
        if (verdict := _at(run, "receipt.verdict", name)) != "trained":
            raise CourseError(f"{name}: the verdict is {verdict!r}; only a run that trained is recorded.")
        for what in ("curves", "learning_rate"):
            if not _at(run, "training", name).get(what):
                raise CourseError(f"{name} holds no {what}: it was made by an older version. Run the lesson again.")
        for key in EQUAL:
            if (here := _at(run, key, name)) != (first := _at(found[0][1], key, found[0][0])):
                raise CourseError(f"{name}: {key} is {here!r}, and {first!r} in {found[0][0]}; they have to be equal.")
    first = found[0][1]
    if first["model"] != POCKET:
        raise CourseError(
            f"These runs have the model {first['model']!r}. Only the bundled one is recorded: under a Hub name a "
            "machine without network may have served a stand-in, and nothing in a results file tells the two apart."
        )
    made = recordings.Recording(
        **{key: first[key] for key in ("lesson", "profile", "device", "model", "data", "versions")},
        date=day,
        steps=first["training"]["steps"],
        learning_rate=first["training"]["learning_rate"],
        runs=tuple(_run(run) for _, run in found),
        samples=tuple(first.get("samples", ())),
    )
    if fault := recordings.disagreement(made):
        raise CourseError(f"These files make no recording: {fault}.")
    return made


def _run(results: dict[str, Any]) -> recordings.Run:
    training = results["training"]
    return recordings.Run(
        seed=results["seed"],
        curves={
            name: [(step, float(f"{value:.5g}")) for step, value in curve] for name, curve in training["curves"].items()
        },
        scores=_scores(results["evaluation"]),
        peak_memory_bytes=training["peak_memory_bytes"],
        seconds=round(training["seconds"], 2),
    )


def _scores(evaluation: dict[str, Any]) -> dict[str, tuple[float, float]]:
    parts = {"held out": evaluation, "untouched": evaluation.get("retention"), "right": evaluation.get("correctness")}
    return {
        f"{name}: {part['metric'].replace('_', ' ')}": (part["before"], part["after"])
        for name, part in parts.items()
        if part and all(isinstance(part[end], int | float) and math.isfinite(part[end]) for end in ("before", "after"))
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(f"{path} cannot be read as a results file ({error}).") from None
    if not isinstance(found, dict):
        raise CourseError(f"{path} is not a results file.")
    return found


def _at(run: dict[str, Any], key: str, name: str) -> Any:
    value: Any = run
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise CourseError(f"{name} has no {key!r}, so it is not a results file of a lesson.")
        value = value[part]
    return value


def main() -> int:
    """Writes the recording, or says in a sentence why not; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="results files, the lesson's own seed first")
    parser.add_argument("--date", default=date.today().isoformat(), help="of the runs, YYYY-MM-DD (default: today)")
    parser.add_argument("--into", type=Path, default=recordings.RECORDED, help="folder (default: the package's own)")
    given = parser.parse_args()
    try:
        path = recordings.write(recording(given.results, given.date), given.into)
        made = recordings.read(path.name.partition("-")[0], path.stem.rpartition("-")[2], given.into)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path.name}: {made.label}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
