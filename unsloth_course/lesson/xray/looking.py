"""Rows of the train dataset as the training loop will see them."""

from collections.abc import Iterable, Sequence
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.xray.checking import MOST_ROWS_CHECKED, CutFinder, checked, collated
from unsloth_course.lesson.xray.showing import XRay
from unsloth_course.lesson.xray.tokens import PieceReader

DEFAULT_ROWS = (0, 1, 2)


def look(trainer: Any, rows: Iterable[int] = DEFAULT_ROWS, source: Sequence[dict] | None = None) -> XRay:
    """Show rows of the train dataset as the training loop will see them, token by token.

    Call it after the trainer is made, and after `train_on_responses_only(trainer)` where that is used. The rows go
    through the trainer's own data collator; padding is left out. The first token of a row is never trained, because
    nothing comes before it to predict it from.

    trainer: an SFTTrainer, UnslothTrainer, DPOTrainer or GRPOTrainer. The last has only prompts to show: it trains on
        what the model writes behind them.
    rows: row numbers of `trainer.train_dataset`.
    source: the rows before the trainer shortened them, in the same order, with a "messages", a "prompt" and a
        "completion", or a "text" column. Left out, the train dataset's own columns are used where the trainer kept
        them. It is read only to show what max_length cut off.

    At most 2,000 rows, evenly spread, are checked for the warnings; the summary says how many.
    Raises CourseError when the trainer has no rows to look at, or no row of that number.
    Taught in lesson colab2 (LoRA).
    """
    dataset = _dataset(trainer)
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    reader = PieceReader(tokenizer)
    ends = _end_ids(trainer, tokenizer)
    if _writes_its_own(trainer, dataset):
        return _prompts(trainer, dataset, tokenizer, reader, ends, _row_numbers(rows, len(dataset)))
    cuts = CutFinder(trainer, tokenizer, dataset, source)

    shown, names = [], []
    for number in _row_numbers(rows, len(dataset)):
        for name, ids, trained in collated(trainer, dataset, number):
            before, after = cuts.cut(number, name, ids) or ([], [])
            shown.append(
                [reader.token(i, "cut", False) for i in before]
                + [reader.token(i, _state(i, t, reader.special, ends), t) for i, t in zip(ids, trained, strict=True)]
                + [reader.token(i, "cut", False) for i in after]
            )
            names.append(name)

    warnings, summary = checked(trainer, dataset, reader, ends, cuts)
    return XRay(shown, names, warnings, summary)


def _dataset(trainer: Any) -> Any:
    dataset = getattr(trainer, "train_dataset", None)
    if dataset is None or not hasattr(trainer, "data_collator") or not hasattr(trainer, "processing_class"):
        raise CourseError(
            f"look() wants a trainer with a train dataset, and got {type(trainer).__name__}: "
            "make the SFTTrainer or DPOTrainer with train_dataset= and processing_class= first."
        )
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise CourseError("The train dataset is a stream, so its rows have no numbers: load it with streaming=False.")
    if len(dataset) == 0:
        raise CourseError(
            "The train dataset has no rows left: the trainer leaves out rows in which nothing is trained. "
            "Raise max_length, or check the response marker."
        )
    columns = set(dataset[0])
    if not columns & {"input_ids", "chosen_ids"} and not _writes_its_own(trainer, dataset):
        raise CourseError(
            f"The train dataset has the columns {', '.join(sorted(columns))} and no tokens: look() shows the rows of "
            "SFT, DPO and GRPO trainers."
        )
    return dataset


def _writes_its_own(trainer: Any, dataset: Any) -> bool:
    """Whether the trainer has prompts alone and writes the completions while it trains, as GRPO does."""
    return "prompt" in dataset[0] and hasattr(trainer.args, "num_generations") and "input_ids" not in dataset[0]


def _prompts(
    trainer: Any, dataset: Any, tokenizer: Any, reader: PieceReader, ends: frozenset[int], numbers: list[int]
) -> XRay:
    """The prompts of a GRPO trainer, up to where the model begins to write."""

    def ids_of(prompt: str | list[dict]) -> list[int]:
        if isinstance(prompt, str):
            return list(tokenizer(prompt)["input_ids"])
        return list(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False))

    shown = [
        [reader.token(i, _state(i, False, reader.special, ends), False) for i in ids_of(dataset[number]["prompt"])]
        for number in numbers
    ]
    count = min(len(dataset), MOST_ROWS_CHECKED)
    lengths = [len(ids_of(dataset[index * len(dataset) // count]["prompt"])) for index in range(count)]
    summary = (
        f"{len(dataset):,} prompts of {min(lengths):,} to {max(lengths):,} tokens, and none of these is trained. "
        f"What is trained is what the model writes behind a prompt: {trainer.args.num_generations} completions of at "
        f"most {trainer.args.max_completion_length:,} tokens."
    )
    return XRay(shown, [f"prompt {number}" for number in numbers], [], summary)


def _row_numbers(rows: Iterable[int], count: int) -> list[int]:
    if rows == DEFAULT_ROWS:
        return list(range(min(len(DEFAULT_ROWS), count)))
    numbers = [int(number) for number in rows]
    for number in numbers:
        if not 0 <= number < count:
            raise CourseError(f"There is no row {number}: the train dataset has rows 0 to {count - 1}.")
    return numbers


def _state(token_id: int, trained: bool, special: frozenset[int], ends: frozenset[int]) -> str:
    if token_id in ends:
        return "end"
    if token_id in special:
        return "special"
    return "trained" if trained else "masked"


def _end_ids(trainer: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens at which generation stops: the tokenizer's, and those that the model's generation settings add."""
    configured = getattr(getattr(getattr(trainer, "model", None), "generation_config", None), "eos_token_id", None)
    more = configured if isinstance(configured, (list, tuple)) else [configured]
    return frozenset(i for i in [tokenizer.eos_token_id, *more] if isinstance(i, int))
