"""What there is to know about a data set before training on it, gathered row by row, without keeping the rows."""

import json
import random
import re
import statistics
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import control, templates
from unsloth_course.lesson.data.chat import Conversation
from unsloth_course.lesson.data.detect import Form, held, unused
from unsloth_course.lesson.data.pairs import SAME
from unsloth_course.lesson.data.rows import Row, SetAside, key_of, listed, nothing_left, quoted

SAMPLE = 1000
"""Rows whose length in tokens is measured: all of a small data set, a random sample of a large one."""
EXAMPLES = 20  # places that are named of each finding

_SECRETS = {
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "OpenAI or Anthropic key": r"(?<![\w-])sk-[A-Za-z0-9_-]{20,}",
    "Hugging Face token": r"(?<!\w)hf_[A-Za-z0-9]{20,}",
    "AWS key": r"(?<!\w)AKIA[0-9A-Z]{16}(?!\w)",
    "GitHub token": r"(?<!\w)(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})",
    "GitLab token": r"(?<!\w)glpat-[\w-]{20,}",
    "Stripe key": r"(?<!\w)sk_(?:live|test)_[A-Za-z0-9]{20,}",
    "Slack token": r"(?<!\w)xox[abprs]-[A-Za-z0-9-]{10,}",
    "Google key": r"(?<!\w)AIza[\w-]{30,}",
    "JSON web token": r"(?<!\w)eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "password or key": r"(?i:password|passwd|api[_-]?key|secret(?:[_-]?key)?)['\"]?\s*(?:is\s*)?[:=]\s*['\"]?"
    r"(?=[^\s'\"]*\d)[^\s'\",]{8,}",
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _SECRETS.items()}
# One of these is in every secret. They are looked for first, in the row as it is written, because that is cheap; and
# each only where its rarest character is, which is found in no time.
_MARKS = b"-----BEGIN sk- sk_ glpat- hf_ AKIA ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ xox AIza eyJ".split()
_MARKS += b"assw ASSW pi_key PI_KEY pi-key pikey piKey ecret ECRET".split()
_BY_SIGN: dict[bytes, list[bytes]] = {}
for _mark in _MARKS:
    _BY_SIGN.setdefault(next((bytes([sign]) for sign in b"JKzWCA_-kx" if sign in _mark), b""), []).append(_mark)


def secrets(text: str) -> list[dict[str, Any]]:
    """What looks like a secret in a text: its kind, its first characters and its length, never the whole of it."""
    return [
        {"kind": kind, "begins": found[0][:4] + "…", "characters": len(found[0])}
        for kind, pattern in _PATTERNS.items()
        for found in pattern.finditer(text)
    ]


class Template:
    """Counts the tokens of conversations as a model is given them: in its own chat template."""

    def __init__(self, model: str) -> None:
        from unsloth_course.lesson import models
        from unsloth_course.lesson.profile import POCKET, SMOLLM2

        self.name = model
        if model in (POCKET, SMOLLM2):  # without transformers, whose import takes seconds
            from jinja2.sandbox import ImmutableSandboxedEnvironment
            from tokenizers import Tokenizer

            folder = Path(models.folder(model))
            self.control = control.of_folder(folder)
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
            template = jinja.from_string((folder / "chat_template.jinja").read_text(encoding="utf-8"))
            self._render = lambda turns, tools: template.render(messages=turns, tools=tools)
            self._count = lambda texts: [len(row) for row in tokenizer.encode_batch(texts, add_special_tokens=False)]
        else:
            from transformers import AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(model)
            except Exception as error:  # the libraries below let through what their parsers raise
                reason = " ".join(str(error).split())[:200]
                raise CourseError(
                    f"The tokenizer of {model} cannot be loaded ({reason}). Name another --model."
                ) from None
            self.control = control.of_tokenizer(tokenizer)
            self._render = lambda turns, tools: tokenizer.apply_chat_template(turns, tools=tools, tokenize=False)
            self._count = lambda texts: [
                len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            ]

    def lengths(self, rows: list[str | Conversation]) -> tuple[dict[int, int], list[str]]:
        """Tokens of each row by its number, but of those that the template refuses; and what it cannot show of them.

        Raises CourseError where it refuses all.
        """
        lacking: dict[str, None] = {}
        shows = templates.shown_by(self._render)
        texts: dict[int, str] = {}
        reason: Any = None
        for number, row in enumerate(rows):
            try:
                if not isinstance(row, str):
                    lacking |= dict.fromkeys(shows.lacking(row, row.tools))
                    row = self._render(*templates.as_shown(row, row.tools, shows))
                texts[number] = row
            except Exception as error:  # templates are anybody's, and raise what they like
                lacking["turns"], reason = None, error
        if rows and not texts:
            raise CourseError(f"the chat template of {self.name} refuses a row: {reason}")
        return dict(zip(texts, self._count([*texts.values()]) if texts else (), strict=True)), list(lacking)


@dataclass
class Report:
    """What is known so far of a data set; `as_dict` is what `--json` prints.

    format, target: of the rows, and what they were converted to. in_folder: they are in the files of one. split: the
    sentence on the split that was read. per_file: rows by the file that they are in. columns: those that were found;
    written: those of the converted rows. held_out: the questions of a held-out file by `key_of`, with the number of the
    row that asks. said: by what there is to say of rows, their number and the first of them.
    """

    format: str
    target: str
    max_length: int
    held_out: dict[str, int] | None = None
    in_folder: bool = False
    split: str = ""
    per_file: Counter[str] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    written: dict[str, None] = field(default_factory=dict)
    said: dict[str, tuple[int, int]] = field(default_factory=dict)
    rows: int = 0
    converted: int = 0
    set_aside: list[SetAside] = field(default_factory=list)
    unused: dict[str, None] = field(default_factory=dict)
    secrets: list[dict[str, Any]] = field(default_factory=list)
    secret_rows: int = 0
    same: int = 0
    across: list[dict[str, Any]] = field(default_factory=list)
    lengths: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lines, self._questions = array("q"), array("q")
        self._layouts: set[tuple] = set()
        self._sample: list[tuple[str, int, Any]] = []
        self._rng = random.Random(0)

    def note(self, row: Row, form: Form, made: Mapping[str, Any], said: Iterable[str] = ()) -> None:
        """Takes note of the columns of a row, of those that its form does not use, of what it was made into, and of
        what is said of it."""
        for what in said:
            count, first = self.said.get(what, (0, row.number))
            self.said[what] = count + 1, first
        kinds = (*row.values, *map(type, row.values.values()))
        if kinds in self._layouts:
            return
        has = held(row.values)
        if list not in kinds and dict not in kinds:  # else rows of one layout may hold turns with other keys
            self._layouts.add(kinds)
        elif has in self._layouts:
            return
        self._layouts.add(has)
        self.columns |= dict.fromkeys(map(str, row.values))
        self.unused |= dict.fromkeys(unused(form, has))
        self.written |= dict.fromkeys(made)

    def complaint(self) -> str:
        return nothing_left(self.set_aside) + (f" They are in {self.files[0]}." if self.files else "")

    def add(self, file: str, number: int, line: bytes, question: str, measured: Callable[[], Any]) -> None:
        """Takes note of a converted row: as it is written, the question in it, and what is to be measured in tokens."""
        self._lines.append(hash(line))
        key = key_of(question)
        self._questions.append(hash(key))
        if self.converted < SAMPLE:
            self._sample.append((file, number, measured()))
        elif (place := int(self._rng.random() * (self.converted + 1))) < SAMPLE:
            self._sample[place] = (file, number, measured())
        self.converted += 1
        may_hold = any([sign in line and any([mark in line for mark in marks]) for sign, marks in _BY_SIGN.items()])
        if may_hold and (found := secrets(_plain(json.loads(line)))):
            self.secret_rows += 1
            if len(self.secrets) < EXAMPLES:
                self.secrets += [{"file": file, "row": number, **one} for one in found[:EXAMPLES]]
        if self.held_out and (asked := self.held_out.get(key)):
            self.same += 1
            if len(self.across) < EXAMPLES:
                self.across.append({"file": file, "row": number, "held_out_row": asked})

    def measure(self, template: Template) -> None:
        try:
            counts, lacking = template.lengths([measured for _, _, measured in self._sample])
        except CourseError as error:
            self.lengths = {"model": template.name, "measured": 0, "reason": str(error)}
            return
        cut = [(*self._sample[n][:2], count) for n, count in counts.items() if count > self.max_length]
        counts = counts.values()
        self.lengths = {
            "model": template.name,
            "not_shown": lacking,
            "measured": len(counts),
            "shortest": min(counts, default=0),
            "median": statistics.median(counts) if counts else 0,
            "longest": max(counts, default=0),
            "max_length": self.max_length,
            "cut": len(cut),
            "cut_rows": [
                {"file": file, "row": row, "tokens": count} for file, row, count in sorted(cut, key=lambda c: -c[2])
            ][:EXAMPLES],
        }

    @property
    def duplicates(self) -> int:
        """Converted rows that are the same, to the letter, as one before them."""
        return _repeated(self._lines)

    @property
    def same_question(self) -> int:
        """Converted rows that ask what one before them asks, capitals and white space aside."""
        return _repeated(self._questions)

    def _reasons(self, *words: str) -> int:
        return sum(any(word in row.reason for word in words) for row in self.set_aside)

    def as_dict(self) -> dict[str, Any]:
        across = {"same": self.same, "examples": self.across} if self.held_out is not None else None
        return {
            "format": self.format,
            "to": self.target,
            "rows": self.rows,
            "rows_of_files": dict(self.per_file),
            "split": self.split,
            "converted": self.converted,
            "set_aside": [*map(vars, self.set_aside)],
            "columns": list(self.columns),
            "written_columns": list(self.written),
            "said": [{"what": what, "rows": count, "first": row} for what, (count, row) in self.said.items()],
            "unused_columns": list(self.unused),
            "lengths": self.lengths,
            "duplicates": self.duplicates,
            "same_question": self.same_question,
            "held_out": across,
            "identical_answers": self._reasons(SAME),
            "empty": self._reasons("is empty", "an empty answer"),
            "secrets": {"rows": self.secret_rows, "examples": self.secrets},
            "files": self.files,
        }

    def to_json(self) -> str:
        """The report as JSON, in ASCII: a file may hold what a terminal cannot show."""
        return json.dumps(self.as_dict(), indent=1)

    def __str__(self) -> str:
        found = self.as_dict()
        lines = [
            f"form: {self.format}, to: {self.target}, columns: {listed(self.columns)}",
            f"rows: {self.rows:,}, converted: {self.converted:,}, set aside: {len(self.set_aside):,}",
        ]
        if self.in_folder:
            lines += [f"  {count:,} in {file}" for file, count in self.per_file.most_common(EXAMPLES)]
        lines += [self.split] * bool(self.split)
        alike: dict[str, list[SetAside]] = {}
        for row in self.set_aside:
            alike.setdefault(_kind(row.reason), []).append(row)
        for reason, rows in sorted(alike.items(), key=lambda one: -len(one[1]))[:8]:
            where = f"{rows[0].file}, " if self.in_folder else ""
            lines.append(f"  {len(rows):,} because {reason} (first: {where}row {rows[0].row})")
        lines += [f"{what}: {count:,} rows (first: row {row})" for what, (count, row) in self.said.items()]
        if self.unused:
            lines.append("columns not used: " + ", ".join(map(quoted, self.unused)))
        lines.append(self._length_line())
        for name in self.lengths.get("not_shown", ()):
            lines.append(f"  its chat template cannot show all: {templates.TOLD[name]}")
        lines.append(
            f"repeated: {found['duplicates']:,} rows to the letter, {found['same_question']:,} in the question"
        )
        if self.held_out is not None:
            rows = ", ".join(str(one["row"]) for one in self.across)
            more = " and more" if self.same > len(self.across) else ""
            lines.append(
                f"asked in the held-out file too: {self.same:,} rows" + (f" (rows {rows}{more})" if rows else "")
            )
        if self.secret_rows:
            lines.append(f"rows with what looks like a secret: {self.secret_rows:,}")
            lines += [
                f"  {one['file']}, row {one['row']}: {one['kind']}, {one['begins']} ({one['characters']} characters)"
                for one in self.secrets[:8]
            ]
        return "\n".join([*lines, *(f"file  {path}" for path in self.files)])

    def _length_line(self) -> str:
        found = self.lengths
        if not found.get("measured"):
            return f"lengths: not measured, {found.get('reason', 'there are no rows')}"
        rows = f"{found['measured']:,} rows" + (" drawn at random" if self.converted > SAMPLE else "")
        return (
            f"tokens of {found['model']} in {rows}: {found['shortest']:,} to {found['longest']:,}, median "
            f"{found['median']:,.10g}; longer than {self.max_length:,} and cut: {found['cut']:,} "
            f"({found['cut'] / found['measured']:.1%})"
        )


def _kind(reason: str) -> str:
    """A reason without the numbers of lines, turns and bytes in it, to count it by."""
    return re.sub(r"\b(line|column|turn|byte) \d+", r"\1 N", reason)


def _plain(value: Any) -> str:
    """All text of a JSON value, a line for each."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return "\n".join(_plain(item) for item in (value.values() if isinstance(value, dict) else value))
    return ""


def _repeated(hashes: array) -> int:
    import numpy

    return len(hashes) - len(numpy.unique(numpy.frombuffer(hashes, dtype=numpy.int64))) if hashes else 0
