"""Makes `docs/pictures/lora-xray.png`: the stored output of the LoRA lesson's X-ray cell, as a browser draws it.

    python upkeep/xray_picture.py [--chromium PROGRAM]

The picture's own text `source` holds the SHA-256 of that output; a test compares it, so that the picture cannot be that
of another run.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from unsloth_course.commands import runner  # noqa: E402 -- found only now
from unsloth_course.core import lessons  # noqa: E402 -- found only now

PICTURE = runner.PICTURES / "lora-xray.png"
WIDTH, HEIGHT = 900, 1200
PAGE = """<!doctype html><meta charset="utf-8"><body style="margin:12px;background:white;color:black;
font-family:sans-serif;font-size:14px">{}</body>"""


def stored() -> str:
    """The HTML of the X-ray in the stored notebook."""
    import nbformat

    for cell in nbformat.read(lessons.notebook_path("lora"), as_version=4).cells:
        if cell.cell_type == "code" and cell.source.startswith("xray.look("):
            return next(out.data["text/html"] for out in cell.outputs if "text/html" in out.get("data", {}))
    raise SystemExit("The LoRA lesson has no cell that begins with xray.look(.")


def fingerprint(html: str) -> str:
    """What the picture keeps of the output that it shows."""
    return hashlib.sha256(html.encode()).hexdigest()


def draw(html: str, chromium: str, target: Path) -> None:
    """A screenshot of the output, cut to what is drawn, with its fingerprint."""
    from PIL import Image, ImageChops, PngImagePlugin

    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        page.write_text(PAGE.format(html), encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={shot}"]
        command += ["--disable-background-networking", f"--user-data-dir={folder}/profile"]
        command += [f"--window-size={WIDTH},{HEIGHT}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        picture = Image.open(shot).convert("RGB")
        drawn = ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox()
        said = PngImagePlugin.PngInfo()
        said.add_text("source", fingerprint(html))
        margin = 10
        picture.crop((0, 0, WIDTH, min(HEIGHT, drawn[3] + margin))).save(target, optimize=True, pnginfo=said)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default=shutil.which("chromium") or "google-chrome")
    draw(stored(), parser.parse_args().chromium, PICTURE)
    print(PICTURE.relative_to(REPOSITORY))
    return 0


if __name__ == "__main__":
    sys.exit(main())
