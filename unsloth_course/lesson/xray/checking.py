"""Warnings about the whole train dataset, and what max_length cut off."""

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.xray.tokens import PieceReader

MOST_ROWS_CHECKED = 2_000
IGNORED_LABEL = -100


class CutFinder:
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


def collated(trainer: Any, dataset: Any, number: int) -> Iterator[tuple[str, list[int], list[bool]]]:
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


def checked(
    trainer: Any, dataset: Any, reader: PieceReader, ends: frozenset[int], cuts: CutFinder
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
        for name, ids, trained in collated(trainer, fed, number):
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


def _stops(ids: list[int], trained: list[bool], reader: PieceReader, ends: frozenset[int], packed: bool) -> bool:
    """Whether what is trained finishes with an end of sequence; white space may follow it, as in ChatML."""
    if packed:  # several examples in one row, each with an end of its own
        return any(flag and i in ends for i, flag in zip(ids, trained, strict=True))
    for i, flag in zip(reversed(ids), reversed(trained), strict=True):
        if flag and i in ends:
            return True
        if flag and reader.text(i).strip():
            return False
    return False


def _sentences(found: dict[str, list[str]], total: int, end: str, cuts: CutFinder) -> list[str]:
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
