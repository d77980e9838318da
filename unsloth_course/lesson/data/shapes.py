"""Rows of three shapes, read and checked: instructions, problems with a verifiable answer, raw text.

`chat`, `function_calling` and `pairs` read the others. Each reader raises Aside when nothing can be learned from a row:
for what stands in it, for a column that is missing or misspelt, and for a value that is not text.
"""

import re
from collections.abc import Iterable

from unsloth_course.lesson.data.rows import Aside, Row, check_columns, is_unicode, present, quoted, text_of, useless
from unsloth_course.lesson.data.turns import Turns, turn

INSTRUCTION = ("instruction", "input", "output")
INSTRUCTION_NAMES = (("input", "context"), ("output", "response", "answer", "completion"))
"""What the input and the output of an instruction may be called, as in databricks-dolly-15k."""
ASKED = (("question", "query", "input"), ("context",), ("answer", "response", "output", "completion"))
"""The same of a question with an answer: question, document, answer."""
PROBLEM = ("question", "answer")
TEXT = ("text", "original_string", "whole_func_string", "code")
"""Where a row may keep its text; the others are CodeSearchNet's, in its files and its copies on the Hub."""
MARK = "####"
# A sign and a currency sign in either order, then digits that may be grouped by commas, then decimals.
_NUMBER = re.compile(r"\s*(?P<sign>[-+\u2212])?\s*[$€£]?\s*(?P<late>[-+\u2212])?(?P<whole>[0-9,]*)(?P<part>\.[0-9]+)?")
_GROUPED = re.compile(r"[0-9]{1,3}(,[0-9]{3})+|[0-9]+")
_DIGIT = re.compile(r"[0-9]")


def asked(
    row: Row, tokens: Iterable[str], columns: tuple[tuple[str, ...], ...] = (("instruction",), *INSTRUCTION_NAMES)
) -> dict[str, str]:
    """The instruction, the input ("" where there is none) and the output of a row.

    columns: of each of the three the names that it may have. Raises Aside also for a row that has a system text or the
    like, for which the shape has no place.
    """
    names = [present(row, each) for each in columns]
    texts = _texts(row, tuple(names), tokens, (names[1],), names[2])
    if "<image>" in texts[names[0]] or "<image>" in texts[names[1]]:
        raise Aside(f"column {quoted(names[0])} has a picture in it (<image>), and only text can be read")
    return dict(zip(INSTRUCTION, texts.values(), strict=True))


def problem(row: Row, tokens: Iterable[str]) -> dict[str, str]:
    """The question and the answer of a row, whatever the answer ends in (see `verifiable`)."""
    return _texts(row, PROBLEM, tokens, (), "answer")


def _texts(
    row: Row, columns: tuple[str, ...], tokens: Iterable[str], optional: tuple[str, ...] = (), answer: str = ""
) -> dict[str, str]:
    check_columns(row, columns, optional)
    texts = {column: text_of(row, column, column == answer) for column in columns}
    if reason := useless(texts, tokens, optional):
        raise Aside(reason)
    return texts


def text(row: Row, tokens: Iterable[str] = ()) -> dict[str, str]:
    """The text of a row, and the file that it is from: the one that the row names, as this course's own output does.

    A control token is read as the characters that it is made of, so that `tokens` are not looked for.
    """
    column = present(row, TEXT)
    found = _texts(row, (column,), ())[column]
    named = row.values.get("file")
    named = row.file if named is None else str(named)
    return {"text": found, "file": named if is_unicode(named) else row.file}


def question(instruction: str, input: str | None = "") -> str:
    """What the user says: the instruction and, where there is an input, the input after a blank line."""
    return f"{instruction}\n\n{input}" if input and not input.isspace() else instruction


def turns(texts: dict[str, str]) -> Turns:
    """An instruction or a problem as a question and its answer."""
    *asked, answer = texts.values()
    return [turn("user", question(*asked)), turn("assistant", answer)]


def final(text: str | None) -> str | None:
    """The number that a solution ends in: the one behind the last `####`, or None where there is none.

    The number comes back in one spelling, so that equal numbers are equal texts: without commas, currency signs, plus
    sign, needless zeros ("$1,234.50" is "1234.5", "-0" is "0"). Words may follow it ("18 dollars"), but no further
    digit: "#### 17 or 18" names no number, for otherwise a model could answer twice. Safe on any text, of any length:
    nothing is evaluated and nothing is converted. Taught in lesson colab4 (GRPO).
    """
    if not isinstance(text, str) or MARK not in text:
        return None
    tail = text[text.rindex(MARK) + len(MARK) :]
    found = _NUMBER.match(tail)
    whole, part = found["whole"].rstrip(","), found["part"] or ""
    if not (_GROUPED.fullmatch(whole) or (not whole and part)) or (found["sign"] and found["late"]):
        return None
    if _DIGIT.search(tail, found.end()):
        return None
    whole, part = whole.replace(",", "").lstrip("0") or "0", part.rstrip("0").rstrip(".")
    negative = (found["sign"] or found["late"] or "+") != "+" and (whole, part) != ("0", "")
    return f"{'-' if negative else ''}{whole}{part}"


def verifiable(texts: dict[str, str]) -> dict[str, str]:
    """The same problem. Raises Aside where its answer ends in no number, which no reward could verify."""
    if final(texts["answer"]) is None:
        raise Aside(f"column 'answer' ends in no number behind {MARK}")
    return texts
