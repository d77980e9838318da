"""What weights and rows a run has, by their content, so that it is compared with recorded runs of the same ones."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.profile import ENGLISH, POCKET, SMOLLM2

ROWS = {"lora": "instructions", "full": "instructions", "cpt": "corpus", "dpo": "preferences", "grpo": "problems"}
LARGEST = 2**33  # bytes that are read for a fingerprint: more takes longer than it is worth
TESTED = 50  # generated held-out rows that stand for their source


def fingerprint(model: str, data: str, lesson: str) -> dict[str, dict[str, str]]:
    """What weights and rows a run has, by their content: "weights" and "rows", each with "name" and "sha".

    The sha of weights is the first 12 hexadecimal digits of the SHA-256 of their safetensors; "from" says what they
    were rounded to, where their config.json does. That of rows is of the files they come from, or, of generated ones,
    of the first held-out rows: the same for every seed. It is empty where nothing is found, or more than 8 GiB.
    """
    weights = _files(model, "model")
    try:
        config = next(path.with_name("config.json") for path in weights)
        rounded = str(json.loads(config.read_text(encoding="utf-8")).get("rounded", ""))
    except (StopIteration, OSError, ValueError):
        rounded = ""
    rows = _generated(data, lesson) if data in (POCKET, ENGLISH) else _sha(_files(data, "dataset"))
    return {"weights": {"name": model, "sha": _sha(weights), "from": rounded}, "rows": {"name": data, "sha": rows}}


@cache
def _generated(data: str, lesson: str) -> str:
    from unsloth_course.lesson.data import sources

    if lesson not in ROWS:
        return ""
    return data_hash(getattr(sources, ROWS[lesson])(data, train=1, held_out=TESTED, seed=0)[1])


def _files(name: str, kind: str) -> list[Path]:
    """The safetensors of a model, or the tables of a data set: bundled, of this machine, or in the Hub's cache."""
    place = Path(os.path.expanduser(name))
    try:
        if kind == "model" and name in (POCKET, SMOLLM2):
            from unsloth_course.lesson import models

            place = Path(models.folder(name))
        elif not place.exists():
            place = _cached(name, kind)
        if place.is_file():
            return [place]
        return sorted(path for path in place.rglob("*.safetensors" if kind == "model" else "*") if path.is_file())
    except (CourseError, OSError, ValueError):  # the Hub's own errors are among these
        return []


def _cached(name: str, kind: str) -> Path:
    from huggingface_hub import snapshot_download

    from unsloth_course.core import hub
    from unsloth_course.lesson.data.sources import HUB_FILES

    files = hub.patterns(kind, HUB_FILES.get(name, ()))
    return Path(snapshot_download(name, repo_type=kind, local_files_only=True, **files))


def _sha(paths: Sequence[Path]) -> str:
    if sum(path.stat().st_size for path in paths) > LARGEST:
        return ""
    found = []
    for path in paths:
        blob = path.resolve().name
        if not re.fullmatch("[0-9a-f]{64}", blob):  # the cache names a large file by its SHA-256
            with path.open("rb") as file:
                blob = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(blob)
    return (found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest())[:12] if found else ""


def data_hash(dataset: Any) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of a data set's rows: the same rows give the same name."""
    digest = hashlib.sha256()
    for row in dataset:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]
