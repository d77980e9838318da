"""Sharing what was trained: an adapter, a model or GGUF files go to a repository on the Hub.

Follows huggingface_hub's guide on uploads. Large files go first, and one commit then shows all of them: nobody sees
half of a model, and an upload that broke off goes on with what is missing.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsloth_course.commands.convert.report import secrets
from unsloth_course.core import hub, hub_errors, model_files
from unsloth_course.core.errors import CourseError
from unsloth_course.core.writing import in_columns
from unsloth_course.lesson.memory import size
from unsloth_course.lesson.profile import NEITHER_HUB_NOR_PATH
from unsloth_course.lesson.results import CARD

WEIGHTS = (".safetensors", ".gguf")
KNOWN = (CARD, "Modelfile", "*.gguf", *hub.FILES["model"]["allow_patterns"])  # what the course fetches of a model, too
HUB_NAME = re.compile(r"([\w.-]+/)?[\w.-]+")  # the path of a folder that is gone is none
# In a card's head: a base that is a folder or bundled, which the Hub refuses, and PEFT's tag for adapters.
NO_BASE_OF_THE_HUB = re.compile(r"^(base_model: (?![\w.-]+/[\w.-]+$)|- base_model:adapter:).*\n", re.MULTILINE)


@dataclass(frozen=True)
class Parcel:
    """What would go to the Hub: the files by their names there, and the names of those that stay here."""

    files: dict[str, Path | bytes]
    stays: list[str]

    def __str__(self) -> str:
        rows = [(name, size(_size(content))) for name, content in sorted(self.files.items())]
        stays = ["", f"stays here: {model_files.listed(self.stays)}"] if self.stays else []
        return "\n".join([in_columns(rows), *stays])


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def gather(folder: str | Path) -> Parcel:
    """The files of an adapter, a whole model, GGUF files or a run that others need. Rows and settings are not among
    them, nor is anything else whose name is not known.

    Raises CourseError where there is no such model or it is damaged, where others could not load it, and where a text
    that would go holds what looks like a password.
    """
    from huggingface_hub.utils import filter_repo_objects

    folder = model_files.in_run(Path(folder).expanduser())
    found = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    known = filter_repo_objects((path.name for path in found), allow_patterns=KNOWN)
    files: dict[str, Path | bytes] = {name: folder / name for name in known}
    _require_model(folder, set(files))
    if CARD not in files and (card := _card_of_the_run(folder)):
        files[CARD] = card.encode()
    for name, content in files.items():
        if not name.endswith(WEIGHTS):
            _require_no_secret(name, content if isinstance(content, bytes) else content.read_bytes())
    return Parcel(files, [path.name for path in found if path.name not in files])


def _require_model(folder: Path, names: set[str]) -> None:
    if not any(name.endswith(WEIGHTS) for name in names):
        raise CourseError(
            f"{folder} holds no adapter, no model and no GGUF file. Give the folder of a run, or what export wrote."
        )
    if any(name.endswith(".gguf") for name in names):
        return
    if "adapter_config.json" not in names:
        model_files.check_model_names(names, str(folder))
        return model_files.check_weights(folder)
    model_files.check_safetensors(folder)
    base = model_files.base_model(folder)
    if base in NEITHER_HUB_NOR_PATH or Path(base).expanduser().exists() or not HUB_NAME.fullmatch(base):
        raise CourseError(
            f"This adapter belongs to {base}, which others cannot fetch. Share it together with its base: first "
            f"`unsloth-course export {folder} --to merged`, then `unsloth-course share` with the folder that it names."
        )


def _card_of_the_run(folder: Path) -> str:
    """The card that the run wrote for its adapter, for the merged model or the GGUF files that came out of it."""
    for run in (folder.parent, folder.parent.parent):
        for room in ("adapter", "model"):
            if (path := run / room / CARD).is_file():
                library = "gguf" if any(folder.glob("*.gguf")) else "transformers"
                text = path.read_text(encoding="utf-8").replace("library_name: peft", f"library_name: {library}", 1)
                text = NO_BASE_OF_THE_HUB.sub("", text)
                return text.replace("# A LoRA adapter, trained", "# A model, trained", 1)
    return ""


def _require_no_secret(name: str, content: bytes) -> None:
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if secrets(line):
            raise CourseError(
                f"{name}, line {number} holds what looks like a token or a key. Nothing was sent. Take it out, and "
                "withdraw it where it is valid."
            )


def send(parcel: Parcel, name: str, public: bool = False) -> str:
    """Uploads to the repository OWNER/NAME, made if it is not there; returns its address, and who can see it.

    public: whether everybody may see a new repository. One that is public already is refused without it.

    Raises CourseError where nobody is logged in, and when the Hub refuses, cannot be reached or the upload breaks off.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()  # a warning of a repeated upload names an address that holds a key for it
    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi()
    try:
        try:
            private = api.model_info(name).private
        except RepositoryNotFoundError:
            private = not public
            api.create_repo(name, private=private)
        if not private and not public:
            raise CourseError(f"{name} is there already, and everybody can see it. Add --public, or take another name.")
        adding = [CommitOperationAdd(path, content) for path, content in parcel.files.items()]
        api.create_commit(name, adding, commit_message="Shared with unsloth-course")
    except CourseError:
        raise
    except Exception as error:
        raise _broken_off(error, name) from None
    return f"{constants.ENDPOINT}/{name} ({'private' if private else 'for everybody'})"


def require_login() -> None:
    """Raises CourseError where huggingface_hub finds no token."""
    from huggingface_hub import get_token

    if not get_token():
        raise CourseError(
            "Nobody is logged in to the Hub on this machine. Make a token with the right to write on its settings "
            "page, run `hf auth login`, and then this command again."
        )


def _broken_off(error: Any, name: str) -> Exception:
    """The sentence for what came in between; an error that is none of the Hub's, the network's or the disk's as it
    is."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, HFValidationError):
        return CourseError(f'"{name}" is no name for a repository: the Hub wants OWNER/NAME, without spaces.')
    if status in (401, 403, 404):
        return CourseError(
            f"The Hub does not let you write to {name}: your token has no right to write, or OWNER is neither you nor "
            "your organization. `hf auth whoami` says who you are there."
        )
    if isinstance(error, ValueError) and str(error).startswith("Invalid metadata"):
        why = " ".join(str(error).splitlines()[1:]).strip("- ")
        return CourseError(f"The Hub does not take the head of {CARD}: {why} Change it, and run this again.")
    # A RuntimeError is huggingface_hub's, about one file; what happened is its cause.
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    why = hub_errors.unreachable(cause)
    if not why and not isinstance(error, httpx.HTTPError | HfHubHTTPError | OSError | RuntimeError):
        return error
    why = why or hub_errors.message(cause)
    return CourseError(
        f"The upload to {name} broke off: {why}. Nothing of it can be seen there; the same command goes on with what "
        "is missing."
    )
