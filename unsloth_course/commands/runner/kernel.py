"""The kernel that a lesson runs in, how far it has come, and the sentence where it does not come to its end."""

import asyncio
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY

# What nbclient logs about a dead or interrupted kernel, the learner gets as a sentence.
SILENT = logging.Logger("unsloth_course.commands.runner.kernel")
SILENT.addHandler(logging.NullHandler())
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def printable(text: str) -> str:
    """The text without escape sequences and control characters: a dataset row must not steer the terminal."""
    return "".join(character for character in ANSI.sub("", text) if character.isprintable())


class Progress:
    """A bar over the cells, with the section and what the running cell last said.

    Outside a terminal one line per section, for logs: no control characters, nothing is overwritten.
    """

    def __init__(self, bar: Any, total: int) -> None:
        self.bar, self.task = bar, bar.add_task("starting the kernel", total=total)
        self.total, self.done, self.title, self.started = total, 0, "", time.perf_counter()

    def cell(self, title: str) -> None:
        title = printable(title)
        self.bar.update(self.task, completed=self.done, description=title)
        self.done += 1
        if self.bar.disable and title != self.title:
            elapsed = time.perf_counter() - self.started
            print(f"{elapsed:6.1f} s  cell {self.done}/{self.total}  {title}", file=sys.stderr, flush=True)
        self.title = title

    def status(self, text: str) -> None:
        self.bar.update(self.task, description=f"{self.title} | {text[:60]}")


@contextmanager
def progress_of(notebook: NotebookNode) -> Iterator[Progress]:
    from rich import progress as rich
    from rich.console import Console

    text = rich.TextColumn("{task.description}", markup=False)
    columns = (rich.BarColumn(bar_width=20), rich.MofNCompleteColumn(), rich.TimeElapsedColumn(), text)
    with rich.Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        shown = Progress(bar, sum(map(lessons.is_run, notebook.cells)))
        yield shown
        bar.update(shown.task, completed=shown.done, description="done")


class ThisPython(KernelSpecManager):
    """Knows one kernel, the Python that runs this command, whatever kernels are registered on the machine."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        # The kernel would warn on the terminal that its messages are not encrypted; they never leave this machine.
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python", name=kernel_name)


class _LessonClient(NotebookClient):
    """A notebook client that tells the progress display what the running cell last said."""

    progress: Progress

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        if status := status_line(msg):
            self.progress.status(status)
        return super().process_message(msg, cell, cell_index)


def status_line(message: dict[str, Any]) -> str:
    """The last line of printed or displayed text in a kernel message; of stderr, only progress bars."""
    content = message["content"]
    if message["msg_type"] == "stream":
        text = content["text"] if content["name"] == "stdout" or "%|" in content["text"] else ""
    elif message["msg_type"] in ("display_data", "update_display_data"):
        text = content["data"].get("text/plain", "")
    else:
        text = ""
    lines = [printable(line).strip() for line in re.split(r"[\r\n]", text)]
    # `<IPython.core.display.HTML object>` says nothing to a person.
    return next((line for line in reversed(lines) if line and not line.startswith("<")), "")


async def execute(notebook: NotebookNode, path: Path, progress: Progress) -> None:
    """Run every code cell; on return or raise, the notebook holds the outputs so far and the kernel is gone."""
    client = _LessonClient(
        notebook,
        timeout=None,
        startup_timeout=180,  # a busy machine may take more than nbclient's minute
        iopub_timeout=60,  # a busy machine may deliver a picture seconds after the cell is done
        store_widget_state=False,
        record_timing=True,  # in the executed copy only; cleaning takes it out of what is stored
        log=SILENT,
    )
    client.progress = progress
    titles, position = lessons.headings(notebook), 0
    # What cells print comes through the kernel's messages. Its own stderr holds only the chatter of native libraries,
    # and the reason when it dies.
    said = tempfile.TemporaryFile()  # noqa: SIM115 -- closed below, after the kernel that writes to it
    try:
        async with kernel(client, ThisPython(), cwd=str(path.parent), env=environment(), stderr=said):
            for position, cell in enumerate(notebook.cells):
                if lessons.is_run(cell):
                    progress.cell(titles[position])
                await client.async_execute_cell(cell, position)
    except CellExecutionError as error:
        raise CourseError(_error_sentence(error, path.name, notebook, position)) from None
    except DeadKernelError:
        # nbclient also reports a cancelled task, which is how asyncio delivers Ctrl-C, as a dead kernel.
        if asyncio.current_task().cancelling():
            raise asyncio.CancelledError from None
        raise CourseError(
            f"{_place(path.name, notebook, position)}: the kernel died, most often because memory ran out. "
            f"Close other programs, or make the run smaller in the knobs cell.{_last_words(said)}"
        ) from None
    except RuntimeError as error:
        raise CourseError(
            f"The Jupyter kernel did not start ({error}); is ipykernel installed in {sys.prefix}?{_last_words(said)}"
        ) from None
    finally:
        said.close()


@asynccontextmanager
async def kernel(client: NotebookClient, specs: KernelSpecManager, **how: Any) -> AsyncIterator[None]:
    """Give the client a kernel that `specs` knows, and end it afterwards, at once where what ran in it raised.

    how: arguments of `start_kernel`. Raises RuntimeError when no kernel answers. A kernel dies where another program
    takes a port between its choice and its opening, so it is started once more, with other ports.
    """
    finished = False
    try:
        try:
            await _start_kernel(client, specs, how)
        except RuntimeError as error:
            if not died_at_start(error):
                raise
            await _start_kernel(client, specs, how)
        yield
        finished = True
    finally:
        if client.kc is not None:
            client.kc.stop_channels()
        if client.km is not None and client.km.has_kernel:
            await client.km.shutdown_kernel(now=not finished)


async def _start_kernel(client: NotebookClient, specs: KernelSpecManager, how: dict[str, Any]) -> None:
    client.km = AsyncKernelManager(kernel_spec_manager=specs, log=client.log)
    await client.async_start_new_kernel(**how)
    await client.async_start_new_kernel_client()


def died_at_start(error: RuntimeError) -> bool:
    """Whether it is jupyter_client's on a kernel that died before it said anything, which may live the next time."""
    return "Kernel died before replying" in str(error)


def _last_words(said: IO[bytes]) -> str:
    """The last line that a dead kernel wrote to its stderr, as a sentence, or nothing."""
    said.seek(0)
    lines = [printable(line).strip() for line in said.read().decode(errors="replace").splitlines()]
    return next((f" Its last words: {line}" for line in reversed(lines) if line), "")


def environment() -> dict[str, str]:
    """The environment with this package on the path, so that the lesson imports the same code as this command."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _place(name: str, notebook: NotebookNode, position: int) -> str:
    """File, cell number as the learner counts it in the lesson (without the injected cell), and heading."""
    number = sum(not lessons.has_tag(cell, "injected-parameters") for cell in notebook.cells[: position + 1])
    title = lessons.headings(notebook)[position]
    return f"{name}, cell {number}" + (f" ({title})" if title else "")


def _error_sentence(error: CellExecutionError, name: str, notebook: NotebookNode, position: int) -> str:
    message = " ".join(printable(line).strip() for line in error.evalue.splitlines()).strip()
    if error.ename == CourseError.__name__:
        return message
    what = f"{error.ename}: {message}".rstrip(": .")
    return f"{_place(name, notebook, position)}: {what}. The copy in the --out folder shows what ran up to there."
