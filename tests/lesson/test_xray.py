"""The token X-ray: exact token text, states, warnings, and real Unsloth trainers on a CPU."""

import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from lesson.pages import Page
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.xray import Token, XRay, look
from unsloth_course.lesson.xray.showing import _visible
from unsloth_course.lesson.xray.tokens import PieceReader, _decode

PAD, START, END = 0, 1, 2
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
relaxed = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def unsloth():
    """Imported before trl and transformers, once for this module."""
    return pytest.importorskip("unsloth")


def wrap(core):
    """A transformers tokenizer with the special tokens and the chat template of SmolLM2."""
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer(unsloth):
    """Llama style: ▁ for a space, bytes such as <0x0A> for what the vocabulary lacks."""
    pieces = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)] + ["▁"] + [chr(code) for code in range(33, 127)]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("u", "s"), ("us", "e"), ("use", "r")]
    pieces += [left + right for left, right in merges]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return wrap(core)


@pytest.fixture(scope="module")
def byte_level(unsloth):
    """GPT-2 style: every byte as one printable character, Ġ for a space."""
    pieces = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġt", "Ġâ"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "t"), ("Ġ", "â")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return wrap(core)


def collate(rows):
    """Pads on the right to a multiple of 8, as a collator does."""
    length = -(-max(len(row["input_ids"]) for row in rows) // 8) * 8

    def padded(name, filler):
        return torch.tensor([list(row[name]) + [filler] * (length - len(row[name])) for row in rows])

    sizes = [len(row["input_ids"]) for row in rows]
    mask = torch.tensor([[1] * size + [0] * (length - size) for size in sizes])
    return {"input_ids": padded("input_ids", PAD), "labels": padded("labels", -100), "attention_mask": mask}


def trainer_of(tokenizer, rows, collator=collate, max_length=None, **more):
    args = SimpleNamespace(max_length=max_length, remove_unused_columns=False)
    return SimpleNamespace(
        train_dataset=rows, data_collator=collator, processing_class=tokenizer, args=args, model=None, **more
    )


def row_of(tokenizer, text, prompt=""):
    """A row whose prompt is masked."""
    ids = tokenizer(text)["input_ids"]
    masked = len(tokenizer(prompt)["input_ids"])
    return {"input_ids": ids, "labels": [-100] * masked + ids[masked:]}


def text_of(tokens, state=None, trained=None):
    return "".join(
        t.text
        for t in tokens
        if state in (None, t.state) and (trained is None or (t.trained == trained and t.state != "cut"))
    )


def joined(tokenizer, ids):
    """The text that the tokens spell, with their single bytes put together again."""
    reader = PieceReader(tokenizer)
    text = "".join(reader.text(i) for i in ids)
    whole = re.sub(
        r"(?:<0x[0-9A-F]{2}>)+", lambda run: bytes.fromhex(run[0].replace("<0x", "").replace(">", "")).decode(), text
    )
    return whole


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<▁"), max_size=40))
@relaxed
@pytest.mark.slow
def test_llama_tokens_spell_the_text_exactly(tokenizer, text):
    assert joined(tokenizer, tokenizer(text)["input_ids"]) == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=40))
@relaxed
def test_byte_level_tokens_spell_the_text_exactly(byte_level, text):
    assert joined(byte_level, byte_level(text)["input_ids"]) == text


@given(st.integers(-(2**70), 2**70) | st.integers(-3, 400))
@relaxed
def test_no_id_breaks_the_reader(tokenizer, byte_level, number):
    for one in (tokenizer, byte_level):
        assert isinstance(PieceReader(one).text(number), str)


def test_single_tokens_read_sensibly(tokenizer, byte_level):
    def texts(one, text):
        reader = PieceReader(one)
        return [reader.text(i) for i in one(text)["input_ids"]]

    assert texts(tokenizer, "the user\né<|im_end|>") == ["the", " ", "user", "\n", "<0xC3>", "<0xA9>", "<|im_end|>"]
    # "Ġâ" is a space and the first of the three bytes of a dash: half of it is readable.
    assert texts(byte_level, " t —\n") == [" t", " <0xE2>", "<0x80>", "<0x94>", "\n"]
    assert PieceReader(tokenizer).text(10**6) == "<id 1000000>"


@given(st.binary(max_size=12))
def test_decoding_bytes_loses_none(data):
    text = _decode(data)
    parts = re.split(r"(<0x[89A-F][0-9A-F]>)", text)
    back = b"".join(bytes.fromhex(p[3:5]) if re.fullmatch(r"<0x[89A-F][0-9A-F]>", p) else p.encode() for p in parts)
    assert back == data


PROMPT = "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\n"


def test_states_and_trained_flags_of_a_chat_row(tokenizer):
    xray = look(trainer_of(tokenizer, [row_of(tokenizer, PROMPT + "use it<|im_end|>\n", PROMPT)]))
    (tokens,) = xray.rows
    assert xray.names == ["row 0"]
    assert text_of(tokens) == PROMPT + "use it<|im_end|>\n"  # padding is left out
    assert text_of(tokens, trained=True) == "use it<|im_end|>\n"
    assert text_of(tokens, state="special") == "<|im_start|>" * 2
    assert [t.trained for t in tokens if t.state == "end"] == [False, True]
    assert text_of(tokens, state="masked") == "user\nthe\nassistant\n"
    assert xray.warnings == []
    assert xray.summary == "Checked the only row: 6 of 23 tokens are trained (26%)."


def test_the_first_token_is_never_trained(tokenizer):
    (tokens,) = look(trainer_of(tokenizer, [row_of(tokenizer, "the user<|im_end|>")])).rows
    assert [t.trained for t in tokens] == [False, True, True, True]


def left(rows):
    reversed_rows = [{name: values[::-1] for name, values in row.items()} for row in rows]
    return {name: tensor.flip(1) for name, tensor in collate(reversed_rows).items()}


def flat(rows):
    return {name: tensor for name, tensor in collate(rows).items() if name != "attention_mask"}


@pytest.mark.parametrize("collator", [left, flat])
def test_rows_padded_on_the_left_or_without_a_mask_are_read_too(tokenizer, collator):
    (tokens,) = look(trainer_of(tokenizer, [row_of(tokenizer, "the user<|im_end|>")], collator)).rows
    assert text_of(tokens) == "the user<|im_end|>"


def test_ends_of_the_generation_settings_count(tokenizer):
    rows = [row_of(tokenizer, "the user<|endoftext|>")]
    settled = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[END, PAD]))
    trainer = trainer_of(tokenizer, rows)
    assert "No trained end of sequence (<|im_end|>) in any row checked" in look(trainer).warnings[0]
    trainer.model = settled
    assert not any("No trained end" in warning for warning in look(trainer).warnings)


def test_a_collator_that_masks_the_end_because_it_pads_with_it_is_caught(tokenizer):
    """The classic: padding with the end of sequence, so that transformers' collator masks every real end as well."""
    from transformers import DataCollatorForLanguageModeling

    trainer = trainer_of(tokenizer, [{"input_ids": tokenizer("the user<|im_end|>")["input_ids"]}])
    trainer.data_collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    assert not any("No trained end" in warning for warning in look(trainer).warnings)
    tokenizer.pad_token = "<|im_end|>"
    try:
        assert any("No trained end" in warning for warning in look(trainer).warnings)
    finally:
        tokenizer.pad_token = "<|endoftext|>"


def test_rows_in_which_nothing_is_trained_are_named(tokenizer):
    good = row_of(tokenizer, PROMPT + "a<|im_end|>", PROMPT)
    bad = {**good, "labels": [-100] * len(good["input_ids"])}
    (warning,) = look(trainer_of(tokenizer, [good, bad, good, bad])).warnings
    assert warning.startswith("Nothing is trained in 2 of the 4 rows checked (first: row 1): every label is -100.")
    (warning,) = look(trainer_of(tokenizer, [bad])).warnings
    assert warning.startswith("Nothing is trained in any row checked")


def test_a_row_that_trains_its_prompt_is_named(tokenizer):
    rows = [row_of(tokenizer, PROMPT + "a<|im_end|>", PROMPT), row_of(tokenizer, PROMPT + "a<|im_end|>")]
    (warning,) = look(trainer_of(tokenizer, rows)).warnings
    assert warning.startswith("Every token is trained in 1 of the 2 rows checked (first: row 1), so the prompt as well")


def test_an_end_of_the_prompt_does_not_stand_in_for_the_end_of_the_answer(tokenizer):
    (warning, _) = look(trainer_of(tokenizer, [row_of(tokenizer, PROMPT + "a")])).warnings
    assert "No trained end of sequence" in warning


def test_a_large_dataset_is_sampled_and_says_so(tokenizer):
    good = row_of(tokenizer, PROMPT + "a<|im_end|>", PROMPT)
    calls = []

    def counting(rows):
        calls.append(1)
        return collate(rows)

    xray = look(trainer_of(tokenizer, [good] * 9_000, counting), rows=[8_999])
    assert xray.names == ["row 8999"]
    assert xray.summary.startswith("Checked 2,000 of 9,000 rows:")
    assert len(calls) == 2_001


def cut_rows(tokenizer, texts, length, part=slice(0, None)):
    rows = [row_of(tokenizer, text, PROMPT) for text in texts]
    return [{name: values[part][:length] for name, values in row.items()} for row in rows]


@pytest.mark.parametrize("shape", ["text", "messages", "prompt", "strings"])
def test_the_tokens_that_were_cut_are_shown(tokenizer, shape):
    question, answer = {"role": "user", "content": "the"}, {"role": "assistant", "content": "use it"}
    source = {
        "text": {"text": PROMPT + "use it<|im_end|>\n"},
        "messages": {"messages": [question, answer]},
        "prompt": {"prompt": [question], "completion": [answer]},
        "strings": {"prompt": PROMPT, "completion": "use it<|im_end|>\n"},
    }[shape]
    length = len(tokenizer(PROMPT)["input_ids"]) + 1
    rows = cut_rows(tokenizer, [PROMPT + "use it<|im_end|>\n"], length)
    xray = look(trainer_of(tokenizer, rows, max_length=length), source=[source])
    assert text_of(xray.rows[0], state="cut") == " it<|im_end|>\n"
    assert text_of(xray.rows[0], trained=True) == "use"
    assert f"100.0% of the rows are cut at max_length = {length} tokens: every row checked." in xray.warnings[1]


def test_the_dataset_s_own_columns_serve_as_the_source(tokenizer):
    text = PROMPT + "use it<|im_end|>"
    (row,) = cut_rows(tokenizer, [text], 20)
    xray = look(trainer_of(tokenizer, [{**row, "text": text}], max_length=20))
    assert text_of(xray.rows[0]) == text


def test_a_row_of_just_max_length_is_not_cut(tokenizer):
    text = PROMPT + "a<|im_end|>"
    rows = [{**row_of(tokenizer, text, PROMPT), "text": text}]
    length = len(rows[0]["input_ids"])
    assert look(trainer_of(tokenizer, rows, max_length=length)).warnings == []
    rows[0]["text"] = text.removesuffix("<|im_end|>")  # the trainer added the end itself
    assert look(trainer_of(tokenizer, rows, max_length=length)).warnings == []


def test_without_the_text_a_full_row_was_probably_cut(tokenizer):
    rows = cut_rows(tokenizer, [PROMPT + "use it<|im_end|>", PROMPT + "a<|im_end|>"], 25)
    length = len(rows[0]["input_ids"])
    for source in (None, [{"text": "another"}, {"text": "text"}]):
        xray = look(trainer_of(tokenizer, rows, max_length=length), source=source)
        assert text_of(xray.rows[0], state="cut") == ""
        assert any("50.0% of the rows fill max_length" in w and "probably cut" in w for w in xray.warnings)


def test_rows_that_the_trainer_left_out_do_not_shift_the_rest(tokenizer):
    texts = [PROMPT + f"use {letter} it<|im_end|>" for letter in "abcd"]
    rows = cut_rows(tokenizer, texts, 22)
    xray = look(trainer_of(tokenizer, [rows[1], rows[3]], max_length=22), source=[{"text": text} for text in texts])
    assert [text_of(tokens) for tokens in xray.rows] == [texts[1], texts[3]]
    assert "The trainer left out 2 of the 4 source rows." in xray.warnings[-1]


def test_a_start_that_was_cut_is_shown_before_the_row(tokenizer):
    text = PROMPT + "use it<|im_end|>"
    rows = cut_rows(tokenizer, [text], 6, slice(-6, None))
    (tokens,) = look(trainer_of(tokenizer, rows, max_length=6), source=[{"text": text}]).rows
    assert text_of(tokens) == text
    assert tokens[0].state == "cut" and tokens[-1].state == "end"


def test_packed_rows_are_full_and_not_cut(tokenizer):
    row = row_of(tokenizer, PROMPT + "a<|im_end|>" + PROMPT + "b", PROMPT)
    row["seq_lengths"] = [len(row["input_ids"])]
    assert look(trainer_of(tokenizer, [row], max_length=len(row["input_ids"]))).warnings == []


def test_a_source_without_text_is_a_sentence(tokenizer):
    with pytest.raises(CourseError, match=r'need a "messages" column.*found question, answer'):
        look(trainer_of(tokenizer, [row_of(tokenizer, "a")]), source=[{"question": "a", "answer": "b"}])
    with pytest.raises(CourseError, match="found no rows"):
        look(trainer_of(tokenizer, [row_of(tokenizer, "a")]), source=[])


def test_grpo_has_prompts_and_trains_none_of_their_tokens(tokenizer):
    chat = [{"role": "user", "content": "1 + 1"}]
    trainer = trainer_of(tokenizer, [{"prompt": chat, "answer": "2"}] * 5 + [{"prompt": "2 + 2", "answer": "4"}])
    trainer.args.num_generations, trainer.args.max_completion_length = 8, 64
    found = look(trainer, rows=(0, 5))
    expected = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert [text_of(tokens) for tokens in found.rows] == [expected, tokenizer.decode(tokenizer("2 + 2")["input_ids"])]
    assert not any(token.trained for tokens in found.rows for token in tokens)
    assert found.names == ["prompt 0", "prompt 5"] and found.warnings == []
    assert "6 prompts of" in found.summary and "8 completions of at most 64 tokens" in found.summary
    assert found.summary in str(found) and "<ins" not in found._repr_html_().partition("prompt 0")[2]


def test_what_cannot_be_looked_at_is_a_sentence(tokenizer):
    with pytest.raises(CourseError, match="wants a trainer with a train dataset, and got dict"):
        look({})
    with pytest.raises(CourseError, match="no rows left"):
        look(trainer_of(tokenizer, []))
    with pytest.raises(CourseError, match="is a stream"):
        look(trainer_of(tokenizer, iter([{"input_ids": [1]}])))
    with pytest.raises(CourseError, match=r"columns answer, prompt and no tokens:.*GRPO"):
        look(trainer_of(tokenizer, [{"prompt": "1 + 1", "answer": "2"}]))
    for number in (1, -1):
        with pytest.raises(CourseError, match=f"no row {number}: the train dataset has rows 0 to 0"):
            look(trainer_of(tokenizer, [row_of(tokenizer, "a")]), rows=[number])


@pytest.fixture
def shown(tokenizer):
    text = PROMPT + "<script>alert(1)</script>\n&<|im_end|>"
    return look(
        trainer_of(tokenizer, cut_rows(tokenizer, [text], 40), max_length=40),
        source=[{"text": text}],
    )


def test_dataset_text_is_escaped(shown):
    page = shown._repr_html_()
    assert "<script" not in page
    read = Page(page)
    assert {tag for tag, _ in read.tags} <= {"div", "ul", "li", "b", "p", "br", "small", "span", "ins", "del", "i"}
    assert "<script>alert(1)</script>⏎" in "".join(read.words).replace("\n", "")


@given(st.lists(st.tuples(st.text(max_size=6), st.sampled_from(["trained", "masked", "special", "end", "cut"]))))
def test_any_token_text_gives_sound_html_and_text(pieces):
    tokens = [Token(text, 7, state, state == "trained") for text, state in pieces]
    xray = XRay([tokens], ["row 0"], ["careful: <b>"], "")
    read = Page(xray._repr_html_())
    spoken = "".join(read.words)
    for token in tokens:
        assert _visible(token) in spoken and _visible(token) in str(xray)
    tags = [tag for tag, attributes in read.tags if "title" in attributes]
    assert tags == [{"trained": "ins", "cut": "del"}.get(token.state, "span") for token in tokens]


def test_states_can_be_told_apart_without_any_style(shown):
    page = re.sub(r' style="[^"]*"', "", shown._repr_html_())
    assert "<ins title=" in page and "<del title=" in page and "‹&lt;|im_end|&gt;›■" in page
    words = "".join(Page(page).words)
    assert "trained: underlined" in words and "struck through" in words
    assert "40 tokens, " in words and "cut off" in words
    assert words.index("Warning:") < words.index("row 0")


def test_the_text_twin_says_the_same(shown):
    lines = str(shown).splitlines()
    assert lines[0].startswith("Warning: No trained end of sequence")
    masked = next(line for line in lines if line.startswith("  masked"))
    assert masked.startswith("  masked   ‹<|im_start|>›│user│⏎│the│‹<|im_end|>›■│⏎│")
    assert any(line.startswith("  trained  <│s│c│r│i│p│t│>│") for line in lines)
    assert any(line.startswith("  cut off  ") for line in lines)
    assert repr(shown) == str(shown)


def test_white_space_and_hidden_characters_are_made_visible():
    def seen(text):
        return _visible(Token(text, 0, "masked", False))

    assert seen(" a\tb\r\n") == "␣a⇥b␍⏎"
    assert seen("\u202eabc\u200b\x00") == "<U+202E>abc<U+200B><U+0000>"
    assert seen("\u0301") == "◌\u0301"


def test_long_runs_are_shortened(tokenizer):
    xray = look(trainer_of(tokenizer, [row_of(tokenizer, PROMPT + "z" * 1_000 + "<|im_end|>", PROMPT)]))
    assert len(xray.rows[0]) > 1_000
    for page in (str(xray), xray._repr_html_()):
        assert "... 761 more ..." in page
    assert str(xray).count("z") == 239


PAIRS = [("the user", "use it\nthen"), ("é <script>", "the user " * 20)]


@pytest.fixture(scope="module")
def real(unsloth, tokenizer, tmp_path_factory):
    """Unsloth's own trainers around a random Llama of one layer, by name, before any training."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
    from unsloth import FastLanguageModel
    from unsloth.chat_templates import train_on_responses_only

    folder = tmp_path_factory.mktemp("tiny")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=1, pad_token_id=PAD, bos_token_id=None, eos_token_id=END, **shape
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")

    def make(kind, settings, rows, **more):
        model, own = FastLanguageModel.from_pretrained(str(folder / "model"), max_seq_length=256, load_in_4bit=False)
        model = FastLanguageModel.get_peft_model(model, r=2, target_modules=["q_proj"])
        args = settings(output_dir=str(folder / "out"), max_length=64, report_to="none", max_steps=1, **more)
        return kind(model=model, args=args, processing_class=own, train_dataset=Dataset.from_list(rows))

    def turns(role, text):
        return [{"role": role, "content": text}]

    pairs = [{"prompt": turns("user", q), "completion": turns("assistant", a)} for q, a in PAIRS]
    chats = [{"text": tokenizer.apply_chat_template(p["prompt"] + p["completion"], tokenize=False)} for p in pairs]
    preferences = [
        {"prompt": p["prompt"], "chosen": p["completion"], "rejected": turns("assistant", "no")} for p in pairs
    ]
    responses = {"instruction_part": "<|im_start|>user\n", "response_part": "<|im_start|>assistant\n"}
    return {
        "pairs": make(SFTTrainer, SFTConfig, pairs),
        "responses": train_on_responses_only(make(SFTTrainer, SFTConfig, chats), **responses),
        "chats": chats,
        "raw": make(SFTTrainer, SFTConfig, [{"text": "the user"}, {"text": "é\n<script>"}]),
        "preferences": make(DPOTrainer, DPOConfig, preferences, beta=0.1),
    }


def test_prompt_and_completion_train_the_answer_and_its_end(real):
    xray = look(real["pairs"])
    short, long = xray.rows
    assert text_of(short, trained=True) == "use it\nthen<|im_end|>\n"
    assert [t.trained for t in short if t.state == "end"] == [False, True]
    assert text_of(short, trained=False) == "<|im_start|>user\nthe user<|im_end|>\n<|im_start|>assistant\n"
    assert sum(t.state != "cut" for t in long) == 64
    assert text_of(long, state="cut").endswith("user <|im_end|>\n")  # found from the columns that the trainer kept
    unending, cut = xray.warnings
    assert "No trained end of sequence (<|im_end|>) in 1 of the 2 rows checked (first: row 1)" in unending
    assert cut.startswith("50.0% of the rows are cut at max_length = 64 tokens")


def test_train_on_responses_only_trains_the_answer_and_its_end(real):
    xray = look(real["responses"])
    short, long = xray.rows
    assert text_of(short, trained=True) == "use it\nthen<|im_end|>"
    # The text ends in a new line, so the trainer put a second end of sequence after it; it is not trained.
    assert [t.trained for t in short if t.state == "end"] == [False, True, False]
    assert text_of(long, state="cut") == ""
    assert "probably cut" in xray.warnings[1]
    long = look(real["responses"], rows=[1], source=real["chats"]).rows[0]
    assert text_of(long) == real["chats"][1]["text"].replace("é", "<0xC3><0xA9>")


def test_raw_text_trains_every_token_but_the_first(real):
    xray = look(real["raw"])
    assert [text_of(tokens, trained=False) for tokens in xray.rows] == ["the", "<0xC3>"]
    assert text_of(xray.rows[1]) == "<0xC3><0xA9>\n<script><|im_end|>"
    (warning,) = xray.warnings
    assert warning.startswith("Every token is trained in every row checked")
    assert "<script" not in xray._repr_html_()


def test_preferences_show_the_chosen_and_the_rejected_answer(real):
    xray = look(real["preferences"])
    assert xray.names == ["row 0, chosen", "row 0, rejected", "row 1, chosen", "row 1, rejected"]
    answers = [text_of(tokens, trained=True) for tokens in xray.rows]
    assert answers[:2] == ["use it\nthen<|im_end|>\n", "no<|im_end|>\n"]
    assert text_of(xray.rows[2], state="cut").endswith("user <|im_end|>\n")
    assert "in 1 of the 4 rows checked (first: row 1, chosen)" in xray.warnings[0]


@pytest.mark.parametrize("name", ["pairs", "responses", "raw"])
def test_the_training_loop_gets_what_the_x_ray_shows(real, name):
    batch = next(iter(real[name].get_train_dataloader()))
    fed = [
        ([i for i, keep in zip(ids, mask, strict=True) if keep], sum(label != -100 for label in labels[1:]))
        for ids, mask, labels in zip(
            *(batch[part].tolist() for part in ("input_ids", "attention_mask", "labels")), strict=True
        )
    ]
    shown = [
        ([t.id for t in tokens if t.state != "cut"], sum(t.trained for t in tokens)) for tokens in look(real[name]).rows
    ]
    assert sorted(fed) == sorted(shown)
