"""Steps are run in order, failures are explained."""

import io
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from unsloth_course.setup import doing
from unsloth_course.setup.deciding import Step
from unsloth_course.setup.doing import SetupError
from unsloth_course.setup.looking import GB


def run_python(name: str, code: str, **more) -> Step:
    return Step(name, ((sys.executable, "-c", code),), **more)


def test_steps_run_in_order_with_a_line_each(tmp_path):
    lines = []
    write = "open('log', 'a').write({!r})"
    steps = [run_python("one", write.format("1")), run_python("two", write.format("2"))]
    doing.carry_out(steps, tmp_path, lines.append)
    assert (tmp_path / "log").read_text() == "12"
    assert [re.sub(r"\d+ s$", "N s", line) for line in lines] == ["[1/2] one: N s", "[2/2] two: N s"]


def test_a_failed_step_and_one_that_does_not_exist_say_what_where_and_what_next(tmp_path):
    fail = run_python("packages", "print('ERROR: No matching distribution found for trl==1.15.0'); raise SystemExit(1)")
    with pytest.raises(SetupError) as error:
        doing.carry_out([fail, run_python("never", "open('never', 'w')")], tmp_path, lambda line: None)
    assert "Step 1 of 2, packages, failed" in str(error.value)
    assert "has no trl==1.15.0" in str(error.value)
    assert "run this again" in str(error.value)
    assert not (tmp_path / "never").exists()
    with pytest.raises(SetupError, match="Step 1 of 1"):
        doing.carry_out([Step("odd", ((str(tmp_path / "absent"),),))], tmp_path, lambda line: None)


def test_the_other_way_is_tried_and_said(tmp_path):
    lines = []
    other = Step("uv", ((sys.executable, "-c", "open('done', 'w')"),), "the index has none")
    doing.carry_out([run_python("pip", "raise SystemExit(1)", otherwise=other)], tmp_path, lines.append)
    assert (tmp_path / "done").exists()
    assert "the index has none" in lines[0]


def test_a_step_does_not_start_where_the_disk_that_it_fills_has_too_little(tmp_path, monkeypatch):
    free = {tmp_path: 10 * GB, tmp_path / "wheels": 0}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[Path(path)]))
    step = run_python("torch", "open('started', 'w')", needs_bytes=GB)
    doing.carry_out([step], tmp_path, lambda line: None)
    (tmp_path / "started").unlink()
    with pytest.raises(SetupError, match="disk is full"):
        doing.carry_out([replace(step, into=str(tmp_path / "wheels"))], tmp_path, lambda line: None)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("columns", [40, 200])
def test_the_seconds_stay_on_one_line(columns, monkeypatch):
    written = io.StringIO()
    written.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", written)
    monkeypatch.setenv("COLUMNS", str(columns))
    doing._show_seconds("[3/7] PyTorch torch==2.13.0 for the CPU ... 12 s, and a long name of a step as well")
    lines = written.getvalue().split("\r")
    assert "\n" not in written.getvalue() and max(map(len, lines)) == columns - 1


@pytest.mark.parametrize(
    ("output", "word"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying ... NameResolutionError\nERROR: No matching distribution found for rich==15", "network"),
        ("error: Request failed after 3 retries\n cause: dns error", "network"),
        ("ReadTimeoutError: Read timed out.", "network"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] Max retries exceeded", "certificate"),
        ("OSError: Could not find a suitable TLS CA certificate bundle, invalid path: /a b.pem", "no file /a b.pem,"),
        ("ERROR: 403 Client Error: Forbidden for url", "login"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no torch==2.13.0"),
        ("The virtual environment was not created successfully because ensurepip is not available.", "python3-venv"),
        ("[WinError 32] The process cannot access the file", "VS Code"),
        ("OSError: [WinError 126] The specified module could not be found. Error loading c10.dll", "Visual C++"),
        ("error: subprocess-exited-with-error", "no ready-made build"),
        ("something new", "lines above"),
    ],
)
def test_failures_are_explained(output, word):
    assert word in doing.explain(output)


def test_uv_is_told_what_pip_was_told():
    listing = ":env:.proxy='http://proxy:8080'\n:env:.cert='/c a.pem'\nglobal.index-url='http://i/simple'\n"
    listing += "global.proxy='http://old:1'\nglobal.timeout='60'\n"
    told = {"HTTPS_PROXY": "http://proxy:8080", "HTTP_PROXY": "http://proxy:8080", "SSL_CERT_FILE": "/c a.pem"}
    assert doing.uv_settings({}, listing) == told | {"UV_HTTP_TIMEOUT": "60"}
    own = {"https_proxy": "http://mine", "SSL_CERT_FILE": "/mine", "HTTP_PROXY": "", "UV_HTTP_TIMEOUT": "5"}
    assert doing.uv_settings(own, listing) == {}
    assert doing.uv_settings({}, "") == {}


def test_only_uv_gets_another_environment(monkeypatch):
    monkeypatch.setenv("PIP_CERT", "/ours.pem")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert doing._environment_for((sys.executable, "-m", "pip", "install")) is None
    assert doing._environment_for((sys.executable, "-m", "uv", "pip"))["SSL_CERT_FILE"] == "/ours.pem"
