"""A set-up without network: what is fetched, from where, and which folders are refused."""

import json
import os
import re
import sys
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from unsloth_course.setup import looking, offline
from unsloth_course.setup.doing import SetupError
from unsloth_course.setup.looking import Machine
from unsloth_course.setup.pins import Pins, read_pins

from .made import LINUX, MAC, PINS, WINDOWS, a_wheel, with_driver


@pytest.mark.parametrize(
    ("machine", "last", "dependencies"),
    [
        (LINUX, "torch==2.13.0+cpu", False),
        (MAC, "torch==2.13.0", False),
        (with_driver(WINDOWS), PINS.cuda[-1], False),
        (with_driver(LINUX), PINS.cuda[-1], True),
    ],
)
def test_all_is_fetched_and_cuda_with_its_libraries(machine, last, dependencies):
    packages, torch = offline.prepare_steps("PY", machine, PINS, "/w")
    assert {*PINS.no_deps, *PINS.model, "rich==15.0.0"} < {*packages.commands[0]}
    assert torch.commands[0][-1] == last and ("--no-deps" not in torch.commands[0]) == dependencies


def test_without_a_cpu_build_on_the_index_the_plain_one_is_fetched():
    (command,) = offline.prepare_steps("PY", LINUX, PINS, "/w")[1].otherwise.commands
    assert command[-1] == "torch==2.13.0" and "--no-deps" not in command


@pytest.fixture
def prepared(tmp_path):
    """A folder as `--prepare` leaves it, for three pins."""
    pins = Pins({"course": ("torch==2.13.0", "Al_pha==1.0")}, no_deps=("unsloth_zoo==3.1",))
    folder = tmp_path / "the wheels"
    files = [a_wheel(folder, pin) for pin in ("torch==2.13.0+cpu", "al-pha==1.0", "unsloth_zoo==3.1")]
    note = {"for": offline.kind(LINUX), "pins": [*pins.all, *pins.no_deps]}
    note["files"] = {path.name: offline._sha256(path) for path in files}
    (folder / offline.PREPARED).write_text(json.dumps(note))
    return folder, pins


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("al_pha-1.0-py3-none-any.whl", None, ["is not complete", "al_pha-1.0-py3-none-any.whl", "Copy it anew"]),
        ("al_pha-1.0-py3-none-any.whl", "cut", ["was damaged", "al_pha-1.0-py3-none-any.whl"]),
        (offline.PREPARED, None, ["was not prepared", "./setup_venv.sh --prepare 'the wheels'"]),
        (offline.PREPARED, '{"for": ', ["was not prepared", "--prepare"]),
        (offline.PREPARED, '{"target": {}, "files": {}}', ["was not prepared", "--prepare"]),
    ],
)
def test_an_incomplete_folder_is_a_sentence(prepared, name, content, words):
    folder, pins = prepared
    (folder / name).unlink()
    if content:
        (folder / name).write_text(content)
    with pytest.raises(SetupError) as error:
        offline.check_prepared(folder, LINUX, pins)
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize(
    ("machine", "word"),
    [
        (with_driver(LINUX), "torch for CUDA"),
        (replace(LINUX, python=(3, 11, 2)), "Python 3.11"),
        (MAC, "macOS arm64"),
        (WINDOWS, r"setup_venv.ps1 --prepare 'the wheels'"),
    ],
)
def test_a_folder_for_another_machine_is_a_sentence(prepared, machine, word):
    folder, pins = prepared
    with pytest.raises(SetupError, match=r"for Linux x86_64, Python 3\.12, torch for CPU; this is ") as error:
        offline.check_prepared(folder, machine, pins)
    assert word in str(error.value).partition("this is")[2]


def test_a_folder_is_for_these_versions_and_any_patch_level_of_this_python(prepared):
    offline.check_prepared(prepared[0], replace(LINUX, python=(3, 12, 99)), prepared[1])
    with pytest.raises(SetupError, match="other versions of the course: beta==2 lack"):
        offline.check_prepared(prepared[0], LINUX, Pins({"course": ("torch==2.13.0", "beta==2")}))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index on this machine, which is a proxy too; what was asked of it, and a course of three pins."""
    asked = []
    for pin in ("torch==2.13.0+cpu", "alpha==1.0", "unsloth-zoo==3.1"):
        a_wheel(tmp_path / "index/simple" / pin.partition("=")[0], pin)

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.path = urlsplit(self.path).path
            super().do_GET()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "index"))
    Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.upper().startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests takes them in place of pip's own setting
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(looking, "working_python", lambda python: sys.version_info[:3])
    monkeypatch.setattr(looking, "venv_python", lambda venv: Path(sys.executable))
    root = tmp_path / "course"
    root.mkdir()
    (root / "requirements.txt").write_text("# == course\ntorch==2.13.0\nalpha==1.0\n#no-deps unsloth_zoo==3.1\n")
    yield f"http://127.0.0.1:{server.server_port}", asked, root
    server.shutdown()
    server.server_close()


HERE = Machine(python=sys.version_info[:3])


@pytest.mark.parametrize("way", ["environment", "file", "proxy"])
def test_pips_own_settings_decide_where_packages_come_from(index, way, monkeypatch, tmp_path):
    address, asked, root = index
    if way == "environment":
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
    if way == "file":
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {address}/simple\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    if way == "proxy":
        monkeypatch.setenv("PIP_INDEX_URL", "http://packages.invalid/simple")
        monkeypatch.setenv("PIP_TRUSTED_HOST", "packages.invalid")
        monkeypatch.setenv("PIP_PROXY", address)
    said = []
    offline.prepare(root, tmp_path / "wheels", HERE, said.append)
    start = "http://packages.invalid" if way == "proxy" else ""
    assert f"{start}/simple/alpha/" in asked and len(asked) >= 6
    offline.check_prepared(tmp_path / "wheels", HERE, read_pins((root / "requirements.txt").read_text()))
    assert "--offline wheels" in said[-1]


def test_a_certificate_that_is_not_there_is_named(index, monkeypatch, tmp_path):
    address, _, root = index
    monkeypatch.setenv("PIP_INDEX_URL", address.replace("http:", "https:") + "/simple")
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "no.pem"))
    monkeypatch.setenv("PIP_RETRIES", "0")
    named = re.escape(f"There is no file {tmp_path / 'no.pem'}, which pip's settings")
    with pytest.raises(SetupError, match=named):
        offline.prepare(root, tmp_path / "wheels", HERE, lambda line: None)
    assert not (tmp_path / "wheels" / offline.PREPARED).exists()
