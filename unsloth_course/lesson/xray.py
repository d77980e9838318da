"""The token X-ray: which tokens of a row are trained, masked, special or cut off."""

from __future__ import annotations

import html
import re
import shutil
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import groupby
from operator import add
from typing import Any

from unsloth_course.core.errors import CourseError

MOST_ROWS_CHECKED = 2_000
MOST_TOKENS_SHOWN = 240  # of one run of tokens in the same state
DEFAULT_ROWS = (0, 1, 2)
IGNORED_LABEL = -100
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


@dataclass(frozen=True, repr=False)
class XRay:
    """What `look` found. A notebook shows it as HTML, a terminal as text.

    rows: one list of tokens per row shown (two per row for preference data: chosen, rejected).
    names: a name for each of them, such as "row 0".
    warnings: sentences about the whole train dataset.
    summary: how many rows were checked and which share of their tokens is trained.
    """

    rows: list[list[Token]]
    names: list[str]
    warnings: list[str] = field(default_factory=list)
    summary: str = ""

    def __str__(self) -> str:
        return _as_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return _as_html(self)


def look(trainer: Any, rows: Iterable[int] = DEFAULT_ROWS, source: Sequence[dict] | None = None) -> XRay:
    """Show rows of the train dataset as the training loop will see them, token by token.

    Call it after the trainer is made, and after `train_on_responses_only(trainer)` where that is used. The rows go
    through the trainer's own data collator; padding is left out. The first token of a row is never trained, because
    nothing comes before it to predict it from.

    trainer: an SFTTrainer, UnslothTrainer, DPOTrainer or GRPOTrainer. The last has only prompts to show: it trains on
        what the model writes behind them.
    rows: row numbers of `trainer.train_dataset`.
    source: the rows before the trainer shortened them, in the same order, with a "messages", a "prompt" and a
        "completion", or a "text" column. Left out, the train dataset's own columns are used where the trainer kept
        them. It is read only to show what max_length cut off.

    At most 2,000 rows, evenly spread, are checked for the warnings; the summary says how many.
    Raises CourseError when the trainer has no rows to look at, or no row of that number.
    Taught in lesson colab2 (LoRA).
    """
    dataset = _dataset(trainer)
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    reader = _PieceReader(tokenizer)
    ends = _end_ids(trainer, tokenizer)
    if _writes_its_own(trainer, dataset):
        return _prompts(trainer, dataset, tokenizer, reader, ends, _row_numbers(rows, len(dataset)))
    cuts = _CutFinder(trainer, tokenizer, dataset, source)

    shown, names = [], []
    for number in _row_numbers(rows, len(dataset)):
        for name, ids, trained in _sequences(trainer, dataset, number):
            before, after = cuts.cut(number, name, ids) or ([], [])
            shown.append(
                [reader.token(i, "cut", False) for i in before]
                + [reader.token(i, _state(i, t, reader.special, ends), t) for i, t in zip(ids, trained, strict=True)]
                + [reader.token(i, "cut", False) for i in after]
            )
            names.append(name)

    warnings, summary = _check(trainer, dataset, reader, ends, cuts)
    return XRay(shown, names, warnings, summary)


def _dataset(trainer: Any) -> Any:
    dataset = getattr(trainer, "train_dataset", None)
    if dataset is None or not hasattr(trainer, "data_collator") or not hasattr(trainer, "processing_class"):
        raise CourseError(
            f"look() wants a trainer with a train dataset, and got {type(trainer).__name__}: "
            "make the SFTTrainer or DPOTrainer with train_dataset= and processing_class= first."
        )
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise CourseError("The train dataset is a stream, so its rows have no numbers: load it with streaming=False.")
    if len(dataset) == 0:
        raise CourseError(
            "The train dataset has no rows left: the trainer leaves out rows in which nothing is trained. "
            "Raise max_length, or check the response marker."
        )
    columns = set(dataset[0])
    if not columns & {"input_ids", "chosen_ids"} and not _writes_its_own(trainer, dataset):
        raise CourseError(
            f"The train dataset has the columns {', '.join(sorted(columns))} and no tokens: look() shows the rows of "
            "SFT, DPO and GRPO trainers."
        )
    return dataset


def _writes_its_own(trainer: Any, dataset: Any) -> bool:
    """Whether the trainer has prompts alone and writes the completions while it trains, as GRPO does."""
    return "prompt" in dataset[0] and hasattr(trainer.args, "num_generations") and "input_ids" not in dataset[0]


def _prompts(
    trainer: Any, dataset: Any, tokenizer: Any, reader: _PieceReader, ends: frozenset[int], numbers: list[int]
) -> XRay:
    """The prompts of a GRPO trainer, up to where the model begins to write."""

    def ids_of(prompt: str | list[dict]) -> list[int]:
        if isinstance(prompt, str):
            return list(tokenizer(prompt)["input_ids"])
        return list(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False))

    shown = [
        [reader.token(i, _state(i, False, reader.special, ends), False) for i in ids_of(dataset[number]["prompt"])]
        for number in numbers
    ]
    count = min(len(dataset), MOST_ROWS_CHECKED)
    lengths = [len(ids_of(dataset[index * len(dataset) // count]["prompt"])) for index in range(count)]
    summary = (
        f"{len(dataset):,} prompts of {min(lengths):,} to {max(lengths):,} tokens, and none of these is trained. "
        f"What is trained is what the model writes behind a prompt: {trainer.args.num_generations} completions of at "
        f"most {trainer.args.max_completion_length:,} tokens."
    )
    return XRay(shown, [f"prompt {number}" for number in numbers], [], summary)


def _row_numbers(rows: Iterable[int], count: int) -> list[int]:
    if isinstance(rows, int):
        rows = [rows]
    if rows == DEFAULT_ROWS:
        return list(range(min(len(DEFAULT_ROWS), count)))
    numbers = [int(number) for number in rows]
    for number in numbers:
        if not 0 <= number < count:
            raise CourseError(f"There is no row {number}: the train dataset has rows 0 to {count - 1}.")
    return numbers


def _sequences(trainer: Any, dataset: Any, number: int) -> Iterator[tuple[str, list[int], list[bool]]]:
    """Name, token ids and trained flags of each sequence that the collator makes of one row, without padding.

    Rows are collated one at a time: the result is the same, and a padding-free collator keeps them apart.
    """
    row = _loop_columns(trainer, dataset[number])
    batch = trainer.data_collator([row])
    if "labels" in batch:
        names, labels = [f"row {number}"], batch["labels"]
    else:  # TRL's preference collator: the chosen half of the batch, then the rejected half, and a mask
        names = [f"row {number}, chosen", f"row {number}, rejected"]
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED_LABEL)
    attention = batch.get("attention_mask")
    for index, name in enumerate(names):
        ids, targets = batch["input_ids"][index].tolist(), labels[index].tolist()
        if attention is not None and attention.dim() == 2:
            real = [bool(bit) for bit in attention[index].tolist()]
        else:
            real = [position < len(row["input_ids"]) for position in range(len(ids))]
        kept = [(i, target != IGNORED_LABEL) for i, target, keep in zip(ids, targets, real, strict=True) if keep]
        yield name, [i for i, _ in kept], [position > 0 and flag for position, (_, flag) in enumerate(kept)]


def _loop_columns(trainer: Any, row: dict) -> dict:
    """The columns of a row that the training loop feeds to the collator."""
    columns = [name for name, value in row.items() if _is_numeric(value)]
    if getattr(trainer.args, "remove_unused_columns", False) and hasattr(trainer, "_set_signature_columns_if_needed"):
        trainer._set_signature_columns_if_needed()
        columns = [name for name in columns if name in trainer._signature_columns]
    return {name: row[name] for name in columns}


def _is_numeric(value: Any) -> bool:
    while isinstance(value, (list, tuple)) and len(value):
        value = value[0]
    return not isinstance(value, (str, bytes, dict)) and value is not None


def _state(token_id: int, trained: bool, special: frozenset[int], ends: frozenset[int]) -> str:
    if token_id in ends:
        return "end"
    if token_id in special:
        return "special"
    return "trained" if trained else "masked"


def _end_ids(trainer: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens at which generation stops: the tokenizer's, and those that the model's generation settings add."""
    configured = getattr(getattr(getattr(trainer, "model", None), "generation_config", None), "eos_token_id", None)
    more = configured if isinstance(configured, (list, tuple)) else [configured]
    return frozenset(i for i in [tokenizer.eos_token_id, *more] if isinstance(i, int))


# ---------------------------------------------------------------------------------------------------------------------
# From token ids to text


def _byte_level_bytes() -> dict[str, int]:
    """The inverse of the table by which byte-level BPE (GPT-2) writes each byte as one printable character."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + n): byte for n, byte in enumerate(others)})
    return table


def _decode(data: bytes) -> str:
    """Text of some bytes; a byte that belongs to no whole character is written <0xC3>."""
    # surrogateescape keeps a stray byte b as U+DC00 + b, so the readable part of a mixed token stays readable.
    escaped = data.decode("utf-8", errors="surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda match: f"<0x{ord(match[0]) - 0xDC00:02X}>", escaped)


class _PieceReader:
    """Turns a token id into its exact text, for byte-level BPE ("Ġ") and Llama-style byte-fallback BPE ("▁")."""

    def __init__(self, tokenizer: Any):
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.tokenizer = tokenizer
        self.added = {i: str(token) for i, token in added.items()}
        self.special = frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        parts = b"" if backend is None or backend.decoder is None else backend.decoder.__getstate__()
        self.bytes = _byte_level_bytes() if b"ByteLevel" in bytes(parts) else None
        self.known: dict[int, str] = {}

    def token(self, token_id: int, state: str, trained: bool) -> Token:
        return Token(self.text(token_id), token_id, state, trained)

    def text(self, token_id: int) -> str:
        if token_id not in self.known:
            self.known[token_id] = self._read(token_id)
        return self.known[token_id]

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


# ---------------------------------------------------------------------------------------------------------------------
# What max_length cut off


class _CutFinder:
    """Finds the tokens that max_length removed, by rendering the row again from its text."""

    def __init__(self, trainer: Any, tokenizer: Any, dataset: Any, source: Sequence[dict] | None):
        self.tokenizer = tokenizer
        self.packed = "seq_lengths" in dataset[0]
        self.length = getattr(trainer.args, "max_length", None) or getattr(trainer.args, "max_seq_length", None)
        own = source is None
        self.source = dataset if own else source
        self.left_out = 0 if own or self.packed else max(0, len(source) - len(dataset))
        self.text_field = getattr(trainer.args, "dataset_text_field", "text")
        if not own and not any(self._texts(row, "") for row in self.source):
            raise CourseError(
                'The rows of source= need a "messages" column, a "prompt" and a "completion" column, or a "text" '
                f"column; found {', '.join(map(str, source[0])) if len(source) else 'no rows'}."
            )

    def cut(self, number: int, name: str, ids: list[int]) -> tuple[list[int], list[int]] | None:
        """Token ids removed before and after a row; None where the row's text is not known."""
        if self.packed or self.length is None or len(ids) < self.length:
            return [], []
        # The trainer may have left out rows before this one, so its text can stand a little further on.
        for place in range(number, min(number + self.left_out, number + 50, len(self.source) - 1) + 1):
            for text in self._texts(self.source[place], name):
                whole = self._render(text)
                if whole[: len(ids)] == ids:
                    return [], whole[len(ids) :]
                if whole == ids[:-1]:  # the trainer added an end of sequence
                    return [], []
                if whole[-len(ids) :] == ids:
                    return whole[: -len(ids)], []
        return None

    def _texts(self, row: dict, name: str) -> list[str | list[dict]]:
        """The texts or conversations that a row may have been made from, by its columns."""
        answer = name.partition(", ")[2] or "completion"  # "row 3, chosen" is made from the column "chosen"
        columns = [("messages",), ("prompt", answer), (self.text_field,)]
        present = [names for names in columns if all(row.get(column) for column in names)]
        return [reduce(add, [row[column] for column in names]) for names in present]

    def _render(self, text: str | list[dict]) -> list[int]:
        if not isinstance(text, str):
            return list(self.tokenizer.apply_chat_template(text, tokenize=True, return_dict=False))
        bos = self.tokenizer.bos_token
        return self.tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))["input_ids"]


# ---------------------------------------------------------------------------------------------------------------------
# Warnings about the whole train dataset


def _check(
    trainer: Any, dataset: Any, reader: _PieceReader, ends: frozenset[int], cuts: _CutFinder
) -> tuple[list[str], str]:
    """Warnings and the summary, from evenly spread rows."""
    count = min(len(dataset), MOST_ROWS_CHECKED)
    numbers = [index * len(dataset) // count for index in range(count)]
    fed = dataset
    if hasattr(dataset, "select_columns"):  # reading the text columns too would take most of the time
        fed = dataset.select_columns(list(_loop_columns(trainer, dataset[0])))

    found: dict[str, list[str]] = {name: [] for name in ("untrained", "unending", "cut", "full", "complete")}
    sequences = tokens = trained_tokens = 0
    for number in numbers:
        for name, ids, trained in _sequences(trainer, fed, number):
            sequences += 1
            tokens += len(ids)
            trained_tokens += sum(trained)
            if not any(trained):
                found["untrained"].append(name)
            elif not _stops(ids, trained, reader, ends, cuts.packed):
                found["unending"].append(name)
            if len(ids) > 1 and all(trained[1:]):
                found["complete"].append(name)
            removed = cuts.cut(number, name, ids)
            if removed is None:
                found["full"].append(name)
            elif removed != ([], []):
                found["cut"].append(name)

    rows = f"all {count:,} rows" if count == len(dataset) else f"{count:,} of {len(dataset):,} rows"
    rows = "the only row" if len(dataset) == 1 else rows
    share = trained_tokens / tokens if tokens else 0.0
    summary = f"Checked {rows}: {trained_tokens:,} of {tokens:,} tokens are trained ({share:.0%})."
    end = " or ".join(reader.text(i) for i in sorted(ends)) or "the tokenizer names none"
    return _sentences(found, sequences, end, cuts), summary


def _stops(ids: list[int], trained: list[bool], reader: _PieceReader, ends: frozenset[int], packed: bool) -> bool:
    """Whether what is trained finishes with an end of sequence; white space may follow it, as in ChatML."""
    if packed:  # several examples in one row, each with an end of its own
        return any(flag and i in ends for i, flag in zip(ids, trained, strict=True))
    for i, flag in zip(reversed(ids), reversed(trained), strict=True):
        if flag and i in ends:
            return True
        if flag and reader.text(i).strip():
            return False
    return False


def _sentences(found: dict[str, list[str]], total: int, end: str, cuts: _CutFinder) -> list[str]:
    def where(name: str, whole: str) -> str:
        names = found[name]
        if len(names) == total:
            return whole
        return f"{len(names):,} of the {total:,} rows checked (first: {names[0]})"

    def share(name: str) -> str:
        return f"{len(found[name]) / total:.1%} of the rows"

    warnings = []
    if found["untrained"]:
        warnings.append(
            f"Nothing is trained in {where('untrained', 'any row checked')}: every label is {IGNORED_LABEL}. "
            "Check the response marker, and whether the prompt alone fills max_length."
        )
    if found["unending"]:
        warnings.append(
            f"No trained end of sequence ({end}) in {where('unending', 'any row checked')}: the model will not learn "
            "to stop there. Close each answer with that token, and see that its label is kept."
        )
    if found["cut"]:
        warnings.append(
            f"{share('cut')} are cut at max_length = {cuts.length:,} tokens: {where('cut', 'every row checked')}. "
            "What was cut is not learned: raise max_length, or shorten these rows."
        )
    if found["full"]:
        warnings.append(
            f"{share('full')} fill max_length = {cuts.length:,} tokens and were probably cut: "
            f"{where('full', 'every row checked')}. Their text was not found: pass the rows as they were before the "
            "trainer shortened them as source= to see what is missing."
        )
    if found["complete"]:
        warnings.append(
            f"Every token is trained in {where('complete', 'every row checked')}, so the prompt as well: the model "
            "also learns to write the questions. That is right for raw text; to train on answers alone, use prompt "
            "and completion columns, or train_on_responses_only(trainer)."
        )
    if cuts.left_out:
        warnings.append(
            f"The trainer left out {cuts.left_out:,} of the {len(cuts.source):,} source rows. It does so where nothing "
            "is left to train, most often because the prompt alone fills max_length."
        )
    return warnings


# ---------------------------------------------------------------------------------------------------------------------
# Showing it

SIGNS = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"}
# Half-transparent, so that the theme's own text colour stays readable on them in the light and in the dark.
BACKGROUNDS = {
    "trained": "rgba(46,160,67,.32)",
    "masked": "rgba(128,128,128,.16)",
    "special": "rgba(56,139,253,.28)",
    "end": "rgba(163,113,247,.38)",
    "cut": "rgba(248,81,73,.22)",
}
LEGEND = [
    (Token("text", 0, "trained", True), "trained: underlined"),
    (Token("text", 0, "masked", False), "masked: read, not trained"),
    (Token("<|special|>", 0, "special", False), "special token: in ‹ ›, underlined where trained"),
    (Token("<|end|>", 0, "end", True), "end of sequence: ■"),
    (Token("text", 0, "cut", False), "cut off by max_length: struck through"),
]
SIGNS_EXPLAINED = "␣ space, ⏎ new line, ⇥ tab, <0x..> one byte of a character"


def _visible(token: Token) -> str:
    """The token's text with white space and invisible characters shown by signs."""
    text = "".join(_sign(character) for character in token.text)
    if token.text and unicodedata.combining(token.text[0]):
        text = "◌" + text
    if token.state == "end":
        return f"‹{text}›■"
    return f"‹{text}›" if token.state == "special" else text


def _sign(character: str) -> str:
    if character in SIGNS:
        return SIGNS[character]
    # Controls, and marks that turn the direction of writing, could hide or reorder what is shown.
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return f"<U+{ord(character):04X}>"
    return character


def _runs(tokens: list[Token]) -> Iterator[tuple[str, list[Token], int]]:
    """Neighbouring tokens with the same fate: its name, the tokens to show, and how many are left out after half."""
    for fate, group in groupby(tokens, lambda t: "cut off" if t.state == "cut" else ("masked", "trained")[t.trained]):
        run = list(group)
        hidden = max(0, len(run) - MOST_TOKENS_SHOWN)
        if hidden:
            half = MOST_TOKENS_SHOWN // 2
            run = run[:half] + run[-half:]
        yield fate, run, hidden


def _numbers(tokens: list[Token]) -> str:
    kept = [token for token in tokens if token.state != "cut"]
    trained = sum(token.trained for token in kept)
    cut = len(tokens) - len(kept)
    share = trained / len(kept) if kept else 0.0
    return f"{len(kept):,} tokens, {trained:,} trained ({share:.0%})" + (f", {cut:,} cut off" if cut else "")


def _as_text(xray: XRay) -> str:
    width = min(120, shutil.get_terminal_size((100, 24)).columns)
    lines = [line for warning in xray.warnings for line in textwrap.wrap(f"Warning: {warning}", width)]
    lines += [xray.summary] if xray.summary else []
    for name, tokens in zip(xray.names, xray.rows, strict=True):
        lines += ["", f"{name}: {_numbers(tokens)}"]
        for fate, run, hidden in _runs(tokens):
            pieces = [_visible(token) for token in run]
            if hidden:
                pieces.insert(len(pieces) // 2, f"... {hidden:,} more ...")
            lines += _wrap(f"  {fate:<8} ", pieces, width)
    legend = f"Tokens stand between │. ‹ › special token, ■ end of sequence, {SIGNS_EXPLAINED}."
    lines += ["", *textwrap.wrap(legend, width)]
    return "\n".join(lines)


def _wrap(head: str, pieces: list[str], width: int) -> list[str]:
    """Lines of pieces between bars; a break stands only between two tokens."""
    lines, line = [], head
    for piece in pieces:
        if len(line) + len(piece) + 1 > width and line.strip() and line != head:
            lines.append(line)
            line = " " * len(head)
        line += piece + "│"
    return [*lines, line]


def _as_html(xray: XRay) -> str:
    parts = ['<div style="line-height:1.9">']
    if xray.warnings:
        items = "".join(f"<li><b>Warning:</b> {html.escape(warning)}</li>" for warning in xray.warnings)
        parts.append(f'<ul style="border-left:4px solid #d29922;padding-left:1.6em">{items}</ul>')
    if xray.summary:
        parts.append(f"<p>{html.escape(xray.summary)}</p>")
    legend = " &nbsp; ".join(f"{_token_html(token)} {html.escape(meaning)}" for token, meaning in LEGEND)
    parts.append(f"<p><small>{legend} &nbsp; {html.escape(SIGNS_EXPLAINED)}</small></p>")
    for name, tokens in zip(xray.names, xray.rows, strict=True):
        parts.append(f"<p><b>{html.escape(name)}</b>: {_numbers(tokens)}<br>")
        for _, run, hidden in _runs(tokens):
            pieces = [_token_html(token, hint=True) for token in run]
            if hidden:
                pieces.insert(len(pieces) // 2, f"<i>... {hidden:,} more ...</i>")
            # The line break in the source shows as a space: it keeps tokens apart where styles are stripped.
            parts.append("\n".join(pieces) + "\n")
        parts.append("</p>")
    parts.append("</div>")
    return "".join(parts)


def _token_html(token: Token, hint: bool = False) -> str:
    # ins and del are underlined and struck through by themselves, also where a viewer strips the style.
    tag = "del" if token.state == "cut" else "ins" if token.trained else "span"
    style = f"background:{BACKGROUNDS[token.state]};color:inherit;font-family:monospace;padding:1px 2px"
    title = f' title="id {token.id}"' if hint else ""
    new_line = "<br>" if hint and token.text.endswith("\n") else ""
    return f'<{tag} style="{style}"{title}>{html.escape(_visible(token))}</{tag}>{new_line}'
