"""Which words a model's tokenizer turns into tokens that end turns and the like, so that no row may hold them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from unsloth_course.lesson.data.rows import CONTROL_TOKENS

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MORE = ("additional_special_tokens", "extra_special_tokens")
HELD = "contains the control token"  # what is said of a row that holds one
TAKEN_OFF = "an end of sequence behind the text is taken off"


class Control(NamedTuple):
    """The special tokens of a tokenizer, and the one of them that ends a sequence."""

    tokens: tuple[str, ...]
    end: str | None = None


CHATML = Control(CONTROL_TOKENS, CONTROL_TOKENS[1])  # those of SmolLM2 and the bundled model


def of_tokenizer(tokenizer: Any) -> Control:
    """Those of a tokenizer: its `all_special_tokens`, and what its chat template writes of its special added tokens,
    such as `<|start_header_id|>` of Llama 3."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return _control(tokenizer.all_special_tokens, added, tokenizer.chat_template, tokenizer.eos_token)


def of_folder(folder: str | Path) -> Control:
    """The same of the tokenizer whose files are in a folder, read without transformers; CHATML where there are none."""
    settings, whole = (_read(Path(folder, name)) for name in ("tokenizer_config.json", "tokenizer.json"))
    if not settings:
        return CHATML
    more = (settings.get(key) or () for key in _MORE)
    named = [settings.get(key) for key in _NAMED]
    named += [token for each in more for token in (each.values() if isinstance(each, dict) else each)]
    added = [*whole.get("added_tokens", ()), *settings.get("added_tokens_decoder", {}).values()]
    file = Path(folder, "chat_template.jinja")
    template = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    special = (token["content"] for token in added if token.get("special"))
    return _control(map(_text, named), special, template, _text(settings.get("eos_token")))


def _control(named: Iterable[str | None], added: Iterable[str], template: Any, end: str | None) -> Control:
    written = str(template or "")
    tokens = dict.fromkeys([*filter(None, named), *(token for token in added if token in written)])
    return Control(tuple(tokens), end)


def _text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def without_end(value: Any, end: str) -> Any:
    """The same with one end of sequence less behind each text that has one there, in lists and objects at any depth."""
    if isinstance(value, str):
        bare = value.rstrip()
        return bare.removesuffix(end).rstrip() if bare.endswith(end) else value
    if isinstance(value, list):
        return [without_end(item, end) for item in value]
    return {key: without_end(item, end) for key, item in value.items()} if isinstance(value, dict) else value
