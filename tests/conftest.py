"""Fixtures that more than one file needs. Unsloth is imported by the first test that trains, not at collection."""

import importlib.util
import json
import logging
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from unsloth_course import cli, data, diagnosis, evaluation, models, profile, training
from unsloth_course.commands import runner
from unsloth_course.core import lessons
from unsloth_course.core.places import REPOSITORY

# The processes of `pytest -n` share the cores, and so do the lessons that they start; threads that wait for one
# another on a core that another process has cost more than they bring.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
# The environment as it was before Unsloth put its own variables into it: for processes of their own.
ENVIRONMENT = dict(os.environ)
# What profile.detect sets for a lesson, before any test loads torch: a test run shares its machine with other programs.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# What pytest makes of a file of tests is kept for the next run and the other processes, also where the variable
# PYTHONDONTWRITEBYTECODE is set: making it takes longer than anything else before the first test.
sys.dont_write_bytecode = False
# A test run shares its machine with other programs, and no example has to be done in 200 ms.
hypothesis.settings.register_profile("course", deadline=None)
hypothesis.settings.load_profile("course")
TWO_CORES = profile.Machine(
    cuda_name=None, cuda_bytes=0, bfloat16=False, cores=2, memory_bytes=8 * 1024**3, apple_silicon=False
)


def twice(run: Callable[[], None]) -> Callable[[], None]:
    """Once more where a kernel died before its first word: two that begin at once may have chosen the same port."""

    def tried() -> None:
        try:
            run()
        except RuntimeError as error:
            if not runner.kernel.died_at_start(error):
                raise
            run()

    return tried


def looked_at(path: Path, run: Callable[[], None]) -> Callable[[], None]:
    """Runs nbmake's notebook, and looks at what a lesson wrote."""
    lesson = next((name for name, file in lessons.LESSONS.items() if file == path.name), None)

    def looking() -> None:
        from lesson_runs import require_learned

        begun = time.time()
        run()
        if lesson:
            require_learned(lesson, path.with_name("results"), begun)

    return looking


# How long each file of tests took when it was recorded, in seconds: `pytest --record-seconds` writes it.
SECONDS = Path(__file__).with_name("seconds.json")
WHERE = {"lesson": r"_lesson\.py$|\.ipynb$", "browser": "browser", "colab": "rehearsal"}  # marks, by the file
# Files that read the `healthy` run.
HEALTHY = r"/test_(sick_runs|export|evaluation|diagnosis|measuring|models|results|lowrank|scale)\.py$"
SLOW = 0.1  # seconds that a test of the quick loop may take, on the mean of its file


def pytest_addoption(parser):
    parser.addoption("--record-seconds", action="store_true", help=f"write how long each file took to {SECONDS.name}")


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_collection_modifyitems(items):
    """Marks tests by what they do, and begins with the files that take longest, so that no process waits at the end."""
    recorded = json.loads(SECONDS.read_text(encoding="utf-8")) if SECONDS.exists() else {}
    counts = Counter(_file(item.nodeid) for item in items)
    for item in items:
        file = _file(item.nodeid)
        if type(item).__name__ == "NotebookItem":  # nbmake's
            item.runtest = looked_at(item.path, twice(item.runtest))
        marks = {mark for mark, ending in WHERE.items() if re.search(ending, file)}
        if "load" in getattr(item, "fixturenames", ()):
            marks.add("trains")
        if marks or recorded.get(file, 0) > SLOW * counts[file]:
            marks.add("slow")
        for mark in marks:
            item.add_marker(mark)
    items.sort(key=lambda item: -recorded.get(_file(item.nodeid), 0))


def pytest_xdist_make_scheduler(config, log):
    """With --dist loadfile the files that read the one `healthy` run go to the same process, which trains it once."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "healthy" if re.search(HEALTHY, file) else file

    return Together(config, log)


TAKEN: Counter[str] = Counter()


def pytest_runtest_logreport(report):
    TAKEN[_file(report.nodeid)] += report.duration


def pytest_sessionfinish(session):
    if session.config.getoption("--record-seconds") and not hasattr(session.config, "workerinput"):
        seconds = {file: round(taken, 1) for file, taken in sorted(TAKEN.items()) if taken >= 1}
        SECONDS.write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")


@dataclass
class Run:
    """A finished run: the trainer, what was asked before and after, and the receipt."""

    trainer: Any
    watching: diagnosis.Watch
    before: Any
    after: Any
    receipt: diagnosis.Receipt
    tokenizer: Any = None
    held_out: Any = None

    @property
    def model(self) -> Any:
        return self.trainer.model

    @property
    def verdict(self) -> str:
        return self.receipt.verdict

    @property
    def findings(self) -> set[str]:
        return {finding.name for finding in self.receipt.findings}


def assert_sick(run: Run, *names: str) -> None:
    """The verdict is "not trained", for these reasons, and every way of reading the receipt says so."""
    assert run.verdict == "not trained", str(run.receipt)
    assert set(names) <= run.findings
    assert run.receipt.sentence().startswith("This run did not train. ")
    assert "NOT TRAINED" in str(run.receipt) and "Not trained." in run.receipt._repr_html_()
    assert run.receipt.to_dict()["verdict"] == "not trained"


@pytest.fixture(scope="session")
def machine() -> profile.Profile:
    """The cpu profile of the bundled model, decided without a look at this machine."""
    return profile.decide(TWO_CORES)


@pytest.fixture(scope="session")
def load(machine) -> Callable[[], tuple[Any, Any]]:
    """Loads the pocket model anew, through Unsloth: `model, tokenizer = load(full_finetuning=False)`.

    With `model_name` another, from its folder.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("UNSLOTH_FORCE_CPU", "UNSLOTH_DISABLE_STATISTICS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
            patch.setenv(name, machine.environment[name])
        profile.quiet()
        profile.keep_freed_memory()
        from unsloth import FastLanguageModel
    logging.getLogger("transformers").setLevel(logging.ERROR)

    def pocket(**arguments: Any) -> tuple[Any, Any]:
        how = {"model_name": models.folder("pocket"), "max_seq_length": machine.max_length}
        how |= {"dtype": machine.torch_dtype, "load_in_4bit": False}
        return FastLanguageModel.from_pretrained(**(how | arguments))

    return pocket


def unsloth_source(name: str) -> Path:
    """A file of Unsloth's part for GPUs, to be read or loaded by itself.

    Importing it in its package would patch what Unsloth trains with on a CPU, in all tests after it.
    """
    return Path(importlib.util.find_spec("unsloth").origin).with_name("models") / f"{name}.py"


def script(name: str) -> Any:
    """A script of benchmarks/ or upkeep/ as a module, with the other scripts in reach."""
    folders = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "upkeep")]
    sys.path[:0] = folders
    try:
        return importlib.import_module(name)
    finally:
        for folder in folders:
            sys.path.remove(folder)


@pytest.fixture(scope="session")
def with_adapter(load) -> Callable[..., tuple[Any, Any]]:
    """Puts a new adapter on the pocket model, loaded anew, or on `made`: `model, tokenizer = with_adapter(rank=16)`."""

    def adapted(rank: int = 16, made: tuple[Any, Any] | None = None, **arguments: Any) -> tuple[Any, Any]:
        from unsloth import FastLanguageModel

        model, tokenizer = made or load()
        settings = {"r": rank, "lora_alpha": rank, "lora_dropout": 0, "target_modules": models.PROJECTIONS}
        settings |= {"use_gradient_checkpointing": False, "random_state": 3407}
        return FastLanguageModel.get_peft_model(model, **(settings | arguments)), tokenizer

    return adapted


def chat(rows: Any) -> Any:
    """Instruction rows in the columns that the trainer takes."""
    return rows.map(data.instruction.to_prompt_completion, batched=True, remove_columns=rows.column_names)


@pytest.fixture(scope="session")
def run_pocket(machine, with_adapter, tmp_path_factory) -> Callable[..., Run]:
    """Trains a fresh adapter as the LoRA lesson does, only shorter.

    steps: of `rows` rows each. change(rows) may replace them, and spoil(trainer) do anything before the training.
    `made` is a model with its tokenizer to train in place of a fresh adapter. Other arguments go to
    `training.supervised_trainer`.
    """
    asked: dict[int, Any] = {}

    def run(
        steps: int = 8,
        rows: int = 4,
        change: Callable[[Any], Any] = chat,
        spoil: Callable[[Any], None] = lambda trainer: None,
        made: tuple[Any, Any] | None = None,
        held_out: int = 16,
        **settings: Any,
    ) -> Run:
        model, tokenizer = made or with_adapter()
        train, questions, _ = data.sources.instructions("pocket", train=rows * steps, held_out=held_out, seed=3407)
        before = None if made else asked.get(held_out)  # a fresh adapter changes nothing
        before = before or evaluation.answered(model, tokenizer, questions, machine.max_length)
        if not made:
            asked[held_out] = before
        how = {"learning_rate": 1e-3, "warmup_steps": 3, "weight_decay": 0, "logging_steps": 2, "seed": 3407} | settings
        how |= {"steps": steps, "out": tmp_path_factory.mktemp("checkpoints"), "per_device_train_batch_size": rows}
        trainer = training.supervised_trainer(model, tokenizer, change(train), machine, **how)
        spoil(trainer)
        watching = diagnosis.watch(trainer)
        trainer.train()
        after = evaluation.answered(model, tokenizer, questions, machine.max_length)
        answers = before.asked, after.asked
        receipt = diagnosis.receipt(watching, evaluation.instruction_score(before, after), answers)
        return Run(trainer, watching, *answers, receipt, tokenizer, questions)

    return run


@pytest.fixture(scope="session")
def healthy(run_pocket) -> Run:
    """A short run that learns, and whose answers end. Leave it as you found it: many tests read it."""
    return run_pocket(steps=90, rows=16, held_out=48)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of this machine's Chromium, or of another browser of its family; without one the test is skipped."""
    programs = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, programs)), None)
    if found is None:
        pytest.skip(
            "There is no Chromium here. Install it (Debian: apt-get install chromium; elsewhere Chromium, Chrome or "
            "Edge), or name the program in the variable CHROMIUM."
        )
    return found


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line: `status, out, err = command("run", "lora")`."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["unsloth-course", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return call


@pytest.fixture
def hub_here(tmp_path, monkeypatch):
    """A running Hub on this machine; huggingface_hub and datasets point at it, with caches of their own."""
    import datasets
    from hub_server import HubServer
    from huggingface_hub import constants

    with HubServer() as running:
        template = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in (
            ("ENDPOINT", running.endpoint),
            ("HUGGINGFACE_CO_URL_TEMPLATE", template),
            ("HF_HUB_CACHE", str(tmp_path / "cache")),
            ("HF_HUB_DISABLE_XET", True),
            ("HF_HUB_OFFLINE", False),
        ):
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "arrow"))
        yield running
