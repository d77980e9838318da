"""Data sets of the generated rows: different ones, drawn from a seed, for one side of the split."""

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from unsloth_course.pocket.english import library, pairs, sums, tasks
from unsloth_course.pocket.english.words import Draw

if TYPE_CHECKING:
    from datasets import Dataset

TRIES = 100  # at a row that is not there yet


def instructions(rows: int, held_out: bool, seed: int) -> "Dataset":
    """Columns instruction, input, output, as in yahma/alpaca-cleaned; half of the rows have a short answer."""
    return _drawn("instructions", rows, held_out, seed, tasks.draw_row)


def preferences(rows: int, held_out: bool, seed: int) -> "Dataset":
    """Columns system, question, chosen, rejected, as in Intel/orca_dpo_pairs: plain answers go before faulty ones."""
    return _drawn("preferences", rows, held_out, seed, lambda draw, _: pairs.draw_row(draw))


def problems(rows: int, held_out: bool, seed: int) -> "Dataset":
    """Columns question, answer, as in GSM8K: problems of two steps, and every result is between 1 and 99."""
    return _drawn("problems", rows, held_out, seed, lambda draw, _: sums.draw_row(draw))


def functions(rows: int, held_out: bool, seed: int) -> "Dataset":
    """Columns func_name, original_string, docstring, language, as in CodeSearchNet, of Python's own library.

    Fewer rows come where the library has no more: 4,000 to 4,600 to learn from and 690 to 840 to test on, by version.
    """
    from datasets import Dataset

    rng = random.Random(f"english-functions-{held_out}-{seed}")
    files = [*library.modules(held_out)]
    rng.shuffle(files)
    found: dict[str, dict[str, str]] = {}
    for file in files:
        for name, text, docstring in library.functions(file):
            made = {"func_name": name, "original_string": text, "docstring": docstring, "language": "python"}
            found.setdefault(text, made)
        if len(found) >= 1.5 * rows:  # so that a few large files are not all there is
            break
    drawn = [*found.values()]
    rng.shuffle(drawn)
    return Dataset.from_list(drawn[:rows])


def _drawn(
    what: str, rows: int, held_out: bool, seed: int, make: Callable[[Draw, int], Mapping[str, str]]
) -> "Dataset":
    """Different rows; fewer than asked for where there are no more."""
    from datasets import Dataset

    rng = random.Random(f"english-{what}-{held_out}-{seed}")
    draw, made = Draw(rng, held_out), {}
    for number in range(rows):
        for _ in range(TRIES):
            row = make(draw, number)
            whole = tuple(row.values())
            if whole not in made:
                made[whole] = row
                break
    found = [*made.values()]
    rng.shuffle(found)
    return Dataset.from_list(found)
