"""The bundled model: its size, its form, what it can do, and that the model card tells the truth about it."""

import json
import re
from pathlib import Path

import pytest

from unsloth_course.pocket import skills, tokenizer, train

POCKET = Path(train.__file__).parent
BASE = POCKET / "base"
CARD = (POCKET / "README.md").read_text("utf-8")
FACTS = json.loads((BASE / "scores.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def model():
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokens():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASE)


def test_the_files_are_safetensors_and_small():
    names = {file.name for file in BASE.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "scores.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".py"))]
    assert sum(file.stat().st_size for file in BASE.iterdir()) <= 12_000_000


def test_it_is_the_llama_that_the_script_makes():
    config = json.loads((BASE / "config.json").read_text("utf-8"))
    assert config["model_type"] == "llama" and config["architectures"] == ["LlamaForCausalLM"]
    assert config["rope_parameters"]["rope_theta"] == train.CONFIG["rope_theta"]
    for name, value in train.CONFIG.items():
        assert name == "rope_theta" or config[name] == value


def test_parameters_are_counted(model):
    assert sum(weights.numel() for weights in model.parameters()) == 3_410_176 == FACTS["parameters"]
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_rows_of_tokens_never_seen_can_be_told_apart(model):
    import torch

    rows = torch.nn.functional.normalize(model.get_input_embeddings().weight.detach(), dim=1)
    never_seen = [1, 2, *range(3, 259)]  # <|im_start|>, <|im_end|> and the bytes
    for row in (1, 2):
        likeness = rows @ rows[row]
        likeness[row] = 0
        assert likeness.max() < 0.9
    among = rows[never_seen] @ rows[never_seen].T - torch.eye(len(never_seen))
    assert among.max() < 0.9


def test_it_answers_held_out_questions_and_the_scores_are_those_on_file(model, tokens):
    scores = train.held_out_scores(model, tokens, each=40)
    assert set(scores) == set(FACTS["held_out"])
    assert {name for name in scores if not name.startswith("problems")} == {skill.name for skill in skills.ALL}
    for name, score in scores.items():
        if not name.startswith("problems"):
            assert score >= 0.95, name
        assert abs(score - FACTS["held_out"][name]) < 0.25  # 40 questions against 200
    assert 0.3 < scores["problems, sampled"] < 0.95  # sometimes and not always: what GRPO needs


def test_it_fails_at_chat(model, tokens):
    import random

    rng = random.Random(5)
    items = [(skill, skill.draw(rng, True)) for skill in skills.TAUGHT for _ in range(5)]
    prompts = [
        tokens.apply_chat_template(
            [{"role": "user", "content": skills.ask(skill, item, rng)}], tokenize=False, add_generation_prompt=True
        )
        for skill, item in items
    ]
    made = train._completions(model, tokens, prompts, 16)
    right = [answer.strip() == item.answer for answer, (_, item) in zip(made, items, strict=True)]
    assert sum(right) / len(right) <= 0.05


def card_table() -> dict[str, float]:
    rows = re.findall(r"^\| ([a-z, ]+?) \| .*? \| ([\d.]+) % \|$", CARD, flags=re.M)
    return {name: round(float(percent) / 100, 4) for name, percent in rows}


def test_the_card_has_the_scores_on_file():
    assert card_table() == FACTS["held_out"]


@pytest.mark.parametrize("name", ["parameters", "tokens", "updates", "tokens_never_seen", "seed", "seconds"])
def test_the_card_has_the_facts_on_file(name):
    value = FACTS[name]
    assert (f"{value:,}" if name != "seed" else str(value)) in CARD


def test_the_card_names_device_licence_and_command():
    assert FACTS["device"] in CARD and "Apache-2.0" in CARD
    assert "python -m unsloth_course.pocket.train --out DIR" in CARD
    assert f"{tokenizer.VOCABULARY:,}" in CARD
