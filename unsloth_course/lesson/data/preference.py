"""The preference shape: a prompt with two answers, the `chosen` one and the `rejected` one.

Taught in lesson colab3 (DPO). DPO: Rafailov et al. 2023, arxiv.org/abs/2305.18290. Three forms are read: the columns of
Intel/orca_dpo_pairs; TRL's preference type ("Dataset formats and types"), as text or as chat turns; and the nested form
of Anthropic/hh-rlhf (Bai et al. 2022, arxiv.org/abs/2204.05862), where the prompt stands inside both answers.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import chat
from unsloth_course.lesson.data.files import (
    CONTROL_TOKENS,
    Aside,
    Checked,
    Row,
    SetAside,
    Source,
    check_columns,
    key_of,
    kind,
    listed,
    nothing_left,
    quoted,
    rows_of,
    text_of,
    useless,
)

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("prompt", "chosen", "rejected")
ORCA_COLUMNS = ("system", "question", "chosen", "rejected")
ANSWERS = ("chosen", "rejected")
SAME = "'chosen' and 'rejected' are the same"
ROLES = ("system", "user", "assistant")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")

Turns = list[dict[str, str]]


def load(source: Source, name: str | None = None, control_tokens: Iterable[str] = CONTROL_TOKENS) -> Checked:
    """Reads and checks preference data.

    Args:
        source: the path of a .json, .jsonl or .jsonl.gz file, a `datasets.Dataset`, or a list of dicts. Each row has
            `question` and, optionally, `system`; or `prompt`, as text or as a list of turns with role and content; or
            `chosen` and `rejected` alone, each of them a whole conversation with the prompt in it: text in which every
            turn begins with "\\n\\nHuman:" or "\\n\\nAssistant:", or a list of turns.
        name: what messages call data that comes from memory, for example "Intel/orca_dpo_pairs".
        control_tokens: a row with one of these in its text is set aside, as in `instruction.load`.

    Returns:
        `dataset` with exactly the columns prompt (a list of turns {role, content}, the last of them the user's), chosen
        and rejected (text), in the order of the source; and the rows set aside: an empty prompt or answer, two answers
        that are the same, a control token, text that is not valid Unicode, and turns that are no prompt with one
        answer; in the nested form also two histories that differ.

    Raises:
        CourseError: a file that cannot be read, a column that is missing or misspelt, a value that is neither text nor
            turns (each with file, row and column), or nothing left.

    Taught in lesson colab3 (DPO).
    """
    from datasets import Dataset, Features, Value

    tokens = [token for token in control_tokens if token]
    kept: dict[str, list] = {column: [] for column in COLUMNS}
    set_aside: list[SetAside] = []
    forms: dict[tuple[str, ...], Form] = {}
    unused: dict[str, None] = {}
    for row in rows_of(source, name):
        layout = tuple(row.values)
        if layout not in forms:
            forms[layout] = form = form_of(row)
            unused |= dict.fromkeys(str(column) for column in layout if column not in form.columns)
        try:
            pair = forms[layout].read(row)
            check(pair, tokens)
        except Aside as aside:
            set_aside.append(SetAside(row.file, row.number, str(aside)))
            continue
        unused |= dict.fromkeys(_unread(row, forms[layout].columns))
        for column in COLUMNS:
            kept[column].append(getattr(pair, column))
    if not kept["prompt"]:
        raise CourseError(nothing_left(set_aside))
    text = Value("string")
    features = Features({"prompt": [{"role": text, "content": text}], "chosen": text, "rejected": text})
    return Checked(Dataset.from_dict(kept, features=features), set_aside, list(unused))


class Pair(NamedTuple):
    """A prompt with its two answers; `column` is where the user's words stood."""

    prompt: Turns
    chosen: str
    rejected: str
    column: str


class Form(NamedTuple):
    """One way in which rows are written: the columns that it reads, and how. `read` raises Aside."""

    columns: tuple[str, ...]
    read: Callable[[Row], Pair]


def form_of(row: Row) -> Form:
    """The form that a row is written in. Raises CourseError when its columns are none of the three."""
    if "prompt" in row.values:
        check_columns(row, COLUMNS)
        return Form(COLUMNS, _read_prompt)
    if "question" in row.values:
        check_columns(row, ORCA_COLUMNS, optional=("system",))
        return Form(ORCA_COLUMNS, _read_question)
    check_columns(row, ("prompt", "question"), optional=("prompt", "question"))  # refuses what is misspelt only
    check_columns(row, ANSWERS)
    if len(row.values) > len(ANSWERS) and not all(_is_whole(row.values[column]) for column in ANSWERS):
        # The prompt may be in any of the others.
        raise CourseError(
            f"{row.place('prompt')}: this column is missing. It has {listed(row.values)}. Rename the column with the "
            "prompt to 'prompt', or let 'chosen' and 'rejected' be whole conversations."
        )
    return Form(ANSWERS, _read_nested)


def _is_whole(value: object) -> bool:
    """Whether an answer has its prompt with it: turns before the last one, or text in which the user speaks first."""
    if isinstance(value, list):
        return len(value) > 1
    return isinstance(value, str) and conversation(value) is not None


def _read_question(row: Row) -> Pair:
    system, question, chosen, rejected = (text_of(row, column) for column in ORCA_COLUMNS)
    first = [chat.turn("system", system)] if system and not system.isspace() else []
    return Pair([*first, chat.turn("user", question)], chosen, rejected, "question")


def _read_prompt(row: Row) -> Pair:
    prompt, chosen, rejected = (_text_or_turns(row, column) for column in COLUMNS)
    if isinstance(prompt, str):
        prompt = [chat.turn("user", prompt)]
    return Pair(prompt, _answer("chosen", chosen, prompt), _answer("rejected", rejected, prompt), "prompt")


def _answer(column: str, value: str | Turns, prompt: Turns) -> str:
    """The one answer that a column holds; the turns of the prompt may be repeated before it."""
    if isinstance(value, str):
        return value
    history, answer = _parted(column, value)
    if history and history != prompt:
        raise Aside(f"column {quoted(column)} holds turns before the answer that are not the prompt")
    return answer


def _read_nested(row: Row) -> Pair:
    values = [_text_or_turns(row, column) for column in ANSWERS]
    if isinstance(values[0], str) != isinstance(values[1], str):
        raise Aside("of 'chosen' and 'rejected' one is text and the other a list of turns")
    parts = []
    for column, value in zip(ANSWERS, values, strict=True):
        if isinstance(value, str):
            value = _told(column, value)
        parts.append(_parted(column, value))
    (history, chosen), (other, rejected) = parts
    if history != other:
        raise Aside("the histories before the two answers differ")
    return Pair(history, chosen, rejected, "chosen")


def _told(column: str, text: str) -> Turns:
    if not text or text.isspace():
        return []
    turns = conversation(text)
    if turns is None:
        raise Aside(f"column {quoted(column)} does not begin with a blank line and 'Human:', and it has no prompt")
    return turns


def conversation(text: str) -> Turns | None:
    """The turns of a conversation as Anthropic/hh-rlhf writes it, or None where the text does not begin with one.

    A turn begins with a blank line and "Human:" or "Assistant:", the first one with "Human:"; white space around what
    is said belongs to the form, not to the turn. Taught in lesson colab3 (DPO).
    """
    before, *rest = _SPEAKER.split(text)
    if before.strip() or not rest or rest[0] != "Human":
        return None
    spoken = zip(rest[::2], rest[1::2], strict=True)
    return [{"role": _SPEAKERS[who], "content": said.strip()} for who, said in spoken]


def _parted(column: str, turns: Turns) -> tuple[Turns, str]:
    """A conversation in two: the turns before the last answer, and that answer."""
    if not turns:
        raise Aside(f"column {quoted(column)} is empty")
    *history, last = turns
    if last["role"] != "assistant":
        raise Aside(f"column {quoted(column)} does not end in an answer of the assistant")
    if not last["content"].strip():
        raise Aside(f"column {quoted(column)} ends in an empty answer")
    return history, last["content"]


def _text_or_turns(row: Row, column: str) -> str | Turns:
    value = row.values.get(column)
    if isinstance(value, list):
        return [_turn_of(row, column, number, turn) for number, turn in enumerate(value, 1)]
    if value is not None and not isinstance(value, str | float):
        raise CourseError(
            f"{row.place(column)}: found {kind(value)}, expected text or a list of turns. "
            "Write the value in quotes, or as a list of objects with 'role' and 'content'."
        )
    return text_of(row, column)


def _turn_of(row: Row, column: str, number: int, turn: object) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise CourseError(
            f"{row.place(column)}: turn {number} is {kind(turn)}, expected an object with 'role' and 'content'. "
            "Write the turn as such an object."
        )
    texts = []
    for key in ("role", "content"):
        if key not in turn:
            found = listed(turn) if turn else "nothing"
            raise CourseError(
                f"{row.place(column)}: turn {number} has no {quoted(key)}; it has {found}. Rename the key."
            )
        text = turn[key]
        if not isinstance(text, str):
            place = f"{column}, turn {number}, {key}"
            text = text_of(row._replace(values={place: text}), place)
        texts.append(text)
    if texts[0] not in ROLES:
        raise Aside(f"column {quoted(column)}: turn {number} has the role {quoted(texts[0])}, none of {listed(ROLES)}")
    return chat.turn(*texts)


def check(pair: Pair, tokens: Sequence[str]) -> None:
    """Raises Aside when nothing can be learned from the pair."""
    if not pair.prompt:
        raise Aside(f"column {quoted(pair.column)} " + ("is empty" if pair.column == "prompt" else "has no prompt"))
    said = [*[turn["content"] for turn in pair.prompt], pair.chosen, pair.rejected]
    # All of it is looked at in one go, which most pairs pass; text by text only to say what is amiss.
    amiss = useless({"": "\n".join(said)}, tokens) is not None or not all(map(str.strip, said))
    for number, turn in enumerate(pair.prompt if amiss else (), 1):
        system = turn["role"] == "system"
        if pair.column == "question":
            place = "system" if system else "question"
        else:
            place = pair.column if len(pair.prompt) == 1 else f"{pair.column}, turn {number}"
        # An empty system turn says something: it keeps a template from writing its own.
        if reason := useless({place: turn["content"]}, tokens, optional=(place,) if system else ()):
            raise Aside(reason)
    if pair.prompt[-1]["role"] != "user":
        raise Aside(f"column {quoted(pair.column)}: the prompt does not end in a turn of the user")
    if amiss and (reason := useless({"chosen": pair.chosen, "rejected": pair.rejected}, tokens)):
        raise Aside(reason)
    if pair.chosen.strip() == pair.rejected.strip():
        raise Aside(SAME)


def _unread(row: Row, columns: Iterable[str]) -> Iterator[str]:
    """What turns hold besides role and content, for the report."""
    for column in columns:
        turns = row.values.get(column)
        for turn in turns if isinstance(turns, list) else []:
            for key, value in turn.items():
                if key not in ("role", "content") and value is not None:
                    yield f"{column}: {key}"


def to_chat(batch: Mapping[str, Sequence[Any]]) -> dict[str, list]:
    """Turns a batch into TRL's conversational `prompt`, `chosen` and `rejected` columns, each a list of turns.

    Use: `dataset.map(to_chat, batched=True, remove_columns=dataset.column_names)`. Taught in lesson colab3 (DPO).
    """
    answers = {column: [[chat.turn("assistant", text)] for text in _column(batch, column)] for column in ANSWERS}
    return {"prompt": list(_column(batch, "prompt"))} | answers


def _column(batch: Mapping[str, Sequence[Any]], column: str) -> Sequence[Any]:
    if column not in batch:
        found = listed(batch) if len(batch) else "none"
        raise CourseError(f"The data set has no column {quoted(column)}; it has {found}. Give it to load() first.")
    return batch[column]


def keys(dataset: "Dataset") -> list[str]:
    """A key for each row's question, without capitals and white space: rows with one key ask the same.

    The question is the first thing that the user says: a conversation that is in the data at several lengths, as in
    Anthropic's, is one question, and so is a question under several system prompts.
    """
    return [key_of(chat.question(turns)) for turns in dataset["prompt"]]


def warm_up(dataset: "Dataset", share: float, seed: int) -> "Dataset":
    """Rows to learn answering from, before any preference: each prompt with one of its two answers.

    share: of the prompts, from 0 to 1, that come with the chosen answer; the others come with the rejected one. So the
    model can write both ways, and DPO finds something to move: it raises what the model already writes now and then,
    and cannot raise what it never writes. Returns TRL's conversational columns prompt and completion. Raises
    CourseError for a share that is none. Taught in lesson colab3 (DPO).
    """
    import random

    from datasets import Dataset

    if not 0 <= share <= 1:
        raise CourseError(f"The share of chosen answers is {share}; give a number from 0 to 1, such as 0.35.")
    rng = random.Random(seed)
    return Dataset.from_list(
        [
            {
                "prompt": row["prompt"],
                "completion": [chat.turn("assistant", row["chosen" if rng.random() < share else "rejected"])],
            }
            for row in dataset
        ]
    )


def fitting(dataset: "Dataset", tokenizer: Any, length: int, room: int) -> tuple["Dataset", str]:
    """The pairs whose prompt leaves room for so many tokens of an answer within `length` tokens, and a sentence.

    The sentence says how many were left out. A longer prompt cannot be answered by a model that was loaded for
    `length` tokens, and in training nothing of the answers would be read. Raises CourseError when no pair is left.
    Taught in lesson colab3 (DPO).
    """
    from unsloth_course.lesson.models import in_chat_form

    def size(turns: list[dict[str, str]]) -> int:
        return len(in_chat_form(tokenizer, turns, add_generation_prompt=True, return_dict=True)["input_ids"])

    kept = [number for number, turns in enumerate(dataset["prompt"]) if size(turns) + room <= length]
    without = f"no room for {room} tokens of an answer within {length} tokens"
    if not kept:
        raise CourseError(f"All {len(dataset):,} prompts leave {without}. Raise the row length, or take shorter rows.")
    left_out = len(dataset) - len(kept)
    if not left_out:
        return dataset, f"All {len(dataset):,} prompts leave room for {room} tokens of an answer."
    return dataset.select(kept), f"{left_out:,} of {len(dataset):,} pairs are left out: their prompt leaves {without}."


def longest(dataset: "Dataset", tokenizer: Any) -> tuple[int, int]:
    """The longest prompt with an answer, and the longest answer alone, in tokens: what memory follows. For `predict`.

    Raises CourseError as `models.in_chat_form` does. Taught in lesson colab3 (DPO).
    """
    from unsloth_course.lesson.models import in_chat_form

    whole = answer = 0
    for row in dataset:
        asked = in_chat_form(tokenizer, row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        for column in ANSWERS:
            turns = [*row["prompt"], chat.turn("assistant", row[column])]
            length = len(in_chat_form(tokenizer, turns, return_dict=True)["input_ids"])
            whole, answer = max(whole, length), max(answer, length - len(asked))
    return whole, answer
