"""What max_length cut off."""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from unsloth_course.core.errors import CourseError


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
