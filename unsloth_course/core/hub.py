"""Models and data sets from the Hub or its cache: the size is said before, the sizes are checked after.

Weights are read from safetensors only. Pickle files (`.bin`, `.pt`) and Python files can run code while they are
loaded, so they are never downloaded. Nothing is swapped in silence: what cannot be fetched is a `CourseError`,
which names the offline choice where the network is the trouble. Follows the documentation of
`huggingface_hub.snapshot_download`.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

from unsloth_course.core import hub_errors
from unsloth_course.core.errors import CourseError
from unsloth_course.core.hub_errors import OFFLINE_CHOICE, disk_full, explain, is_disk_full, message, unreachable
from unsloth_course.core.model_files import (
    TABLES,
    base_model,
    check_model_names,
    check_names,
    check_weights,
    listed,
    read_json,
)
from unsloth_course.core.places import existing

if TYPE_CHECKING:
    import datasets


Kind = Literal["model", "dataset"]
FILES: dict[str, dict[str, Any]] = {
    "model": {
        "allow_patterns": (
            *("config.json", "generation_config.json", "adapter_config.json", "chat_template.json"),
            *("chat_template.jinja", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"),
            *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
            *("model.safetensors.index.json", "*.safetensors"),
        ),
        # "*/*": a repository may hold the same weights again for other programs in folders of their own, such as onnx/;
        # "consolidated*" are the same weights again in their authors' format.
        "ignore_patterns": ("*/*", "consolidated*"),
    },
    "dataset": {
        "allow_patterns": ("README.md", *(f"*{end}" for end in TABLES)),
        "ignore_patterns": (".*", "dataset_infos.json"),
    },
}


def patterns(kind: str, files: tuple[str, ...] = ()) -> dict[str, Any]:
    """Which files of a repository the course fetches: what `snapshot_download` takes. files: only these."""
    return FILES[kind] | ({"allow_patterns": files} if files else {})


def fetch_model(name: str | Path) -> Path:
    """Return a folder that holds a model: config, tokenizer and safetensors, complete.

    A local folder is checked and returned as it is. A Hub name (`owner/model`) is looked up, one line with the bytes to
    download and the bytes in the cache is printed, and what is missing is downloaded. A complete copy in the cache is
    used when the Hub cannot be reached, and the printed line says so.

    Raises CourseError when the folder or repository is an adapter, holds pickle weights only or is incomplete; the name
    is wrong, private or gated; the Hub cannot be reached and the cache has no complete copy; the download broke off;
    the disk is full.
    """
    folder = Path(os.path.expanduser(name))  # os.path answers where Path raises: a name too long, an unknown ~user
    if os.path.isfile(folder):
        raise CourseError(f"{folder} is a file, and a model is a folder: give the folder that holds config.json.")
    if not os.path.isdir(folder):
        folder = _fetch(str(name), "model").folder
    check_model_names({path.name for path in folder.iterdir()}, f"The folder {folder}", base_model(folder))
    check_weights(folder)
    return folder


def fetch_dataset(
    name: str, split: str = "train", columns: tuple[str, ...] = (), files: tuple[str, ...] = ()
) -> "datasets.Dataset":
    """Return one split of a Hub data set whose files are JSON, JSON lines or parquet; no script is ever run.

    The download is the same as in `fetch_model`: size first, checked after, the cache when the Hub is out of reach.
    columns: those that must be there. files: patterns of the only files to fetch, such as
    ("python/validation-*.parquet",), where the whole set is more than is needed; then all rows of these files are
    returned, whatever split they belong to.

    Raises CourseError as `fetch_model` does; also for an unknown split, missing columns, a broken file, no file of such
    a name.
    """
    from datasets import load_dataset

    found = _fetch(name, "dataset", files)
    wanted = _only(found, files) if files else {"path": str(found.folder), "split": split}
    try:
        dataset = load_dataset(**wanted)
    except Exception as error:  # the files are anybody's, and the library lets through what its parsers raise
        cause = error.__cause__ or error
        if is_disk_full(cause):
            raise disk_full(name) from error
        raise CourseError(
            f"{name} cannot be read as a table with the split {split!r} ({message(cause)}). Choose another split, or "
            "another data set."
        ) from error
    missing = [column for column in columns if column not in dataset.column_names]
    if missing:
        raise CourseError(
            f"{name} has the columns {', '.join(dataset.column_names)}; {', '.join(missing)} is missing. Choose a data "
            "set in the expected format, or convert it first: `python -m unsloth_course data FILE --to FORMAT`."
        )
    return dataset


@dataclass(frozen=True)
class Repository:
    """What the course would fetch of a repository, and what of it is here already.

    kind: "model" or "dataset". sizes: bytes of each file. missing: those of them that the cache lacks, or has in
    another size. gated: whether its licence has to be accepted first. reason: why the Hub could not be asked, so that
    this is what the cache knows; "" if it answered. folder: where the cache has it, or would have it.
    """

    name: str
    kind: str
    sizes: dict[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    gated: bool = False
    reason: str = ""
    folder: Path | None = field(default=None, compare=False, repr=False)

    @property
    def bytes(self) -> int:
        """All files together, in bytes."""
        return sum(self.sizes.values())

    @property
    def to_download(self) -> int:
        """What is missing, in bytes."""
        return sum(self.sizes[file] for file in self.missing)


def look_up(name: str, kind: Kind = "model", files: tuple[str, ...] = ()) -> Repository:
    """The files of a repository with their sizes, and which of them are in the cache; nothing is fetched or changed.

    files: as for `fetch_dataset`. Where the Hub cannot be reached, the list that an earlier download left in the cache
    takes its place.

    Raises CourseError when the name is wrong or private, when the repository holds nothing that the course can use, and
    when the Hub cannot be reached and nothing of the repository is in the cache. Used by `finetune` before it begins.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import filter_repo_objects

    cache = Path(constants.HF_HUB_CACHE, f"{kind}s--{name.replace('/', '--')}")
    gated, reason = False, ""
    try:
        info = HfApi().repo_info(name, repo_type=kind, files_metadata=True, timeout=hub_errors.TIMEOUT)
        commit, sizes, gated = info.sha, {file.rfilename: file.size or 0 for file in info.siblings or []}, info.gated
    except HFValidationError as error:
        raise CourseError(
            f"{name!r} is neither a folder on this machine nor a Hub name: a Hub name looks like owner/{kind}."
        ) from error
    except Exception as error:
        reason = unreachable(error)
        if not reason:
            raise explain(error, name, kind) from error
        commit, sizes = _known_to_the_cache(cache, name, kind)
    if not reason:
        check_names(set(sizes), name, kind)
    wanted = filter(_stays_inside, filter_repo_objects(sizes, **patterns(kind, files)))
    sizes, snapshot = {file: sizes[file] for file in wanted}, cache / "snapshots" / commit
    found = Repository(name, kind, sizes, tuple(_wrong_size(snapshot, sizes)), bool(gated), reason, snapshot)
    if reason and not sizes:
        raise CourseError(unavailable(found))
    return found


def _known_to_the_cache(cache: Path, name: str, kind: str) -> tuple[str, dict[str, int]]:
    """The commit that was downloaded last, and its files with their sizes; no files where there is nothing."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    head = cache / "refs" / "main"
    commit = head.read_text(encoding="utf-8") if head.is_file() else ""
    try:
        return commit, {file.path: file.size for file in get_cached_repo_tree(name, repo_type=kind)}
    except CachedRepoTreeNotFoundError:  # a cache written before huggingface_hub kept the list, or none at all
        folder = cache / "snapshots" / commit
        files = [path for path in folder.rglob("*") if commit and path.is_file()]
        return commit, {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def unavailable(found: Repository) -> str:
    """Why a repository cannot be had when the Hub cannot be reached and the cache lacks of it, as a sentence."""
    from huggingface_hub import constants

    what = f": {listed(found.missing)} is missing or damaged" if found.missing else ""
    return (
        f"{found.name} cannot be downloaded: {found.reason}, and the cache {constants.HF_HUB_CACHE} has no complete "
        f"copy{what}. {OFFLINE_CHOICE}"
    )


def read_config(name: str) -> dict:
    """What the config.json of a model says: of a folder, or of a Hub name, of which only this file is fetched.

    Raises CourseError as `fetch_model` does, and when there is none or it is damaged.
    """
    folder = Path(os.path.expanduser(name))
    if not os.path.isdir(folder):
        folder = _fetch(name, "model", ("config.json",)).folder
    if not (folder / "config.json").is_file():
        raise CourseError(f"{name} holds no config.json, so its size is not known: give a whole model.")
    return read_json(folder / "config.json")


def _only(found: Repository, files: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of `load_dataset` for the files of a repository, whatever its data card says.

    Raises CourseError when none is there, and when they are not all of one kind.
    """
    wanted = sorted(found.sizes)
    kinds = {{".parquet": "parquet", ".json": "json", ".jsonl": "json"}.get(PurePath(file).suffix) for file in wanted}
    if len(kinds) != 1 or None in kinds:
        raise CourseError(
            f"{found.name} has {listed(wanted) or 'no file'} under {', '.join(files)}, where files of one kind are "
            "wanted: parquet or JSON."
        )
    return {"path": kinds.pop(), "data_files": [str(found.folder / file) for file in wanted], "split": "train"}


def _fetch(name: str, kind: Kind, files: tuple[str, ...] = ()) -> Repository:
    """Bring the matching files of a repository into the cache, every size checked."""
    from huggingface_hub import constants, snapshot_download

    found = look_up(name, kind, files)
    if found.reason:
        if found.missing:
            raise CourseError(unavailable(found))
        print(f"{name}: {found.reason}; using the complete copy in the cache.")
        return found
    _forget(found.folder, found.missing)
    every, here = len(found.sizes), len(found.sizes) - len(found.missing)
    if found.missing:
        print(f"{name}: {file_size(found.to_download)} to download, {here} of {every} files are in the cache.")
    else:
        print(f"{name}: all {every} files ({file_size(found.bytes)}) are in the cache, nothing to download.")
    free = shutil.disk_usage(existing(Path(constants.HF_HUB_CACHE))).free
    if found.to_download > free:
        raise CourseError(
            f"{name} needs {file_size(found.to_download)} and the disk of {constants.HF_HUB_CACHE} has "
            f"{file_size(free)} free. Free some space, set HF_HOME to a folder on another disk, or use PROFILE = "
            '"cpu", which downloads nothing.'
        )
    try:
        folder = Path(snapshot_download(name, repo_type=kind, **patterns(kind, files)))
    except Exception as error:
        raise explain(error, name, kind) from error
    if wrong := _wrong_size(folder, found.sizes):
        _forget(folder, wrong)
        raise CourseError(
            f"{name}: {listed(wrong)} arrived in another size than the Hub listed and was thrown away. Run this again."
        )
    return replace(found, folder=folder)


def file_size(amount: int) -> str:
    """Bytes of files as the Hub shows them, in decimal units; memory is shown in binary ones, as nvidia-smi does."""
    return f"{amount / 1e9:,.1f} GB" if amount >= 1e9 else f"{amount / 1e6:,.1f} MB"


def _wrong_size(folder: Path, sizes: dict[str, int]) -> list[str]:
    """The files that are absent from the folder or differ in size (bytes) from the Hub's list."""
    paths = {file: folder / file for file in sizes}
    return [file for file, path in paths.items() if not path.is_file() or path.stat().st_size != sizes[file]]


def _stays_inside(file: str) -> bool:
    """Whether a name in the Hub's list stays in its folder; git allows no other, a mirror might."""
    path = PurePath(file)
    return not path.is_absolute() and ".." not in path.parts


def _forget(folder: Path, files: Iterable[str]) -> None:
    """Take damaged files out of the cache, link and content, so that they are fetched again."""
    for file in files:
        (folder / file).resolve().unlink(missing_ok=True)
        (folder / file).unlink(missing_ok=True)
