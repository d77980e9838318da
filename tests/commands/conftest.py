"""For all that exports: `export` itself, and `finetune` with a merged model."""

import subprocess
import sys
from types import SimpleNamespace

import forked
import pytest

from unsloth_course.commands import export


@pytest.fixture(scope="package", autouse=True)
def exports_in_forks():
    """The processes of an export are forks, but for the one that needs another environment when Unsloth is imported."""

    def run(command, **how):
        return (subprocess if "convert" in command or sys.platform != "linux" else forked).run(command, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.own_process, "subprocess", SimpleNamespace(run=run))
        yield
