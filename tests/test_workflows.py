"""The workflows: they parse, pin what they use, may do little, and run the commands that exist."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from conftest import script

import unsloth_course
from unsloth_course.core.places import REPOSITORY

links = script("links")
FOLDER = REPOSITORY / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))


def read(path):
    # YAML 1.1 takes the key `on` for a truth value; GitHub does not.
    return yaml.load(re.sub(r"^on:", '"on":', path.read_text(encoding="utf-8"), flags=re.M), yaml.SafeLoader)


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


# What some may write: a release into the repository, and the site.
MAY = {"release": {"contents": "write"}, "site": {"contents": "read", "pages": "write", "id-token": "write"}}


def test_there_are_five():
    assert [path.stem for path in FILES] == ["canary", "ci", "links", "release", "site"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestEach:
    def test_may_only_read_and_keeps_no_token(self, path):
        workflow = read(path)
        assert workflow["permissions"] == MAY.get(path.stem, {"contents": "read"})
        assert not any("permissions" in job for job in workflow["jobs"].values())
        for step in steps(workflow):
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False

    def test_pins_every_action_by_its_commit(self, path):
        used = [step["uses"] for step in steps(read(path)) if "uses" in step]
        assert used and all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", name) for name in used)

    def test_uses_no_secret_and_no_text_of_a_stranger(self, path):
        text = path.read_text(encoding="utf-8")
        assert "secrets." not in text and "pull_request_target" not in text
        for step in steps(read(path)):
            assert "${{" not in step.get("run", "")

    def test_ends_some_time(self, path):
        assert all(job["timeout-minutes"] <= 180 for job in read(path)["jobs"].values())

    def test_runs_scripts_that_exist(self, path):
        for step in steps(read(path)):
            for name in re.findall(r"(?:\.ci|benchmarks|upkeep)/[\w.]+|setup_venv\.\w+", step.get("run", "")):
                assert (REPOSITORY / name).is_file(), name


def test_ci_runs_the_readmes_command_on_three_systems():
    workflow = read(FOLDER / "ci.yml")
    systems = workflow["jobs"]["test"]["strategy"]["matrix"]["os"]
    assert {name.partition("-")[0] for name in systems} == {"ubuntu", "macos", "windows"}
    commands = {step["if"]: step["run"] for step in steps(workflow) if "run" in step}
    assert commands["runner.os != 'Windows'"] == ".ci/run"
    assert commands["runner.os == 'Windows'"].endswith(r".\setup_venv.ps1 --test")
    assert {"push", "pull_request"} == set(workflow["on"])


@pytest.mark.parametrize("name", ["canary", "links"])
def test_these_run_weekly_and_not_for_a_pull_request(name):
    begins = read(FOLDER / f"{name}.yml")["on"]
    assert set(begins) == {"schedule", "workflow_dispatch"}
    (when,) = begins["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", when["cron"])


def test_a_release_is_made_of_a_tag_that_is_the_version(tmp_path):
    """And the wheel in it has the data that lessons read, and the tested versions, which a checkout keeps beside it."""
    workflow = read(FOLDER / "release.yml")
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for tag, status in ((f"v{version}", 0), ("v9.9.9", 1)):
        check = ["bash", "-c", commands[0]]
        assert subprocess.run(check, cwd=REPOSITORY, env=os.environ | {"GITHUB_REF_NAME": tag}).returncode == status
    parts = ["unsloth_course", "pyproject.toml", "README.md", "LICENSE", "requirements.txt"]
    for name in parts:
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    build = next(command for command in commands if "pip wheel" in command).replace("venv/bin/python", sys.executable)
    build = build.replace("pip wheel", "pip wheel -q --no-build-isolation")
    subprocess.run(["bash", "-c", build], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "dist").glob(f"unsloth_course-{version}-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("requirements.txt", "pocket/base/config.json", "recorded/needs.json"):
        assert f"unsloth_course/{name}" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_the_site_is_made_as_its_configuration_says():
    """And every page of docs/ and every notebook stands in its index."""
    commands = [step["run"] for step in steps(read(FOLDER / "site.yml")) if "run" in step]
    configuration = (REPOSITORY / "docs" / "site" / "conf.py").read_text(encoding="utf-8")
    assert commands == re.findall(r"^    ((?:pip|sphinx-build) .+)$", configuration, flags=re.M)
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    pages = [path.stem for path in (REPOSITORY / "docs").glob("*.md") if path.stem != "index"]
    notebooks = [path.name for path in (REPOSITORY / "notebooks").rglob("*.ipynb")]
    assert not [name for name in pages + notebooks if not re.search(rf"^(.*/)?{re.escape(name)}$", index, flags=re.M)]
    reference = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", reference, flags=re.M) == list(unsloth_course.ROOMS)


def test_every_address_is_found_and_the_placeholder_is_not():
    found = links.addresses(REPOSITORY)
    assert "https://arxiv.org/abs/2106.09685" in found and "https://github.com/unslothai/unsloth" in found
    assert not [address for address in found if re.search(r"[).,\]>]$|your-name|127\.0\.0", address)]


@pytest.mark.parametrize(
    ("status", "said"), [(200, ""), (404, "dead: 404"), (403, "answers 403"), (503, "answers 503")]
)
def test_what_an_address_answers(status, said):
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.handle_request, daemon=True).start()
    try:
        assert links.ask(f"http://127.0.0.1:{server.server_port}/") == said
    finally:
        server.server_close()


def test_a_host_that_does_not_exist_is_dead(monkeypatch):
    def unknown(*_, **__):
        raise links.urllib.error.URLError("[Errno -2] Name or service not known")

    monkeypatch.setattr(links.urllib.request, "urlopen", unknown)
    assert links.ask("https://nowhere.invalid/").startswith("dead")
