"""Asks every address that the Markdown pages and notebooks name whether it still answers.

    python upkeep/links.py [--list]

Standard library only. An address that answers with 404 or 410, or whose host is not known, is dead, and the exit
status is then 1. What refuses a program (403, 429, 5xx) or is slow is named and not counted. Addresses of the course's
own placeholder repository, and of this machine, are left out. `--list` prints the addresses and asks none.
"""

import argparse
import json
import re
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r"https?://[^\s<>\"'`\\|)\]}]+")
DEAD = (404, 410)


def texts(root: Path) -> Iterator[tuple[Path, str]]:
    """Every page of the repository, and the Markdown cells of every notebook."""
    for folder in (".", "docs", "benchmarks", "upkeep", "unsloth_course/pocket"):
        yield from ((path, path.read_text(encoding="utf-8")) for path in sorted((root / folder).glob("*.md")))
    for path in sorted((root / "notebooks").rglob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path, "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def addresses(root: Path) -> dict[str, list[str]]:
    """Addresses, each with the pages that name it."""
    own = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["unsloth-course"]["repository"]
    found: dict[str, list[str]] = {}
    for path, text in texts(root):
        for address in ADDRESS.findall(text):
            address = address.rstrip(".,;:*")
            if own not in address and not re.match(r"https?://(localhost|127\.)", address):
                pages = found.setdefault(address, [])
                pages += [str(path.relative_to(root))] if str(path.relative_to(root)) not in pages else []
    return found


def ask(address: str) -> str:
    """ "" when an address answers, "dead: ..." when it is gone, else why nothing can be said."""
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with urllib.request.urlopen(request, timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return f"dead: {error.code}" if error.code in DEAD else f"answers {error.code}"
    except urllib.error.URLError as error:
        unknown = "not known" in str(error.reason) or "getaddrinfo" in str(error.reason)
        return f"dead: {error.reason}" if unknown else str(error.reason)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the addresses and ask none")
    found = addresses(ROOT)
    if parser.parse_args().list:
        print("\n".join(sorted(found)))
        return 0
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(found, pool.map(ask, found), strict=True))
    for address, said in sorted(answers.items()):
        if said:
            print(f"{address}  {said}  ({', '.join(found[address])})")
    dead = sum(said.startswith("dead") for said in answers.values())
    print(f"{len(found)} addresses, {dead} dead")
    return int(dead > 0)


if __name__ == "__main__":
    sys.exit(main())
