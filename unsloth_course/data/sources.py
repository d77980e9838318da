"""Where a lesson's rows come from: generated for the pocket model, a file of the learner's, or the Hub."""

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

from unsloth_course.data import instruction
from unsloth_course.data.files import Checked
from unsloth_course.errors import CourseError
from unsloth_course.profile import HUB_DATA, POCKET

if TYPE_CHECKING:
    from types import ModuleType

    from datasets import Dataset

# The held-out questions are always the same ones, whatever the seed of a run: runs can then be compared.
HELD_OUT_SEED = 20_000
SHORT_ANSWER = 24  # characters
# So many rows of the Hub's sets are never trained on, however few a run tests: the scoreboard asks them of every model.
RESERVED = 200
# Of a set of texts on the Hub so many are checked, and more only where a run asks for more.
HUB_TEXTS = 20_000
# The only files that are fetched of a large set: 13,914 Python functions of 17 MB, from repositories of their own. All
# six languages would be 1 GB.
HUB_FILES = {HUB_DATA["cpt"]: ("python/validation-*.parquet",)}
# General text of the Hub: answers of Alpaca that are at least so many characters long, and mostly letters and spaces.
PROSE_CHARACTERS = 300
PROSE_SHARE = 0.92


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
    return _by_question(shape, shape.COLUMNS, source, train, held_out, seed)


def preferences(source: str, train: int, held_out: int, seed: int) -> tuple["Dataset", "Dataset", Checked]:
    """Prompts with a chosen and a rejected answer, to train and to test on: (train, held out, report of the check).

    source: "pocket", a .json or .jsonl file, or a Hub name, in one of the forms that `preference.load` reads. train,
    held_out: numbers of rows. From a file or the Hub, at most half of the rows are held out, and no held-out question
    is trained on. Raises CourseError as `preference.load` and `hub.fetch_dataset` do, and when the test leaves no row
    to learn from. Taught in lesson colab3 (DPO).
    """
    from unsloth_course.data import preference as shape

    if source == POCKET:
        from unsloth_course.pocket import datasets

        checked = shape.load(datasets.preferences(train, held_out=False, seed=seed), name="generated rows")
        test = shape.load(datasets.preferences(held_out, held_out=True, seed=HELD_OUT_SEED), name="generated rows")
        return checked.dataset, test.dataset, checked
    return _by_question(shape, shape.ANSWERS, source, train, held_out, seed)


def _by_question(
    shape: "ModuleType", columns: tuple[str, ...], source: str, train: int, held_out: int, seed: int
) -> tuple["Dataset", "Dataset", Checked]:
    """The rows of a file, or of a Hub set that has the columns, split by question and drawn with the seed."""
    if Path(source).suffix.lower() in (".json", ".jsonl", ".gz") or os.path.exists(source):
        checked = shape.load(source)
    else:
        from unsloth_course import hub

        checked = shape.load(hub.fetch_dataset(source, columns=columns), name=source)
    rows = checked.dataset.shuffle(seed=HELD_OUT_SEED)
    questions = shape.keys(rows)
    half = max(1, len(rows) // 2)
    test = range(min(held_out, half))
    tested = set(questions[: min(reserved(source, held_out), half)])
    rest = [n for n, question in enumerate(questions) if question not in tested]
    if not rest:
        raise CourseError(f"{source}: all {len(rows):,} rows ask what the test asks. Add rows to learn from.")
    training = rows.select(rest).shuffle(seed=seed)
    return training.select(range(min(train, len(training)))), rows.select(test), checked


def corpus(source: str, train: int, held_out: int, seed: int) -> tuple["Dataset", "Dataset", Checked]:
    """Raw text of a domain, to train and to test on: (train, held out, report of the check), with the column text.

    source: "pocket" (functions of the small world), a folder or file as `corpus.load` takes them, or a Hub name. train,
    held_out: numbers of texts.

    From elsewhere than "pocket" at most half of the different texts are held out, the same for every seed, and no text
    that is held out is trained on (capitals and white space aside). Where a folder or file has fewer different texts
    than twice the test, they are cut into passages first, and these are what is split: then a test passage and a
    training passage may come from one text. Of a Hub set 20,000 texts are checked and drawn from, or as many as are
    asked for. Raises CourseError as `corpus.load` and `hub.fetch_dataset` do, and when there
    are not two different texts. Taught in lesson colab5 (continued pretraining).
    """
    from datasets import Dataset

    from unsloth_course.data import corpus as shape

    if source == POCKET:
        from unsloth_course.pocket import datasets

        checked = shape.load(datasets.functions(train, held_out=False, seed=seed), name="generated functions")
        test = shape.load(datasets.functions(held_out, held_out=True, seed=HELD_OUT_SEED)).dataset
        return checked.dataset.select_columns(["text"]), test.select_columns(["text"]), checked
    if os.path.exists(os.path.expanduser(source)) or Path(source).suffix.lower() in (*shape.IN_FOLDERS, ".json", ".gz"):
        checked = shape.load(source)
        rows = checked.dataset
        if len(set(shape.keys(rows))) < 2 * held_out:
            rows = Dataset.from_dict({"text": [piece for text in rows["text"] for piece in shape.passages(text)]})
        rows = rows.shuffle(seed=HELD_OUT_SEED)
    else:
        from unsloth_course import hub

        found = hub.fetch_dataset(source, files=HUB_FILES.get(source, ()))
        pool = max(HUB_TEXTS, 2 * (train + reserved(source, held_out)))
        # Shuffled before the cut: a larger pool begins with the rows of a smaller one, so the test stays the same.
        drawn = found.shuffle(seed=HELD_OUT_SEED).select(range(min(pool, len(found))))
        checked = shape.load(drawn, name=source)
        rows = checked.dataset
    rows = rows.select_columns(["text"])
    return *_split(rows, shape.keys(rows), source, train, held_out, seed), checked


def _split(
    rows: "Dataset", keys: list[str], source: str, train: int, held_out: int, seed: int
) -> tuple["Dataset", "Dataset"]:
    """(train, held out): the held-out rows have different keys, the first of `rows`, and no training row has these."""
    first: dict[str, int] = {}
    for number, key in enumerate(keys):
        first.setdefault(key, number)
    different = list(first)
    half = len(different) // 2
    if not half:
        raise CourseError(
            f"{source}: all its texts are one and the same, and the test needs another. Add texts, or cut it up."
        )
    kept_back = set(different[: min(reserved(source, held_out), half)])
    test = [first[key] for key in different[: min(held_out, half)]]
    training = rows.select([n for n, key in enumerate(keys) if key not in kept_back]).shuffle(seed=seed)
    return training.select(range(min(train, len(training)))), rows.select(test)


def general_text(source: str, train: int, held_out: int, seed: int) -> tuple["Dataset", "Dataset"]:
    """General text, to read again in training and to measure forgetting on: (train, held out), with the column text.

    source: "pocket" for the pocket model, whatever its domain; anything else for a model of the Hub. train, held_out:
    numbers of texts.

    For the pocket model: documents of the mixture that it was pretrained on, and, held out, stories. For a model of the
    Hub: prose among the answers of yahma/alpaca-cleaned, which are long and mostly letters and spaces. No held-out text
    is in training, and the held-out texts are the same for every seed. Raises CourseError as `hub.fetch_dataset` does.
    Taught in lesson colab5 (continued pretraining).
    """
    from datasets import Dataset

    if source == POCKET:
        from unsloth_course.pocket import datasets, text

        test = datasets.stories(held_out, seed=HELD_OUT_SEED)
        tested, rng = set(test["text"]), random.Random(f"general-{seed}")
        documents: list[str] = []
        while len(documents) < train:
            document = text.document(rng)
            if document not in tested:
                documents.append(document)
        return Dataset.from_dict({"text": documents}), test
    from unsloth_course import hub
    from unsloth_course.data import corpus as shape

    name = HUB_DATA["lora"]
    answers = instruction.load(hub.fetch_dataset(name, columns=instruction.COLUMNS), name=name).dataset["output"]
    rows = Dataset.from_dict({"text": [answer for answer in answers if is_prose(answer)]}).shuffle(seed=HELD_OUT_SEED)
    return _split(rows, shape.keys(rows), name, train, held_out, seed)


def is_prose(text: str) -> bool:
    """Whether a text is at least 300 characters long and at least 92 % of it letters and white space; code is not."""
    plain = sum(letter.isalpha() or letter.isspace() for letter in text)
    return len(text) >= PROSE_CHARACTERS and plain >= PROSE_SHARE * len(text)
