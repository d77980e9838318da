"""Small random models with the chat templates of public families, there and back through real llama.cpp."""

import json
import re

import pytest
from families import FAMILIES, NO_BEGINNING, as_family

from unsloth_course import models
from unsloth_course.commands import export
from unsloth_course.commands.export import files, llama
from unsloth_course.setup import llama_cpp

pytestmark = pytest.mark.skipif(
    bool(llama_cpp.missing(llama_cpp.home())), reason="llama.cpp is not built (./setup_venv.sh --gguf)"
)


def random_model(folder, family):
    """A whole model of random weights in a folder, with the tokenizer of a family; returns the tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = as_family(AutoTokenizer.from_pretrained(models.folder("pocket")), family)
    torch.manual_seed(3407)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(
        vocab_size=len(tokenizer), initializer_range=0.05, max_position_embeddings=512, **sizes, **ends
    )
    LlamaForCausalLM(config).to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_makes_its_round_trip(tmp_path, family):
    tokenizer = random_model(tmp_path / "model", family)
    turns = [{"role": role, "content": f"Say {role}, then 12."} for role in ("user", "assistant", "user")]
    rows = [{"messages": asked, "answer": "Tom has 7 apples."} for asked in (turns, turns[:1])]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = str(tmp_path / "rows.jsonl")
    made = export.export(tmp_path / "model", "ollama", quants=["f16"], out=tmp_path / "out", data=data)
    assert [one.name for one in made.formats] == ["model", "f16"] and made.formats[1].compared == 2
    begins = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    with llama.Llama(tmp_path / "out" / "model.f16.gguf") as loaded:
        assert loaded.tokens(loaded.prompt(turns)) == begins
    assert begins.count(tokenizer.bos_token_id) == {"Llama-2": 2, "Qwen": 0}.get(family, 1) or family in NO_BEGINNING
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert text == files.modelfile(tokenizer, "model.f16.gguf")
    assert family in NO_BEGINNING or not re.search(r'TEMPLATE """(\{\{ if ne [^}]*\}\})?<s>', text)
