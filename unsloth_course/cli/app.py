"""The command line's frame: groups of commands, what several of them share, and how one ends."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C

PANELS = LEARN, YOURS, TEACH, MACHINE = "Learn", "Your model", "Teach", "Machine"

Profile = Literal["cpu", "gpu"]
"""The two machines a lesson is written for."""
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


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
) -> None: ...


def beside(as_json: bool) -> AbstractContextManager:
    """What is said on the way goes to stderr where JSON is printed: it must not stand in it."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def complain(sentence: str) -> None:
    """Prints a sentence on stderr, in red where there are colours."""
    from rich.console import Console

    Console(stderr=True).print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def stopped(sentence: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        complain(sentence)
        raise typer.Exit(INTERRUPTED) from None
