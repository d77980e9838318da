"""The GPU benchmark: what its legs are, the rows they train on, and the page that is made of its record."""

import copy
import dataclasses
import re

import pytest
from conftest import script

from unsloth_course import memory, models, profile

leg, speed, page = map(script, ("leg", "speed", "page"))


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(models.folder("pocket"))


def test_every_method_is_compared_with_the_copied_setting_and_with_plain_trl():
    found = speed.compared()
    for method in ("lora", "full", "dpo", "cpt"):
        ways = [one.way for one in found if one.method == method]
        assert ways[0] == "seeds", "the loss that it ends with is the others' target"
        assert {"plan", "free", "plain"} <= set(ways)
    assert len({(one.method, one.name) for one in found}) == len(found)


def test_memory_is_weighed_at_fifteen_points():
    assert {(one.method, one.length) for one in speed.weighed()} == {
        (method, length) for method in ("lora", "full", "dpo", "cpt", "grpo") for length in (512, 1024, 2048)
    }


@pytest.mark.parametrize("method", ["lora", "full", "dpo", "cpt", "grpo"])
def test_legs_of_a_method_train_on_the_same_rows(tokenizer, method):
    ours, plain = leg.Leg("a", method, "plan"), leg.Leg("b", method, "plain", micro=32)
    rows = leg.rows(ours, tokenizer, 12, held_out=False)
    assert rows == leg.rows(plain, tokenizer, 12, held_out=False) and len(rows) == 12
    assert rows != leg.rows(ours, tokenizer, 12, held_out=True)


def test_rows_have_the_lengths_that_are_said(tokenizer):
    def tokens(turns):
        return len(tokenizer.apply_chat_template(turns, tokenize=True)["input_ids"])

    found = leg.rows(leg.Leg("a", "lora"), tokenizer, 40, held_out=False)
    lengths = [tokens(row["prompt"] + row["completion"]) for row in found]
    assert min(lengths) > 150 and max(lengths) <= 512
    for row in leg.rows(leg.Leg("a", "dpo"), tokenizer, 20, held_out=False):
        assert tokens(row["prompt"] + row["chosen"]) <= 512 and row["chosen"] != row["rejected"]
    whole = leg.Leg("a", "cpt", length=300)
    assert {len(row["input_ids"]) for row in leg.rows(whole, tokenizer, 9, held_out=False)} == {300}
    exact = leg.Leg("a", "grpo", length=512, same_length=True)
    prompt = leg.rows(exact, tokenizer, 1, held_out=False)[0]["prompt"]
    assert len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]) == 256
    exact = leg.Leg("a", "dpo", length=512, same_length=True)
    (pair,) = leg.rows(exact, tokenizer, 1, held_out=False)
    assert all(tokens(pair["prompt"] + pair[name]) >= 512 for name in ("chosen", "rejected"))


def test_the_copied_setting_is_two_rows_four_times():
    one = leg.Leg("a", "lora", "seeds")
    leg.set_up(one, None, None)
    assert (one.micro, one.accumulation, one.arguments) == (2, 4, {"optim": "adamw_8bit"})


def measured(name, method, way, micro, accumulation, milliseconds, **more):
    found = {"name": name, "method": method, "way": way, "micro": micro, "accumulation": accumulation}
    found |= {"ms_per_update": milliseconds, "ms_median": milliseconds, "seconds": milliseconds / 100}
    found |= {"evaluate_every": 0, "updates_done": 10, "tokens_per_row": 100, "length": 512}
    found |= {"peak_bytes": 2**30, "predicted_bytes": 2**30}
    return found | {"prepare_seconds": 1.0, "loss_before": 2.0, "curve": []} | more


@pytest.fixture
def record():
    legs = []
    for method in ("lora", "full", "dpo", "cpt"):
        legs += [
            measured("seeds", method, "seeds", 2, 4, 1000.0, curve=[[10, 10.0, 1.0]]),
            measured("plan", method, "plan", 8, 1, 100.0, curve=[[5, 0.5, 1.5], [10, 1.0, 1.0]]),
            measured("plan, free", method, "free", 32, 1, 200.0, curve=[[5, 1.0, 0.9]]),
            measured("plain 8", method, "plain", 8, 1, 400.0),
            measured("plain 24", method, "plain", 24, 1, 300.0, peak_bytes=13 * 2**30),
        ]
    legs += [measured("8 x 1", "grpo", "set", 8, 1, 1000.0), measured("plan, free", "grpo", "free", 64, 1, 2000.0)]
    weighed = [measured("512 tokens", "lora", "plan", 8, 1, 1.0, peak_bytes=10, predicted_bytes=11)]
    scaled = [measured("32 rows", "lora", "plan", 32, 1, 50.0)]
    about = {"device": "NVIDIA H200", "date": "2026-11-21", "versions": {"torch": "2"}, "model": "a stand-in"}
    return about | {"compared": legs, "scaled": scaled, "memory": weighed}


def test_ratios_are_what_the_legs_say(record):
    found = page.ratios(record)["lora"]
    assert found["update"] == 10  # 1,000 ms against 100
    assert found["quality"] == 10  # 10 s against 1 s
    # 32 rows in 0.2 s against 8 in 0.4 s: the faster of plain's legs needs more than 12 GiB.
    assert found["plain"] == pytest.approx(160 / 20)
    assert page.misses(record) == [pytest.approx(0.1)]


def test_one_slow_update_does_not_move_the_time_of_a_leg(record):
    before = page.ratios(record)["lora"]
    for one in record["compared"]:
        if one["way"] in ("seeds", "plan", "free"):  # evaluated on the way, which their median would count
            one.update(evaluate_every=2, ms_median=9999.0)
        else:
            one.update(ms_per_update=9999.0, seconds=99.99)
    assert page.ratios(record)["lora"] == pytest.approx(before)
    row = next(line for line in page.speed(record).splitlines() if "plain TRL" in line)
    assert "| 400 | 2.5x |" in row and "9999" not in page.speed(record) + page.completions(record)


def test_the_time_before_a_dpo_plan_counts(record):
    for one in record["compared"]:
        if (one["method"], one["name"]) == ("dpo", "plan, free"):
            one["prepare_seconds"] = 2.0
    assert page.ratios(record)["dpo"]["quality"] == 5  # 10 s against 1 s of training and 1 s more of preparing
    assert "1.0 s + 1.0 s for the reference" in page.quality(record)


def test_a_leg_that_failed_is_said_and_nothing_is_made_up(record):
    spoiled = copy.deepcopy(record)
    for one in spoiled["compared"]:
        if one["method"] == "cpt" and one["name"] != "seeds":
            one.pop("curve"), one.update(failed="out of memory")
    assert page.ratios(spoiled)["cpt"] == {"update": None, "quality": None, "plain": None}
    assert page.speed(spoiled).count("not measured") == 4 and "not measured" in page.quality(spoiled)
    never = copy.deepcopy(record)
    for one in never["compared"]:
        if one["name"] == "plan, free" and one["curve"]:
            one["curve"] = [[5, 1.0, 1.1]]
    assert page.ratios(never)["full"]["quality"] is None and "not within 10 updates" in page.quality(never)


def test_the_page_is_that_of_the_record():
    text = page.PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- table: (\w+) -->", text)) == set(page.tables())
    assert page.filled(text, page.tables()) == text, "run python upkeep/page.py --write"


def test_the_prose_of_the_page_is_that_of_the_record():
    text = " ".join(page.PAGE.read_text(encoding="utf-8").split())
    record = page.read("gpu-speed.json")
    whole, shared = (size / memory.GIB for size in record["grpo_1024_tokens"].values())
    first = next(one for one in record["memory"] if (one["method"], one["length"]) == ("grpo", 1024))
    said = f"at 1,024 tokens {whole:.2f} GiB for the whole rows alone, {shared:.2f} GiB in a later update"
    assert said in text and f"{first['peak_bytes'] / memory.GIB:.2f} GiB in the first" in text
    assert "*The copied setting* is 2 rows, 4 times (2 x 4)" in text and "seeds' default" not in text


def test_a_picture_is_drawn(record, tmp_path):
    page.draw(record, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 5000


def test_what_is_claimed_of_the_recorded_figures_holds():
    """The bars of the page, for every leg that is in the record."""
    record = page.read("gpu-speed.json")
    for method, found in page.ratios(record).items():
        assert found["update"] is None or found["update"] >= 2.5, method
        assert found["quality"] is None or found["quality"] >= {"lora": 5, "full": 4, "dpo": 4, "cpt": 5}[method], (
            method
        )
        assert found["plain"] is None or found["plain"] >= 1, method
    misses = page.misses(record)
    assert len(misses) == 15 and all(abs(miss) <= 0.15 for miss in misses)
    answers = page.legs(record, "grpo")
    rates = {name: page.rows_of(one) / page.milliseconds(one) for name, one in answers.items()}
    assert rates["plan, free"] >= 2 * rates["8 x 1"]
    two = page.read("gpu-two.json")
    assert all(found["ratio"] >= 1.7 and found["inside"] for found in two["methods"].values())


def test_the_formula_of_today_meets_the_recorded_peaks():
    """A prediction is a formula: when it changes, the record is met again or is made anew."""
    shape = memory.Shape(hidden=576, layers=30, heads=9, kv_heads=3, intermediate=1536, vocabulary=49152, tied=True)
    h200 = profile.Machine("NVIDIA H200", 140 * memory.GIB, True, 16, 128 * memory.GIB, False, capability=(9, 0))
    record = page.read("gpu-speed.json")
    fields = {field.name for field in dataclasses.fields(leg.Leg)} - {"arguments", "reasons"}
    grpo = [found for found in record["compared"] if found["method"] == "grpo" and found["way"] != "set"]
    for found in record["memory"] + grpo:
        one = leg.Leg(**{name: found[name] for name in fields & found.keys()})
        leg.set_up(one, shape, profile.decide(h200, "gpu", profile.HUB_MODEL, profile.POCKET, lesson=one.method))
        assert one.predicted_bytes == found["predicted_bytes"], (one.method, one.name)
        assert one.predicted_bytes == pytest.approx(found["peak_bytes"], rel=0.15), (one.method, one.name)
