"""The splits and configurations of a folder or of a data set on the Hub, told by the names of its files, as on the Hub:
`data/train-00000-of-00001.parquet`, `test.jsonl`, `main/train/rows.csv`. A set without a file to test on has no splits
here, and all of it is read.
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data.rows import listed

TESTS = ("test", "validation", "valid", "val", "dev", "eval")
_SHARD = re.compile(r"(\w+?)-\d{5}-of-\d{5}")
_WORD = re.compile(rf"(?:^|[^a-z])((?:train|{'|'.join(TESTS)})(?:_[a-z0-9]+)?)(?=[^a-z0-9]|$)")
_PLAIN = ("", "main", "default")
OF_SHAPE = {"preference": "_prefs", "chat": "_sft", "instruction": "_sft"}
"""How the split to learn a shape from may end, as in HuggingFaceH4/ultrafeedback_binarized."""

Files = dict[tuple[str, str], list[str]]


class Part(NamedTuple):
    """Which rows of a data set are meant; None for what is chosen: `config_name`, and `split`, "train" or what begins
    so. tests: those to test on instead, that belong to these."""

    split: str | None = None
    config_name: str | None = None
    tests: bool = False


WHOLE = Part()


def of_files(names: Iterable[str]) -> Files:
    """The files of each configuration and split; empty where there are none to learn from or none to test on."""
    found: Files = {}
    for name in names:
        path = PurePosixPath(name)
        shard = _SHARD.match(path.name)
        places = [part.casefold() for part in path.parts]
        words = [_WORD.search(place) for place in (path.stem.casefold(), *reversed(places[:-1]))]
        split = shard[1] if shard else next((word[1] for word in words if word), None)
        if split is not None:
            above = [part for part in path.parts[:-1] if part != "data" and not _WORD.fullmatch(part.casefold())]
            found.setdefault(("/".join(above), split), []).append(name)
    begins = {split.partition("_")[0] for _, split in found}
    return found if "train" in begins and begins.intersection(TESTS) else {}


def chosen(found: Files, part: Part, shape: str | None, source: str) -> tuple[list[str], str]:
    """The files of a part, and the sentence on which it is; without files where there is nothing to test on.

    Raises CourseError for a split or configuration that is not there.
    """
    configs = list(dict.fromkeys(config for config, _ in found))
    config = part.config_name
    if config is None:
        config = next((name for name in _PLAIN if name in configs), configs[0])
    splits = [split for name, split in found if name == config]
    if not splits:
        raise CourseError(f"{source} has no configuration {config!r}; --config-name takes {listed(configs)}.")
    split = part.split
    if split is None:
        learned = sorted((name for name in splits if name.startswith("train")), key=lambda name: (len(name), name))
        split = next((n for n in learned if n == "train" or n.endswith(OF_SHAPE.get(shape, "_prefs"))), learned[0])
    elif split not in splits:
        raise CourseError(f"{source} has no split {split!r}; --split takes {listed(splits)}.")
    if part.tests:
        split = next((name for test in TESTS if (name := split.replace("train", test, 1)) in splits), split)
        return (found[config, split] if not split.startswith("train") else []), split
    others = [name for name in splits if name != split]
    of = f" of the configuration {config!r} (there are {listed(configs)})" if len(configs) > 1 else ""
    return found[config, split], f"the split {split!r} is read{of}; there are also {listed(others)}" if others else ""
