"""The benchmark with two GPUs: its rows, and what it takes for the same curve."""

import json

import pytest
from conftest import script

two_gpus = script("two_gpus")


def leg(pace, *loss):
    return {"samples_per_second": pace, "loss": list(loss)}


@pytest.mark.parametrize(("off", "inside"), [(0.001, True), (0.5, False)])
def test_the_curve_is_inside_when_it_is_nearer_to_its_seed_than_seeds_are(off, inside):
    one, others = leg(100.0, 3.0, 2.0, 1.0), [leg(100.0, 3.1, 2.2, 0.9), leg(100.0, 2.9, 1.8, 1.1)]
    found = two_gpus.compare(one, leg(180.0, 3.0 + off, 2.0 + off, 1.0 + off), others)
    assert (found["inside"], found["ratio"]) == (inside, 1.8)
    assert found["points_between_the_seeds"] == (1.0 if inside else 0.0)


def test_rows_fill_the_length(tmp_path):
    from tokenizers import Tokenizer

    two_gpus.make_rows(tmp_path / "rows.json", 20, length=512)
    rows = json.loads((tmp_path / "rows.json").read_text())
    tokenizer = Tokenizer.from_file(str(two_gpus.POCKET / "tokenizer.json"))
    sizes = [len(tokenizer.encode(row["instruction"] + row["output"]).ids) for row in rows]
    assert len(rows) == 22 and all(len(row["output"]) <= 24 for row in rows[:2])
    assert all(480 <= size <= 600 for size in sizes[2:])
    assert len({row["instruction"] for row in rows}) == 22
