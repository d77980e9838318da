"""One run in a folder."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from conftest import ENVIRONMENT

from unsloth_course.commands.finetune import stopping
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY

HOLD = "from unsloth_course.commands.finetune import stopping\n"
HOLD += "with stopping.locked({!r}):\n print('in', flush=True)\n input()"


@contextmanager
def holding(folder):
    command = [sys.executable, "-c", HOLD.format(str(folder))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=REPOSITORY
    ) as process:
        try:
            assert process.stdout.readline() == "in\n"
            yield process
        finally:
            process.kill()


def test_a_second_run_in_a_folder_is_refused_until_the_first_one_ends(tmp_path):
    with holding(tmp_path / "run") as first:
        with (
            pytest.raises(CourseError, match=f"process {first.pid} on .*choose another --out"),
            stopping.locked(tmp_path / "run"),
        ):
            pass
        first.communicate("\n")
        with stopping.locked(tmp_path / "run"):
            pass


def test_a_killed_run_does_not_block_its_folder(tmp_path):
    with holding(tmp_path) as first:
        first.kill()
        first.wait()
        with stopping.locked(tmp_path):
            assert f"process {os.getpid()} on " in (tmp_path / stopping.OWNER).read_text()


def test_in_one_process_too_and_a_lost_note_is_no_hindrance(tmp_path):
    with stopping.locked(tmp_path):
        (tmp_path / stopping.OWNER).unlink()
        with pytest.raises(CourseError, match="a process that has not said which"), stopping.locked(tmp_path):
            pass


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CourseError, match=r"Nothing can be written into .*file"), stopping.locked(tmp_path / "file"):
        pass
    (tmp_path / stopping.OWNER).mkdir()
    with pytest.raises(CourseError, match="Choose another --out"), stopping.locked(tmp_path):
        pass
    (tmp_path / stopping.OWNER).rmdir()
    with stopping.locked(tmp_path):
        pass
