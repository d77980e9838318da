"""Makes the recordings of the lessons from the results files of three or more runs that differ in the seed alone.

    python upkeep/record.py results-1/lora.json results-2/lora.json results-3/lora.json
    python upkeep/record.py records.tar.gz
    python upkeep/record.py --t4 lora.json    # what somebody sent in from a T4

Writes `unsloth_course/recorded/runs/<lesson>-<profile>[-smollm2].json`. The samples are those of the first file, so
name the run with the lesson's own seed first. Refuses runs that differ in what must be equal, and a run whose verdict
is not "trained". The second form makes a recording of each lesson that `real_lessons.py` packed, and puts the results
files of the real model into `benchmarks/recorded`, which the README's tables are made of. The third puts the one run
of a real T4 there, in the place of the one that stood for it.
"""

import argparse
import json
import math
import re
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from unsloth_course import recordings  # noqa: E402 -- found only now
from unsloth_course.core.errors import CourseError  # noqa: E402
from unsloth_course.lesson.profile import is_pocket  # noqa: E402

RESULTS = REPOSITORY / "benchmarks" / "recorded"
STORED = re.compile(r"(?P<lesson>[a-z]+)-(?P<kind>gpu|gpu-smollm2|t4-smollm2)(-seed(?P<seed>\d+))?\.json")
SEED = "3407"  # the lessons' own: its samples are kept
POINTS = 5  # fewer are not smoothed, and no share of them means anything

EQUAL = (
    "lesson",
    "profile",
    "device",
    "model",
    "data",
    "fingerprint",
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
    for _, run in found:
        run.setdefault("fingerprint", {})  # older results of the bundled model have none
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
    if not is_pocket(first["model"]) and not all(
        part["sha"] for part in first["fingerprint"].values() or [{"sha": ""}]
    ):
        raise CourseError(
            f"These runs have the model {first['model']!r} and no fingerprint of weights and rows; under a Hub name "
            "anything may have been served. Run the lesson again."
        )
    made = recordings.Recording(
        **{key: first[key] for key in ("lesson", "profile", "device", "model", "data", "versions")},
        date=day,
        steps=first["training"]["steps"],
        learning_rate=first["training"]["learning_rate"],
        runs=tuple(_run(run) for _, run in found),
        samples=tuple(first.get("samples", ())),
        fingerprint=first["fingerprint"],
        trained=first["parameters"]["trainable"],
    )
    if fault := disagreement(made):
        raise CourseError(f"These files make no recording: {fault}.")
    return made


def disagreement(recording: recordings.Recording) -> str:
    """What keeps these runs from giving a band, in words; empty where nothing does."""
    runs, key = recording.runs, recording.curve
    # Of the real model fewer are shown as well, without a band.
    if len({run.seed for run in runs}) < max(recordings.SEEDS if is_pocket(recording.model) else 1, len(runs)):
        return f"it wants at least {recordings.SEEDS} runs, each with a seed of its own"
    steps = [[step for step, _ in run.curves.get(key, ())] for run in runs]
    if min(map(len, steps)) < POINTS:
        return f"a run has fewer than {POINTS} points of {key}"
    if any(other != steps[0] for other in steps):
        return f"its runs logged the {key} at different steps"
    if sorted(set(steps[0])) != steps[0] or not 0 <= steps[0][0] <= steps[0][-1] <= recording.steps:
        return f"the steps of its {key} do not rise to {recording.steps}"
    if any(run.scores.keys() != runs[0].scores.keys() for run in runs):
        return "its runs were scored differently"
    if any([one["name"] for one in run.measures] != [one["name"] for one in runs[0].measures] for run in runs):
        return "its runs were measured differently"
    return ""


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
        measures=tuple(measures(results["evaluation"])),
        wall_seconds=results.get("wall_seconds", 0.0),
    )


def measures(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """All measures of a results file that are numbers, the judging one first; of older results the score's own."""
    own = {key: evaluation[key] for key in ("before", "after", "interval", "n")} | {"name": evaluation["metric"]}
    found = list(evaluation.get("measures") or ())
    if own["name"] not in {measure["name"] for measure in found}:
        found.append(own)
    numbers = [one for one in found if all(isinstance(one[end], int | float) for end in ("before", "after"))]
    return sorted(numbers, key=lambda one: not one.get("judges"))


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


def unpack(archive: Path, results: Path, scratch: Path) -> list[list[Path]]:
    """Writes the results files of an archive, those of the real model into `results`; the files of each recording."""
    sets: dict[tuple[str, str], list[Path]] = {}
    with tarfile.open(archive) as packed:
        names = packed.getnames()
        for member in packed.getmembers():
            found = STORED.fullmatch(member.name)
            if not (member.isfile() and found):
                continue
            file = (scratch if found["kind"] == "gpu" else results) / member.name
            file.write_bytes(packed.extractfile(member).read())
            if found["seed"] and not found["kind"].startswith("t4"):
                same = sets.setdefault((found["lesson"], found["kind"]), [])
                same.insert(0 if found["seed"] == SEED else len(same), file)
    if not any(STORED.fullmatch(name) for name in names):
        named = "such as lora-gpu-smollm2-seed3407.json, in no folder"
        raise CourseError(f"{archive} holds no results file under the name that real_lessons.py gives it, {named}.")
    return list(sets.values())


def from_a_t4(file: Path, results: Path) -> Path:
    """Keeps the results of one run on a T4. Raises CourseError where it is none of the real model that trained."""
    run = _read(file)
    lesson, device, model, seed = (_at(run, key, str(file)) for key in ("lesson", "device", "model", "seed"))
    if "T4" not in device or is_pocket(model):
        raise CourseError(f"{file} is a run of {model} on {device}; with --t4 only one of SmolLM2 on a T4 is kept.")
    if (verdict := _at(run, "receipt.verdict", str(file))) != "trained":
        raise CourseError(f"{file}: the verdict is {verdict!r}; only a run that trained is kept.")
    kept = results / f"{lesson}-t4-smollm2-seed{seed}.json"
    kept.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    return kept


def main() -> int:
    """Writes the recordings, or says in a sentence why not; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "results", nargs="+", type=Path, help="results files, the lesson's own seed first; or an archive"
    )
    parser.add_argument("--t4", action="store_true", help="keep the results file of one run on a real T4")
    parser.add_argument("--date", default=date.today().isoformat(), help="of the runs, YYYY-MM-DD (default: today)")
    parser.add_argument("--into", type=Path, default=recordings.RECORDED, help="folder (default: the package's own)")
    parser.add_argument("--results-into", type=Path, default=RESULTS, help="folder for the files of an archive")
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        sets = [given.results]
        try:
            if given.t4:
                print(f"{from_a_t4(given.results[0], given.results_into)}: now python upkeep/table.py --write")
                return 0
            if given.results[0].name.endswith(".tar.gz"):
                sets = unpack(given.results[0], given.results_into, Path(scratch))
        except CourseError as error:
            sys.exit(str(error))
        for files in sets:
            try:
                made = recording(files, given.date)
                print(f"{recordings.write(made, given.into).name}: {made.label}")
            except CourseError as error:
                print(error, file=sys.stderr)
                failed += 1
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
