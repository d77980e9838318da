"""The command `finetune` on rented GPUs of Modal: the same recipe, the same options, nothing else.

    pip install ".[modal]"
    python -m unsloth_course.commands.modal_app --gpu H100 --count 2 -- --method lora --data my_rows.json --model ...

It needs an account with Modal, which bills by the second. Follows Modal's documentation of App, Image and Volume. See
docs/several-gpus.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import PACKAGE, REPOSITORY
from unsloth_course.setup.pins import tested

GPUS = ("T4", "L4", "A10G", "A100", "A100-80GB", "L40S", "H100", "H200")
NAME = "unsloth-course"
THERE, DATA, RESULTS = "/course", "/course/data", "/results"
HOURS = 6


def command(arguments: Sequence[str], count: int) -> list[str]:
    """The command line that trains on so many GPUs of one host: that of docs/several-gpus.md."""
    launcher = ["torchrun", "--standalone", f"--nproc-per-node={count}"] if count > 1 else ["python"]
    return [*launcher, "-m", "unsloth_course", "finetune", *arguments]


def packed(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """The options for over there, and the files of this machine that go along: the one that `--data` names, if any.

    Raises CourseError when a file is named that is not here.
    """
    parser = argparse.ArgumentParser(prog="finetune", add_help=False, allow_abbrev=False)
    parser.add_argument("--data", default="")
    found, others = parser.parse_known_args(arguments)
    file = Path(found.data).expanduser()
    if file.is_file():
        return [*others, "--data", f"{DATA}/{file.name}"], [file]
    if file.suffix in (".json", ".jsonl", ".gz"):
        raise CourseError(f"There is no file {file} to take along; give the path of one to --data.")
    return list(arguments), []


def packages() -> tuple[list[str], list[str]]:
    """The pins of requirements.txt for Linux with CUDA: those to install, and those to install without dependencies."""
    pins = tested()
    if not pins.all:
        raise CourseError("requirements.txt is not beside the package; run this from a checkout of the course.")
    packages, torch = pins.around_torch("cuda")
    return [*packages, *torch], list(pins.no_deps)


def build(gpu: str, count: int = 1, files: Sequence[Path] = ()) -> tuple[Any, Any]:
    """Modal's App and the Function in it, which takes a command line and returns its exit status.

    gpu: a name of Modal's. count: of them, in one host. Raises CourseError without Modal.
    """
    try:
        import modal
    except ImportError:
        raise CourseError('Modal is not installed. Install it with `pip install ".[modal]"`.') from None
    install_first, without_dependencies = packages()
    image = (
        # What is sent over is pickled, so the Python has to be the same.
        modal.Image.debian_slim(python_version=f"{sys.version_info.major}.{sys.version_info.minor}")
        .pip_install(*install_first)
        .pip_install(*without_dependencies, extra_options="--no-deps")
        .env({"PYTHONPATH": THERE, "PYTHONUNBUFFERED": "1", "HF_HOME": f"{RESULTS}/hub"})
        .add_local_file(REPOSITORY / "requirements.txt", f"{THERE}/requirements.txt")
        .add_local_dir(PACKAGE, f"{THERE}/unsloth_course", ignore=["**/__pycache__"])
    )
    for file in files:
        image = image.add_local_file(file, f"{DATA}/{file.name}")
    app = modal.App(NAME)
    volume = modal.Volume.from_name(NAME, create_if_missing=True)

    def train(line: list[str]) -> int:
        import subprocess

        return subprocess.run(line, cwd=RESULTS).returncode

    settings = {"image": image, "gpu": f"{gpu}:{count}", "volumes": {RESULTS: volume}, "timeout": HOURS * 3600}
    return app, app.function(serialized=True, **settings)(train)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `finetune` over there, shows what it prints, and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m unsloth_course.commands.modal_app",
        description="Run finetune on rented GPUs of Modal.",
        epilog="After -- come the options of finetune, such as --method lora --data my_rows.json.",
    )
    parser.add_argument("--gpu", default="T4", choices=GPUS)
    parser.add_argument("--count", type=int, default=1, choices=range(1, 9), help="how many of them, in one host")
    parser.add_argument("options", nargs="*", help="after --: the options of finetune")
    found = parser.parse_args(arguments)
    options, files = packed(found.options)
    app, train = build(found.gpu, found.count, files)
    import modal

    with modal.enable_output(), app.run():
        status = train.remote(command(options, found.count))
    if status == 0:
        print(f"Fetch what was written with `modal volume get {NAME} results/finetune .`")
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CourseError as error:
        sys.exit(str(error))
