"""The commands, thin, and all in one file: so their options can be compared, and one word means one thing everywhere.

Each imports what it needs when it runs, so that `--help` stays quick.
"""

import inspect
import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from unsloth_course.core.errors import CourseError

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C

PANELS = LEARN, YOURS, TEACH, MACHINE = "Learn", "Your model", "Teach", "Machine"


class _InPanels(TyperGroup):
    """The commands in groups, as plain text: rich would take a quarter of a second for it."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        known = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
        for panel in PANELS:
            rows = [(one.name, one.get_short_help_str(90)) for one in known if one.rich_help_panel == panel]
            with formatter.section(panel):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=_InPanels,
    help="Learn fine-tuning by doing it: five lessons that run on a T4, a local GPU and any CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Profile = Literal["cpu", "gpu"]
"""The two machines a lesson is written for."""


def _show_version(asked: bool) -> None:
    if asked:
        from unsloth_course import __version__

        print(f"unsloth-course {__version__}")
        raise typer.Exit


@app.callback()
def _course(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Learn fine-tuning by doing it: five lessons that run on a T4, a local GPU and any CPU."""


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
            outcome = execute(name, profile=profile, seed=seed, out=out, started=started, **more)
            print(runner.summary(outcome))
            if outcome.verdict != "trained":
                raise CourseError(runner.complaint(outcome))
        except CourseError as error:
            if len(names) == 1:
                raise
            _complain(str(error))
            failures.append(name)
        except KeyboardInterrupt:
            _complain(f"Stopped by Ctrl-C during the {name} lesson; what it had done so far is in {out}.")
            raise typer.Exit(INTERRUPTED) from None
        started = time.perf_counter()
    if failures:
        raise CourseError(f"{len(failures)} of {len(names)} lessons failed: {', '.join(failures)}.")


def _finetune(**said: Any) -> None:
    """Train as a lesson does, on your own data and model.

    All that was asked for is written to finetune.toml beside the result, and --config repeats it. A file with [[stage]]
    runs stages, each on the model of the one before. Under torchrun it trains on several GPUs (docs/several-gpus.md).
    The exit status is 0 only when the run came to its end and the receipt does not say "not trained".
    """
    started = time.monotonic()
    config, as_json = said.pop("config"), said.pop("as_json")
    from unsloth_course.commands import finetune, options
    from unsloth_course.commands.finetune import chain, stopping

    stages = config is not None and chain.is_chain(config)
    asked = None if stages else options.asked(config, said)
    began = time.time() - 1  # the clock that dates files is a little behind
    try:
        with _beside(as_json):
            outcome = _chain(config, said) if stages else finetune.run(asked, started)
    except stopping.Stopped as stopped:
        _complain(str(stopped))
        raise typer.Exit(INTERRUPTED) from None
    except KeyboardInterrupt:
        _complain(chain.interrupted(config, said["out"]) if stages else finetune.interrupted(asked, began))
        raise typer.Exit(INTERRUPTED) from None
    if outcome is None:  # not the first of several processes
        return
    print(outcome.to_json() if as_json else outcome)
    if stages and outcome.complaints:
        raise CourseError(" ".join(outcome.complaints))
    if not stages and not outcome.trained:
        raise CourseError(outcome.receipt.sentence())


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with a parameter for each option that `options` knows, and --config and --json."""
    from unsloth_course.commands import options

    kinds: dict[str, Any] = {
        "config": (Annotated[Path, typer.Option(help="A TOML file with these options, or with stages.")], None)
    }
    for name, kind, text in options.on_the_command_line():
        kind = {"profile": Profile}.get(name, kind)
        switch = kind is bool
        option = typer.Option(options.flag(name), help=text) if switch else typer.Option(help=text)
        kinds[name] = Annotated[kind, option], False if switch else None
    kinds["as_json"] = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")], False
    keyword = inspect.Parameter.KEYWORD_ONLY
    command.__signature__ = inspect.Signature(
        [inspect.Parameter(name, keyword, default=default, annotation=kind) for name, (kind, default) in kinds.items()]
    )
    command.__annotations__ = {name: kind for name, (kind, _) in kinds.items()}
    return command


app.command("finetune", rich_help_panel=YOURS)(_with_options(_finetune))


def _chain(config: Path, said: dict[str, Any]) -> Any:
    """Runs the stages of a file."""
    from unsloth_course.commands.finetune import chain

    # A zero that was said is no silence.
    said_beside = [name for name, value in said.items() if value is not None and value is not False]
    others = [name for name in said_beside if name not in ("out", "resume")]
    if others:
        raise CourseError(f"{config} holds stages; write {others[0]} into it. Only --out and --resume go beside it.")
    return chain.run(config, said["out"], said["resume"])


@app.command(rich_help_panel=MACHINE)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
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


@app.command(rich_help_panel=LEARN)
def scoreboard(
    out: Annotated[Path, typer.Option(help="Folder with the results of the lessons.")] = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Put all runs of the results folder side by side.

    Prints the table and writes scoreboard.json, scoreboard.html and scoreboard.png into the --out folder. The exit
    status is 0 only when there is at least one run.
    """
    from unsloth_course.lesson import scoreboard as boards

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


@app.command(rich_help_panel=YOURS)
def memory(
    method: Annotated[str, typer.Option(help="full, lora, qlora, dpo, grpo or cpt.")],
    model: Annotated[
        str | None, typer.Option(help='"pocket", "smollm2", a folder or a Hub name (only its config.json is fetched).')
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="A named GPU, such as T4; without it this machine.")] = None,
    length: Annotated[int, typer.Option("--max-length", "--length", help="Tokens of the longest row.")] = 512,
    rows: Annotated[
        int | None, typer.Option("--batch", "--rows", help="Rows of an update; without it the lessons' own.")
    ] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Rows at a time; without it the plan chooses.")] = None,
    rank: Annotated[int, typer.Option(help="LoRA rank.")] = 16,
    free: Annotated[bool, typer.Option("--free", help="The plan chooses the rows of an update, too.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps with --batch; they follow when --free.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Rate with --batch; it follows when --free.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Plan a training run: predicted memory, micro-batch and accumulation, and the GPUs that it fits.

    Nothing is loaded or trained. The exit status is 0 only when the run fits the machine.
    """
    from unsloth_course.commands import memory

    with _beside(as_json):
        found = memory.report(
            method,
            model=model,
            gpu=gpu,
            length=length,
            rows=rows,
            micro_batch=micro_batch,
            rank=rank,
            free=free,
            steps=steps,
            learning_rate=learning_rate,
        )
    print(found.to_json() if as_json else found)
    if not found.plan.fits:
        raise typer.Exit(1)


@app.command(rich_help_panel=YOURS)
def data(
    file: Annotated[str, typer.Argument(help="A file, a folder of rows or of raw text, or a name on the Hub.")],
    to: Annotated[
        str | None,
        typer.Option(help="instruction, chat, preference, function-calling, problems or text; else what suits."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A .jsonl, .jsonl.gz, .json or .parquet file to write.")] = None,
    max_length: Annotated[int, typer.Option(min=1, help="Tokens above which a row is cut.")] = 512,
    held_out: Annotated[str | None, typer.Option(help="A file of the rows that are kept for testing.")] = None,
    model: Annotated[str, typer.Option(help='Whose tokens are counted: "pocket", a folder or a Hub name.')] = "pocket",
    split: Annotated[str | None, typer.Option(help="Of a set with splits; without it train or what begins so.")] = None,
    config_name: Annotated[str | None, typer.Option(help="Configuration; without it main or the first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Detect the form of a data set, check every row, and convert it.

    Reads alpaca, ShareGPT, messages, prompt/completion, questions with answers, preferences in their public forms,
    Glaive function calls, problems and raw text; JSON, JSON lines, CSV and Parquet. A row that cannot be used is set
    aside with a reason, and kept in OUT.set-aside.jsonl. The exit status is 0 only when at least one row is ready and
    all were accounted for.
    """
    from unsloth_course.commands.convert import convert
    from unsloth_course.lesson.data.splits import Part

    part = Part(split, config_name)
    with _beside(as_json):
        try:
            found = convert.run(file, to, out, max_length, held_out, model, progress=True, part=part)
        except KeyboardInterrupt:
            _complain("Stopped by Ctrl-C; nothing was written.")
            raise typer.Exit(INTERRUPTED) from None
    print(found.to_json() if as_json else found)
    if not found.converted:
        raise CourseError(found.complaint())


@app.command(rich_help_panel=LEARN)
def exercises(
    lesson: Annotated[str | None, typer.Argument(help="full, lora, dpo, grpo or cpt; without it all of them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the progress as JSON.")] = False,
) -> None:
    """Show which exercises are solved.

    Draws a bar for each lesson, and of one lesson a line for each exercise.
    """
    from unsloth_course.lesson import exercises

    found = exercises.progress(lesson)
    if as_json:
        print(found.to_json())
    else:
        found.draw()


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
    as_json: Annotated[bool, typer.Option("--json", help="Print times and files as JSON.")] = False,
) -> None:
    """Write what the recording of a lesson needs: script, chapters, recording copy, slides, teleprompter, checklist.

    The exit status is 0 only when the take keeps to 25 to 40 minutes and each segment to its range.
    """
    from unsloth_course import studio
    from unsloth_course.core import lessons

    names = lessons.written_lessons() if lesson == "all" else [lesson]
    made = [studio.write(name, out, profile, pace, run) for name in names]
    print(studio.to_json(made) if as_json else "\n".join(map(str, made)))
    faults = [fault for storyboard in made for fault in storyboard.board.faults()]
    if faults:
        raise CourseError(f"The take is not as planned. {'. '.join(faults)}.")


@app.command(rich_help_panel=YOURS)
def export(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder with an adapter or a whole model.")],
    to: Annotated[str, typer.Option(help="merged, gguf, ollama or onnx.")],
    quant: Annotated[str, typer.Option(help="f16, q8_0, q5_k_m, q4_k_m, several with commas, or all.")] = "q4_k_m",
    out: Annotated[Path | None, typer.Option(help="Folder for the result; without it export/ beside MODEL.")] = None,
    data: Annotated[
        str | None, typer.Option(help='Held-out questions: "pocket", a file or a Hub name; else as it was trained.')
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Write a model in another form, and prove that it is the same.

    All that is written is loaded again in a fresh process and asked held-out questions. The exit status is 0 only
    when every form made its round trip; what did not is not left behind.
    """
    from unsloth_course.commands import export

    quants = list(export.QUANTS) if quant == "all" else [name.strip().lower() for name in quant.split(",")]

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        found = export.export(source, to, quants=quants, out=out, data=data, say=say)
    except KeyboardInterrupt:
        _complain("Stopped by Ctrl-C; nothing was exported.")
        raise typer.Exit(INTERRUPTED) from None
    print(found.to_json() if as_json else found)


@app.command(rich_help_panel=TEACH)
def colab(
    out: Annotated[Path | None, typer.Option(help="Folder for the five notebooks.")] = None,
    repository: Annotated[
        str | None, typer.Option(help="OWNER/NAME on GitHub that badges and install cells are to point to.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write the notebooks for Colab: each brings this package along, so that uploading the one file is enough.

    --repository changes the address in the notebooks, the README and pyproject.toml of this checkout.
    """
    from unsloth_course.commands.colab import address, upload

    if out is None and repository is None:
        raise CourseError("Say --out FOLDER for notebooks to upload, or --repository OWNER/NAME for another address.")
    changed = address.change(repository) if repository else []
    for path in changed:
        print(f"changed  {path}", file=sys.stderr)
    if out is not None:
        written = upload.write(out)
        print(written.to_json() if as_json else written)
    elif as_json:
        print(json.dumps({"repository": repository, "changed": [str(path) for path in changed]}, indent=2))


@app.command(rich_help_panel=YOURS)
def chat(
    source: Annotated[
        str, typer.Argument(metavar="MODEL", help="An adapter, a model's folder, a GGUF file or smollm2.")
    ],
    system: Annotated[str, typer.Option(help="System prompt; without it the model's own.")] = "",
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens with this probability in all.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Draw from so many tokens at most; 0 for all.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 3407,
    prompts: Annotated[Path | None, typer.Option(help="Answer this JSONL file instead of a conversation.")] = None,
    out: Annotated[Path | None, typer.Option(help="Answers of --prompts; a stopped run goes on there.")] = None,
    batch: Annotated[int, typer.Option(help="Prompts of --prompts worked on side by side.")] = 16,
) -> None:
    """Talk to a model; answers stream as they are written.

    An empty line or Ctrl-D ends the conversation, /new begins another, /tool TEXT says what a function returned. With
    --prompts it answers a file, in order.
    """
    from unsloth_course.commands import chat

    sampling = chat.Sampling(temperature, top_p, top_k, max_new_tokens, seed)
    if (prompts is None) != (out is None):
        raise CourseError("--prompts and --out go together: a file of prompts and the file of their answers.")
    chats = chat.read_prompts(prompts, system) if prompts else []
    if prompts and out.exists() and out.samefile(prompts):
        raise CourseError(f"The answers would be written into {prompts}, the file of the prompts. Give another --out.")
    model = chat.open_model(source)
    try:
        if prompts:
            path = Path(source).expanduser()
            named = str(path.resolve()) if path.exists() else source
            made = chat.answer_file(
                model, chats, out, sampling, batch, say=lambda line: print(line, file=sys.stderr), source=named
            )
            print(f"{made} answered now, {len(chats)} in all\nfile  {out}")
        else:
            _talk(chat.Conversation(model, sampling, system))
    except KeyboardInterrupt:
        print()
        raise typer.Exit(INTERRUPTED) from None
    finally:
        model.close()


def _talk(conversation: Any) -> None:
    while True:
        try:
            text = input("> " if sys.stdin.isatty() else "").strip()
            text.encode()  # what is no UTF-8 may come in as halves of surrogate pairs
        except EOFError:
            return
        except UnicodeError:
            raise CourseError("What came in is no UTF-8 text, and a model reads no other. Write it in UTF-8.") from None
        if not text:
            return
        if text == "/new":
            conversation.history.clear()
            continue
        role = "user"
        if text.startswith("/tool "):
            role, text = "tool", text.removeprefix("/tool ")
        for piece in conversation.say(text, role):
            print(piece, end="", flush=True)
        print(flush=True)


def _beside(as_json: bool) -> AbstractContextManager:
    """What is said on the way goes to stderr where JSON is printed: it must not stand in it."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def _complain(sentence: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of `unsloth-course` and `python -m unsloth_course`: errors a learner can mend print as a sentence."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a Windows pipe may not know every character of a heading
    try:
        if not Path(".").exists():
            raise CourseError("The folder that this terminal is in has been deleted; go to another one with cd.")
        app(prog_name="unsloth-course")
    except CourseError as error:
        _complain(str(error))
        sys.exit(1)
