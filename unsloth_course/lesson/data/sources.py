"""Where a lesson's rows come from: made on this machine, a file of the learner's, or the Hub.

Made are those of the pocket model ("pocket") and, for a real model without the Hub, those in plain English ("english").
What is not made here may be in any form that the command `data` knows, and is read by the same code (`reading`).

Each function returns (train, held out, report of the check). source: "pocket" or "english", or a file, a folder or a
Hub name. train, held_out: numbers of rows. Of what is not made here at most half is held out, and nothing that the test
asks is trained on. The held-out rows are the same for every seed, so that runs can be compared; the seed draws the
others. Raises CourseError as `reading.load` does, and when the test leaves no row to learn from.
"""

import itertools
import random
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from unsloth_course.core import hub
from unsloth_course.lesson.data import dividing, instruction, reading, tables
from unsloth_course.lesson.data.control import CHATML, Control
from unsloth_course.lesson.data.corpus import passages
from unsloth_course.lesson.data.rows import Checked
from unsloth_course.lesson.data.splits import WHOLE, Part
from unsloth_course.lesson.profile import ENGLISH, HUB_DATA, POCKET, SMOLLM2, Profile, is_pocket
from unsloth_course.pocket.english import is_short, library

if TYPE_CHECKING:
    from datasets import Dataset

Drawn: TypeAlias = "tuple[Dataset, Dataset, Checked]"
HELD_OUT_SEED = 20_000
HUB_TEXTS = 20_000  # of a set of texts on the Hub so many are checked, and more only where a run asks for more
# The only files that are fetched of a large set: 13,914 Python functions of 17 MB, from repositories of their own. All
# six languages would be 1 GB.
HUB_FILES = {HUB_DATA["cpt"]: ("python/validation-*.parquet",)}
# What the course's own sets hold, so that nobody has to be asked.
HUB_KINDS = {HUB_DATA["lora"]: "instruction", HUB_DATA["dpo"]: "preference", HUB_DATA["cpt"]: "text"}
# What the rooms that make rows call those of each shape.
MADE = {"instruction": "instructions", "problems": "problems", "preference": "preferences", "text": "functions"}
# General text of the Hub: answers of Alpaca that are at least so many characters long, and mostly letters and spaces.
PROSE_CHARACTERS = 300


class Where(NamedTuple):
    """Which rows to learn from, of a set with splits, and a source of rows to test on; without it a test that the set
    has of its own, or rows of its own. control: what no row may hold, as the model's tokenizer has it."""

    part: Part = WHOLE
    test_data: str | None = None
    control: Control = CHATML


AS_IT_IS = Where()


def _maker(source: str) -> Any:
    """The room that makes the rows of a source, or None."""
    from unsloth_course.pocket import datasets
    from unsloth_course.pocket.english import rows

    return {POCKET: datasets, ENGLISH: rows}.get(source)


def instructions(source: str, train: int, held_out: int, seed: int, where: Where = AS_IT_IS) -> Drawn:
    """Instructions: questions with one answer, in any form.

    Answers are of any length. Where there are such, every other held-out row has a short answer (at most 24 characters,
    on one line), which exact match can mark; as many short answers are left to learn from. Taught in lesson colab2.
    """
    return _questions(source, "instruction", train, held_out, seed, where)


def problems(source: str, train: int, held_out: int, seed: int, where: Where = AS_IT_IS) -> Drawn:
    """Problems with the columns question and answer as GSM8K has them, whose answers end in `#### number`.

    Taught in lesson colab4 (GRPO).
    """
    return _questions(source, "problems", train, held_out, seed, where)


def preferences(source: str, train: int, held_out: int, seed: int, where: Where = AS_IT_IS) -> Drawn:
    """Prompts with a chosen and a rejected answer, as `preference.load` reads them. Taught in lesson colab3 (DPO)."""
    return _questions(source, "preference", train, held_out, seed, where)


def _questions(source: str, shape: str, train: int, held_out: int, seed: int, where: Where) -> Drawn:
    if maker := _maker(source):
        return _made(maker, shape, train, held_out, seed)
    checked, own = _checked(source, shape, where)
    rows = checked.dataset.shuffle(seed=HELD_OUT_SEED)
    if shape == "instruction":
        short = [n for n, text in enumerate(rows["output"]) if is_short(text)]
        marked = short[: (len(short) + 1) // 2]
        others = sorted({*range(len(rows))} - {*short}) + short[len(marked) :]
        rows = rows.select([n for pair in itertools.zip_longest(marked, others) for n in pair if n is not None])
    learned, test, checked.split = dividing.rows(rows, own, shape, source, train, held_out, seed)
    return learned, test, checked


def _checked(source: str, shape: str, where: Where) -> tuple[Checked, "Dataset | None"]:
    """The rows of a source, checked; and those of the test that is its own or was named, shuffled, or None."""
    checked = reading.load(source, shape, control_tokens=where.control, part=where.part)
    tests = None if where.test_data else reading.tests_beside(source, where.part, shape)
    if where.test_data or tests:
        own = reading.load(where.test_data or source, shape, control_tokens=where.control, part=tests or WHOLE)
        print(f"to test on, {where.test_data or f'the split of {source}'}: {own}")
        return checked, own.dataset.shuffle(seed=HELD_OUT_SEED)
    return checked, None


def _made(maker: Any, shape: str, train: int, held_out: int, seed: int) -> Drawn:
    """Rows that are made here, read like all others."""
    make = getattr(maker, MADE[shape])
    checked = reading.load(make(train, held_out=False, seed=seed), shape, "generated rows")
    test = reading.load(make(held_out, held_out=True, seed=HELD_OUT_SEED), shape, "generated rows")
    return checked.dataset, test.dataset, checked


def conversations(source: str, train: int, held_out: int, seed: int, where: Where = AS_IT_IS) -> Drawn:
    """Conversations, in any form with questions and answers: ShareGPT, messages, prompt and completion, Glaive's
    function calls; also instructions, problems, and pairs with their chosen answer.

    A row is one turn of the assistant: `completion` is a list with that turn, `prompt` the turns before it, each with
    role and content (TRL's conversational prompt-completion type). So a conversation gives as many rows as the
    assistant has turns in it, each of them is learned once, and `checked.dataset` has the whole conversations, in the
    column messages. No conversation is on both sides, nor is anything that is asked, with all that was said before it.
    """
    if _maker(source):
        learned, test, checked = instructions(source, train, held_out, seed)
        return _turns(learned), _turns(test), checked
    checked, own = _checked(source, "chat", where)
    spoken = checked.dataset.shuffle(seed=HELD_OUT_SEED)
    rows, test, checked.split = dividing.turns(spoken, own, source, train, held_out, seed)
    return rows, test, checked


def _turns(rows: "Dataset") -> "Dataset":
    return rows.map(instruction.to_prompt_completion, batched=True, remove_columns=rows.column_names)


def kind(source: str, part: Part = WHOLE) -> str:
    """What rows these are, one of `convert.TARGETS`, told from the first of them; "pocket" and "english" are all kinds.

    source: "pocket", "english", a file, a folder or a Hub name. Raises CourseError as `reading.opened` does.
    """
    if _maker(source):
        return source
    return HUB_KINDS.get(source) or reading.opened(source, part=part).form.target


def corpus(source: str, train: int, held_out: int, seed: int, where: Where = AS_IT_IS) -> Drawn:
    """Raw text of a domain, with the column text.

    source: also a folder or document as `corpus.load` takes them; "english" has functions of Python's own library, and
    the report says which Python. A text that is there again is read once, capitals and white space aside. Where a
    folder or file has fewer different texts than twice the test, they are cut into passages first, and these are what
    is split: then a test passage and a training passage may come from one text. Of a Hub set 20,000 texts are checked
    and drawn from, or as many as are asked for. Taught in lesson colab5 (continued pretraining).
    """
    from datasets import Dataset

    if maker := _maker(source):
        learned, test, checked = _made(maker, "text", train, held_out, seed)
        checked.note = f"functions of {library.NAME}" if source == ENGLISH else ""
        return learned.select_columns(["text"]), test.select_columns(["text"]), checked
    here = not tables.on_the_hub(source)
    if here:
        checked, own = _checked(source, "text", where)
    else:
        found = hub.fetch_dataset(source, files=HUB_FILES.get(source, ()))
        pool = max(HUB_TEXTS, 2 * (train + dividing.reserved(source, held_out)))
        # Shuffled before the cut: a larger pool begins with the rows of a smaller one, so the test stays the same.
        drawn = found.shuffle(seed=HELD_OUT_SEED).select(range(min(pool, len(found))))
        checked, own = reading.load(drawn, "text", source), None
    first: dict[Hashable, int] = {}
    for number, key in enumerate(dividing.keys(checked.dataset, "text")):
        first.setdefault(key, number)
    rows = checked.dataset.select(first.values()).select_columns(["text"])
    if here:
        if own is None and len(rows) < 2 * held_out:
            rows = Dataset.from_dict({"text": [piece for text in rows["text"] for piece in passages(text)]})
        rows = rows.shuffle(seed=HELD_OUT_SEED)
    repeated = len(checked.dataset) - len(first)
    learned, test, checked.split = dividing.rows(rows, own, "text", source, train, held_out, seed, repeated)
    return learned, test, checked


def domains(
    machine: Profile, train: int, held_out: int, seed: int
) -> tuple[dict[str, tuple["Dataset", "Dataset"]], Checked]:
    """What the lesson on continued pretraining reads: by name (train, held out), and the report of the check.

    "domain" is that of the machine's data. A real model half knows it, as it has read Python; beside it stands
    "unread", which it has not. Taught in lesson colab5 (continued pretraining).
    """
    texts, test, checked = corpus(machine.data, train, held_out, seed)
    found = {"domain": (texts, test)}
    return found if machine.bundled else found | {"unread": corpus(POCKET, train, held_out, seed)[:2]}, checked


def known(machine: Profile, train: int, held_out: int, seed: int, tokenizer: Any) -> tuple["Dataset", "Dataset"]:
    """What the model knows, to read again and to test what became of it: (train, held out).

    Of the bundled model `general_text`. Of a model that can chat questions with their answers: train has the column
    text, each row as the tokenizer's chat template writes it, for `corpus.blocks(..., control_tokens=True)`; held out
    has the columns prompt and completion, for `evaluation.answer_perplexity`. They are the `instructions` of "english"
    for "smollm2", and yahma/alpaca-cleaned for a model of the Hub. Taught in lesson colab5 (continued pretraining).
    """
    from datasets import Dataset

    if machine.bundled:
        return general_text(machine.model, train, held_out, seed)
    learned, test, _ = instructions(ENGLISH if machine.model == SMOLLM2 else HUB_DATA["lora"], train, held_out, seed)
    return Dataset.from_dict({"text": instruction.in_chat_form(learned, tokenizer)}), _turns(test)


def general_text(source: str, train: int, held_out: int, seed: int) -> tuple["Dataset", "Dataset"]:
    """General text, to read again in training and to measure forgetting on: (train, held out), with the column text.

    source: "pocket", or a folder with a model of its shape, has documents of the mixture that the pocket model was
    pretrained on, and, held out, stories. "english" or "smollm2" has paragraphs of the documentation that comes with
    Python, about 500: a model that reads Python gains on them as well, and the answers of `known` tell better what was
    forgotten. Anything else has prose among the answers of yahma/alpaca-cleaned: long, and mostly letters and spaces.
    """
    from datasets import Dataset

    if is_pocket(source):
        from unsloth_course.pocket import datasets, text

        test = datasets.stories(held_out, seed=HELD_OUT_SEED)
        tested, rng = set(test["text"]), random.Random(f"general-{seed}")
        documents: list[str] = []
        while len(documents) < train:
            document = text.document(rng)
            if document not in tested:
                documents.append(document)
        return Dataset.from_dict({"text": documents}), test
    if source in (ENGLISH, SMOLLM2):
        name, texts = library.NAME, library.prose()
    else:
        name = HUB_DATA["lora"]
        checked = instruction.load(hub.fetch_dataset(name, columns=instruction.COLUMNS), name)
        texts = [answer for answer in checked.dataset["output"] if library.is_prose(answer, PROSE_CHARACTERS)]
    rows = Dataset.from_dict({"text": texts}).shuffle(seed=HELD_OUT_SEED)
    return dividing.rows(rows, None, "text", name, train, held_out, seed)[:2]
