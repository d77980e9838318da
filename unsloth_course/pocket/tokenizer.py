"""The pocket model's tokenizer: Llama-style BPE with byte fallback, and SmolLM2's special tokens and ChatML form.

Spaces are written as `▁` and unknown characters as bytes `<0x00>`..`<0xFF>`, so any text comes back as it was (the one
exception is the sign `▁` itself, which reads as a space, as in Llama). Only lower-case letters are ever joined: digits
and capital letters stay single tokens, so that arithmetic and spelling can be learned. llama.cpp's converter accepts
this form. Sennrich et al. 2016 (BPE), Kudo and Richardson 2018 (byte fallback).

As in SmolLM2, a special token that is written out in a text, such as `<|im_end|>`, becomes that token. For text that is
not trusted, `tokenizer(text, split_special_tokens=True)` reads it as ordinary characters.
"""

import json
import random
import string
from pathlib import Path

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 1024
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _learned_merges(texts: list[str], count: int) -> list[tuple[str, str]]:
    """The first `count` merges of lower-case words (with or without a space before), in the order learned."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    # Each group is a word of lower-case letters with its space; everything else stands alone and is never joined.
    learner.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[a-z]+|[^a-z]"), behavior="isolated")
    trainer = trainers.BpeTrainer(vocab_size=4 * VOCABULARY, show_progress=False, special_tokens=[])
    learner.train_from_iterator((text.replace(" ", "▁") for text in texts), trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [tuple(pair) for pair in merges[:count]]


def build(seed: int = 3407):
    """Make the tokenizer from documents of the small world: a `PreTrainedTokenizerFast` with 1,024 tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    from unsloth_course.pocket import code, skills, text

    rng = random.Random(f"tokenizer-{seed}")
    texts = [text.document(rng) for _ in range(20_000)] + [code.function(rng, False) for _ in range(1_000)]
    # Words that only the lessons use: pretraining never shows them, but a word should not cost six tokens for that.
    lesson_words = ["system\nuser\nassistant", *(task for skill in skills.TAUGHT for task in skill.tasks)]
    texts += ["\n".join(lesson_words)] * 1_000
    alphabet = ["▁", "\n", *string.digits, *string.ascii_letters, *string.punctuation]
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *alphabet]
    merges = _learned_merges(texts, VOCABULARY - len(tokens))
    tokens += ["".join(pair) for pair in merges]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != VOCABULARY:
        raise ValueError(f"The tokenizer has {len(vocabulary)} tokens, not {VOCABULARY}: two merges gave one token.")

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        add_prefix_space=False,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def save(tokenizer, folder: Path) -> None:
    """Write the tokenizer's files into `folder`, in words that older readers know too.

    transformers 5 names a class that transformers 4 (which llama.cpp's converter asks for) does not have, and drops the
    word that keeps llama.cpp from putting `<|im_start|>` before every text.
    """
    tokenizer.save_pretrained(str(folder))
    file = Path(folder, "tokenizer_config.json")
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings.pop("backend", None)
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False}
    file.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
