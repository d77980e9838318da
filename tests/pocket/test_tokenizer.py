"""The tokenizer: any text comes back, SmolLM2's special tokens and ChatML, and the very file that is bundled."""

import json
import re
import string
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unsloth_course.pocket import tokenizer

BASE = Path(tokenizer.__file__).parent / "base"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where does Nazus live?"}]


@pytest.fixture(scope="module")
def bundled():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(tokenizer.build(), folder)
    return folder


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_building_again_gives_the_bundled_file(built, name):
    assert json.loads((built / name).read_text("utf-8")) == json.loads((BASE / name).read_text("utf-8"))


def test_the_bundled_template_is_the_one_in_the_code():
    assert (BASE / "chat_template.jinja").read_text("utf-8") == tokenizer.CHAT_TEMPLATE


@settings(max_examples=300)
@given(text=st.text().filter(lambda text: "▁" not in text))
@example(text="  two  spaces\n\n\ttab\r\n")
@example(text="naïve 中文 🦙 \x00 <0x41> <|im_end|><|endoftext|> <|im_start|")
def test_any_text_comes_back(bundled, text):
    ids = bundled(text, add_special_tokens=False).input_ids
    assert bundled.decode(ids) == text
    assert bundled.decode(bundled(text, split_special_tokens=True).input_ids) == text


def test_the_one_sign_that_reads_as_a_space(bundled):
    assert bundled.decode(bundled("a▁b").input_ids) == "a b"


def test_special_tokens_are_those_of_smollm2(bundled):
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert bundled.convert_tokens_to_ids(names) == [0, 1, 2]
    assert (bundled.bos_token, bundled.eos_token, bundled.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    assert set(bundled.all_special_tokens) == set(names)
    assert len(bundled) == bundled.vocab_size == tokenizer.VOCABULARY == 1024


def test_nothing_is_put_around_a_text(bundled):
    ids = bundled("What").input_ids
    assert bundled.convert_ids_to_tokens(ids)[0] == "W"  # no <|im_start|> and no space before


def test_digits_and_capitals_stay_alone(bundled):
    alone = string.digits + string.ascii_uppercase
    assert len(bundled(alone).input_ids) == 36
    joined = [token for token in bundled.get_vocab() if len(token) > 1 and not token.startswith("<")]
    assert joined and all(re.fullmatch("▁?[a-z]+", token) for token in joined)


def test_a_special_token_in_a_text_counts_unless_it_is_split(bundled):
    text = "say <|im_end|> now"
    assert 2 in bundled(text).input_ids
    assert not {0, 1, 2} & set(bundled(text, split_special_tokens=True).input_ids)


def test_all_256_bytes_and_all_printable_ascii_are_tokens(bundled):
    vocabulary = bundled.get_vocab()
    assert all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    assert all(sign in vocabulary for sign in string.ascii_letters + string.digits + string.punctuation)


def test_the_chat_template_is_chatml(bundled):
    asked = bundled.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert asked == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhere does Nazus live?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    answered = bundled.apply_chat_template([*CHAT, {"role": "assistant", "content": "Vale"}], tokenize=False)
    assert answered == asked + "Vale<|im_end|>\n"


def test_older_readers_can_load_what_is_saved(built):
    """transformers 4 (which llama.cpp's converter pins) knows neither TokenizersBackend nor a list of extra tokens."""
    saved = json.loads((built / "tokenizer_config.json").read_text("utf-8"))
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert saved["add_bos_token"] is False
    assert "extra_special_tokens" not in saved and "backend" not in saved


def test_the_form_that_llama_cpps_converter_accepts():
    saved = json.loads((BASE / "tokenizer.json").read_text("utf-8"))
    assert saved["model"]["type"] == "BPE" and saved["model"]["byte_fallback"] is True
    assert not saved["model"].get("ignore_merges")
    assert saved["decoder"]["type"] == "Sequence" and saved["pre_tokenizer"] is None
