"""What a run leaves for a reader: the page of it, the card of what was learned, and what to do with that now."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unsloth_course.commands.options import CONFIG, Options
from unsloth_course.core import markup, writing
from unsloth_course.lesson import diagnosis, plots
from unsloth_course.lesson.profile import HUB_MODEL, POCKET, SMOLLM2

REPORT = "report.html"
CARD = "README.md"


def next_steps(out: Path) -> list[tuple[str, str]]:
    """What can be done with what lies in the folder: in words, and as a command."""
    folder = shlex.quote(str(out))
    return [
        ("talk to it", f"unsloth-course chat {folder}"),
        ("take it elsewhere", f"unsloth-course export {folder} --to gguf"),
        ("repeat the run", f"unsloth-course finetune --config {shlex.quote(str(out / CONFIG))} --out ANOTHER"),
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


def card(found: Mapping[str, Any], options: Options, receipt: diagnosis.Receipt, base: str) -> str:
    """The model card (README.md) of what was learned, from the results of its run; no path and no row is in it.

    base: the name of the model that it was trained from. Follows the Hub's documentation of model cards.
    """
    hub, data = {SMOLLM2: HUB_MODEL}.get(base, base), Path(options.data).expanduser()
    own = base != POCKET and os.path.exists(os.path.expanduser(base))
    name = "a model of its owner's" if own else {POCKET: "the bundled model of unsloth-course"}.get(base, hub)
    training, adapter = found["training"], options.method != "full"
    rows = [
        ("method", options.method),
        ("data", data.name if data.exists() else options.data),
        ("training", f"{training['steps']} updates, {training['examples']:,} rows, rate {training['learning_rate']:g}"),
        ("trained parameters", f"{found['parameters']['trainable']:,} of {found['parameters']['total']:,}"),
        *receipt.rows(),
    ]
    lines = ["---", f"library_name: {'peft' if adapter else 'transformers'}", "tags: [unsloth, trl]"]
    lines += [f"base_model: {hub}"] if "/" in hub and not own else []
    lines += ["---", "", f"# {'A LoRA adapter' if adapter else 'A model'}, trained from {name}", ""]
    lines += [f"Made by unsloth-course, with Unsloth and TRL. {receipt.sentence()}", "", "| | |", "|---|---|"]
    lines += [f"| {what} | {value.replace('|', '/')} |" for what, value in rows]
    return "\n".join([*lines, "", "Talk to it with `unsloth-course chat FOLDER`.", ""])
