"""The question "is a person there?", asked inside real kernels; test_runner.py asks it under nbclient."""

import pytest
from jupyter_client import KernelManager

from unsloth_course.commands import runner
from unsloth_course.core.frontend import is_interactive
from unsloth_course.core.places import REPOSITORY


@pytest.fixture(scope="module")
def client():
    manager = KernelManager(kernel_spec_manager=runner.kernel.ThisPython())
    manager.start_kernel(cwd=str(REPOSITORY))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_plain_python_has_no_front_end():
    assert is_interactive() is False


@pytest.mark.parametrize("person", [True, False, True])
def test_the_front_end_says_whether_it_can_answer(client, person):
    """JupyterLab, VS Code and Colab send allow_stdin=True with a cell; nbclient sends False."""
    printed = []

    def keep(message):
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    code = "from unsloth_course.core.frontend import is_interactive\nprint(is_interactive())"
    reply = client.execute_interactive(code, allow_stdin=person, output_hook=keep, timeout=60)
    assert reply["content"]["status"] == "ok"
    assert "".join(printed) == f"{person}\n"
