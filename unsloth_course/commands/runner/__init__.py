"""Execute a lesson notebook in a fresh kernel, and write its pages and results."""

import asyncio
import base64
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import nbformat
from nbformat import NotebookNode

from unsloth_course.commands.runner import cleaning, kernel, parameters
from unsloth_course.commands.runner.cleaning import absolute_path_in_outputs, clean, with_clean_metadata
from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY
from unsloth_course.core.writing import in_columns, write_text
from unsloth_course.lesson import results
from unsloth_course.lesson.profile import NEITHER_HUB_NOR_PATH

PICTURES = REPOSITORY / "docs" / "pictures"


@dataclass(frozen=True)
class Outcome:
    """What a finished lesson left behind: the results JSON as a dict, the files, and the executed notebook."""

    lesson: str
    results: dict[str, Any]
    files: list[Path]
    notebook: NotebookNode

    @property
    def verdict(self) -> str:
        """`trained`, `suspicious` or `not trained`, as the lesson's receipt has it."""
        return self.results["receipt"]["verdict"]


def run(
    lesson: str,
    profile: str | None = None,
    seed: int | None = None,
    out: Path = Path("results"),
    started: float | None = None,
    model: str | None = None,
    data: str | None = None,
) -> Outcome:
    """Execute one lesson and return what it left in `out`: `<lesson>.json`, `<lesson>.html` and the executed notebook.

    `profile`, `seed`, `model` and `data` replace the lesson's own knobs when given; `wall_seconds` counts from
    `started`, a `time.perf_counter()`. The files are written whatever the verdict; the notebook and the page also
    after an error or Ctrl-C, up to where the lesson came.

    Raises CourseError when a cell raises, when the kernel dies, or when the lesson writes no valid results;
    KeyboardInterrupt on Ctrl-C, with the kernel already shut down.
    """
    started = time.perf_counter() if started is None else started
    path = lessons.notebook_path(lesson)
    out = _results_folder(out)
    results_path, page_path, copy_path = out / f"{lesson}.json", out / f"{lesson}.html", out / path.name
    if copy_path == path:
        raise CourseError(
            f"--out {out} is the notebooks folder itself; name another one, the lesson must not be replaced."
        )
    knobs = {"PROFILE": profile, "SEED": seed, "OUT": str(out)}
    knobs |= {"MODEL": _from_here(model), "DATA": _from_here(data)}
    notebook = parameters.with_parameters(
        lessons.read_notebook(path), {name: value for name, value in knobs.items() if value is not None}
    )
    before = _fingerprint(results_path)
    try:
        with kernel.progress_of(notebook) as progress:
            asyncio.run(kernel.execute(notebook, path, progress))
    finally:
        write_text(copy_path, nbformat.writes(notebook) + "\n")
        _write_page(notebook, path, page_path)
    if _fingerprint(results_path) == before:
        raise CourseError(
            f"{path.name} ran to its end but did not write {results_path}; its last section should do that."
        )
    found = _read_results(results_path)
    found["wall_seconds"] = round(time.perf_counter() - started, 2)
    write_text(results_path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    files = [file for file in (results_path, page_path, copy_path) if file.is_file()]
    return Outcome(lesson, found, files, notebook)


def _write_page(notebook: NotebookNode, path: Path, target: Path) -> None:
    """Writes the page of a notebook. One that cannot be made costs neither the results nor what went wrong before."""
    try:
        write_text(target, cleaning.page(notebook, path))
    except Exception as error:
        target.unlink(missing_ok=True)
        print(f"{target} could not be made ({type(error).__name__}: {error}).", file=sys.stderr)


def store(
    lesson: str,
    profile: str | None = None,
    seed: int | None = None,
    out: Path = Path("results"),
    started: float | None = None,
) -> Outcome:
    """Run a lesson in the cpu profile and write its cleaned outputs, and nothing else, back into `notebooks/`.

    As `run`; a profile other than cpu, a verdict other than `trained`, or an output that names a path of this machine
    is a CourseError and leaves the stored notebook as it was.
    """
    if profile not in (None, "cpu"):
        raise CourseError("The stored outputs come from the cpu profile, so that anybody can make them again.")
    outcome = run(lesson, profile="cpu", seed=seed, out=out, started=started)
    if outcome.verdict != "trained":
        raise CourseError(f"Nothing was stored. {complaint(outcome)}")
    path = lessons.notebook_path(lesson)
    cells = [cell for cell in outcome.notebook.cells if not lessons.has_tag(cell, "injected-parameters")]
    own = NotebookNode(outcome.notebook, cells=cells)
    cleaned = clean(own, {str(path.parent): ".", str(_results_folder(out)): "results"})
    executed = {cell.id: cell for cell in cleaned.cells}
    target = lessons.read_notebook(path)
    for number, cell in enumerate(target.cells, 1):
        if cell.cell_type == "code":
            cell.outputs = executed[cell.id].outputs
            cell.execution_count = executed[cell.id].execution_count
            leak = absolute_path_in_outputs(cell)
            if leak:
                raise CourseError(
                    f"Nothing was stored: {path.name}, cell {number} prints a path of this machine: {leak}."
                )
    write_text(path, nbformat.writes(with_clean_metadata(target)) + "\n")
    for name, picture in pictures(target).items():
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / f"{name}.png").write_bytes(picture)
    return outcome


def pictures(notebook: NotebookNode) -> dict[str, bytes]:
    """The PNG outputs of cells whose `metadata.course.picture` names them: what the pages show of a lesson."""
    found = {}
    for cell in notebook.cells:
        name = cell.metadata.get("course", {}).get("picture")
        for output in cell.get("outputs", []):
            if name and "image/png" in output.get("data", {}):
                found[name] = base64.b64decode(output["data"]["image/png"])
    return found


def summary(outcome: Outcome) -> str:
    """A few lines for the terminal: score before and after with its interval, retention, time and files."""
    found = outcome.results
    evaluation, training = found.get("evaluation") or {}, found.get("training") or {}
    lines = [("", "verdict", outcome.verdict)]
    if {"metric", "before", "after"} <= evaluation.keys():
        lines.append(("", evaluation["metric"], _before_after(evaluation)))
    retention = evaluation.get("retention") or {}
    if {"before", "after"} <= retention.keys():
        lines.append(("", "retention", _before_after({"metric": evaluation.get("metric"), **retention})))
    seconds = f"{found['wall_seconds']:.1f} s"
    if isinstance(training.get("seconds"), int | float):
        seconds += f", of which {training['seconds']:.1f} s training"
    lines += [("", "time", seconds), *(("", "file", str(file)) for file in outcome.files)]
    return f"{outcome.lesson} lesson\n{in_columns(lines)}"


def _before_after(score: Mapping[str, Any]) -> str:
    share = not score["metric"].endswith("perplexity")
    factor, digits, unit, difference = (100, 1, " %", " points") if share else (1, 2, "", "")

    def number(value: float | None, sign: str = "") -> str:
        # results.write has no number for what is none: a run that broke down
        return "not a number" if value is None else f"{value * factor:{sign}.{digits}f}{unit if not sign else ''}"

    before, after = score["before"], score["after"]
    text = f"{number(before)} -> {number(after)}"
    low, high = score.get("interval") or (None, None)
    if None not in (before, after, low, high):
        change = number(after - before, "+")
        text += f"  ({change}{difference}, 95 % interval {number(low, '+')} to {number(high, '+')})"
    return text


def complaint(outcome: Outcome) -> str:
    findings = outcome.results["receipt"].get("findings", [])
    reasons = " ".join(finding["text"] for finding in findings if finding["level"] != "note")
    verdict = f"The {outcome.lesson} lesson ran to its end, but its verdict is {outcome.verdict!r}"
    return f"{verdict}: {reasons}" if reasons else f"{verdict}; see the receipt in {outcome.files[1]}."


def _from_here(name: str | None) -> str | None:
    """A file or folder of the learner as an absolute path, as the kernel begins in another folder; other names stay."""
    if name is None or name in NEITHER_HUB_NOR_PATH:
        return name
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def _results_folder(out: Path) -> Path:
    out = out.expanduser().resolve()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):  # to know it before the lesson runs
            pass
    except OSError as error:
        raise CourseError(
            f"The results folder {out} cannot be written to ({error.strerror}); name another with --out."
        ) from None
    return out


class _Judged(msgspec.Struct):
    receipt: results.Verdict


def _read_results(path: Path) -> dict[str, Any]:
    try:
        results.read(path, _Judged)
    except ValueError as error:
        raise CourseError(f"{path} holds no results of a lesson: {error}.") from None
    return json.loads(path.read_bytes())


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file is written again; None while there is none."""
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
