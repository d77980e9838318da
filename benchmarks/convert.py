"""How fast `data` converts rows, and how much memory that takes as the file grows. Prints JSON.

Each conversion runs in a process of its own: `python benchmarks/convert.py [--out FILE]`. Rows are made up here, 500 to
900 bytes each; `seconds` is the whole process with the start of Python, and with the report: tokens, secrets, repeats.
"""

import argparse
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FORMS = (
    "alpaca",
    "sharegpt",
    "messages",
    "prompt-completion",
    "orca",
    "anthropic",
    "preference",
    "conversation-preference",
    "instruction-preference",
    "openai-preference",
    "glaive",
    "problems",
    "question-answer",
    "text",
)
SPEED = [(form, ".jsonl", 50_000) for form in FORMS]
MEMORY = [(form, ".jsonl", 500_000) for form in ("alpaca", "glaive")]
MEMORY += [
    ("alpaca", ending, rows) for ending in (".json", ".jsonl.gz", ".csv", ".parquet") for rows in (50_000, 500_000)
]
PIECE = 10_000  # rows of a Parquet file that are made at once
MEASURED = r"""
import json, pathlib, re, resource, sys, time
from unsloth_course.commands.convert import convert
started = time.perf_counter()
report = convert.run(sys.argv[1], out=sys.argv[2])
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
if sys.platform == "linux":  # where the figure above includes the process that started this one
    peak = int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
found = {"format": report.format, "converted": report.converted, "converting_seconds": seconds, "peak_bytes": peak}
print(json.dumps(found))
"""


def row(form: str, rng: random.Random, words: list[str]) -> dict[str, Any]:
    """A row of a form, of about 500 characters."""
    asked, answer = (" ".join(rng.choices(words, k=count)) for count in (25, 45))
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    other = {"role": "assistant", "content": answer[::-1]}
    told = f"\n\nHuman: {asked}\n\nAssistant: "
    call = f'<functioncall> {{"name": "f", "arguments": \'{{"q": "{words[0]}"}}\'}} <|endoftext|>'
    chat = f"USER: {asked}\n\n\nASSISTANT: {call}\n\n\nFUNCTION RESPONSE: {{}}\n\n\nASSISTANT: {answer} <|endoftext|>"
    return {
        "alpaca": {"instruction": asked, "input": "", "output": answer},
        "sharegpt": {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]},
        "messages": {"messages": turns},
        "prompt-completion": {"prompt": asked, "completion": answer},
        "orca": {"system": "", "question": asked, "chosen": answer, "rejected": answer[::-1]},
        "anthropic": {"chosen": told + answer, "rejected": told + answer[::-1]},
        "preference": {"prompt": turns[:1], "chosen": turns[1:], "rejected": answer[::-1]},
        "conversation-preference": {"conversations": turns[:1], "chosen": turns[1], "rejected": other},
        "instruction-preference": {"instruction": asked, "input": "", "chosen": answer, "rejected": answer[::-1]},
        "openai-preference": {
            "input": {"messages": turns[:1], "tools": []},
            "preferred_output": turns[1:],
            "non_preferred_output": [other],
        },
        "glaive": {"system": "SYSTEM: You may call functions.", "chat": chat},
        "problems": {"question": asked, "answer": f"{answer}\n#### 42"},
        "question-answer": {"question": asked, "answer": answer},
        "text": {"text": f"{asked}\n{answer}"},
    }[form]


def made(form: str, rows: int) -> Iterator[dict[str, Any]]:
    """Rows of a form, always the same."""
    rng = random.Random(rows)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 11))) for _ in range(5000)]
    for _ in range(rows):
        yield row(form, rng, words)


def write(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Writes a file of the kind that its name says, without holding the rows in memory."""
    name = path.name
    if name.endswith(".parquet"):
        _write_parquet(iter(rows), path)
    elif name.endswith(".csv"):
        import csv

        with path.open("w", encoding="utf-8", newline="") as stream:
            rows = iter(rows)
            first = next(rows)
            writer = csv.DictWriter(stream, list(first))
            writer.writeheader()
            writer.writerow(first)
            writer.writerows(rows)
    else:
        import gzip

        lines = (json.dumps(row) for row in rows)
        with gzip.open(path, "wt", compresslevel=1) if name.endswith(".gz") else path.open("w") as stream:
            if name.endswith(".json"):
                stream.write("[" + next(lines))
                stream.writelines(f",\n{line}" for line in lines)
                stream.write("]\n")
            else:
                stream.writelines(f"{line}\n" for line in lines)


def _write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    pieces = iter(lambda: list(itertools.islice(rows, PIECE)), [])
    tables = (pyarrow.Table.from_pylist(piece) for piece in pieces)
    first = next(tables)
    with parquet.ParquetWriter(path, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def measured(form: str, ending: str, rows: int, folder: Path) -> dict[str, Any]:
    """One conversion: rows/s and peak memory (bytes)."""
    source = folder / f"rows{ending}"
    write(made(form, rows), source)
    started = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, str(source), str(folder / "out.jsonl")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    found = json.loads(done.stdout)
    return {
        "form": form,
        "file": ending,
        "rows": rows,
        "bytes": source.stat().st_size,
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows / seconds),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        **found,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", help="instead of what is recorded, so many rows")
    parser.add_argument("--forms", nargs="+", choices=FORMS, help="of these forms, in JSON lines")
    parser.add_argument("--part", choices=("speed", "memory"), help="only this part of what is recorded")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    wanted = {"speed": SPEED, "memory": MEMORY, None: SPEED + MEMORY}[options.part]
    if options.rows or options.forms:
        wanted = [(form, ".jsonl", rows) for form in options.forms or FORMS for rows in options.rows or [50_000]]
    with tempfile.TemporaryDirectory() as folder:
        runs = [measured(*one, Path(folder)) for one in wanted]
    found = {
        "device": f"{os.cpu_count()} CPU cores",
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("pyarrow", "tokenizers")},
        "runs": runs,
    }
    hand_over(found, options.out)


def hand_over(found: dict[str, Any], out: Path | None) -> None:
    """Prints what was measured, and writes it into a file where one is named."""
    text = json.dumps(found, indent=1)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
