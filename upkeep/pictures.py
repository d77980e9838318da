"""Makes the README's pictures that a browser draws: an answer before and after, and the X-ray of the LoRA lesson.

    python upkeep/pictures.py [--chromium PROGRAM]

A picture's own text `source` holds the SHA-256 of what it shows; a test compares it, so that the picture cannot be that
of another run.
"""

import argparse
import hashlib
import html
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from unsloth_course.commands import runner  # noqa: E402 -- found only now
from unsloth_course.core import lessons  # noqa: E402 -- found only now

RECORD = REPOSITORY / "benchmarks" / "recorded" / "grpo-gpu-smollm2-seed3407.json"
HEIGHT = 1200
PAGE = """<!doctype html><meta charset="utf-8"><body style="margin:12px;background:white;color:black;
font-family:sans-serif;font-size:{size}px">{shown}</body>"""
ANSWER = """<p style="margin:4px 0 14px"><b>Question, never seen in training:</b> {prompt}</p>
<table style="width:100%;border-collapse:collapse"><tr>{cells}</tr></table>
<p style="margin:14px 0 4px">{measured}</p>"""
CELL = """<td style="width:50%;vertical-align:top;padding:10px 14px;border:1px solid #bbb;background:{colour}">
<b>{title}</b><pre style="font-size:22px;margin:8px 0 2px">{text}</pre></td>"""


def before_after() -> str:
    """The first problem that the recorded run of the GRPO lesson on the real model solved only afterwards, as HTML."""
    run = json.loads(RECORD.read_text(encoding="utf-8"))
    sample = next(one for one in run["samples"] if one["kind"] == "newly right")
    scored, (low, high) = run["evaluation"], (100 * end for end in run["evaluation"]["interval"])
    texts = (("before GRPO", "#fff1ec", sample["before"]), ("after", "#edf7ed", sample["after"]))
    share = " shared with other runs" if run.get("beside", 1) > 1 else ""
    measured = (
        f"SmolLM2-135M-Instruct, GRPO lesson: {100 * scored['before']:.3g} % of {scored['n']} unseen problems solved "
        f"before, {100 * scored['after']:.3g} % after (95 % interval of the difference +{low:.0f} to +{high:.0f} "
        f"points); {run['training']['seconds']:.0f} s of training on one {run['device'].partition(',')[0]}{share}."
    )
    cells = [CELL.format(title=title, colour=colour, text=html.escape(text)) for title, colour, text in texts]
    return ANSWER.format(prompt=html.escape(sample["prompt"]), cells="".join(cells), measured=measured)


def stored() -> str:
    """The HTML of the X-ray in the stored notebook."""
    import nbformat

    for cell in nbformat.read(lessons.notebook_path("lora"), as_version=4).cells:
        if cell.cell_type == "code" and cell.source.startswith("xray.look("):
            return next(out.data["text/html"] for out in cell.outputs if "text/html" in out.get("data", {}))
    raise SystemExit("The LoRA lesson has no cell that begins with xray.look(.")


PICTURES = {  # file: what it shows, its width and the size of its letters in pixels
    "before-after.png": (before_after, 620, 20),
    "lora-xray.png": (stored, 900, 14),
}


def fingerprint(shown: str) -> str:
    """What the picture keeps of the HTML that it shows."""
    return hashlib.sha256(shown.encode()).hexdigest()


def draw(shown: str, width: int, size: int, chromium: str, target: Path) -> None:
    """A screenshot of the HTML, cut to what is drawn, with its fingerprint."""
    from PIL import Image, ImageChops, PngImagePlugin

    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        page.write_text(PAGE.format(shown=shown, size=size), encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={shot}"]
        command += ["--disable-background-networking", f"--user-data-dir={folder}/profile"]
        command += [f"--window-size={width},{HEIGHT}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        picture = Image.open(shot).convert("RGB")
        drawn = ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox()
        said = PngImagePlugin.PngInfo()
        said.add_text("source", fingerprint(shown))
        margin = 10
        picture.crop((0, 0, width, min(HEIGHT, drawn[3] + margin))).save(target, optimize=True, pnginfo=said)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default=shutil.which("chromium") or "google-chrome")
    chromium = parser.parse_args().chromium
    for name, (shown, width, size) in PICTURES.items():
        draw(shown(), width, size, chromium, runner.PICTURES / name)
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
