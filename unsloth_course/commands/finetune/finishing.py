"""What comes after a training: it is measured again, judged, saved, exported, and told on a page and a card."""

import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unsloth_course.commands.finetune import saved as checks
from unsloth_course.commands.finetune import tasks
from unsloth_course.commands.finetune.preparing import Prepared
from unsloth_course.core import markup, whole, writing
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import diagnosis, known_warnings, models, plots, results

REPORT = "report.html"


@dataclass(frozen=True)
class Outcome:
    """A finished run: the results JSON as a dict, the files that were written, the receipt."""

    results: dict[str, Any]
    files: list[Path] = field(default_factory=list)
    receipt: Any = None
    exports: list[Any] = field(default_factory=list)
    warnings: str = ""
    next_steps: Sequence[tuple[str, str]] = ()

    @property
    def trained(self) -> bool:
        """Whether the receipt says anything but "not trained"."""
        return self.results["receipt"]["verdict"] != "not trained"

    def to_json(self) -> str:
        return self.files[-1].read_text(encoding="utf-8").rstrip()

    def __str__(self) -> str:
        exports = [line for made in self.exports for line in ("", str(made))]
        said = ["", "what the libraries said:", self.warnings] if self.warnings else []
        files = ["", *(f"file  {path}" for path in self.files)]
        todo = ["", *writing.in_columns(self.next_steps).splitlines()] if self.next_steps else []
        return "\n".join([str(self.receipt), *exports, *said, *files, *todo])


def finish(prepared: Prepared, trainer: Any, before: Any, started: float, seen: known_warnings.Seen) -> Outcome:
    """Measures again, judges, saves; in the first process."""
    options, model, task, plan = prepared.options, trainer.model, prepared.task, prepared.plan
    after = prepared.measure(model)
    score = tasks.scored(task, before, after, model, prepared.tokenizer)
    answers = (task.answers(before[0]), task.answers(after[0]))
    receipt = diagnosis.receipt(trainer.watching, score, answers if answers[0] else None, plan.prediction.total)
    saved = [_saved(prepared, model, receipt.verdict != "not trained")]
    if options.hand_on:  # for the next stage, which measures first, and sees that it is the same model
        merged = options.out / "merged"
        shutil.rmtree(merged, ignore_errors=True)
        _written(lambda: model.save_pretrained_merged(str(merged), prepared.tokenizer, save_method="merged_16bit"))
        saved.append(merged)
    found = results.build(
        options.lesson,
        prepared.machine,
        prepared.parameters,
        trainer.watching,
        score,
        receipt,
        plan,
        time.monotonic() - started,
        file_bytes=models.disk_bytes(saved[0]),
        samples=results.samples(*answers) if answers[0] else (),
    )
    found["training"] |= {
        "processes": plan.processes,
        "began_at_step": trainer.began,
        "examples": trainer.state.global_step * plan.rows,
        "samples_per_second": _pace(trainer, plan.rows),
    }
    found["method"] = options.method
    found["options"] = asdict(options) | {"out": str(options.out)}
    found["stands"] = _stands(task, before[0], after[0])
    found["earlier"] = [
        _stands(other, was, now)
        for other, was, now in zip(prepared.earlier, prepared.handed or before[2], after[2], strict=True)
    ]
    found["warnings"] = seen.to_list()
    title, history = f"{options.method} of {prepared.machine.model}", trainer.state.log_history
    page = report(options.out, title, receipt, history)
    results.card(found, receipt, saved[0], prepared.base)
    written = results.write(found, options.out)
    whole.discard(options.out / "checkpoints")  # what they were for is saved
    exports = []
    if options.merge or options.gguf:
        from unsloth_course.commands import export

        exports = export.after_training(options.out, options.merge, options.gguf, print)
    files = [*saved, *(Path(path) for made in exports for path in made.written)]
    files += [page] if page else []
    return Outcome(found, [*files, written], receipt, exports, str(seen), next_steps(options.out))


def _stands(task: tasks.Task, was: Any, now: Any) -> dict[str, Any]:
    metric, before = task.stands(was)
    return {"metric": metric, "before": before, "after": task.stands(now)[1]}


def _pace(trainer: Any, rows: int) -> float | None:
    """Rows trained in a second, in all processes together; evaluations and what was trained before a resume aside."""
    seconds = results.seconds([row for row in trainer.state.log_history if row.get("step", 0) >= trainer.began])
    steps = trainer.state.global_step - trainer.began
    return round(steps * rows / seconds, 2) if seconds and steps else None


def _saved(prepared: Prepared, model: Any, trained: bool) -> Path:
    """Writes what was learned; returns the folder of the adapter, or of the model.

    trained: raise CourseError unless what was saved says so too; an exit code does not (see `saved`).
    """
    options, tokenizer = prepared.options, prepared.tokenizer
    if options.method != "full":
        adapter = models.save_adapter(model, tokenizer, options.out / "adapter", base=prepared.base)
        if trained:
            checks.adapter(adapter)
        return adapter
    folder = options.out / "model"
    _written(lambda: (model.save_pretrained(str(folder)), tokenizer.save_pretrained(str(folder))))
    checks.model(folder)
    return folder


def _written(save: Any) -> None:
    try:
        save()
    except OSError as error:
        raise CourseError(
            f"The model could not be written ({error}); free some disk space or choose another --out."
        ) from None


def next_steps(out: Path) -> list[tuple[str, str]]:
    """What can be done with what lies in the folder: in words, and as a command."""
    folder = shlex.quote(str(out))
    return [
        ("talk to it", f"unsloth-course chat {folder}"),
        ("take it elsewhere", f"unsloth-course export {folder} --to gguf"),
        ("share it", f"unsloth-course share {folder} --to OWNER/NAME"),
    ]


def report(out: Path, title: str, receipt: diagnosis.Receipt, history: Sequence[Mapping[str, Any]]) -> Path | None:
    """Writes `report.html`: the receipt with right and wrong answers, what to do now, and the curve.

    history: `trainer.state.log_history`. None, with a line that says why, where the page cannot be made: it must not
    cost the results.
    """
    try:
        rewards = any("reward" in row for row in history)  # GRPO's loss says nothing of what was learned
        curve = plots.traces(history, ["reward", "reward_std"]) if rewards else plots.loss(history)
        todo = markup.table((what, markup.code(command)) for what, command in next_steps(out))
        body = f"{receipt._repr_html_()}<h2>What to do now</h2>{todo}<h2>Curve</h2>"
        writing.write_text(out / REPORT, markup.page(title, body, curve._repr_png_(), curve.caption))
    except Exception as error:
        print(f"{REPORT} could not be made ({type(error).__name__}: {error}); the results are complete without it.")
        return None
    return out / REPORT
