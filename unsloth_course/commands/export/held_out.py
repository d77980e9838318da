"""The held-out prompts that a round trip asks, and the answers that they should get.

A run of `finetune` leaves them beside what it trained, as `held-out.jsonl`: a line holds `messages` (the turns up to
the answer) and `answer`, or `text` where raw text was trained on. A `Row` is one of them, ready to ask.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unsloth_course.commands import options as run_options
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import instruction
from unsloth_course.lesson.data.rows import is_unicode
from unsloth_course.lesson.data.turns import ROLES, turn

FILE = "held-out.jsonl"
MOST = 200  # rows
SHORT_ANSWER = 24  # characters, on one line: only such answers can be marked by exact match
TEXT_CHARACTERS = 512  # of a raw text: half is the prompt, half is what should follow

Row = dict[str, Any]
"""{"messages": [...], "answer": ""} or, of raw text, {"prompt": "", "answer": ""}."""


def read(source: Path, data: str | None = None) -> list[Row]:
    """At most 200 held-out rows for what was trained into the folder `source`.

    data: a file of such rows, or "pocket", instruction rows in a file, a Hub name; without it the `held-out.jsonl`
    beside `source`, or else the data that finetune.toml there names. Raises CourseError when there is nothing,
    and as `read_file` and `data.sources.instructions` do.
    """
    file = source.parent / FILE if data is None else Path(data)
    if file.is_file() and (data is None or _holds_rows(file)):
        return read_file(file)
    noted = options(source)
    name = data or noted.get("data")
    if name is None:
        raise CourseError(
            f"There is no {FILE} beside {source}, and no {run_options.CONFIG} that says on what it was trained, so "
            "there are no held-out questions for the round trip. Name its data with --data: pocket, a file or a name "
            "on the Hub."
        )
    from unsloth_course.lesson.data import sources

    with contextlib.redirect_stdout(None):
        _, rows, _ = sources.instructions(name, MOST, MOST, noted.get("seed", 3407))
    return [*map(of_instruction, rows)]


def of_instruction(row: Mapping[str, Any]) -> Row:
    """An instruction row (`lesson.data.instruction`) as a round trip asks it."""
    question = instruction.question(row["instruction"], row["input"])
    return {"messages": [turn("user", question)], "answer": row["output"]}


def options(source: Path) -> dict[str, Any]:
    """The options that `finetune` wrote beside `source`; none where it did not."""
    config = source.parent / run_options.CONFIG
    return run_options.read(config) if config.is_file() else {}


def read_file(file: str | Path) -> list[Row]:
    """The first 200 rows of a file as `finetune` writes it. Raises CourseError that names file and line."""
    rows = [_row(row, where) for row, where in itertools.islice(json_lines(file, "held-out prompts"), MOST)]
    if not rows:
        raise CourseError(f"{file} holds no held-out prompt; name other data with --data.")
    return rows


def json_lines(file: str | Path, what: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The lines of a JSONL file: each one's object, and "FILE, line N". An empty line is passed over.

    A line that holds no object gives an empty one. Raises CourseError for what is no JSON or no text.
    """
    try:
        with Path(file).open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{file}, line {number}"
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    raise CourseError(f"{where} is not JSON.") from None
                if not is_unicode(json.dumps(row, ensure_ascii=False)):
                    raise CourseError(f"{where} contains half of a surrogate pair, which is not text. Mend it.")
                yield row if isinstance(row, dict) else {}, where
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"The {what} in {file} cannot be read ({error}).") from None


def turns(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The `messages` of a row, each with its role and content alone; none where one of them is no message."""
    found = row.get("messages")
    try:
        known = [{"role": turn["role"], "content": turn["content"]} for turn in found]
    except (TypeError, KeyError):
        return []
    return known if all(t["role"] in ROLES and isinstance(t["content"], str) for t in known) else []


def _holds_rows(file: Path) -> bool:
    """Whether a file is one as `finetune` writes it, by its first line."""
    if file.suffix.lower() != ".jsonl":
        return False
    with contextlib.suppress(CourseError):
        first, _ = next(json_lines(file, "rows"), ({}, ""))
        return set(first) >= {"messages", "answer"} or set(first) == {"text"}
    return False


def _row(row: Mapping[str, Any], where: str) -> Row:
    if isinstance(row.get("text"), str):
        return _continued(row["text"], where)
    messages, answer = turns(row), row.get("answer")
    if messages and isinstance(answer, str) and answer.strip():
        return {"messages": messages, "answer": answer}
    raise CourseError(f'{where} has neither "messages" (roles and contents) with an "answer", nor a "text".')


def _continued(text: str, where: str) -> Row:
    """A raw text as a prompt and what follows it, cut in the middle, before a space where there is one."""
    text = text.strip()[:TEXT_CHARACTERS]
    if len(text) < 2:
        raise CourseError(f"{where}: the text is too short to be cut into a beginning and what follows.")
    middle = len(text) // 2
    cut = max(text.rfind(" ", 1, middle + 1), text.rfind("\n", 1, middle + 1))
    cut = cut if cut > 0 else middle
    return {"prompt": text[:cut], "answer": text[cut:]}


def short(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every answer is of a chat, on one line, and has at most 24 characters."""
    return all("messages" in row and len(row["answer"]) <= SHORT_ANSWER and "\n" not in row["answer"] for row in rows)


def system_prompt(rows: Sequence[Mapping[str, Any]]) -> str:
    """The system prompt that all conversations have in common; "" when they differ or have none."""
    firsts = [row.get("messages", [{}])[0] for row in rows]
    prompts = {turn["content"] if turn.get("role") == "system" else "" for turn in firsts}
    return prompts.pop() if len(prompts) == 1 else ""


def roles(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {turn["role"] for row in rows for turn in row.get("messages", ())}
