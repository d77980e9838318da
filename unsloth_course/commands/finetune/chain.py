"""Stages one after the other, each on the model that the one before made: continued pretraining, then SFT, then DPO.

One TOML file holds the stages, such as docs/chain.toml; what stands above them holds for all. Each stage is `finetune`
in a process and a folder of its own. After each one the held-out rows of all stages before are measured again.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from unsloth_course.commands import options as run_options
from unsloth_course.commands.finetune import recipes
from unsloth_course.commands.options import Options
from unsloth_course.core import whole, writing
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import results
from unsloth_course.lesson.profile import POCKET

RESULTS = "chain.json"
KEPT = 0.10
"""How far a score may fall below what its stage reached: 10 points."""
_OWN = ("target", "name")
_OF_THE_CHAIN = ("model", "out", "resume", "earlier", "hand_on")


@dataclass(frozen=True)
class Stage:
    """One stage: its name, its options, and the score that it has to reach (of perplexity: at most)."""

    name: str
    options: Options
    target: float | None = None

    @property
    def made(self) -> Path:
        """The folder of the whole model that it hands on."""
        return self.options.out / ("model" if self.options.method == "full" else "merged")


class Followed(msgspec.Struct):
    """A held-out score before and after a stage, as its results file has it."""

    metric: str
    before: float
    after: float


class Finished(msgspec.Struct):
    """What a chain reads of a stage's results file."""

    options: dict[str, Any]
    receipt: results.Verdict
    stands: Followed
    earlier: list[Followed]
    wall_seconds: float


@dataclass(frozen=True)
class Row:
    """One stage and its line of the scoreboard: its held-out score after each stage so far.

    `before` is the score before the stage, `scores` by stage name; `lower` whether less is better; `verdict` its
    receipt's.
    """

    stage: str
    metric: str
    before: float
    scores: dict[str, float]
    target: float | None = None
    verdict: str = "trained"
    seconds: float = 0.0

    @property
    def lower(self) -> bool:
        return self.metric == "perplexity"

    @property
    def reached(self) -> float:
        """The score after its own stage."""
        return self.scores[self.stage]

    @property
    def last(self) -> float:
        """The score after the last stage so far."""
        return list(self.scores.values())[-1]

    @property
    def met(self) -> bool:
        return self.target is None or (self.reached <= self.target if self.lower else self.reached >= self.target)

    @property
    def lost(self) -> float:
        """What is lost since, from 0 to 1: points of a share; of perplexity the part of the fall of its logarithm."""
        if not self.lower:
            return self.reached - self.last
        fallen = math.log(self.before / self.reached)
        return math.log(self.last / self.reached) / fallen if fallen > 0 else 0.0

    @property
    def kept(self) -> bool:
        return self.lost <= KEPT


@dataclass(frozen=True)
class Outcome:
    """A finished chain: the scoreboard's rows, a stage each."""

    rows: list[Row]

    @property
    def complaints(self) -> list[str]:
        found = []
        for row in self.rows:
            shown = _shown(row, row.reached)
            if row.verdict != "trained":
                found.append(f"Stage {row.stage}: the receipt says {row.verdict}.")
            if not row.met:
                found.append(f"Stage {row.stage} reached {row.metric} {shown}, and its target is {row.target:g}.")
            if not row.kept:
                found.append(
                    f"What stage {row.stage} taught was lost on the way: {row.metric} {shown} then, "
                    f"{_shown(row, row.last)} at the end. Mix its rows into the later stages, or lower their rates."
                )
        return found

    def to_json(self) -> str:
        rows = [asdict(row) | {"met": row.met, "kept": row.kept, "lost": row.lost} for row in self.rows]
        verdicts, seconds = ({row["stage"]: row.pop(name) for row in rows} for name in ("verdict", "seconds"))
        return json.dumps({"stages": rows, "verdicts": verdicts, "seconds": seconds}, indent=2)

    def __str__(self) -> str:
        names = [row.stage for row in self.rows]
        head = ["held-out score", "before", *(f"after {name}" for name in names), "target", "kept"]
        lines = [head]
        for row in self.rows:
            scores = [_shown(row, row.scores[name]) if name in row.scores else "" for name in names]
            target = "" if row.target is None else ("<= " if row.lower else ">= ") + _shown(row, row.target)
            kept = "yes" if row.kept else "no"
            lines.append([f"{row.stage}: {row.metric}", _shown(row, row.before), *scores, target, kept])
        lines.append(["verdict", "", *(row.verdict for row in self.rows), "", ""])
        lines.append(["seconds", "", *(f"{row.seconds:.0f}" for row in self.rows), "", ""])
        return writing.in_columns(lines)


def _shown(row: Row, value: float) -> str:
    return f"{value:,.2f}" if row.lower else f"{100 * value:.1f} %"


def is_chain(path: Path) -> bool:
    """Whether a TOML file holds stages. A file that cannot be read is none; `options.read` then says why."""
    try:
        return "stage" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False


def read(path: Path, out: Path | None = None) -> tuple[list[Stage], Path]:
    """The stages in a file, and the folder of the chain. Raises CourseError, with the stage, for what is amiss."""
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    stages = found.pop("stage")
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages) or not stages:
        raise CourseError(f"{path}: write each stage under a line [[stage]] of its own.")
    shared = run_options.checked(found, str(path))
    noted, model = shared.pop("out", Path("results/chain")), shared.pop("model", None)
    out = out or noted
    made: list[Stage] = []
    for number, stage in enumerate(stages, 1):
        before = str(made[-1].made) if made else model
        made.append(_stage(stage, shared, f"{path}, stage {number}", out, before, made))
    return made, out


def _stage(
    found: dict[str, Any], shared: dict[str, Any], where: str, out: Path, model: str | None, made: list[Stage]
) -> Stage:
    target = found.get("target")
    if target is not None and type(target) not in (int, float):
        raise CourseError(f"{where}: target is {target!r}; give a number, such as 0.9.")
    values = {**shared, **run_options.checked({k: v for k, v in found.items() if k not in _OWN}, where)}
    for key, example in (("method", "lora"), ("data", "pocket")):
        if key not in values:
            raise CourseError(f'{where} has no {key}. Write one, such as {key} = "{example}".')
    if taken := [key for key in _OF_THE_CHAIN if key in values]:
        raise CourseError(f"{where}: {taken[0]!r} is decided by the chain; take it out of the stage.")
    name = found.get("name") or f"{len(made) + 1}-{values['method']}"
    if not isinstance(name, str) or Path(name).name != name or name in [stage.name for stage in made]:
        raise CourseError(f"{where}: {name!r} is no name for a folder of its own.")
    earlier = tuple(f"{stage.options.method} {stage.options.data}" for stage in made)
    options = Options(**values, model=model, out=out / name, earlier=earlier)
    try:
        run_options.check(options)
    except CourseError as error:
        raise CourseError(f"{where}: {error}") from None
    for before in made:
        _check_comparable(before, options, where)
    return Stage(name, replace(options, hand_on=options.method != "full"), None if target is None else float(target))


def _check_comparable(before: Stage, options: Options, where: str) -> None:
    """Raises CourseError when a stage would measure what the one before taught on other rows, or on rows cut elsewhere.

    The two scores would not be the same model's, and a larger test would hold rows that were trained on.
    """
    first = before.options
    own, _ = recipes.LESSON[first.lesson].get("held_out", (recipes.HELD_OUT, None))
    asked = [each.held_out or own for each in (first, options)]
    # Exact matches and preferences are not cut, raw text is always cut at one length, and GRPO takes no max_length.
    cut = first.lesson in ("full", "lora") and first.data != POCKET and options.method != "grpo"
    differ = ["held_out"] if asked[0] != asked[1] else []
    differ += ["max_length"] if cut and first.max_length != options.max_length else []
    if differ:
        raise CourseError(
            f"{where}: {differ[0]} is not that of stage {before.name}, and what that stage taught is measured again "
            "here, in the same way. Give both stages the same one."
        )


def run(path: Path, out: Path | None = None, resume: bool = False, say: Callable[[str], None] = print) -> Outcome:
    """Runs the stages of a file and returns the scoreboard; it is written to chain.json in the chain's folder.

    resume: leave out the stages that are done, and go on with the next where it was stopped. Raises CourseError when a
    stage fails or its receipt says "not trained", as no later stage can be built on it, and KeyboardInterrupt after
    Ctrl-C or SIGTERM, once the stage has saved and ended.
    """
    stages, out = read(path, out)
    rows: list[Row] = []
    for number, stage in enumerate(stages, 1):
        started = time.monotonic()
        done = _done(stage) if resume else None
        say(f"stage {number} of {len(stages)}: {stage.name}{' is done' if done else ''}")
        if done is None:
            _run_stage(stage, resume)
            if resume:  # what the later stages have left was built on another model than this one
                resume = False
                for later in stages[number:]:
                    whole.discard(later.options.out / "checkpoints")
        found = done or _finished(stage)
        seconds = found.wall_seconds if done else round(time.monotonic() - started, 1)
        for row, measured in zip(rows, found.earlier, strict=True):
            _check_handed_on(stage, row, measured)
            row.scores[stage.name] = measured.after
        score, after = found.stands, {stage.name: found.stands.after}
        rows.append(Row(stage.name, score.metric, score.before, after, stage.target, found.receipt.verdict, seconds))
    outcome = Outcome(rows)
    writing.write_text(out / RESULTS, outcome.to_json() + "\n")
    return outcome


def _check_handed_on(stage: Stage, row: Row, measured: Followed) -> None:
    """Raises CourseError unless the stage began with the score that the one before had ended with."""
    off = abs(measured.before / row.last - 1) if row.lower else abs(measured.before - row.last)
    if off > 0.03:
        raise CourseError(
            f"Stage {stage.name} began with {row.metric} {_shown(row, measured.before)} on what stage {row.stage} "
            f"taught, and the stage before had ended with {_shown(row, row.last)}: it got another model."
        )


def _run_stage(stage: Stage, resume: bool) -> None:
    options = stage.options
    config = options.out / "stage.toml"
    writing.write_text(config, run_options.text(options))
    command = [sys.executable, "-m", "unsloth_course", "finetune", "--config", str(config)]
    # What was begun is gone on with; a stage without a checkpoint begins at its first step.
    process = subprocess.Popen([*command, *(["--resume"] * resume)], env=os.environ | {"PYTHONUNBUFFERED": "1"})
    told: list[int] = []

    def pass_on(number: int, frame: Any) -> None:  # a scheduler sends SIGTERM to the chain alone
        told.append(number)
        process.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()  # it got the signal too, saves, and ends
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if told:
        raise KeyboardInterrupt
    if status:
        raise CourseError(
            f"Stage {stage.name} did not come to its end; above it says why. The stages before it are in "
            f"{options.out.parent}: mend it, and go on with --resume."
        )


def interrupted(path: Path, out: Path | None = None) -> str:
    return f"Stopped. The stages so far are in {read(path, out)[1]}; the same command with --resume goes on from there."


def _finished(stage: Stage) -> Finished:
    path = stage.options.out / f"{stage.options.lesson}.json"
    try:
        return results.read(path, Finished)
    except ValueError as error:
        raise CourseError(f"Stage {stage.name} left no results in {path} ({error}); run the chain again.") from None


def _done(stage: Stage) -> Finished | None:
    """The results of a stage that came to its end with these options, and learned something.

    The options are those in the results: finetune.toml may be that of a later run, which was stopped.
    """
    try:
        found = _finished(stage)
        said = {name: value for name, value in found.options.items() if value is not None}
        before = Options(**run_options.checked(said, "the results"))
    except (CourseError, TypeError):
        return None
    same = not run_options.changed(before, stage.options) and before.earlier == stage.options.earlier
    trained = found.receipt.verdict != "not trained"
    return found if trained and same and before.out == stage.options.out and stage.made.is_dir() else None
