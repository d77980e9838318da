"""Where a lesson's rows come from: generated for the pocket model, a file of the learner's, or the Hub."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from unsloth_course.data import instruction
from unsloth_course.data.files import Checked
from unsloth_course.errors import CourseError
from unsloth_course.profile import HUB_DATA, POCKET

if TYPE_CHECKING:
    from datasets import Dataset

# The held-out questions are always the same ones, whatever the seed of a run: runs can then be compared.
HELD_OUT_SEED = 20_000
SHORT_ANSWER = 24  # characters
# So many rows of the Hub's sets are never trained on, however few a run tests: the scoreboard asks them of every model.
RESERVED = 200


def reserved(source: str, held_out: int) -> int:
    """How many held-out rows to keep out of training: those of the test, and in the course's own sets at least 200."""
    return max(held_out, RESERVED) if source in HUB_DATA.values() else held_out


def instructions(source: str, train: int, held_out: int, seed: int) -> tuple["Dataset", "Dataset", Checked]:
    """Instruction rows for training and for the held-out test: (train, held out, report of the check).

    source: "pocket", a .json or .jsonl file, or a Hub name. train, held_out: numbers of rows.

    From a file or the Hub, rows are checked, split by question and drawn with the seed; the test takes rows whose
    answer is at most 24 characters long, since exact match means nothing for an essay. Raises CourseError as
    `instruction.load` and `hub.fetch_dataset` do, when no answer is short enough for the test, and when the test leaves
    no row to learn from. Taught in lesson colab2.
    """
    if source == POCKET:
        from unsloth_course.pocket import datasets

        checked = instruction.load(datasets.instructions(train, held_out=False, seed=seed), name="generated rows")
        return checked.dataset, datasets.instructions(held_out, held_out=True, seed=HELD_OUT_SEED), checked
    if Path(source).suffix.lower() in (".json", ".jsonl", ".gz") or os.path.exists(source):
        checked = instruction.load(source)
    else:
        from unsloth_course import hub

        checked = instruction.load(hub.fetch_dataset(source, columns=instruction.COLUMNS), name=source)
    rows = checked.dataset.shuffle(seed=HELD_OUT_SEED)
    questions = instruction.keys(rows)
    short = [n for n, text in enumerate(rows["output"]) if len(text) <= SHORT_ANSWER and "\n" not in text]
    if not short:
        raise CourseError(
            f"{source}: no row has an answer of at most {SHORT_ANSWER} characters on one line, and only such answers "
            "can be marked by exact match. Add some to test on."
        )
    half = max(1, len(short) // 2)
    test = short[: min(held_out, half)]
    tested = {questions[n] for n in short[: min(reserved(source, held_out), half)]}
    rest = [n for n, question in enumerate(questions) if question not in tested]
    if not rest:
        raise CourseError(f"{source}: all {len(rows):,} rows ask what the test asks. Add rows to learn from.")
    training = rows.select(rest).shuffle(seed=seed)
    return training.select(range(min(train, len(training)))), rows.select(test), checked


def problems(source: str, train: int, held_out: int, seed: int) -> tuple["Dataset", "Dataset", Checked]:
    """Problems with a verifiable answer, to train and to test on: (train, held out, report of the check).

    source: "pocket", a .json or .jsonl file, or a Hub name, with the columns question and answer as GSM8K has them.
    train, held_out: numbers of rows. From a file or the Hub, at most half of the rows are held out, and no held-out
    question is trained on. Raises CourseError as `problems.load` and `hub.fetch_dataset` do, and when the test leaves
    no row to learn from. Taught in lesson colab4 (GRPO).
    """
    from unsloth_course.data import problems as shape

    if source == POCKET:
        from unsloth_course.pocket import datasets

        checked = shape.load(datasets.problems(train, held_out=False, seed=seed), name="generated rows")
        return checked.dataset, datasets.problems(held_out, held_out=True, seed=HELD_OUT_SEED), checked
    if Path(source).suffix.lower() in (".json", ".jsonl", ".gz") or os.path.exists(source):
        checked = shape.load(source)
    else:
        from unsloth_course import hub

        checked = shape.load(hub.fetch_dataset(source, columns=shape.COLUMNS), name=source)
    rows = checked.dataset.shuffle(seed=HELD_OUT_SEED)
    questions = shape.keys(rows)
    test = range(min(held_out, max(1, len(rows) // 2)))
    tested = {questions[n] for n in test}
    rest = [n for n, question in enumerate(questions) if question not in tested]
    if not rest:
        raise CourseError(f"{source}: all {len(rows):,} rows ask what the test asks. Add rows to learn from.")
    training = rows.select(rest).shuffle(seed=seed)
    return training.select(range(min(train, len(training)))), rows.select(test), checked
