"""A rehearsal of Colab on this machine: its versions, its variables, a stand-in for its package, and no weights.

`environment` layers Colab's versions of some packages over the packages of the course's own virtual environment, and
leaves out what Colab lacks, so that the install cell has something to install. `run` executes a notebook there as it
would be uploaded, from the first cell to the last, the install cell included.

Where does the model come from, without weights and without a network? In one of two ways: `serve` has the small Hub of
the tests serve the bundled model and generated sets under the names that the lessons ask the Hub for, so that naming,
planning, downloading and checking are gone through too; or MODEL is `POCKET`, the folder of the bundled weights.
"""

import asyncio
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
POCKET = ROOT / "unsloth_course" / "pocket" / "base"
COLAB = {  # as Colab's image had them when Unsloth last published its list, with what the older IPython needs
    "ipython": "7.34.0",
    "ipywidgets": "7.7.1",
    "matplotlib": "3.10.0",
    "numpy": "2.1.3",
    "transformers": "5.15.0",
    "tokenizers": "0.22.2",  # 5.15 takes no 0.23.1
    "peft": "0.20.0",
    "accelerate": "1.14.0",
    "datasets": "4.0.0",
    "backcall": "0.2.0",
    "decorator": "4.4.2",
    "ipython-genutils": "0.2.0",
    "pickleshare": "0.7.5",
}
ABSENT = ("trl", "tyro", "cut_cross_entropy", "hf_transfer", "msgspec", "structlog", "unsloth_course")
"""Not in Colab, small enough to be installed anew by each rehearsal. Unsloth itself and bitsandbytes are lent."""
VARIABLES = {
    "COLAB_RELEASE_TAG": "release-colab_rehearsal",
    "COLAB_BACKEND_VERSION": "next",
    "COLAB_GPU": "",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}


class Unreachable(Exception):
    """The package index did not answer, so Colab's versions cannot be had."""


@dataclass(frozen=True)
class Environment:
    """A Python with Colab's packages, and the folder that its kernels begin in."""

    python: Path
    content: Path

    def variables(self, hub: dict[str, str]) -> dict[str, str]:
        """The variables of a kernel: those of this process, without what the course's own environment set."""
        own = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        inherited = {
            name: value for name, value in os.environ.items() if name not in own and not name.startswith("UNSLOTH_")
        }
        return inherited | VARIABLES | hub | {"PYTHONPATH": str(HERE / "standin")}


def front() -> Path:
    """A folder with Colab's versions, downloaded once and kept outside the repository. Raises Unreachable."""
    key = hashlib.sha256(json.dumps([COLAB, sys.version_info[:2], sys.platform]).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unsloth-course"
    folder = cache / f"colab-{key}"
    if not folder.exists():
        part = cache / f"colab-{key}-{os.getpid()}"
        pins = [f"{name}=={version}" for name, version in COLAB.items()]
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
        done = subprocess.run([*pip, "--target", str(part), *pins], capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(part, ignore_errors=True)
            raise Unreachable((done.stderr.strip().splitlines() or ["pip said nothing"])[-1])
        if not folder.exists():
            part.rename(folder)
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _linked(source: str, target: str) -> None:
    """One file under two names: pip, which replaces files and writes into none, does no harm to the other one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def environment(where: Path) -> Environment:
    """A fresh environment in the folder `where`. Raises Unreachable."""
    colab = front()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(where / "env")], check=True)
    (site,) = (where / "env").glob("lib/python3.*/site-packages")
    shutil.copytree(colab, site, dirs_exist_ok=True, copy_function=_linked)
    lent = where / "lent"  # outside the environment, so that pip uninstalls nothing there
    lent.mkdir()
    here = {entry.name.partition("-")[0].lower() for entry in colab.iterdir() if entry.name != "bin"}
    for entry in Path(importlib.util.find_spec("pip").origin).parents[1].iterdir():
        name = entry.name.partition("-")[0].partition(".")[0].lower()
        if name not in here and name not in ABSENT and not entry.name.endswith(".pth"):
            (lent / entry.name).symlink_to(entry)
    (site / "lent.pth").write_text(f"{lent}\n")
    content = where / "content"
    content.mkdir()
    return Environment(where / "env" / "bin" / "python", content)


class Lost(Exception):
    """The session was ended from outside."""


def run(
    notebook: nbformat.NotebookNode,
    colab: Environment,
    hub: dict[str, str],
    lost: Callable[[], bool] = lambda: False,
) -> nbformat.NotebookNode:
    """Executes every cell of a notebook in a kernel of that environment, and returns it with its outputs.

    As soon as `lost` says so, the kernel is killed, and Lost is raised. Raises nbclient's CellExecutionError when a
    cell raises.
    """
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from nbclient import NotebookClient

    from unsloth_course.commands import runner

    class Colab(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            launcher = str(HERE / "standin" / "colab_kernel_launcher.py")
            argv = [str(colab.python), launcher, "-f", "{connection_file}", "--log-level=ERROR"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python", name=kernel_name)

    async def cells(client: NotebookClient) -> None:
        for position, cell in enumerate(notebook.cells):
            await client.async_execute_cell(cell, position)

    async def execute() -> None:
        client = NotebookClient(notebook, timeout=900, startup_timeout=180, iopub_timeout=60)
        client.store_widget_state = False
        async with runner.kernel.kernel(client, Colab(), cwd=str(colab.content), env=colab.variables(hub)):
            running = asyncio.create_task(cells(client))
            while not (await asyncio.wait([running], timeout=0.1))[0]:
                if lost():
                    await client.km.shutdown_kernel(now=True)
                    running.cancel()
                    await asyncio.wait([running])
                    raise Lost
            running.result()

    asyncio.run(execute())
    return notebook


def prepared(
    notebook: nbformat.NotebookNode,
    full: bool,
    drive: Path | None = None,
    shorter: Mapping[str, int] | None = None,
    **parameters: str,
) -> nbformat.NotebookNode:
    """A notebook for upload with first knobs set, and, unless `full`, with the shorter knobs that CI takes.

    drive: the folder that stands for /content/drive; then checkpoints are kept there. shorter: knobs in place of CI's.
    """
    from shortened import shorten

    from unsloth_course.commands import runner

    notebook = runner.parameters.with_parameters(notebook, parameters)
    for cell in notebook.cells if drive else ():
        if "colab.checkpoints(None" in cell.source:
            keeping = "from unsloth_course.lesson.colab import keeping"
            mount = f"{keeping}\nkeeping.MOUNT = type(keeping.MOUNT)({str(drive)!r})\n"
            cell.source = mount + cell.source.replace("checkpoints(None", 'checkpoints("drive"')
    return notebook if full else shorten(notebook, **(shorter or {}))


def texts(notebook: nbformat.NotebookNode) -> str:
    """All that the cells printed and showed as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)


def serve(hub: object, folder: Path) -> None:
    """Puts the bundled model and generated sets on the small Hub, under the names that the lessons ask for."""
    import pyarrow
    import pyarrow.parquet

    from unsloth_course.lesson.profile import HUB_DATA, HUB_MODEL
    from unsloth_course.pocket import datasets

    answers, pairs, functions = (folder / lesson for lesson in ("lora", "dpo", "cpt"))
    for place in (answers, pairs, functions / "python"):
        place.mkdir(parents=True, exist_ok=True)
    rows = datasets.instructions(12_000, held_out=False, seed=1).to_list()
    (answers / "alpaca_data_cleaned.json").write_text(json.dumps(rows))
    rows = datasets.preferences(12_000, held_out=False, seed=2).to_list()
    (pairs / "orca_rlhf.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = pyarrow.Table.from_pylist(datasets.functions(12_000, held_out=False, seed=3).to_list())
    pyarrow.parquet.write_table(table, functions / "python" / "validation-00000-of-00001.parquet")
    hub.add_model(HUB_MODEL, POCKET)
    for lesson in ("lora", "dpo", "cpt"):
        hub.add_dataset(HUB_DATA[lesson], folder / lesson)
