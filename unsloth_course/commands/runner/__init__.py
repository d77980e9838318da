"""Execute a lesson notebook in a fresh kernel, and write its pages and results."""

import ast
import asyncio
import base64
import copy
import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from unsloth_course.commands.runner.cleaning import absolute_path_in_outputs, clean, with_clean_metadata
from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY
from unsloth_course.core.writing import write_text
from unsloth_course.lesson.profile import NEITHER_HUB_NOR_PATH

PICTURES = REPOSITORY / "docs" / "pictures"

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The page may show pictures and styles that it carries, and nothing else: no script runs, nothing is fetched.
CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
# On a wide screen a line of text stays short enough to be read, and stands in the middle.
PAGE_STYLE = "main { max-width: 1080px; margin: 0 auto; }"

# What nbclient logs about a dead or interrupted kernel, the learner gets as a sentence.
_SILENT = logging.Logger("unsloth_course.commands.runner")
_SILENT.addHandler(logging.NullHandler())


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

    `profile`, `seed`, `model` and `data` replace the lesson's own knobs when given. `started` is the
    `time.perf_counter()` from which `wall_seconds` in the results counts; without it, the moment of the call. The files
    are written whatever the verdict; the notebook and the page also after an error or Ctrl-C, up to where the lesson
    came.

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
    knobs = {"PROFILE": profile and str(profile), "SEED": seed, "OUT": str(out)}
    knobs |= {"MODEL": _from_here(model), "DATA": _from_here(data)}
    notebook = with_parameters(
        lessons.read_notebook(path), {name: value for name, value in knobs.items() if value is not None}
    )
    before = _fingerprint(results_path)
    try:
        with _progress(notebook) as progress:
            asyncio.run(_execute(notebook, path, progress))
    finally:
        write_text(copy_path, nbformat.writes(notebook) + "\n")
        write_text(page_path, page(notebook, path))
    if _fingerprint(results_path) == before:
        raise CourseError(
            f"{path.name} ran to its end but did not write {results_path}; its last section should do that."
        )
    results = _read_results(results_path)
    results["wall_seconds"] = round(time.perf_counter() - started, 2)
    write_text(results_path, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    return Outcome(lesson, results, [results_path, page_path, copy_path], notebook)


def store(
    lesson: str,
    profile: str | None = None,
    seed: int | None = None,
    out: Path = Path("results"),
    started: float | None = None,
) -> Outcome:
    """Run a lesson in the cpu profile and write its cleaned outputs, and nothing else, back into `notebooks/`.

    Arguments and errors as in `run`; a profile other than cpu, a verdict other than `trained`, or an output that still
    names a path of this machine is a CourseError and leaves the stored notebook as it was.
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
    """The PNG outputs of cells whose `metadata.course.picture` names them: what the README shows of a lesson."""
    found = {}
    for cell in notebook.cells:
        name = cell.metadata.get("course", {}).get("picture")
        for output in cell.get("outputs", []):
            if name and "image/png" in output.get("data", {}):
                found[name] = base64.b64decode(output["data"]["image/png"])
    return found


# Parameters


def with_parameters(notebook: NotebookNode, values: Mapping[str, str | int]) -> NotebookNode:
    """A copy of the notebook, without outputs, with a cell of `NAME = value` lines after the one tagged `parameters`.

    The convention is papermill's (https://papermill.readthedocs.io/en/latest/usage-parameterize.html). Raises
    CourseError unless exactly one code cell has the tag and it assigns every name in `values`.
    """
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    tagged = [
        i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and lessons.has_tag(cell, "parameters")
    ]
    if len(tagged) != 1:
        raise CourseError(f"The notebook has {len(tagged)} code cells tagged 'parameters'; it needs exactly one.")
    missing = sorted(set(values) - assigned_names(notebook.cells[tagged[0]].source))
    if missing:
        raise CourseError(
            f"The cell tagged 'parameters' does not set {', '.join(missing)}, so a value given would be lost."
        )
    if values:
        lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        injected = nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]})
        notebook.cells.insert(tagged[0] + 1, injected)
    return notebook


def assigned_names(source: str) -> set[str]:
    """Names that the top level of a piece of Python assigns; none when it does not parse."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return set()
    targets = []
    for statement in body:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets.append(statement.target)
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


class _ThisPython(KernelSpecManager):
    """Knows one kernel, the Python that runs this command, whatever kernels are registered on the machine."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        # The kernel would warn on the terminal that its messages are not encrypted; they never leave this machine.
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python", name=kernel_name)


class _LessonClient(NotebookClient):
    """A notebook client that tells the progress display what the running cell last said."""

    progress: "_Progress"

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        status = _status_line(msg)
        if status:
            self.progress.status(status)
        return super().process_message(msg, cell, cell_index)


def _status_line(message: dict[str, Any]) -> str:
    """The last line of printed or displayed text in a kernel message; of stderr, only progress bars."""
    content = message["content"]
    if message["msg_type"] == "stream":
        text = content["text"] if content["name"] == "stdout" or "%|" in content["text"] else ""
    elif message["msg_type"] in ("display_data", "update_display_data"):
        text = content["data"].get("text/plain", "")
    else:
        text = ""
    lines = [_printable(line).strip() for line in re.split(r"[\r\n]", text)]
    # `<IPython.core.display.HTML object>` says nothing to a person.
    return next((line for line in reversed(lines) if line and not line.startswith("<")), "")


def _printable(text: str) -> str:
    """The text without escape sequences and control characters: a dataset row must not steer the terminal."""
    return "".join(character for character in ANSI.sub("", text) if character.isprintable())


async def _execute(notebook: NotebookNode, path: Path, progress: "_Progress") -> None:
    """Run every code cell; on return or raise, the notebook holds the outputs so far and the kernel is gone."""
    client = _LessonClient(
        notebook,
        timeout=None,
        startup_timeout=180,  # a busy machine may take more than nbclient's minute
        iopub_timeout=60,  # a busy machine may deliver a picture seconds after the cell is done
        store_widget_state=False,
        record_timing=True,  # in the executed copy only; cleaning takes it out of what is stored
        log=_SILENT,
    )
    client.progress = progress
    titles, position = lessons.headings(notebook), 0
    # What cells print comes through the kernel's messages. Its own stderr holds only the chatter of native libraries,
    # and the reason when it dies.
    said = tempfile.TemporaryFile()  # noqa: SIM115 -- closed below, after the kernel that writes to it
    try:
        async with kernel(client, _ThisPython(), cwd=str(path.parent), env=_kernel_environment(), stderr=said):
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

    how: arguments of `start_kernel`. Raises RuntimeError when no kernel answers. A kernel is told its ports before it
    opens them, so that another program, or a second notebook that starts in the same moment, can be faster. It dies
    then, and a second one, with other ports, lives.
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
    lines = [_printable(line).strip() for line in said.read().decode(errors="replace").splitlines()]
    return next((f" Its last words: {line}" for line in reversed(lines) if line), "")


def _kernel_environment() -> dict[str, str]:
    """The environment with this package on the path, so that the lesson imports the same code as this command."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _place(name: str, notebook: NotebookNode, position: int) -> str:
    """File, cell number as the learner counts it in the lesson (without the injected cell), and heading."""
    number = sum(not lessons.has_tag(cell, "injected-parameters") for cell in notebook.cells[: position + 1])
    title = lessons.headings(notebook)[position]
    return f"{name}, cell {number}" + (f" ({title})" if title else "")


def _error_sentence(error: CellExecutionError, name: str, notebook: NotebookNode, position: int) -> str:
    message = " ".join(_printable(line).strip() for line in error.evalue.splitlines()).strip()
    if error.ename == CourseError.__name__:
        return message
    what = f"{error.ename}: {message}".rstrip(": .")
    return f"{_place(name, notebook, position)}: {what}. The copy in the --out folder shows what ran up to there."


# Progress


class _Progress(Protocol):
    def cell(self, title: str) -> None:
        """A code cell under this heading begins."""

    def status(self, text: str) -> None:
        """The running cell said this."""


class _PlainProgress:
    """One line per section, for logs: no control characters, nothing is overwritten."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.title, self.started = total, 0, None, time.perf_counter()

    def cell(self, title: str) -> None:
        self.done += 1
        if title != self.title:
            self.title = title
            elapsed = time.perf_counter() - self.started
            print(f"{elapsed:6.1f} s  cell {self.done}/{self.total}  {_printable(title)}", file=sys.stderr, flush=True)

    def status(self, text: str) -> None:
        """A log keeps the sections only."""


class _TerminalProgress:
    """A bar over the cells, with the section and what the running cell last said."""

    def __init__(self, bar: Any, total: int) -> None:
        self.bar, self.begun, self.title = bar, 0, ""
        self.task = bar.add_task("starting the kernel", total=total)

    def cell(self, title: str) -> None:
        self.title = _printable(title)
        self.bar.update(self.task, completed=self.begun, description=self.title)
        self.begun += 1

    def status(self, text: str) -> None:
        self.bar.update(self.task, description=f"{self.title} | {text[:60]}")

    def finish(self) -> None:
        self.bar.update(self.task, completed=self.begun, description="done")


@contextmanager
def _progress(notebook: NotebookNode) -> Iterator[_Progress]:
    total = sum(map(lessons.is_run, notebook.cells))
    if not sys.stderr.isatty():
        yield _PlainProgress(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), text)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        progress = _TerminalProgress(bar, total)
        yield progress
        progress.finish()


# Pages and results


def page(notebook: NotebookNode, path: Path) -> str:
    """The notebook as one HTML page that fetches nothing and runs no script; formulas therefore show as their source.

    `path` is the notebook's file; pictures its Markdown names are read from beside it.
    """
    from bs4 import BeautifulSoup
    from nbconvert import HTMLExporter

    notebook = clean(notebook, {str(path.parent): "."})
    notebook.metadata.setdefault("title", next(filter(None, lessons.headings(notebook)), path.stem))
    resources = {"metadata": {"name": path.stem, "path": str(path.parent)}}
    html, _ = HTMLExporter(embed_images=True).from_notebook_node(notebook, resources)
    soup = BeautifulSoup(html, "html.parser")
    for script in soup.find_all("script"):
        script.decompose()
    for image in soup.find_all("img", src=re.compile("^(https?:)?//")):
        image.replace_with(image.get("alt") or "picture")
    policy = soup.new_tag("meta", attrs={"http-equiv": "Content-Security-Policy", "content": CONTENT_POLICY})
    soup.head.insert(0, policy)
    style = soup.new_tag("style")
    style.string = PAGE_STYLE
    soup.head.append(style)
    return str(soup)


def summary(outcome: Outcome) -> str:
    """A few lines for the terminal: score before and after with its interval, retention, time and files."""
    results = outcome.results
    evaluation, training = results.get("evaluation") or {}, results.get("training") or {}
    lines = [("verdict", outcome.verdict)]
    if {"metric", "before", "after"} <= evaluation.keys():
        lines.append((evaluation["metric"], _before_after(evaluation)))
    retention = evaluation.get("retention") or {}
    if {"before", "after"} <= retention.keys():
        lines.append(("retention", _before_after({"metric": evaluation.get("metric"), **retention})))
    seconds = f"{results['wall_seconds']:.1f} s"
    if isinstance(training.get("seconds"), int | float):
        seconds += f", of which {training['seconds']:.1f} s training"
    lines.append(("time", seconds))
    lines += [("file", str(file)) for file in outcome.files]
    width = max(len(name) for name, _ in lines)
    return "\n".join([f"{outcome.lesson} lesson"] + [f"  {name:<{width}}  {value}" for name, value in lines])


def _before_after(score: Mapping[str, Any]) -> str:
    if score["metric"].endswith("perplexity"):
        factor, digits, unit, difference = 1, 2, "", ""
    else:
        factor, digits, unit, difference = 100, 1, " %", " points"

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
    """The sentence for a lesson that ran to its end without the verdict `trained`."""
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


def _read_results(path: Path) -> dict[str, Any]:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(f"{path} is not valid JSON ({error}).") from None
    receipt = results.get("receipt") if isinstance(results, dict) else None
    verdict = receipt.get("verdict") if isinstance(receipt, dict) else None
    if verdict not in lessons.VERDICTS:
        raise CourseError(
            f"{path} has no receipt.verdict; it must be one of {', '.join(lessons.VERDICTS)}, and it is {verdict!r}."
        )
    return results


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file is written again; None while there is none."""
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
