"""What a run is tested on: one class for each shape of data, with its rows, its held-out score, and its samples.

The measures are those of the lessons. Taught in the lessons of the methods.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsloth_course.commands.export import held_out as asked_later
from unsloth_course.core.errors import CourseError
from unsloth_course.core.writing import write_text
from unsloth_course.lesson import evaluation, models
from unsloth_course.lesson.data import chat, instruction, preference, problems, reading, templates

if TYPE_CHECKING:
    from datasets import Dataset

    from unsloth_course.lesson.evaluation import Answers, Score
    from unsloth_course.lesson.profile import Profile

ALL = 10**9  # rows: as many as there are
RAISE = "; --max-length raises that"


@dataclass
class Task:
    """The rows of a run, those to learn from and those to test on, in the columns of their shape.

    `checked` is the report of what was set aside. Beside what stands here each class has `measure` (what the model does
    on the held-out rows: one thing or several, the first of them what a chain follows), `score` (of two such: the
    held-out Score; the trained model is there for what is measured of it alone), `asked_later` (rows as `export` asks
    them: turns up to the answer and the answer, or raw text), and `sizes`: what memory depends on in the rows to learn
    from, for `memory.plan`.
    """

    machine: "Profile"
    train: "Dataset"
    held_out: "Dataset"
    checked: Any

    FOLLOWED = "share"
    SHAPED: Any = None
    """What puts a batch of rows into the columns that TRL takes; None where they are in them."""

    def stands(self, found: Any) -> tuple[str, float]:
        """What a chain follows over its stages, and its name: as a rule the score itself."""
        return self.FOLLOWED, getattr(found[0], "perplexity" if self.FOLLOWED == "perplexity" else "share")

    def answers(self, found: Any) -> "Answers | None":
        """The answers that were given, if any were."""
        return None if self.FOLLOWED == "perplexity" else found[0]

    def shown(self, found: Any) -> str:
        """What was measured before the training, in words."""
        return "; ".join(map(str, found))

    def fit(self, tokenizer: Any, tools_in_system: bool = False) -> None:
        """Puts the rows as the model's chat template can show them, and says what that changes.

        To be called before all that measures; on rows that were fitted it changes and says nothing.
        """

    def _as_shown(self, tokenizer: Any, tools_in_system: bool) -> None:
        """Puts conversations and pairs as the template can show them, and says of the rows to learn from what it is."""
        self.train, told = reading.fitted(self.train, tokenizer, tools_in_system)
        self.held_out, _ = reading.fitted(self.held_out, tokenizer, tools_in_system)
        print("\n".join(told), end="\n" * bool(told))

    def _leave_out_long_prompts(self, tokenizer: Any) -> None:
        """Leaves out the rows whose prompt fills the length: nothing of their answer would be read. Says how many."""
        length = self.machine.max_length
        sides = zip(("train", "held_out"), ("to learn from", "to test on"), self.rows(), strict=True)
        for side, what, asked in sides:
            rows, how = getattr(self, side), {"add_generation_prompt": True}
            ids = [models.chat_ids(tokenizer, row["prompt"], tools=row.get("tools"), **how) for row in asked]
            kept = [number for number, prompt in enumerate(ids) if len(prompt) < length]
            without = f"their prompt leaves no room for an answer within {length:,} tokens"
            if not kept:
                raise CourseError(f"Of all {len(rows):,} rows {what} {without}. Raise --max-length, or shorten them.")
            if len(kept) < len(rows):
                print(f"{len(rows) - len(kept):,} of {len(rows):,} rows {what} are left out: {without}")
                setattr(self, side, rows.select(kept))

    def rows(self) -> tuple["Dataset", "Dataset"]:
        """The rows to learn from, and those to test on, in the columns that TRL takes."""
        both, shaped = (self.train, self.held_out), type(self).SHAPED
        if shaped is None:
            return both
        return tuple(rows.map(shaped, batched=True, remove_columns=rows.column_names) for rows in both)

    def kept(self, model: Any, tokenizer: Any) -> tuple[str, float]:
        """What the model still knows of what is not trained: the metric and its value."""
        return "exact_match", evaluation.recall(model, tokenizer, evaluation.probes(self.machine)).share


class Instructions(Task):
    """Questions with an answer: how likely the answers are, and of short ones the share of exact ones.

    A later stage may teach another manner of answering. So what has to stand is that the short answer is right, alone
    or at the end of one sentence; where no answer is short, their perplexity.
    """

    SHAPED = instruction.to_prompt_completion

    def fit(self, tokenizer: Any, tools_in_system: bool = False) -> None:
        self._leave_out_long_prompts(tokenizer)

    def stands(self, found: Any) -> tuple[str, float]:
        if not found[0].right:
            return "perplexity", found[0].likelihood.perplexity
        right = [*map(evaluation.is_correct, found[0].given, found[0].asked.expected)]
        return "right answers", sum(right) / len(right)

    def measure(self, model: Any, tokenizer: Any) -> Any:
        return (evaluation.answered(model, tokenizer, self.held_out, self.machine.max_length),)

    def score(self, before: Any, after: Any, model: Any, tokenizer: Any) -> "Score":
        return evaluation.instruction_score(before[0], after[0])

    def answers(self, found: Any) -> "Answers":
        return found[0].asked

    def sizes(self, tokenizer: Any) -> dict[str, Any]:
        lengths = instruction.lengths(self.train, tokenizer, self.machine.max_length)
        print(f"{lengths}{RAISE if lengths.share_over else ''}")
        return lengths.sizes

    def asked_later(self, rows: "Dataset") -> list[dict[str, Any]]:
        return [asked_later.of_instruction(row) for row in rows]


class Conversations(Task):
    """Turns of any length: the perplexity of the assistant's held-out turns, given what was said before."""

    FOLLOWED = "perplexity"

    def measure(self, model: Any, tokenizer: Any) -> Any:
        return (evaluation.answer_perplexity(model, tokenizer, self.held_out, self.machine.max_length),)

    def score(self, before: Any, after: Any, model: Any, tokenizer: Any) -> "Score":
        return evaluation.perplexity_score(before[0], after[0])

    def fit(self, tokenizer: Any, tools_in_system: bool = False) -> None:
        self._as_shown(tokenizer, tools_in_system)
        self._leave_out_long_prompts(tokenizer)

    def asked_later(self, rows: "Dataset") -> list[dict[str, Any]]:
        found = []
        for row in rows:
            turns, _ = templates.as_shown([*row["prompt"], *row["completion"]], row.get("tools"), templates.NOTHING)
            found.append({"messages": turns[:-1], "answer": turns[-1]["content"]})
        return found

    def sizes(self, tokenizer: Any) -> dict[str, Any]:
        counts = [
            len(models.chat_ids(tokenizer, [*row["prompt"], *row["completion"]], tools=row.get("tools")))
            for row in self.train
        ]
        lengths = instruction.Lengths.of(counts, self.machine.max_length)
        print(f"{lengths}{RAISE if lengths.share_over else ''}")
        return lengths.sizes


@dataclass
class Pairs(Task):
    """Prompts with a chosen and a rejected answer: which of the two gained more, and the share written as preferred."""

    FOLLOWED = "preference_rate"
    SHAPED = preference.to_chat

    beta: float = 0.1

    def fit(self, tokenizer: Any, tools_in_system: bool = False) -> None:
        """Leaves out the pairs whose prompt fills the length, and says how many."""
        self._as_shown(tokenizer, tools_in_system)
        for side in ("train", "held_out"):
            rows = getattr(self, side)
            left, told = preference.fitting(rows, tokenizer, self.machine.max_length, evaluation.LONGEST_PREFERRED)
            if len(left) < len(rows):
                print(told)
            setattr(self, side, left)

    def measure(self, model: Any, tokenizer: Any) -> Any:
        likelihood = evaluation.pair_likelihood(model, tokenizer, self.held_out, self.machine.max_length)
        return evaluation.prefer(model, tokenizer, self.held_out), likelihood

    def score(self, before: Any, after: Any, model: Any, tokenizer: Any) -> "Score":
        return evaluation.preference_score(before[0], after[0], likelihood=(before[1], after[1]), beta=self.beta)

    def answers(self, found: Any) -> "Answers":
        return found[0].as_answers()

    def shown(self, found: Any) -> str:
        return str(found[0])

    def sizes(self, tokenizer: Any) -> dict[str, Any]:
        return dict(zip(("longest", "completion"), preference.longest(self.train, tokenizer), strict=True))

    def asked_later(self, rows: "Dataset") -> list[dict[str, Any]]:
        return [{"messages": row["prompt"], "answer": row["chosen"]} for row in rows]


@dataclass
class Problems(Task):
    """Problems whose answer can be verified: the share solved, and what several tries of some of them are."""

    FOLLOWED = "accuracy"
    SHAPED = problems.to_grpo

    TRIED = 40  # problems, each several times

    completion: int = 64

    def measure(self, model: Any, tokenizer: Any) -> Any:
        few = self.held_out.select(range(min(self.TRIED, len(self.held_out))))
        tries = evaluation.attempt(model, tokenizer, few, max_new_tokens=self.completion)
        return evaluation.solve(model, tokenizer, self.held_out, self.completion), tries

    def score(self, before: Any, after: Any, model: Any, tokenizer: Any) -> "Score":
        return evaluation.accuracy_score(before[0], after[0], tries=(before[1], after[1]))

    def shown(self, found: Any) -> str:
        return "\n".join(map(str, (*found, evaluation.gate(found[1]))))

    def sizes(self, tokenizer: Any) -> dict[str, Any]:
        longest = problems.longest_prompt(self.train, tokenizer) + self.completion
        return {"longest": longest, "completion": self.completion}

    def asked_later(self, rows: "Dataset") -> list[dict[str, Any]]:
        return [{"messages": [chat.turn("user", row["question"])], "answer": row["answer"]} for row in rows]


@dataclass
class Text(Task):
    """Raw text of a domain: its perplexity, and that of general text and the known facts as what should stay."""

    FOLLOWED = "perplexity"

    READ = 256  # tokens of a text that are looked at
    general: Sequence[str] = ()
    stories: Sequence[str] = ()

    def measure(self, model: Any, tokenizer: Any) -> Any:
        facts = evaluation.recall(model, tokenizer, evaluation.probes(self.machine))
        return evaluation.perplexity(model, tokenizer, self.held_out["text"], self.READ), facts

    def score(self, before: Any, after: Any, model: Any, tokenizer: Any) -> "Score":
        mixed = evaluation.shuffled(self.held_out["text"])
        chance = evaluation.perplexity(model, tokenizer, mixed, self.READ)
        return evaluation.perplexity_score(before[0], after[0], chance=chance, facts=(before[1], after[1]))

    def asked_later(self, rows: "Dataset") -> list[dict[str, Any]]:
        return [{"text": text} for text in rows["text"]]

    def kept(self, model: Any, tokenizer: Any) -> tuple[str, float]:
        return "perplexity", evaluation.perplexity(model, tokenizer, self.stories, self.READ).perplexity

    def sizes(self, tokenizer: Any) -> dict[str, Any]:
        return {"longest": self.machine.max_length}


def scored(task: Task, before: Sequence[Any], after: Sequence[Any], model: Any, tokenizer: Any) -> "Score":
    """The score with its retention. before, after: what `measure` and `kept` found, first of all."""
    score = task.score(before[0], after[0], model, tokenizer)
    return replace(score, retention=evaluation.Retention(*before[1], after[1][1]))


def fingerprint(task: Task) -> str:
    found = hashlib.sha256()
    for side in (task.train, task.held_out):
        for row in side:
            found.update(json.dumps(row).encode())
    return found.hexdigest()


def write_lines(task: Task, out: Path) -> Path:
    """Writes `held-out.jsonl` into the folder. Raises CourseError where it cannot."""
    path, rows = out / asked_later.FILE, task.held_out
    lines = task.asked_later(rows.select(range(min(asked_later.MOST, len(rows)))))
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path
