"""The commands. Each imports what it needs when it runs, so that `--help` stays quick."""

import enum
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from .errors import CourseError

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C

app = typer.Typer(
    help="Learn fine-tuning by doing it: five lessons that run on a T4, a local GPU and any CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Profile(enum.StrEnum):
    """The two machines a lesson is written for."""

    cpu = "cpu"
    gpu = "gpu"


@app.callback()
def _keep_command_names() -> None:
    """Learn fine-tuning by doing it: five lessons that run on a T4, a local GPU and any CPU."""


@app.command()
def run(
    lesson: Annotated[str, typer.Argument(help="full, lora, dpo, grpo, cpt, or all of them.")],
    profile: Annotated[
        Profile | None, typer.Option(help="Machine to run for; without it the lesson looks for itself.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; without it the lesson's own.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for what the lesson writes.")] = Path("results"),
    store: Annotated[bool, typer.Option("--store", hidden=True)] = False,
) -> None:
    """Run a lesson from top to bottom, with live progress.

    Writes the executed notebook, an HTML page and the results JSON into the --out folder. The exit status is 0 only
    when the notebook ran to its end and its receipt says "trained".
    """
    started = time.perf_counter()
    from . import runner

    failures = []
    lessons = runner.written_lessons() if lesson == "all" else [lesson]
    for name in lessons:
        try:
            if store:
                outcome = runner.store(name, profile=profile, seed=seed, out=out, started=started)
            else:
                outcome = runner.run(name, profile=profile, seed=seed, out=out, started=started)
            print(runner.summary(outcome))
            if outcome.verdict != "trained":
                raise CourseError(runner.complaint(outcome))
        except CourseError as error:
            if len(lessons) == 1:
                raise
            _complain(str(error))
            failures.append(name)
        except KeyboardInterrupt:
            _complain(f"Stopped by Ctrl-C during the {name} lesson; what it had done so far is in {out}.")
            raise typer.Exit(INTERRUPTED) from None
        started = time.perf_counter()
    if failures:
        raise CourseError(f"{len(failures)} of {len(lessons)} lessons failed: {', '.join(failures)}.")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check versions, machine, profile, Hub cache and disk.

    The exit status is 0 only when every check passed.
    """
    from . import doctor as checks

    report = checks.examine()
    if as_json:
        print(report.to_json())
    else:
        checks.show(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def scoreboard(
    out: Annotated[Path, typer.Option(help="Folder with the results of the lessons.")] = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Put all runs of the results folder side by side.

    Prints the table and writes scoreboard.json, scoreboard.html and scoreboard.png into the --out folder. The exit
    status is 0 only when there is at least one run.
    """
    from . import scoreboard as boards

    board = boards.read(out)
    if as_json:
        print(board.to_json())
    else:
        boards.show(board)
    if not board.rows:
        raise CourseError(f"No run left results in {out}; begin with `python -m unsloth_course run lora --out {out}`.")
    paths = boards.write(board, out)
    if not as_json:
        print("\n".join(f"file  {path}" for path in paths))


@app.command()
def exercises(
    lesson: Annotated[str | None, typer.Argument(help="full, lora, dpo, grpo or cpt; without it all of them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the progress as JSON.")] = False,
) -> None:
    """Show which exercises are solved.

    Draws a bar for each lesson, and of one lesson a line for each exercise.
    """
    from . import exercises as room

    found = room.progress(lesson)
    if as_json:
        print(found.to_json())
    else:
        found.draw()


def _complain(sentence: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of `unsloth-course` and `python -m unsloth_course`: errors a learner can mend print as a sentence."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a Windows pipe may not know every character of a heading
    try:
        app(prog_name="python -m unsloth_course")
    except CourseError as error:
        _complain(str(error))
        sys.exit(1)
