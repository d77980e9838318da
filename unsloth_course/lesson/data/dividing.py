"""Which rows are learned from, and which are tested on: what asks the same is on one side. The test is always the same,
whatever the seed of a run, so that runs can be compared.
"""

import itertools
import random
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data.batches import BATCH_ROWS, TURN, in_batches
from unsloth_course.lesson.data.rows import key_of
from unsloth_course.lesson.data.turns import Turns, words
from unsloth_course.lesson.profile import HUB_DATA

if TYPE_CHECKING:
    from datasets import Dataset

# So many rows of the Hub's sets are never trained on, however few a run tests: the scoreboard asks them of every model.
RESERVED = 240
# The columns that hold what a row asks, or all that it says.
ASKED_IN = {"instruction": ("instruction", "input"), "problems": ("question",), "text": ("text",)}


def reserved(source: str, held_out: int) -> int:
    """How many held-out rows to keep out of training: those of the test, and in the course's own sets at least 240."""
    return max(held_out, RESERVED) if source in HUB_DATA.values() else held_out


def rows(
    found: "Dataset",
    own: "Dataset | None",
    shape: str,
    source: str,
    train: int,
    held_out: int,
    seed: int,
    repeated: int = 0,
) -> tuple["Dataset", "Dataset", str]:
    """Rows to learn from, rows to test on, and the sentence on how many these are.

    No row is learned from that asks what the test does, or says so where it is raw text. The first of `found` are
    tested on, at most half of them, or the rows of a test that is its own. repeated: rows that were left out before.
    Raises CourseError when nothing is left to learn from, or to test on.
    """
    from datasets import concatenate_datasets

    if own is None:
        kept_back, rest = _divided(keys(found, shape), [1] * len(found), reserved(source, held_out))
    else:
        whole, found = len(found), concatenate_datasets([found, own])
        asked = keys(found, shape)
        kept_back, tested = list(range(whole, len(found))), set(asked[whole:])
        rest = [number for number in range(whole) if asked[number] not in tested]
    if not (kept_back and rest):
        what = "are the same text" if shape == "text" else "ask what the test asks"
        raise CourseError(f"{source}: all {len(found):,} rows {what}. Add rows to learn from.")
    training = found.select(rest).shuffle(seed=seed)
    learned, test = training.select(range(min(train, len(training)))), found.select(kept_back[:held_out])
    return learned, test, _shared_out(len(found) + repeated, learned, test)


def keys(rows: "Dataset", shape: str) -> list[Hashable]:
    """A key for what each row asks, or of raw text says: the same for rows that differ by capitals and white space.

    Of preferences a conversation that is there at several lengths, as in Anthropic's set, has one.
    """
    if shape != "preference":
        return [key_of(" ".join(texts)) for texts in zip(*(rows[name] for name in ASKED_IN[shape]), strict=True)]
    begun = [_so_far(turns) for turns in rows["prompt"]]
    whole = {each[-1] for each in begun}
    return [next(key for key in each if key in whole) for each in begun]


def _divided(questions: Sequence[Hashable], sizes: Sequence[int], wanted: int) -> tuple[list[int], list[int]]:
    """(numbers of the items to test on, of those to learn from): what asks the same is on one side.

    sizes: rows of each item. Of the questions those that few items ask go to the test first, until it has as many rows
    as are wanted, or half of all; one question is tested on and one is learned from whatever their sizes. Without two
    questions there is nothing to test on.
    """
    asking: dict[Hashable, list[int]] = {}
    for number, question in enumerate(questions):
        asking.setdefault(question, []).append(number)
    held: list[int] = []
    rows, half = 0, sum(sizes) // 2
    groups = sorted(asking.values(), key=len)
    for group in groups[:-1]:
        more = sum(sizes[number] for number in group)
        if held and (rows >= wanted or rows + more > half):
            break
        held += group
        rows += more
    kept_back = set(held)
    return held, [number for number in range(len(questions)) if number not in kept_back]


def _shared_out(rows: int, learned: "Dataset", test: "Dataset") -> str:
    left_out = rows - len(learned) - len(test)
    why = " (more than this run takes, there again, or asked in the test)" if left_out else ""
    return f"rows to learn from: {len(learned):,}, to test on: {len(test):,}, left out: {left_out:,}{why}"


def _so_far(turns: Turns) -> list[int]:
    """For each turn a key of all that is said up to it, capitals and white space aside."""
    said = ((turn["role"], key_of(words([turn]))) for turn in turns)
    return list(itertools.accumulate(said, lambda before, now: hash((before, now)), initial=0))[1:]


class _Place(NamedTuple):
    """A turn to learn: the number of its conversation, its place in it, and a key of what is asked with all before."""

    conversation: int
    turn: int
    asked: int


def turns(
    spoken: "Dataset", own: "Dataset | None", source: str, train: int, held_out: int, seed: int
) -> tuple["Dataset", "Dataset", str]:
    """The same as `rows`, of conversations: a row is a turn of the assistant, after all that was said before it.

    All turns of a conversation are on one side.
    """
    places = _learned_turns(spoken)
    if own is not None:
        tested = [place for each in _learned_turns(own) for place in each]
        known = {place.asked for place in tested}
        learned = [place for each in places for place in each if place.asked not in known]
    else:
        # Conversations that go apart later may begin alike: what is asked in one that is learned from is not tested on.
        within: dict[int, set[int]] = {}
        for each in places:
            for place in each:
                within.setdefault(place.asked, set()).add(each[-1].asked)
        sizes = [sum(len(within[place.asked]) == 1 for place in each) for each in places]
        kept_back, rest = _divided([each[-1].asked for each in places], sizes, reserved(source, held_out))
        learned = [place for number in rest for place in places[number]]
        known = {place.asked for place in learned}
        tested = [place for number in kept_back for place in places[number] if place.asked not in known]
    if not (learned and tested):
        raise CourseError(
            f"{source}: all {len(spoken):,} conversations begin with the same question, and the test needs another. "
            "Add rows to learn from."
        )
    random.Random(seed).shuffle(learned)
    found, test = _answers(spoken, learned[:train]), _answers(spoken if own is None else own, tested[:held_out])
    return found, test, _shared_out(sum(map(len, places)) + (len(tested) if own is not None else 0), found, test)


def _learned_turns(spoken: "Dataset") -> list[list[_Place]]:
    """Of each conversation its turns to learn."""
    found = []
    for number, said in enumerate(spoken["messages"]):
        asked = _so_far(said)
        learned = (n for n, turn in enumerate(said) if turn["role"] == "assistant" and turn.get("weight") != 0)
        found.append([_Place(number, n, asked[n - 1]) for n in learned])
    return found


def _answers(spoken: "Dataset", places: list[_Place]) -> "Dataset":
    """The turns at these places, each with what was said before it."""

    def answers() -> Iterator[dict[str, Any]]:
        for start in range(0, len(places), BATCH_ROWS):
            batch = places[start : start + BATCH_ROWS]
            found = spoken[[place.conversation for place in batch]]
            tools = found.get("tools", [None] * len(batch))
            for said, place, shown in zip(found["messages"], batch, tools, strict=True):
                yield {"prompt": said[: place.turn], "completion": [said[place.turn]], "tools": shown}

    return in_batches(answers(), {"prompt": TURN, "completion": TURN})
