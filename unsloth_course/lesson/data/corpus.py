"""The text shape: raw documents, for a model to go on reading as it did in pretraining.

Taught in lesson colab5 (continued pretraining). CodeSearchNet: Husain et al. 2019, arXiv 1909.09436. That documents are
put one after another and cut into blocks of one length follows Brown et al. 2020 (GPT-3), section 2.3 and appendix B.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data.files import (
    ENDINGS,
    Aside,
    Broken,
    Checked,
    Row,
    SetAside,
    Source,
    check_columns,
    key_of,
    kind,
    listed,
    nothing_left,
    present,
    quoted,
    rows_of,
    text_of,
    useless,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("text", "file")
TEXT_COLUMNS = ("text", "original_string", "whole_func_string", "code")
"""Where a row may keep its text; the others are CodeSearchNet's, in its files and its copies on the Hub."""
DOCUMENTS = (".txt", ".md", ".py")
IN_FOLDERS = (*DOCUMENTS, ".jsonl")
MAX_FILE_BYTES = 64 * 2**20
"""A document above this is set aside: it is a dump rather than a text, and all of it would be held in memory."""
MAX_ROWS_BYTES = 2**30
"""The same for a JSONL file in a folder."""
END = "<|endoftext|>"
TEXTS_AT_ONCE = 1000
MOST_WORDS = 20_000  # different words, the commonest, that are looked at
PASSAGE = 1000
"""Characters of a passage, about: a paragraph or a function or two."""


def load(source: "Source | list[str]", name: str | None = None, column: str | None = None) -> Checked:
    """Reads and checks raw text.

    Args:
        source: a folder; a .txt, .md or .py file, which is one text; a .jsonl, .jsonl.gz or .json file of rows; a
            `datasets.Dataset`; a list of texts, or of dicts.
        name: what messages, and the column file, call data that comes from memory.
        column: where rows keep their text. Without it: the first of TEXT_COLUMNS that is there.

    A folder is read with all folders in it, in the order of the names: its .txt, .md, .py and .jsonl files. Hidden
    files and folders (their name begins with a dot) are left out. Documents are UTF-8, or UTF-16 with a byte order
    mark; rows are UTF-8. Control tokens written out in a text stay in it: `blocks` reads them as characters.

    Returns:
        `dataset` with exactly the columns text and file, in the order of the source; and what was set aside: empty
        texts, text that is not valid Unicode, and in a folder, by name, every file that cannot be used: one of another
        kind, a link, a binary file, one that is too large, broken, or in another encoding (with the position of the
        byte).

    Raises:
        CourseError: a file that cannot be read, a column that is missing, a value that is not text, or nothing left;
            for a folder the message says what was found in it.

    Taught in lesson colab5 (continued pretraining).
    """
    from datasets import Dataset, Features, Value

    found = _found(source, name, column)
    kept = {"text": [piece.text for piece in found.pieces], "file": [piece.file for piece in found.pieces]}
    if not found.pieces:
        folder = isinstance(source, str | os.PathLike) and os.path.isdir(os.path.expanduser(source))
        raise CourseError(_no_file(shown(source), found) if folder else nothing_left(found.set_aside))
    dataset = Dataset.from_dict(kept, features=Features({name: Value("string") for name in COLUMNS}))
    return Checked(dataset, found.set_aside, list(found.unused))


class _Piece(NamedTuple):
    text: str
    file: str
    number: int = 1


@dataclass
class _Found:
    """What was read so far: texts, what was set aside, unused columns, and the number of hidden files and folders."""

    pieces: list[_Piece]
    set_aside: list[SetAside]
    unused: dict[str, None]
    hidden: int = 0


def _found(source: Any, name: str | None, column: str | None) -> _Found:
    from datasets import Dataset

    found = _Found([], [], {})
    if isinstance(source, str | os.PathLike):
        path = Path(os.path.expanduser(source))
        if os.path.isdir(path):
            _read_folder(path, found, column)
        elif path.name.lower().endswith(DOCUMENTS):
            _read_document(path, found)
        else:
            _check_ending(path)
            _read_rows(rows_of(path), found, column)
        return found
    if isinstance(source, Dataset):
        chosen = column or next((known for known in TEXT_COLUMNS if known in source.column_names), None)
        if chosen in source.column_names:  # the other columns may be large: they are not even read
            found.unused = dict.fromkeys(other for other in source.column_names if other != chosen)
            source = source.select_columns([chosen])
    elif isinstance(source, list):
        source = [_as_row(item, number, name or "the list") for number, item in enumerate(source, 1)]
    _read_rows(rows_of(source, name), found, column)
    return found


def stream(path: Path, column: str | None = None) -> "Iterator[Row | Broken]":
    """The texts of a document, or of all files in a folder, as rows with the columns text and file; one file at a time.

    Files and rows that cannot be used come as `Broken`. Raises CourseError as `load` does, where nothing is left.
    """
    whole = _Found([], [], {})
    if not path.is_dir():
        _read_document(path, whole)
        yield _row_of(whole.pieces[0])
        return
    texts = 0
    for file, reason in _walk(path, whole):
        found = _Found([], [], {})
        reason = reason or _read_in_folder(file, found, column)
        if reason:
            found.set_aside.append(SetAside(shown(file), None, reason))
        whole.set_aside += found.set_aside
        texts += len(found.pieces)
        for aside in found.set_aside:
            yield Broken(aside.file, aside.row or 1, aside.reason, None)
        for piece in found.pieces:
            yield _row_of(piece)
    if not texts:
        raise CourseError(_no_file(shown(path), whole))


def _row_of(piece: _Piece) -> Row:
    return Row(piece.file, piece.number, None, {"text": piece.text})


def read(row: Row, tokens: Iterable[str] = (), column: str | None = None) -> dict[str, str]:
    """The text of one row, checked, and the file that it is from. Raises Aside, and CourseError as `load` does."""
    chosen = column or present(row, TEXT_COLUMNS)
    check_columns(row, (chosen,))
    text = text_of(row, chosen)
    if reason := useless({chosen: text}, tokens):
        raise Aside(reason)
    return {"text": text, "file": row.file}


def _as_row(item: object, number: int, name: str) -> object:
    if isinstance(item, str):
        return {"text": item}
    if isinstance(item, dict):
        return item
    raise CourseError(f"{name}, row {number} is {kind(item)}, not text. Take it out, or write it in quotes.")


def _read_rows(rows: Iterable[Row], found: _Found, column: str | None) -> None:
    for row in rows:
        chosen = column or present(row, TEXT_COLUMNS)
        found.unused |= dict.fromkeys(str(other) for other in row.values if other != chosen)
        try:
            found.pieces.append(_Piece(**read(row, column=column), number=row.number))
        except Aside as aside:
            found.set_aside.append(SetAside(row.file, row.number, str(aside)))


# Files and folders


def shown(path: Any) -> str:
    """A path that can be printed: a file name may hold bytes that are no text, and Python keeps them as surrogates."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _check_ending(path: Path) -> None:
    known = (*DOCUMENTS, *ENDINGS)
    if not path.name.lower().endswith(known):
        raise CourseError(
            f"{shown(path)} has none of the endings {', '.join(known)}. Convert it, or give it the right name."
        )


def _read_document(path: Path, found: _Found) -> None:
    file = shown(path)
    try:
        text = _text(path)
    except FileNotFoundError:
        folder = "" if path.is_absolute() else f" in {os.getcwd()}"
        raise CourseError(f"There is no file {file}{folder}. Check the name and the folder.") from None
    except _Unusable as error:
        raise CourseError(f"{file}: {error}") from None
    if not text or text.isspace():
        raise CourseError(f"{file} is empty: it has no text. Write or download it again.")
    found.pieces.append(_Piece(text, file))


class _Unusable(Exception):
    """Why a file cannot be used; the message does not name the file."""


def _text(path: Path) -> str:
    """The text of a document. Raises _Unusable, and FileNotFoundError."""
    _check_file(path, MAX_FILE_BYTES)
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _Unusable(f"it cannot be read: {error.strerror or error}.") from None
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    binary = raw.find(b"\0") if encoding == "utf-8" else -1
    if binary >= 0:
        raise _Unusable(
            f"byte {binary} (from 0) is zero, so it is binary, or UTF-16 without a byte order mark. "
            "Leave it out, or save it as UTF-8."
        )
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise _Unusable(f"byte {error.start} (from 0) is not {encoding.upper()}. Save the file as UTF-8.") from None
    if "\0" in text:
        raise _Unusable("it holds the character zero, so it is binary. Leave it out, or save it as UTF-8.")
    return text.removeprefix("\ufeff")


def _check_file(path: Path, limit: int) -> None:
    """Refuses what is no plain file (to read a pipe can take for ever) and what is larger than `limit` bytes."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name
        raise FileNotFoundError from None
    except OSError as error:
        raise _Unusable(f"it cannot be read: {error.strerror or error}.") from None
    if not stat.S_ISREG(status.st_mode):
        raise _Unusable("it is not a plain file. Leave it out.")
    if status.st_size > limit:
        raise _Unusable(
            f"it has {status.st_size / 2**20:,.0f} MiB, and the limit is {limit / 2**20:,.0f} MiB. "
            "Cut it into several files."
        )


def _read_folder(folder: Path, found: _Found, column: str | None) -> None:
    for path, reason in _walk(folder, found):
        if reason is None:
            reason = _read_in_folder(path, found, column)
        if reason:
            found.set_aside.append(SetAside(shown(path), None, reason))


def _read_in_folder(path: Path, found: _Found, column: str | None) -> str | None:
    """Reads one file of a folder; returns why it cannot be used, or None."""
    ending = path.suffix.lower()
    if ending not in IN_FOLDERS:
        return f"it has none of the endings {', '.join(IN_FOLDERS)}"
    try:
        if ending != ".jsonl":
            text = _text(path)
            if not text or text.isspace():
                return "it is empty"
            found.pieces.append(_Piece(text, shown(path)))
            return None
        _check_file(path, MAX_ROWS_BYTES)
        rows = _Found([], [], {})  # a file that breaks off in the middle must not be read by half
        _read_rows(rows_of(path), rows, column)
    except FileNotFoundError:
        return "it was there a moment ago and is gone"
    except _Unusable as error:
        return str(error)
    except CourseError as error:
        return str(error).removeprefix(shown(path)).lstrip(",: ")
    found.pieces += rows.pieces
    found.set_aside += rows.set_aside
    found.unused |= rows.unused
    return None


def files_in(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Each file below a folder, in the order of the paths, with a reason to set it aside or None; no hidden ones."""
    return _walk(folder, _Found([], [], {}))


def _walk(folder: Path, found: _Found) -> Iterator[tuple[Path, str | None]]:
    """As `files_in`; counts what is hidden."""
    root = os.path.realpath(folder)
    waiting: list[tuple[Path, bool]] = [(folder, True)]
    while waiting:
        path, is_folder = waiting.pop()
        if path is not folder and path.is_symlink():
            yield path, _link(path, root)
        elif not is_folder:
            yield path, None
        else:
            try:
                with os.scandir(path) as entries:
                    inside = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
            except OSError as error:
                yield path, f"it cannot be read: {error.strerror or error}"
                continue
            seen = [(path / name, is_dir) for name, is_dir in inside if not name.startswith(".")]
            found.hidden += len(inside) - len(seen)
            waiting += reversed(seen)


def _link(path: Path, root: str) -> str:
    target = os.path.realpath(path)
    if not os.path.exists(target):
        return "it is a link that leads nowhere"
    if os.path.commonpath([root, target]) != root:
        return "it is a link that leads out of the folder"
    return "it is a link to another place in the folder"


def _no_file(folder: str, found: _Found) -> str:
    """The sentence for a folder without usable text; it says what was found there."""
    reasons = Counter(aside.reason for aside in found.set_aside).most_common(3)
    seen = "; ".join(f"{count:,} because {reason.rstrip('.')}" for reason, count in reasons)
    first = f" (first: {quoted(Path(found.set_aside[0].file).name)})" if found.set_aside else ""
    hidden = f" Hidden files and folders left out: {found.hidden:,}." if found.hidden else ""
    what = f"Set aside: {len(found.set_aside):,}{first}, {seen}." if found.set_aside else "It has no files to read."
    return (
        f"The folder {folder} holds no text to train on. {what}{hidden} "
        f"Put {', '.join(IN_FOLDERS)} files with text into it."
    )


def passages(text: str, characters: int = PASSAGE) -> list[str]:
    """A text cut at the ends of lines into pieces of at least `characters`, the last one aside.

    Joined, the pieces are the text again. A line that is longer than twice that is cut too. Taught in lesson colab5
    (continued pretraining).
    """
    pieces, gathered = [], ""
    for line in text.splitlines(keepends=True):
        gathered += line
        while len(gathered) >= 2 * characters:
            pieces.append(gathered[:characters])
            gathered = gathered[characters:]
        if len(gathered) >= characters:
            pieces.append(gathered)
            gathered = ""
    return [*pieces, gathered] if gathered else pieces


def costly_words(texts: Iterable[str], tokenizer: "PreTrainedTokenizerBase", count: int) -> list[str]:
    """At most `count` words that would save most tokens if each were a token of its own, the most worthwhile first.

    A word is a run of at least four letters that is now cut into two pieces or more; it saves its pieces but one as
    often as it occurs. Taught in lesson colab5 (continued pretraining), where the tokenizer's vocabulary grows.
    """
    found = Counter(word for text in texts for word in re.findall(r"[^\W\d_]{4,}", text))
    words = [word for word, _ in found.most_common(MOST_WORDS)]
    rows = tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
    saved = {word: found[word] * (len(row) - 1) for word, row in zip(words, rows, strict=True)}
    worthwhile = sorted((word for word in words if saved[word]), key=lambda word: (-saved[word], word))
    return worthwhile[:count]


# Blocks


@dataclass(frozen=True)
class Blocks:
    """`dataset` has the column input_ids: blocks of one length. Of all `tokens`, the `left_over` last fill no block."""

    dataset: "Dataset"
    tokens: int
    left_over: int

    def __str__(self) -> str:
        length = len(self.dataset[0]["input_ids"])
        return f"{len(self.dataset):,} blocks of {length:,} tokens; {self.left_over:,} of {self.tokens:,} left over"

    __repr__ = __str__


def end_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The id of the token between two documents: `<|endoftext|>`, or where there is none the end of a sequence.

    A chat model's end of a sequence is the end of a turn, which no document has. Raises CourseError for a tokenizer
    without either. Taught in lesson colab5 (continued pretraining).
    """
    found = tokenizer.get_vocab().get(END, tokenizer.eos_token_id)
    if found is None:
        raise CourseError(f"This tokenizer has neither {END} nor an eos_token. Set tokenizer.eos_token.")
    return found


def blocks(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", length: int, control_tokens: bool = False
) -> Blocks:
    """Puts all texts one after another, with `end_token` between two, and cuts them into blocks of `length` tokens.

    No block is padded and none is cut off: every token is used once, but for the last ones that fill no block, whose
    number is reported. Control tokens written out in a text, which anybody may have written, are read as characters;
    with `control_tokens`, for texts that the chat template wrote, as what they are.

    Raises CourseError when `length` is below 2 (in a block of 1 there is nothing to predict), when the texts are too
    short for one block, and as `end_token` does. Taught in lesson colab5 (continued pretraining).
    """
    import numpy as np
    from datasets import Dataset, Features, Sequence, Value

    if isinstance(texts, str):
        raise CourseError("This is one text. Give a list of texts: [text].")
    if length < 2:
        raise CourseError(f"A block of {length} tokens holds nothing to predict. Take at least 2.")
    end, texts = end_token(tokenizer), list(texts)
    parts: list[Any] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        batch = texts[start : start + TEXTS_AT_ONCE]
        options = {"add_special_tokens": False, "split_special_tokens": not control_tokens, "verbose": False}
        rows = tokenizer(batch, **options)["input_ids"]
        parts += [np.asarray([*row, end], dtype=np.int32) for row in rows]
    stream = np.concatenate(parts)[:-1] if parts else np.empty(0, np.int32)  # none behind the last document
    count, left_over = divmod(len(stream), length)
    if not count:
        raise CourseError(
            f"The texts have {len(stream):,} tokens, and one block takes {length:,}. "
            "Bring more text, or make the blocks shorter."
        )
    rows = stream[: count * length].reshape(count, length)
    features = Features({"input_ids": Sequence(Value("int32"))})
    return Blocks(Dataset.from_dict({"input_ids": list(rows)}, features=features), len(stream), left_over)


def mix(domain: "Dataset", general: "Dataset", share: float, seed: int) -> "Dataset":
    """All blocks of the domain and so many of general text that these are `share` of the result, shuffled.

    To read some general text again (replay) keeps a model from forgetting it (Ibrahim et al. 2024, arXiv 2403.08763).

    Args:
        domain, general: the data sets of `blocks`, with blocks of one length.
        share: from 0 to below 1; as near to it as whole blocks allow.
        seed: which general blocks are drawn, and the order.

    Raises CourseError when `share` is out of range, when the lengths differ, and when general text is too short.
    Taught in lesson colab5 (continued pretraining).
    """
    from datasets import concatenate_datasets

    if not 0 <= share < 1:
        raise CourseError(f"The share of general text is {share}. Take 0 or more, and less than 1.")
    wanted = round(share / (1 - share) * len(domain))
    if wanted > len(general):
        raise CourseError(
            f"A share of {share:g} takes {wanted:,} blocks of general text beside {len(domain):,} of the domain, and "
            f"there are {len(general):,}. Bring more general text, or lower the share."
        )
    if not wanted:
        return domain.shuffle(seed=seed)
    lengths = [len(side[0]["input_ids"]) for side in (domain, general)]
    if lengths[0] != lengths[1]:
        raise CourseError(
            f"Blocks of the domain have {lengths[0]:,} tokens, those of general text {lengths[1]:,}. Make them equal."
        )
    replayed = general.shuffle(seed=seed).select(range(wanted))
    return concatenate_datasets([domain, replayed]).shuffle(seed=seed)


def keys(dataset: "Dataset") -> list[str]:
    """A key for each text, without capitals and white space: texts with one key are taken to be the same."""
    if "text" not in dataset.column_names:
        found = listed(dataset.column_names)
        raise CourseError(f"The data set has no column 'text'; it has {found}. Give it to load() first.")
    return [*map(key_of, dataset["text"])]
