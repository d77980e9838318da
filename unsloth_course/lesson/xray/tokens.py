"""From token ids to text, exactly."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Token:
    """One token of a row.

    text: what the token adds to the text, exactly; a byte that is no character by itself is written <0xC3>.
    id: its number in the vocabulary, or in the data where the vocabulary has no such number.
    state: "trained" or "masked" for text, "special" for the tokenizer's special tokens, "end" for the end of
        sequence, "cut" for a token that max_length removed.
    trained: whether the loss counts this token.
    """

    text: str
    id: int
    state: str
    trained: bool


def _decode(data: bytes) -> str:
    """Text of some bytes; a byte that belongs to no whole character is written <0xC3>."""
    # surrogateescape keeps a stray byte b as U+DC00 + b, so the readable part of a mixed token stays readable.
    escaped = data.decode("utf-8", errors="surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda match: f"<0x{ord(match[0]) - 0xDC00:02X}>", escaped)


class PieceReader:
    """Turns a token id into its exact text, for byte-level BPE ("Ġ") and Llama-style byte-fallback BPE ("▁")."""

    def __init__(self, tokenizer: Any):
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.tokenizer = tokenizer
        self.added = {i: str(token) for i, token in added.items()}
        self.special = frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        parts = b"" if backend is None or backend.decoder is None else backend.decoder.__getstate__()
        # The table by which byte-level BPE (GPT-2) writes each byte as one printable character, turned round.
        table = {character: byte for byte, character in bytes_to_unicode().items()}
        self.bytes = table if b"ByteLevel" in bytes(parts) else None
        self.text = cache(self._read)  # rows are full of the same tokens

    def token(self, token_id: int, state: str, trained: bool) -> Token:
        return Token(self.text(token_id), token_id, state, trained)

    def _read(self, token_id: int) -> str:
        if token_id in self.added:
            return self.added[token_id]
        try:
            piece = self.tokenizer.convert_ids_to_tokens(token_id)
        except (IndexError, KeyError, OverflowError, TypeError, ValueError):
            piece = None
        if piece is None:  # a row of the embedding matrix that the vocabulary does not use, or a wrong id
            return f"<id {token_id}>"
        if self.bytes is not None and all(character in self.bytes for character in piece):
            return _decode(bytes(self.bytes[character] for character in piece))
        if byte := BYTE_PIECE.fullmatch(piece):
            return _decode(bytes([int(byte[1], 16)]))
        return piece.replace("▁", " ")
