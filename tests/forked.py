"""Programs of this Python that begin with Unsloth imported: forks of one process that has done nothing else.

Importing Unsloth takes longer than what most tests do in a process of their own. The names are subprocess's, so that a
test can put this module in its place: `monkeypatch.setattr(chain, "subprocess", forked)`. On Linux; a test takes the
real one elsewhere.
"""

import functools
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from multiprocessing import reduction

import pytest
from conftest import ENVIRONMENT, script

from unsloth_course.core.places import REPOSITORY


@functools.cache
def _server():
    """multiprocessing's context, with its server started in the environment that this session began with."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ready_to_fork"])
    rooms = [str(REPOSITORY / room) for room in (".", "tests", "benchmarks")]
    paths = filter(None, [*rooms, ENVIRONMENT.get("PYTHONPATH")])
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(ENVIRONMENT):
            patch.delenv(name)
        for name, value in {**script("killed").ALONE, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}.items():
            patch.setenv(name, value)
        forkserver.ensure_running()
    return context


def _become(words, environment, folder, files):
    """The program `python WORDS` in this fork."""
    for number, file in enumerate(files):
        os.dup2(file.detach(), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    _, module, *sys.argv[1:] = words
    runpy.run_module(module, run_name="__main__", alter_sys=True)


class Popen:
    """`subprocess.Popen([sys.executable, "-m", MODULE, ...])` with pipes, or with this process's own three files."""

    def __init__(self, command, env=None, cwd=None, stdin=None, stdout=None, stderr=None):
        files = [0, 1, 2]
        self.out = [tempfile.TemporaryFile() for one in (stdout, stderr) if one]  # noqa: SIM115 -- read later on
        if stdin:
            files[0], self.writing = os.pipe()
        if self.out:
            files[1:] = [file.fileno() for file in self.out]
        told = command[1:], dict(env or os.environ), str(cwd or os.getcwd()), [reduction.DupFd(file) for file in files]
        self.process = _server().Process(target=_become, args=told)
        self.process.start()
        if stdin:
            os.close(files[0])

    def communicate(self, input=None, timeout=None):
        """Both outputs in whole, as text; all three were pipes."""
        with open(self.writing, "w", encoding="utf-8") as asked:
            asked.write(input or "")
        self.wait(timeout)
        for file in self.out:
            file.seek(0)
        return [file.read().decode(errors="replace") for file in self.out]

    def wait(self, timeout=None):
        self.process.join(timeout)
        return self.process.exitcode

    @property
    def returncode(self):
        return self.process.exitcode

    def kill(self):
        self.process.kill()


def run(command, env=None, cwd=None, **_):
    """`subprocess.run` with outputs captured as text."""
    running = Popen(command, env, cwd, *[subprocess.PIPE] * 3)
    said = running.communicate()
    return subprocess.CompletedProcess(command, running.returncode, *said)
