"""Sets up the course on this computer: `venv/`, the tested packages, Unsloth, this package, a Jupyter kernel.

Run by path with any Python 3.11-3.13, before anything is installed (./setup_venv.sh does it):

    python unsloth_course/setup/install.py [--offline FOLDER] [--run LESSON ... | --test ... | --gguf]
    python unsloth_course/setup/install.py --prepare FOLDER [--cuda]

Only the standard library, and no room of the course but `setup`, is imported here:

    pins        the tested versions
    looking     what is there
    deciding    what is to be done, in steps
    doing       carries the steps out
    offline     a folder of packages for a set-up without network
    llama_cpp   for the export to GGUF

VENV_SETUP.md describes the same steps by hand.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # run by its path, from a Python that knows no package of ours

from unsloth_course.setup import deciding, doing, llama_cpp, looking, offline  # noqa: E402 -- found only now
from unsloth_course.setup.doing import SetupError, say_now  # noqa: E402
from unsloth_course.setup.pins import read_pins  # noqa: E402

TEST_PROCESSES = 4  # at most, of `--test`
USAGE = """\
%(prog)s [--offline FOLDER] [--run LESSON ... | --test ... | --gguf]
       %(prog)s --prepare FOLDER [--cuda]"""


def set_up(root: Path, say: Callable[[str], None] = say_now, wheels: Path | None = None) -> Path:
    """Brings `root`/venv into the tested state and returns its Python; SetupError with a sentence if that cannot be.

    `wheels` is a folder that `--prepare` filled: it is checked before anything is changed, and nothing else is asked.
    """
    venv = root / "venv"
    python = looking.venv_python(venv)
    machine, found = looking.this_machine(root), looking.state_of(venv)
    requirements, project = (doing.read_text(root / name) for name in ("requirements.txt", "pyproject.toml"))
    pins = read_pins(requirements)

    def fingerprint(version: Sequence[int] | None) -> str:
        return deciding.fingerprint(requirements + project, version or machine.python, machine.torch_flavour)

    verdict = deciding.decide(found, str(venv), fingerprint(found.python), pins, machine.system)
    if verdict.action == "refuse":
        raise SetupError(f"{verdict.reason}. Move it away and run this again.")
    if verdict.action != "ready":
        if problem := deciding.refusal(machine, fresh=verdict.action == "create"):
            raise SetupError(problem)
        if wheels:
            kept = found.python if verdict.action == "finish" else None
            offline.check_prepared(wheels, replace(machine, python=kept or machine.python), pins)
        say(f"Setting up in {venv} ({verdict.reason})")
        doing.write_stamp(venv, None)
        rebuild = verdict.action == "rebuild"
        # The stamp stays to the last: if this is killed half-way, the next run still knows the folder as its own.
        old = [path for path in venv.iterdir() if path.name != looking.STAMP]
        doing.remove(old if rebuild else looking.unfinished_packages(venv))
        start = time.monotonic()
        doing.carry_out(deciding.plan(machine, verdict, pins, str(python), str(venv), wheels), root, say)
        doing.write_stamp(venv, fingerprint(looking.working_python(python)))
        say(f"The course is set up ({time.monotonic() - start:.0f} s). Its Python: {python}")
    if machine.torch_flavour == "cuda":
        cuda = any(looking.noted_in(folder / "torch", "cuda") for folder in looking.site_packages(venv))
        torch = looking.installed_versions(venv).get("torch")
        if torch and not cuda:
            say(deciding.driver_notice(torch, pins, str(python)))
    return python


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SetupError(f"This is not understood: {message}. {self.prog} --help shows what there is.")


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of this program; SetupError with a sentence where they do not go together."""
    parser = _Parser(
        prog=r".\setup_venv.ps1" if os.name == "nt" else "./setup_venv.sh",
        usage=USAGE,
        description="Sets up the course in venv/, or finishes what an earlier try left.",
        allow_abbrev=False,
    )
    folder = {"metavar": "FOLDER", "type": lambda path: Path(path).expanduser().absolute()}
    lesson = "set up, then run a lesson: full, lora, dpo, grpo, cpt or all, with the options of `unsloth_course run`"
    llama = "set up, then build llama.cpp once, for the export to GGUF (about 7 minutes)"
    fetch = "where there is network, fetch into a folder what machines like this one need"
    then = parser.add_mutually_exclusive_group()
    then.add_argument("--run", nargs=argparse.REMAINDER, help=lesson)
    then.add_argument("--test", nargs=argparse.REMAINDER, help="set up, then run the tests, with the options of pytest")
    then.add_argument("--gguf", action="store_true", help=llama)
    then.add_argument("--prepare", **folder, help=fetch)
    parser.add_argument("--cuda", action="store_true", help="with --prepare: for such a machine with an NVIDIA card")
    parser.add_argument("--offline", **folder, help="set up without network, from a folder that --prepare filled")
    found = parser.parse_args(arguments)
    if found.offline if found.prepare else found.cuda:
        parser.error("--cuda stands beside --prepare alone, and --offline does not")
    if found.run is not None and (not found.run or found.run[0].startswith("-")):
        parser.error("--run needs the name of a lesson, such as lora")
    if found.offline and not found.offline.is_dir():
        raise SetupError(f"There is no folder {found.offline}. --prepare makes one, on a machine with network.")
    return found


def command_after(asked: argparse.Namespace) -> list[str]:
    """What the venv's Python is to run after the set-up; [] for nothing."""
    if asked.test is not None:
        # A file's tests stay together: they share what the file trained. Each process takes about 2 GiB. Files go in
        # the order of their folders, notebooks first: a long one at the end would leave the other process idle.
        processes = min(os.cpu_count() or 1, TEST_PROCESSES)
        return ["-m", "pytest", "-n", str(processes), "--dist", "loadfile", "--no-loadscope-reorder", *asked.test]
    return ["-m", "unsloth_course", "run", *asked.run] if asked.run else []


def main(arguments: Sequence[str]) -> int:
    """The program: sets up, then runs what was asked for and passes its exit status on."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a Windows console may not know every letter that pip prints
    try:
        asked = options(arguments)
        if asked.prepare:
            machine = looking.this_machine(ROOT)
            offline.prepare(ROOT, asked.prepare, replace(machine, nvidia_driver=machine.nvidia_driver or asked.cuda))
            return 0
        command = command_after(asked)
        python = set_up(ROOT, wheels=asked.offline)
        if asked.gguf:
            llama_cpp.build(str(python), llama_cpp.home())
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error}. {doing.explain(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run this again, it goes on from here.", file=sys.stderr)
        return 130
    if not command:
        return 0
    sys.stdout.flush()
    with subprocess.Popen([str(python), *command], cwd=ROOT) as process:
        while (status := process.poll()) is None:
            try:
                status = process.wait()
            except KeyboardInterrupt:
                continue  # the program got the same Ctrl-C: it keeps what there is, and says how it ended
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
