"""Commands that run lessons and show what they left, that make their videos, and that check the machine."""

import time
from pathlib import Path
from typing import Annotated

import typer

from unsloth_course.cli.app import LEARN, MACHINE, TEACH, Json, Profile, app, complain, stopped
from unsloth_course.core.errors import CourseError


@app.command(rich_help_panel=LEARN)
def run(
    lesson: Annotated[str, typer.Argument(help="full, lora, dpo, grpo, cpt, or all of them.")],
    profile: Annotated[
        Profile | None, typer.Option(help="Machine to run for; without it the lesson looks for itself.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; without it the lesson's own.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help='"pocket", "smollm2", a folder or a name on the Hub; without it the profile\'s.'),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help='"pocket", "english", a file or a name on the Hub; without it what suits the model.'),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for what the lesson writes.")] = Path("results"),
    store: Annotated[bool, typer.Option("--store", hidden=True)] = False,
) -> None:
    """Run a lesson from top to bottom, with live progress.

    Writes the executed notebook, an HTML page and the results JSON into the --out folder. The exit status is 0 only
    when the notebook ran to its end and its receipt says "trained".
    """
    started = time.perf_counter()
    from unsloth_course.commands import runner
    from unsloth_course.core import lessons

    failures = []
    names = lessons.written_lessons() if lesson == "all" else [lesson]
    for name in names:
        try:
            if store and (model or data):
                raise CourseError(
                    "Outputs are stored of the profile's own model and data; leave out --model and --data."
                )
            execute, more = (runner.store, {}) if store else (runner.run, {"model": model, "data": data})
            with stopped(f"Stopped by Ctrl-C during the {name} lesson; what it had done so far is in {out}."):
                outcome = execute(name, profile=profile, seed=seed, out=out, started=started, **more)
            print(runner.summary(outcome))
            if outcome.verdict != "trained":
                raise CourseError(runner.complaint(outcome))
        except CourseError as error:
            if len(names) == 1:
                raise
            complain(str(error))
            failures.append(name)
        started = time.perf_counter()
    if failures:
        raise CourseError(f"{len(failures)} of {len(names)} lessons failed: {', '.join(failures)}.")


@app.command(rich_help_panel=LEARN)
def scoreboard(
    out: Annotated[Path, typer.Option(help="Folder with the results of the lessons.")] = Path("results"),
    as_json: Json = False,
) -> None:
    """Put all runs of the results folder side by side.

    Prints the table and writes scoreboard.json, scoreboard.html and scoreboard.png into the --out folder. The exit
    status is 0 only when there is at least one run.
    """
    from unsloth_course.lesson import scoreboard as boards

    board = boards.read(out)
    print(board.to_json() if as_json else board)
    if not board.rows:
        raise CourseError(f"No run left results in {out}; begin with `python -m unsloth_course run lora --out {out}`.")
    paths = boards.write(board, out)
    if not as_json:
        print("\n".join(f"file  {path}" for path in paths))


@app.command(rich_help_panel=LEARN)
def exercises(
    lesson: Annotated[str | None, typer.Argument(help="full, lora, dpo, grpo or cpt; without it all of them.")] = None,
    as_json: Json = False,
) -> None:
    """Show which exercises are solved.

    Draws a bar for each lesson, and of one lesson a line for each exercise.
    """
    from unsloth_course.lesson import exercises

    found = exercises.progress(lesson)
    print(found.to_json() if as_json else found)


@app.command(rich_help_panel=TEACH)
def storyboard(
    lesson: Annotated[str, typer.Argument(help="full, lora, dpo, grpo, cpt, or all of them.")],
    out: Annotated[Path, typer.Option(help="Folder; each lesson gets its own in it.")] = Path("results/storyboards"),
    profile: Annotated[
        Profile | None, typer.Option(help="Machine whose running times count; else the run's, or cpu.")
    ] = None,
    pace: Annotated[float, typer.Option(help="Spoken words a minute.")] = 140.0,
    run: Annotated[
        Path | None, typer.Option(help="Folder of a run whose outputs are shown and replayed; else the stored ones.")
    ] = None,
    marks: Annotated[
        Path | None, typer.Option(help="The chapters.txt of your recording, its times corrected: captions follow it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write what the recording of a lesson needs: script, captions, recording copy, slides, teleprompter, checklist.

    The exit status is 0 only when the take keeps to 25 to 40 minutes and each segment to its range.
    """
    from unsloth_course import studio
    from unsloth_course.core import lessons

    names = lessons.written_lessons() if lesson == "all" else [lesson]
    made = [studio.write(name, out, profile, pace, run, marks) for name in names]
    print(studio.to_json(made) if as_json else "\n".join(map(str, made)))
    faults = [fault for storyboard in made for fault in storyboard.board.faults()]
    if faults:
        raise CourseError(f"The take is not as planned. {'. '.join(faults)}.")


@app.command(rich_help_panel=TEACH)
def colab(
    out: Annotated[Path | None, typer.Option(help="Folder for the five notebooks.")] = None,
    repository: Annotated[
        str | None, typer.Option(help="OWNER/NAME on GitHub that badges and install cells are to point to.")
    ] = None,
) -> None:
    """Write the notebooks for Colab: each brings this package along, so that uploading the one file is enough.

    --repository changes the address in the notebooks, the README and pyproject.toml of this checkout.
    """
    from unsloth_course.commands.colab import address, upload

    if out is None and repository is None:
        raise CourseError("Say --out FOLDER for notebooks to upload, or --repository OWNER/NAME for another address.")
    for path in address.change(repository) if repository else ():
        print(f"changed  {path}")
    if out is not None:
        for path, size in upload.write(out).items():
            print(f"file  {path}  {size / 1000:,.0f} kB")
        print("Each file carries the package, and no weights.")


@app.command(rich_help_panel=MACHINE)
def doctor(as_json: Json = False) -> None:
    """Check versions, machine, profile, Hub cache and disk.

    The exit status is 0 only when every check passed.
    """
    from unsloth_course.commands import doctor as checks

    report = checks.examine()
    if as_json:
        print(report.to_json())
    else:
        checks.show(report)
    if not report.ok:
        raise typer.Exit(1)
