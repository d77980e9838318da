"""The text shape: raw documents, for a model to go on reading as it did in pretraining.

Taught in lesson colab5 (continued pretraining). CodeSearchNet: Husain et al. 2019, arXiv 1909.09436. That documents are
put one after another and cut into blocks of one length follows Brown et al. 2020 (GPT-3), section 2.3 and appendix B.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import reading
from unsloth_course.lesson.data.files import Source
from unsloth_course.lesson.data.rows import Checked

if TYPE_CHECKING:
    from datasets import Dataset

END = "<|endoftext|>"
TEXTS_AT_ONCE = 1000
MOST_WORDS = 20_000  # different words, the commonest, that are looked at
PASSAGE = 1000  # characters of a passage, about: a paragraph or a function or two


def load(source: Source, name: str | None = None) -> Checked:
    """Raw text from anywhere, checked: `reading.load` in the shape "text"; `dataset` has the columns text and file.

    A document (.txt, .md, .py) is one text, in UTF-8, or UTF-16 with a byte order mark; rows keep their text in the
    first of `shapes.TEXT` that is there. A folder is read with all folders in it, hidden ones left out, in the order of
    the names; a file that cannot be used is set aside by name. Control tokens in a text stay in it: `blocks` reads them
    as characters. Raises CourseError as `reading.load` does. Taught in lesson colab5 (continued pretraining).
    """
    return reading.load(source, "text", name)


def passages(text: str, characters: int = PASSAGE) -> list[str]:
    """A text cut at the ends of lines into pieces of at least `characters`, the last one aside; a line that is longer
    than twice that is cut too. Joined, the pieces are the text again.
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


def costly_words(texts: Iterable[str], tokenizer: Any, count: int) -> list[str]:
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


@dataclass(frozen=True)
class Blocks:
    """`dataset` has the column input_ids: blocks of one length. Of all `tokens`, the `left_over` last fill no block."""

    dataset: "Dataset"
    tokens: int
    left_over: int

    def __repr__(self) -> str:
        length = len(self.dataset[0]["input_ids"])
        return f"{len(self.dataset):,} blocks of {length:,} tokens; {self.left_over:,} of {self.tokens:,} left over"


def end_token(tokenizer: Any) -> int:
    """The id of the token between two documents: `<|endoftext|>`, or where there is none the end of a sequence, which
    in a chat model is that of a turn. Raises CourseError for a tokenizer without either.
    """
    found = tokenizer.get_vocab().get(END, tokenizer.eos_token_id)
    if found is None:
        raise CourseError(f"This tokenizer has neither {END} nor an eos_token. Set tokenizer.eos_token.")
    return found


def blocks(texts: Sequence[str], tokenizer: Any, length: int, control_tokens: bool = False) -> Blocks:
    """Puts all texts one after another, with `end_token` between two, and cuts them into blocks of `length` tokens.

    No block is padded, and every token is used once, but for the last ones that fill no block. Control tokens written
    out in a text, which anybody may have written, are read as characters; with `control_tokens`, for texts that the
    chat template wrote, as what they are. Raises CourseError when `length` is below 2, when the texts are too short for
    one block, and as `end_token` does. Taught in lesson colab5 (continued pretraining).
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
    domain, general: of `blocks`, of one length. share: from 0 to below 1, met as nearly as whole blocks allow. seed: of
    the general blocks that are drawn, and of the order. Raises CourseError when `share` is out of range, when the
    lengths differ, and when general text is too short. Taught in lesson colab5 (continued pretraining).
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
