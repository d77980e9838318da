"""The address of the repository: one line of pyproject.toml, and the badges and install cells that follow from it."""

import re
import tomllib
from pathlib import Path

from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY
from unsloth_course.core.writing import write_text

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")


def address(root: Path = REPOSITORY) -> str:
    """The `owner/name` of pyproject.toml, under [tool.unsloth-course]. Raises CourseError when there is none."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        return project["tool"]["unsloth-course"]["repository"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        raise CourseError(
            f"{root} has no pyproject.toml with a repository under [tool.unsloth-course]; run this in a checkout of "
            "the course."
        ) from None


def badge(notebook: str, repository: str) -> str:
    """Markdown of the badge that opens a notebook of the repository in Colab."""
    page = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{notebook}"
    return f"[![Open in Colab]({BADGE})]({page})"


def pages(root: Path = REPOSITORY) -> list[Path]:
    """The files that may name the address; last the one that holds it, so that a change that broke off can go on."""
    texts = [path for pattern in ("*.md", "*.cff", "docs/*.md") for path in root.glob(pattern)]
    return [*texts, *sorted((root / "notebooks").rglob("*.ipynb")), root / "pyproject.toml"]


def change(repository: str, root: Path = REPOSITORY) -> list[Path]:
    """Puts `repository` ("owner/name") in the place of the old address in every file that names it; returns those.

    Raises CourseError when it is no such name.
    """
    if not _NAME.fullmatch(repository):
        raise CourseError(f"{repository!r} is not a repository of GitHub; give it as OWNER/NAME.")
    old = re.compile(rf'(?<=[/"]){re.escape(address(root))}(?![\w.-])')
    changed = []
    for path in pages(root):
        text = path.read_text(encoding="utf-8")
        new = old.sub(repository, text)
        if new != text:
            write_text(path, new)
            changed.append(path)
    return changed
