"""One trained adapter, its merged model, and real llama.cpp where it is built."""

import pytest

from unsloth_course import export, models


@pytest.fixture(scope="session")
def adapter(run_pocket, tmp_path_factory):
    """A folder with an adapter that was trained a little, as `finetune` leaves it."""
    run = run_pocket(steps=40)
    place = tmp_path_factory.mktemp("trained")
    (place / "lora.json").write_text('{"options": {"data": "pocket", "seed": 3407}}')
    return models.save_adapter(run.model, run.tokenizer, place / "adapter", base="pocket")


@pytest.fixture(scope="session")
def quantised(adapter, tmp_path_factory):
    """All GGUF files of the adapter, with the table; made and proven once."""
    return export.export(adapter, "ollama", quants=export.QUANTS, out=tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="session")
def questions(adapter):
    """50 held-out questions."""
    return [row["question"] for row in export.held_out(adapter)[:50]]


@pytest.fixture(scope="session")
def reference(adapter, questions):
    """What the adapter answers, read in a fresh process."""
    return export.own_process.run("ask", source=str(adapter), questions=questions, max_new_tokens=24)
