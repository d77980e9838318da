"""What is seen of a machine and of the folder `venv`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unsloth_course.setup import looking
from unsloth_course.setup.looking import Venv

from .made import make_package


def test_versions_are_read_off_folder_names(tmp_path):
    make_package(tmp_path, "torch", "2.13.0+cpu")
    make_package(tmp_path, "unsloth_zoo", "2026.10.9")
    assert looking.installed_versions(tmp_path) == {"torch": "2.13.0+cpu", "unsloth-zoo": "2026.10.9"}


def test_packages_that_a_killed_pip_left_are_found(tmp_path):
    make_package(tmp_path, "whole", "1")
    half = make_package(tmp_path, "half", "1", record=False)
    gone = half.parent / "~umpy"
    gone.mkdir()
    assert sorted(looking.unfinished_packages(tmp_path)) == sorted([half, gone])


def test_the_cuda_version_of_torch_is_read_without_importing_it(tmp_path):
    version = tmp_path / "version.py"
    assert looking.noted_in(tmp_path, "cuda") is None
    version.write_text("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n")
    assert looking.noted_in(tmp_path, "cuda") is None
    version.write_text("__version__ = '2.11.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n")
    assert looking.noted_in(tmp_path, "cuda") == "13.0"


def test_a_folder_that_is_no_venv_and_a_link_are_not_ours_to_delete(tmp_path):
    assert looking.state_of(tmp_path / "absent") == Venv()
    (tmp_path / "venv").mkdir()
    assert looking.state_of(tmp_path / "venv").ours_to_delete
    (tmp_path / "venv" / "thesis.txt").write_text("years of work")
    assert not looking.state_of(tmp_path / "venv").ours_to_delete
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert not looking.state_of(tmp_path / "link").ours_to_delete


def test_a_venv_without_pip_or_with_a_dangling_python_does_not_work(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    assert looking.state_of(tmp_path / "venv").python is None
    looking.venv_python(tmp_path / "venv").unlink()
    assert looking.state_of(tmp_path / "venv").python is None


def test_this_python_works():
    assert looking.working_python(Path(sys.executable)) == sys.version_info[:3]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.one_of(st.binary(), st.text().map(str.encode), st.builds(lambda x: json.dumps(x).encode(), st.lists(st.text())))
)
def test_any_stamp_can_be_read(tmp_path, content):
    (tmp_path / looking.STAMP).write_bytes(content)
    assert looking.state_of(tmp_path).exists


@pytest.mark.parametrize(
    ("system", "environment", "folder"),
    [
        ("Linux", {}, "/home/me/.cache/unsloth-course"),
        ("Linux", {"XDG_CACHE_HOME": "/big"}, "/big/unsloth-course"),
        ("Darwin", {"XDG_CACHE_HOME": "/big"}, "/home/me/Library/Caches/unsloth-course"),
        ("Windows", {"LOCALAPPDATA": "/app"}, "/app/unsloth-course"),
        ("Windows", {}, "/home/me/AppData/Local/unsloth-course"),
    ],
)
def test_what_can_be_made_again_is_kept_where_the_platform_keeps_such_things(system, environment, folder):
    assert looking.cache_folder(system, environment, Path("/home/me")) == Path(folder)
