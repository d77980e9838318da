"""How fast `data` converts rows, and how much memory that takes as the file grows. Prints JSON.

Each conversion runs in a process of its own: `python benchmarks/convert.py [--rows 50000 500000] [--out FILE]`.
Rows are made up here, about 500 bytes each; `seconds` is the whole process with the start of Python.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FORMS = ("alpaca", "sharegpt", "glaive", "orca")
MEASURED = """
import json, resource, sys, time
from unsloth_course.data import convert
started = time.perf_counter()
report = convert.run(sys.argv[1], out=sys.argv[2])
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"converted": report.converted, "converting_seconds": seconds, "peak_bytes": peak}))
"""


def row(form: str, rng: random.Random, words: list[str]) -> dict[str, Any]:
    """A row of a form, of about 500 characters."""
    asked, answer = (" ".join(rng.choices(words, k=count)) for count in (25, 45))
    if form == "alpaca":
        return {"instruction": asked, "input": "", "output": answer}
    if form == "sharegpt":
        return {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]}
    if form == "orca":
        return {"system": "", "question": asked, "chosen": answer, "rejected": answer[::-1]}
    call = f'<functioncall> {{"name": "f", "arguments": \'{{"q": "{words[0]}"}}\'}} <|endoftext|>'
    chat = f"USER: {asked}\n\n\nASSISTANT: {call}\n\n\nFUNCTION RESPONSE: {{}}\n\n\nASSISTANT: {answer} <|endoftext|>"
    return {"system": "SYSTEM: You may call functions.", "chat": chat}


def measured(form: str, rows: int, folder: Path) -> dict[str, Any]:
    """One conversion: rows/s and peak memory (bytes)."""
    rng = random.Random(rows)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 11))) for _ in range(5000)]
    source = folder / "rows.jsonl"
    with source.open("w", encoding="utf-8") as stream:
        for _ in range(rows):
            stream.write(json.dumps(row(form, rng, words)) + "\n")
    started = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, str(source), str(folder / "out.jsonl")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    found = json.loads(done.stdout)
    return {
        "form": form,
        "rows": rows,
        "bytes": source.stat().st_size,
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows / seconds),
        **found,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 500_000])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["alpaca"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [measured(form, rows, Path(folder)) for form in options.forms for rows in options.rows]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    found = {"python": platform.python_version(), "cores": os.cpu_count(), "load": load, "runs": runs}
    text = json.dumps(found, indent=1)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
