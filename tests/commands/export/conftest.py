"""One trained adapter, its merged model, and real llama.cpp where it is built."""

import json
import shutil

import pytest

from unsloth_course import models
from unsloth_course.commands import export


@pytest.fixture(scope="session")
def adapter(healthy, tmp_path_factory):
    """A folder with an adapter that was trained a little, as `finetune` leaves it, with 50 held-out prompts."""
    place = tmp_path_factory.mktemp("trained")
    (place / "finetune.toml").write_text('data = "pocket"\nseed = 3407\n')
    write_rows(place, export.held_out.read(place / "adapter")[:50])
    return models.save_adapter(healthy.model, healthy.tokenizer, place / "adapter", base="pocket")


def write_rows(place, rows):
    (place / export.held_out.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def quantised(adapter, tmp_path_factory):
    """All GGUF files of the adapter, with the table; made and proven once, with 120 prompts, as scores are compared."""
    place = shutil.copytree(adapter.parent, tmp_path_factory.mktemp("more") / "trained")
    (place / export.held_out.FILE).unlink()
    write_rows(place, export.held_out.read(place / "adapter")[:120])
    out = tmp_path_factory.mktemp("out")
    return export.export(place / "adapter", "ollama", quants=export.QUANTS, out=out)


@pytest.fixture(scope="session")
def rows(adapter):
    """The held-out questions with their answers."""
    return export.held_out.read(adapter)


@pytest.fixture(scope="session")
def reference(adapter, rows):
    """What the adapter answers, read in a fresh process."""
    return export.own_process.run("ask", source=str(adapter), rows=rows)
