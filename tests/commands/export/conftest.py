"""One trained adapter, its merged model, and real llama.cpp where it is built."""

import json

import pytest

from unsloth_course import models
from unsloth_course.commands import export


@pytest.fixture(scope="session")
def adapter(run_pocket, tmp_path_factory):
    """A folder with an adapter that was trained a little, as `finetune` leaves it, with 120 held-out prompts.

    It stops by itself, as one of fewer steps would not: each reading of it is then four times as fast.
    """
    run = run_pocket(steps=90)
    place = tmp_path_factory.mktemp("trained")
    (place / "lora.json").write_text('{"options": {"data": "pocket", "seed": 3407}}')
    rows = export.held_out.read(place / "adapter")[:120]
    (place / export.held_out.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return models.save_adapter(run.model, run.tokenizer, place / "adapter", base="pocket")


@pytest.fixture(scope="session")
def quantised(adapter, tmp_path_factory):
    """All GGUF files of the adapter, with the table; made and proven once."""
    return export.export(adapter, "ollama", quants=export.QUANTS, out=tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="session")
def rows(adapter):
    """50 held-out questions with their answers."""
    return export.held_out.read(adapter)[:50]


@pytest.fixture(scope="session")
def reference(adapter, rows):
    """What the adapter answers, read in a fresh process."""
    return export.own_process.run("ask", source=str(adapter), rows=rows)
