"""Commands for your own model and data."""

import inspect
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from unsloth_course.cli.app import INTERRUPTED, YOURS, Json, Profile, app, beside, complain, say, stopped
from unsloth_course.core.errors import CourseError


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
        with beside(as_json):
            outcome = _chain(config, said) if stages else finetune.run(asked, started)
    except (stopping.Stopped, KeyboardInterrupt) as told:
        interrupted = (chain.interrupted, config, said["out"]) if stages else (finetune.interrupted, asked, began)
        complain(str(told) or interrupted[0](*interrupted[1:]))
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

    found = {"config": (Annotated[Path, typer.Option(help="A TOML file with these options, or with stages.")], None)}
    for name, kind, text in options.on_the_command_line():
        kind = {"profile": Profile}.get(name, kind)
        switch = kind is bool
        option = typer.Option(options.flag(name), help=text) if switch else typer.Option(help=text)
        found[name] = Annotated[kind, option], False if switch else None
    found["as_json"] = Json, False
    command.__annotations__ = {name: kind for name, (kind, _) in found.items()}
    command.__signature__ = inspect.Signature(
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in found.items()
    )
    return command


app.command("finetune", rich_help_panel=YOURS)(_with_options(_finetune))


def _chain(config: Path, said: dict[str, Any]) -> Any:
    from unsloth_course.commands.finetune import chain

    # A zero that was said is no silence.
    given = (name for name, value in said.items() if value is not None and value is not False)
    others = [name for name in given if name not in ("out", "resume")]
    if others:
        raise CourseError(f"{config} holds stages; write {others[0]} into it. Only --out and --resume go beside it.")
    return chain.run(config, said["out"], said["resume"])


@app.command(rich_help_panel=YOURS)
def memory(
    method: Annotated[str, typer.Option(help="full, lora, qlora, dpo, grpo or cpt.")],
    model: Annotated[
        str | None, typer.Option(help='"pocket", "smollm2", a folder or a Hub name (only its config.json is fetched).')
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="A named GPU, such as T4; without it this machine.")] = None,
    length: Annotated[int, typer.Option("--max-length", "--length", min=1, help="Tokens of the longest row.")] = 512,
    rows: Annotated[
        int | None, typer.Option("--batch", "--rows", min=1, help="Rows of an update; without it the lessons' own.")
    ] = None,
    micro_batch: Annotated[int | None, typer.Option(min=1, help="Rows at a time; without it the plan chooses.")] = None,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank.")] = 16,
    as_json: Json = False,
) -> None:
    """Plan a training run: predicted memory, micro-batch and accumulation, and the GPUs that it fits.

    Nothing is loaded or trained. The exit status is 0 only when the run fits the machine.
    """
    from unsloth_course.commands import memory

    with beside(as_json):
        found = memory.report(method, model, gpu, length=length, rows=rows, micro_batch=micro_batch, rank=rank)
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
    as_json: Json = False,
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
    with beside(as_json), stopped("Stopped by Ctrl-C; nothing was written."):
        found = convert.run(file, to, out, max_length, held_out, model, progress=True, part=part)
    print(found.to_json() if as_json else found)
    if not found.converted:
        raise CourseError(found.complaint())


@app.command(rich_help_panel=YOURS)
def export(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of an adapter, a whole model or a run.")],
    to: Annotated[str, typer.Option(help="merged, gguf, ollama or onnx.")],
    quant: Annotated[str, typer.Option(help="f16, q8_0, q5_k_m, q4_k_m, several with commas, or all.")] = "q4_k_m",
    out: Annotated[Path | None, typer.Option(help="Folder for the result; without it export/ beside MODEL.")] = None,
    data: Annotated[
        str | None, typer.Option(help='Held-out questions: "pocket", a file or a Hub name; else as it was trained.')
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model in another form, and prove that it is the same.

    All that is written is loaded again in a fresh process and asked held-out questions. The exit status is 0 only
    when every form made its round trip; what did not is not left behind.
    """
    from unsloth_course.commands import export

    quants = list(export.QUANTS) if quant == "all" else [name.strip().lower() for name in quant.split(",")]

    with stopped("Stopped by Ctrl-C; nothing was exported."):
        found = export.export(source, to, quants=quants, out=out, data=data, say=say)
    print(found.to_json() if as_json else found)


@app.command(rich_help_panel=YOURS)
def share(
    source: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder of an adapter, a whole model, GGUF files or a run.")
    ],
    to: Annotated[str, typer.Option(metavar="OWNER/NAME", help="A repository on the Hub; it is made if need be.")],
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it; without it only you.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Put a model on the Hub, private unless told otherwise.

    Shows what would go, and asks before anything leaves this machine. Rows, settings and checkpoints never go.
    """
    from unsloth_course.commands import share

    parcel = share.gather(source)
    share.require_login()
    print(parcel)
    asked = f"{len(parcel.files)} files to {to}, {'for everybody' if public else 'private'}"
    if not yes and not sys.stdin.isatty():
        raise CourseError(f"Nothing was sent: there is nobody to ask. Add --yes to send {asked}.")
    if not yes and not typer.confirm(f"Send {asked}?"):
        raise CourseError("Nothing was sent.")
    with stopped("Stopped by Ctrl-C; nothing can be seen there, and the same command goes on with what is missing."):
        print(share.send(parcel, to, public))


@app.command(rich_help_panel=YOURS)
def chat(
    source: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder of an adapter, a model or a run; a GGUF file; or smollm2.")
    ],
    system: Annotated[str, typer.Option(help="System prompt; without it the model's own.")] = "",
    temperature: Annotated[float, typer.Option(min=0, max=5, help="0 always takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Draw from the likeliest with this probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from so many tokens at most; 0 for all.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 256,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of what is drawn.")] = 3407,
    prompts: Annotated[Path | None, typer.Option(help="Answer this JSONL file instead of a conversation.")] = None,
    out: Annotated[Path | None, typer.Option(help="Answers of --prompts; a stopped run goes on there.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Prompts of --prompts worked on side by side.")] = 16,
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
            made = chat.answer_file(model, chats, out, sampling, batch, say=say, source=named)
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
