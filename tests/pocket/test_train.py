"""The training script, end to end on a CPU with a few thousand tokens, and what it refuses."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unsloth_course.core.errors import CourseError
from unsloth_course.pocket import tokenizer, train

ROOT = Path(__file__).parents[2]
FEW = ["--tokens", "8192", "--batch", "4", "--score-each", "2"]


def run(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "unsloth_course.pocket.train", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "model"
    done = run("--out", str(out), *FEW)
    assert done.returncode == 0, done.stderr
    return out


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_it_writes_a_whole_model(trained):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokens = AutoModelForCausalLM.from_pretrained(trained), AutoTokenizer.from_pretrained(trained)
    assert model.num_parameters() == 3_410_176 and str(model.dtype) == "torch.bfloat16"
    made = model.generate(**tokens("Question:\n", return_tensors="pt", return_token_type_ids=False), max_new_tokens=2)
    assert made.shape[1] > 2
    facts = json.loads((trained / "scores.json").read_text("utf-8"))
    assert (facts["tokens"], facts["updates"], facts["device"]) == (8192, 8, "CPU")
    assert facts["tokens_never_seen"] > 300 and len(facts["held_out"]) == 18
    assert facts["final_loss"] < np.log(tokenizer.VOCABULARY), "it learned something"
    assert not [path for path in trained.iterdir() if path.is_dir()]


def test_the_same_seed_gives_the_same_weights_to_the_bit(trained, tmp_path):
    assert run("--out", str(tmp_path / "again"), *FEW).returncode == 0
    assert digest(tmp_path / "again") == digest(trained)


def test_a_model_that_is_there_is_kept(trained, capsys):
    before = digest(trained)
    assert train.main(["--out", str(trained), *FEW]) == 1
    said = capsys.readouterr().err
    assert str(trained) in said and "another --out" in said and "Traceback" not in said
    assert digest(trained) == before


def test_too_few_tokens_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(CourseError, match=r"--tokens 1,000 is less than one update.*--tokens 65536"):
        train.pretrain(tmp_path / "model", tokens=1_000)
    assert not (tmp_path / "model").exists()


def test_scoring_alone_needs_a_model_and_changes_no_other_fact(trained, tmp_path, capsys):
    assert train.main(["--out", str(tmp_path), "--score-only"]) == 1
    assert "scores.json" in capsys.readouterr().err
    before = json.loads((trained / "scores.json").read_text("utf-8"))
    facts = train.score(trained, each=1)
    assert facts == json.loads((trained / "scores.json").read_text("utf-8"))
    assert {**facts, "held_out": {}} == {**before, "held_out": {}}


def test_the_corpus_has_rows_of_tokens_and_ends_its_documents(trained):
    rows = train._blocks((trained, "3407-0"))
    assert rows.shape[1] == train.BLOCK and rows.dtype == np.uint16 and rows.max() < tokenizer.VOCABULARY
    assert train.DOCUMENTS - 10 < (rows == 0).sum() <= train.DOCUMENTS  # <|endoftext|> behind each
    assert not np.isin(rows, [1, 2]).any()  # no chat token
    assert np.array_equal(rows, train._blocks((trained, "3407-0")))
    assert not np.array_equal(rows[:50], train._blocks((trained, "1-0"))[:50])


def test_only_rows_never_seen_are_redrawn_and_from_the_same_seed():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**train.CONFIG, "num_hidden_layers": 1}))
    table = model.get_input_embeddings().weight.data
    table[:600] = table[0]  # as pretraining leaves the unseen: all alike
    before = table.clone()
    rows = np.arange(600, 1024, dtype=np.uint16).reshape(1, -1)
    assert train.redraw_unseen(model, rows, seed=3) == 600
    assert torch.equal(table[600:], before[600:])
    directions = torch.nn.functional.normalize(table[:600], dim=1)
    assert (directions @ directions.T - torch.eye(600)).max() < 0.9
    first = table.clone()
    table.copy_(before)
    train.redraw_unseen(model, rows, seed=3)
    assert torch.equal(table, first)
