"""Text that every machine with Python has: functions of its own library, and plain English of its documentation.

Nothing of it is copied into the course: it is read from the Python that runs, so another version has other texts.
"""

import ast
import platform
import sysconfig
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from unsloth_course.pocket.english.words import HELD_OUT_ONE_IN

NAME = f"the library of Python {platform.python_version()}"
LEAST, MOST = 120, 4000  # characters of a function
LEFT_OUT = {"__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests"}
PROSE_SHARE = 0.92  # of letters and white space
LEAST_PROSE = 150  # characters


@cache
def modules(held_out: bool) -> tuple[Path, ...]:
    """The files of one side. A package is on one side as a whole, and beside it its twin that is written in Python."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        package = parts[0].removesuffix(".py").removeprefix("_").removeprefix("py")
        if not LEFT_OUT & set(parts) and (zlib.crc32(package.encode()) % HELD_OUT_ONE_IN == 0) == held_out:
            found.append(path)
    return tuple(found)


@cache
def functions(path: Path) -> tuple[tuple[str, str, str], ...]:
    """(name, text, docstring) of each function in a file that has a docstring; one inside another belongs to it."""
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source) if '"""' in source else ast.Module([])
    except (OSError, ValueError, SyntaxError):
        return ()  # a file in another encoding, or made for tests of the parser
    lines, found = source.splitlines(), []
    for node in _defined(tree.body):
        margin = node.col_offset  # a line of a long string may begin further left
        body = lines[node.lineno - 1 : node.end_lineno]
        text = "\n".join(line if line[:margin].strip() else line[margin:] for line in body)
        if LEAST <= len(text) <= MOST and (docstring := ast.get_docstring(node)):
            found.append((node.name, text, docstring))
    return tuple(found)


def _defined(body: Sequence[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef | ast.If | ast.Try):
            yield from _defined(node.body)


def prose() -> list[str]:
    """Paragraphs of English: the documentation that `help()` shows, and Python's licence."""
    from pydoc_data.topics import topics

    licence = Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"
    texts = [topics[name] for name in sorted(topics)]
    texts += [licence.read_text(encoding="utf-8")] if licence.is_file() else []
    paragraphs = (" ".join(part.split()) for text in texts for part in text.split("\n\n"))
    return [text for text in dict.fromkeys(paragraphs) if is_prose(text, LEAST_PROSE)]


def is_prose(text: str, least: int) -> bool:
    """Whether a text has so many characters, and at least 92 % of it are letters and white space; code is not."""
    return len(text) >= least and sum(c.isalpha() or c.isspace() for c in text) >= PROSE_SHARE * len(text)
