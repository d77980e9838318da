"""Where a lesson's rows come from: generated for the pocket model, a file of the learner's, or the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from unsloth_course.data import instruction
from unsloth_course.data.files import Checked
from unsloth_course.profile import POCKET

if TYPE_CHECKING:
    from datasets import Dataset

# The held-out questions are always the same ones, whatever the seed of a run: runs can then be compared.
HELD_OUT_SEED = 20_000
SHORT_ANSWER = 24  # characters


def instructions(source: str, train: int, held_out: int, seed: int) -> tuple["Dataset", "Dataset", Checked | None]:
    """Instruction rows for training and for the held-out test: (train, held out, report of the check).

    source: "pocket", a .json or .jsonl file, or a Hub name. train, held_out: numbers of rows.

    From a file or the Hub, rows are checked, split by question and drawn with the seed; the test takes rows whose
    answer is at most 24 characters long, since exact match means nothing for an essay. The report is None for the
    generated rows. Raises CourseError as `instruction.load` and `hub.fetch_dataset` do. Taught in lesson colab2.
    """
    if source == POCKET:
        from unsloth_course.pocket import datasets

        return (
            datasets.instructions(train, held_out=False, seed=seed),
            datasets.instructions(held_out, held_out=True, seed=HELD_OUT_SEED),
            None,
        )
    if Path(source).suffix in (".json", ".jsonl", ".gz"):
        checked = instruction.load(source)
    else:
        from unsloth_course import hub

        checked = instruction.load(hub.fetch_dataset(source, columns=instruction.COLUMNS), name=source)
    rows = checked.dataset.shuffle(seed=HELD_OUT_SEED)
    short = [n for n, text in enumerate(rows["output"]) if len(text) <= SHORT_ANSWER and "\n" not in text]
    few = min(held_out, max(1, len(short) // 2))
    chosen = set(short[:few])
    questions = {instruction.question(rows[n]["instruction"], rows[n]["input"]) for n in chosen}
    asked = map(instruction.question, rows["instruction"], rows["input"])
    rest = [n for n, question in enumerate(asked) if n not in chosen and question not in questions]
    training = rows.select(rest).shuffle(seed=seed)
    return training.select(range(min(train, len(training)))), rows.select(sorted(chosen)), checked
