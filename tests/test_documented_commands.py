"""Every command in README, docs/commands, VENV_SETUP and CONTRIBUTING is executed as written, or says why it is not.

They run in a copy of the repository's tracked files, so that what they write stays in it, with the lessons' knobs
shortened as in CI, and `finetune`'s steps. The installation takes minutes and has a variable of its own:
INSTALL_BY_HAND=1.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ENVIRONMENT
from lesson_runs import with_base
from shortened import shorten

from unsloth_course.core.places import REPOSITORY
from unsloth_course.pocket import datasets
from unsloth_course.setup import llama_cpp

PAGES = ("README.md", "docs/commands.md", "docs/results.md", "VENV_SETUP.md", "CONTRIBUTING.md")
PYTHON = "venv/bin/python"
COURSE = "venv/bin/unsloth-course"

# In this order; the words are some that the command says when it has done what it was asked for.
IN_THE_COPY = {
    "venv/bin/ruff check . && venv/bin/ruff format .": "unchanged",
    f"{COURSE} doctor": "All is well",
    f"{COURSE} run lora --seed 7 --out results": "exact_match",
    f"{COURSE} scoreboard --out results": "lora",
    f"{COURSE} scoreboard": "lora",
    f"{COURSE} memory --method lora --gpu T4": "T4",
    f"{COURSE} data my_rows.jsonl --to instruction --out rows.json": "rows.json",
    f"{COURSE} finetune --method lora --data rows.json --model pocket --out results/mine": "results/mine/adapter",
    f"{COURSE} chat results/mine": "",
    f"{COURSE} export results/mine --to gguf --quant q4_k_m": "same answers",
    f"{COURSE} storyboard lora": "script",
    f"{COURSE} colab --out results/colab": "results/colab",
    f"{COURSE} exercises": "LoRA",
    f"{PYTHON} upkeep/table.py --write": "",
    f"{PYTHON} upkeep/minutes.py --write": "",
    f"{PYTHON} upkeep/pictures.py": "lora-xray.png",
    f"{PYTHON} upkeep/needs.py": "",
    f"{PYTHON} -m pip config list": "",
    "grep -v -e '^torch==' -e '^triton' requirements.txt > /tmp/pins.txt": "",
}
BY_HAND = (
    "python3 -m venv venv",
    f"{PYTHON} -m pip install uv",
    f"{PYTHON} -m uv pip install --python venv/bin/python --torch-backend cpu torch==2.13.0",
    f"{PYTHON} -m pip install --no-deps -r requirements.txt",
    f"{PYTHON} -m pip install --no-deps unsloth==2026.10.9 unsloth_zoo==2026.10.9",
    f"{PYTHON} -m pip install --no-deps --no-build-isolation -e .",
    f'{PYTHON} -m ipykernel install --prefix venv --name unsloth-course --display-name "Python (unsloth-course)"',
)
NOT_HERE = {
    "pip install -r docs/site/requirements.txt": "test_workflows.py: the site's workflow runs these two",
    "sphinx-build -W -j auto -c docs/site . results/site": "test_workflows.py: the site's workflow runs these two",
    f"{PYTHON} -m unsloth_course": "the same program by its module's name",
    "./setup_venv.sh": "test_install.py, and what CI begins with",
    "./setup_venv.sh --test": "this is it",
    "./setup_venv.sh --run lora": "the set-up of --test, then the command `run lora` of this file",
    "./setup_venv.sh --gguf": "7 minutes of compiling; what it builds is used by tests/commands/export",
    "./setup_venv.sh --prepare wheels": "test_offline.py, with an index of its own",
    "./setup_venv.sh --offline wheels": "test_offline.py, with an index of its own",
    "venv/bin/jupyter lab notebooks": "tests/browser, in a real browser",
    f'{PYTHON} -m pytest tests -m "not slow" -n 2 --dist loadfile': "the tests themselves",
    f"{COURSE} finetune --method lora --data my_rows.jsonl --out results/mine": "the real model: test_smollm2.py",
    "git clone https://github.com/your-name/unsloth-course && cd unsloth-course": "a placeholder's address",
    f"{COURSE} run lora --store": "test_runner.py, with a notebook of its own",
    f"{PYTHON} -m uv pip install --python venv/bin/python --torch-backend auto torch==2.11.0": "an NVIDIA card",
    f"{PYTHON} -m pip install --no-deps -r /tmp/pins.txt": "an NVIDIA card",
    f"{PYTHON} -m pip cache purge": "it would empty the reader's cache",
    f"{PYTHON} -m pip uninstall torchvision": "it asks, and there is none here",
    "source venv/bin/activate": "a shell of the reader's",
    "brew install python@3.12": "macOS",
    "uv python install 3.12": "a Python from GitHub",
    "uv run --python 3.12 --no-project unsloth_course/setup/install.py": "what it runs is the set-up itself",
    "pyenv shell 3.12": "pyenv",
    "sudo apt install python3 python3-venv": "an administrator",
    "sudo apt install python3-venv": "an administrator",
    "powershell -ExecutionPolicy Bypass -File .\\setup_venv.ps1": "Windows: test_shims.py, where PowerShell is there",
    "powershell -ExecutionPolicy Bypass -File .\\setup_venv.ps1 --run lora": "Windows: test_shims.py, likewise",
}
FIRST = r"(?:\./setup_venv|(?:venv/bin/[\w-]+|unsloth-course|python3?|sudo|git|grep|powershell|pyenv|brew|source|uv) )"


def commands(text):
    """The commands of a page: lines of its code blocks, and code in a sentence that begins with a program."""
    text = text.replace("\\\n", " ")
    lines = [line.strip() for line in re.findall(r"^(?: {4}| {7})(\S.*)$", text, re.MULTILINE)]
    lines += re.findall(rf"`({FIRST}[^`]*)`", text)
    lines = [re.sub(r"\s{2,}#.*", "", line) for line in lines]
    return [f"venv/bin/{line}" if line.startswith("unsloth-course ") else line for line in lines]


def documented():
    return {command: page for page in PAGES for command in commands((REPOSITORY / page).read_text(encoding="utf-8"))}


def test_every_documented_command_is_known_here():
    known = {*IN_THE_COPY, *BY_HAND, *NOT_HERE}
    assert {command: page for command, page in documented().items() if command not in known} == {}


def test_no_command_is_kept_here_that_no_page_has():
    assert {*IN_THE_COPY, *BY_HAND, *NOT_HERE} - set(documented()) == set()


def test_the_commands_of_a_page_are_found():
    page = "Text `venv/bin/x y` and `x y`.\n\n    one --a   # why\n\n1. Do:\n\n       two \\\n       b\n"
    assert commands(page) == ["one --a", "two         b", "venv/bin/x y"]


def copy_of_the_repository(folder):
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("This is no Git checkout: what belongs to the course cannot be told from the rest.")
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = copy_of_the_repository(tmp_path_factory.mktemp("copy") / "the course")
    (folder / "venv" / "bin").mkdir(parents=True)
    own = Path(sys.prefix) / "bin"
    assert (own / "unsloth-course").is_file(), "the set-up installs it"
    # No links: a virtual environment notices that its folder is another one. And the course is that of the copy.
    for program, begin in (("python", ""), ("ruff", ""), ("unsloth-course", "-m unsloth_course ")):
        call = folder / "venv" / "bin" / program
        call.write_text(f'#!/bin/sh\nexec "{own / ("python" if begin else program)}" {begin}"$@"\n')
        call.chmod(0o755)
    path = folder / "notebooks" / "colab2_lora_finetuning_smollm2.ipynb"
    nbformat.write(shorten(nbformat.read(path, as_version=4), STEPS=60, HELD_OUT=24), path)
    with_base(folder / "results")
    path = folder / "unsloth_course" / "commands" / "finetune" / "recipes.py"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace('"lora": {"steps": (200,', '"lora": {"steps": (40,'), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != before
    rows = datasets.instructions(120, held_out=False, seed=5)
    rows.to_json(folder / "my_rows.jsonl")
    return folder


def shell(command, folder, **more):
    environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("PYTEST")} | more
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        input="Reverse the code KLM.\n",  # to whom asks
        timeout=900,
        check=False,
    )


@pytest.mark.skipif(os.name == "nt", reason="The commands are those of Linux and macOS.")
@pytest.mark.parametrize("command", IN_THE_COPY)
def test_the_command_does_what_it_says(command, copy, request):
    if "gguf" in command and llama_cpp.missing(llama_cpp.home()):
        pytest.skip("llama.cpp is not built: ./setup_venv.sh --gguf")
    if "pictures.py" in command:
        request.getfixturevalue("chromium")
    done = shell(command, copy)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert IN_THE_COPY[command] in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if "pins.txt" in command:
        assert not re.search(r"^(torch|triton)==", Path(command.split()[-1]).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.skipif(not os.environ.get("INSTALL_BY_HAND"), reason="Takes minutes; set INSTALL_BY_HAND=1.")
def test_the_installation_by_hand(tmp_path):
    folder = copy_of_the_repository(tmp_path)
    for command in BY_HAND:
        done = shell(command, folder)
        if "--torch-backend" in command and "Failed to fetch" in done.stderr:
            continue  # PyTorch's own index cannot be reached from here; the next step then takes torch from pip's
        assert done.returncode == 0, command + done.stdout[-2000:] + done.stderr[-2000:]
    done = shell(f"{COURSE} run lora --out results", folder, PYTHONPATH="")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert Path(folder / "results" / "lora.json").exists()
