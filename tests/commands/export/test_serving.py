"""docs/serving.md: the servers that it names are started as it says, and the trained model answers."""

import contextlib
import importlib.util
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from unsloth_course.commands import export
from unsloth_course.core.places import REPOSITORY
from unsloth_course.setup import llama_cpp

PAGE = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")
NEEDS = {
    "llama-server": (not llama_cpp.missing(llama_cpp.home()), "llama.cpp is not built (./setup_venv.sh --gguf)"),
    "transformers": (importlib.util.find_spec("fastapi"), 'not installed: pip install "transformers[serving]"'),
}


@contextlib.contextmanager
def serving(program, model):
    """The page's command for this program, on `model` and a free port; gives its address once it is healthy."""
    (command,) = re.findall(rf"^    ({program} .*--port 8080.*)$", PAGE, flags=re.M)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = shlex.split(re.sub(r"results/mine/\S+", str(model), command).replace("8080", str(port)))
    places = [str(llama_cpp.home()), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(places), "HF_HUB_OFFLINE": "1"}
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None, f"{words} ended with {process.returncode}"
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{address}/health").status_code == 200:
                    break
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("program", NEEDS)
def test_five_requests_get_what_the_trained_model_answers(program, adapter, rows, reference, request, tmp_path):
    """The base, which has never seen a chat, answers none of them."""
    here, reason = NEEDS[program]
    if not here:
        pytest.skip(reason)
    if program == "transformers":
        model = Path(export.export(adapter, "merged", out=tmp_path).formats[-1].path)
    else:
        (model,) = [one.path for one in request.getfixturevalue("quantised").formats if one.name == "f16"]
    with serving(program, model) as address:
        for row, known in zip(rows[:5], reference["answers"][:5], strict=True):
            asked = {"model": str(model), "messages": row["messages"], "max_tokens": 16, "temperature": 0}
            told = httpx.post(f"{address}/v1/chat/completions", json=asked, timeout=120).json()
            assert told["choices"][0]["message"]["content"].strip() == known["text"].strip()
