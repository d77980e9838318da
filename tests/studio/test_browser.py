"""Slides and teleprompter in Chromium at 1920 x 1080: nothing is cut, nothing sticks out, all is large enough."""

import html
import json
import re
import subprocess
from pathlib import Path

import pytest

from unsloth_course.studio import clock, deck, executed

from . import made

# Each page stands in a frame of exactly this size: a window's size would count its borders.
WIDE, HIGH = 1920, 1080
SMALLEST = {"slides": 0.75, "teleprompter": 0.5}  # of the intended size of letters
OUTSIDE = """
function outside(root, which, [left, top, right, bottom]) {
  const faults = [];
  for (const element of root.querySelectorAll(which)) {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    if (box.left < left - 1 || box.top < top - 1 || box.right > right + 1 || box.bottom > bottom + 1)
      faults.push(`${element.tagName} at ${[box.left, box.top, box.right, box.bottom].map(Math.round)}`);
    const style = getComputedStyle(element);
    if (style.overflowX !== "visible" && element.scrollWidth > element.clientWidth + 1)
      faults.push(`${element.tagName} is cut at its right`);
    if (style.overflowY !== "visible" && element.scrollHeight > element.clientHeight + 1)
      faults.push(`${element.tagName} is cut at its foot`);
  }
  return faults.slice(0, 5);
}
"""
REPORT = """
measured().catch((error) => [{ of: "script", fit: 0, faults: [String(error)] }]).then((found) =>
  parent.postMessage({ name: NAME, size: [innerWidth, innerHeight], found }, "*"));
"""
LISTEN = """
const said = document.createElement("pre"), all = {};
said.id = "measured";
document.body.append(said);
onmessage = (event) => { all[event.data.name] = event.data; said.textContent = JSON.stringify(all); };
"""


def measure(chromium: str, pages: list[Path], folder: Path) -> dict[str, dict]:
    """What each page's measuring script says of the page, by the page's name."""
    frames = ""
    for page in pages:
        script = (Path(__file__).parent / f"measure_{page.stem}.js").read_text(encoding="utf-8")
        script = OUTSIDE + script + REPORT.replace("NAME", json.dumps(page.stem))
        inside = folder / f"measured-{page.name}"
        text = f"<script>{script}</script></html>".join(page.read_text(encoding="utf-8").rsplit("</html>", 1))
        inside.write_text(text, encoding="utf-8")
        frames += f'<iframe src="{inside.as_uri()}" width="{WIDE}" height="{HIGH}" style="border:0"></iframe>'
    outer = folder / "frames.html"
    outer.write_text(f"<!DOCTYPE html><body><script>{LISTEN}</script>{frames}</body>", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=120000", "--dump-dom"]
    ended = subprocess.run(
        [chromium, *options, outer.as_uri()],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
    )
    said = re.search(r'<pre id="measured">(.*?)</pre>', ended.stdout, re.DOTALL)
    assert said and said[1], f"Nothing was measured: {ended.stderr[-400:]}"
    return json.loads(html.unescape(said[1]))


@pytest.mark.browser
def test_nothing_overflows(written, chromium, tmp_path):
    measured = measure(chromium, [written / f"{name}.html" for name in SMALLEST], tmp_path)
    for name, smallest in SMALLEST.items():
        said = measured[name]
        assert said["size"] == [WIDE, HIGH] and len(said["found"]) > 40
        assert [part for part in said["found"] if part["faults"]] == [], name
        assert [part for part in said["found"] if part["fit"] < smallest] == [], name
    (seconds,) = [part["seconds"] for part in measured["teleprompter"]["found"] if part["of"] == "keys"]
    assert seconds == pytest.approx(made.board_of(written.name).seconds, abs=1)


@pytest.mark.browser
def test_a_page_that_is_cut_is_noticed(tmp_path, chromium):
    board = clock.board("lora", made.lesson(), seconds=made.SECONDS)
    text = deck.page(board, executed.ExecutedCopy()).replace("inner.style.zoom = scale;", "")
    style = "<style>.reveal pre { margin-top: 900px !important; width: 2500px !important }</style></html>"
    (tmp_path / "slides.html").write_text(style.join(text.rsplit("</html>", 1)), encoding="utf-8")
    found = measure(chromium, [tmp_path / "slides.html"], tmp_path)["slides"]["found"]
    assert any(part["faults"] for part in found)
