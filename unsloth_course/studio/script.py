"""The script as Markdown and as a page, the chapter marks, and the checklist of a recording."""

import html
import re
from collections.abc import Iterator

from nbformat import NotebookNode

from unsloth_course.core import lessons, markup
from unsloth_course.studio import screen
from unsloth_course.studio.clock import TOTAL, Board, Scene, stamp
from unsloth_course.studio.executed import ExecutedCopy
from unsloth_course.studio.notes import Part

HEAD = ("segment", "minutes", "wanted", "first at")
STYLE = """
body { font: 17px/1.5 "DejaVu Sans", "Segoe UI", Helvetica, Arial, sans-serif; max-width: 1500px; margin: 2em auto;
  padding: 0 1em; color: #1b1b1b; background: #fff; }
.scene { display: grid; grid-template-columns: 5em minmax(0, 1fr) minmax(0, 1fr); gap: 1.5em; padding: 1em 0;
  border-top: 1px solid #ccc; }
.clock { font: bold 17px "DejaVu Sans Mono", Consolas, Menlo, monospace; }
.shown { font-size: 13px; overflow-x: auto; } .shown h1, .shown h2 { font-size: 18px; }
.shown pre { background: #f4f4f2; padding: 8px; } .anchor-link { display: none; }
.pause, .point { padding: 0 0.4em; border-radius: 0.25em; font-size: 0.85em; font-weight: bold; }
.pause { background: #f2dca6; } .point { background: #cfe2f7; } .run { color: #236b23; }
"""


def markdown(board: Board, run: ExecutedCopy) -> str:
    """The script to read or print: what is on screen, what is said, with the running clock."""
    lines = [f"# {_plain(board.title)}: the script", "", *(f"- {line}" for line in _summary(board, run)), ""]
    table = [HEAD, ["---"] * len(HEAD), *_segments(board)]
    lines += [f"| {' | '.join(cells)} |" for cells in table]
    section = ""
    for scene in board.scenes:
        if scene.section != section:
            section = scene.section
            length = next(stretch.minutes for stretch in board.sections if stretch.name == section)
            lines += ["", f"## {stamp(scene.start)} {_plain(section)} ({length:.1f} min)"]
        if scene.parts or scene.is_felt:
            lines += ["", f"**{stamp(scene.start)}** · {scene.segment} · on screen: {_on_screen(scene.cell)}", ""]
            lines += ["".join(map(_marked, scene.parts)).strip()] if scene.parts else []
            lines += ["", f"*{running(scene, board.device)}*"] if scene.is_felt else []
    return "\n".join([*lines, "", f"**{stamp(board.seconds)}** end", ""])


def page(board: Board, run: ExecutedCopy) -> str:
    """The same as a page: clock, screen and words side by side. It fetches nothing and runs no script."""
    title = f"{board.title}: the script"
    segments = markup.table(_segments(board), HEAD)
    end = f"<p class='clock'>{stamp(board.seconds)} end</p>"
    body = f"<h1>{html.escape(title)}</h1>{markup.points(_summary(board, run))}{segments}{''.join(_rows(board))}{end}"
    return markup.document(title, f"<body>{body}</body>", STYLE + screen.colours())


def chapters(board: Board) -> str:
    """Chapter marks in the form that video sites take: a time and a title on each line, the first at 00:00."""
    return "".join(f"{stamp(start)} {title}\n" for start, title in board.chapters)


def spoken(parts: tuple[Part, ...]) -> str:
    """Notes as HTML; pauses and pointings are set apart from what is spoken."""
    said = []
    for part in parts:
        if part.kind == "say":
            said.append(html.escape(part.text).replace("\n\n", "<br><br>").replace("\n", " "))
        else:
            said.append(f'<b class="{part.kind}">[{html.escape(mark(part))}]</b>')
    return " ".join(said)


def mark(part: Part) -> str:
    """A pause or a pointing in words."""
    return f"pause {part.text}" if part.kind == "pause" else f"point: {part.text}"


def running(scene: Scene, device: str) -> str:
    """How long the cell runs and how much of that the take shows, as a sentence without its stop."""
    if not scene.replayed:
        return f"runs {scene.running:.1f} s"
    return f"replay: it ran {scene.measured:.0f} s on {device}; {scene.running:g} s of that are in the take"


def checklist(board: Board) -> str:
    """What has to be there and right, before, during and after the recording of this lesson."""
    replayed = sum(scene.replayed for scene in board.scenes)
    segments = "\n".join(
        f"- [ ] {first} **{name}**, {minutes} min planned ({wanted}): {SHOWN.get(name, '')}"
        for name, minutes, wanted, first in _segments(board)
    )
    return f"""\
# {_plain(board.title)}: recording checklist

## Before the take

- [ ] `python -m unsloth_course run {board.lesson} --profile {board.profile} --out results` ended with the \
verdict `trained`, from the first cell to the last, without an error
- [ ] `python -m unsloth_course doctor` finds nothing
- [ ] `storyboard {board.lesson} --profile {board.profile} --run results` was made from that run, so that what is \
replayed is what this machine did
- [ ] the recording copy is open, its first cell says what is replayed ({replayed} cells run longer than a take shows)
- [ ] screen at 1920 x 1080, notifications off, letters large enough to read on a phone
- [ ] the teleprompter is on a second screen at your own pace (keys: up and down); one minute read aloud
- [ ] sound: ten seconds recorded and listened to

## In the take: the six segments

{segments}

## What the viewer must have seen

- [ ] the installation, the model, the data and every argument of the training, explained
- [ ] a row of the data, its form, and what the model gets to see of it
- [ ] the training from its first step to its last, or its replay, labelled so on screen
- [ ] the curve, and answers of the model before and after
- [ ] what did not get better, and what a failed run looks like

## Afterwards

- [ ] {TOTAL[0]} to {TOTAL[1]} minutes long ({board.minutes:.0f} planned)
- [ ] watched once from beginning to end: every sentence is true of what the screen shows
- [ ] chapter marks from `chapters.txt` pasted into the description, and moved to where the take has them
- [ ] no password, token, name or path of yours on screen
- [ ] published together: the video and `{lessons.LESSONS[board.lesson]}`
"""


SHOWN = {
    "introduction": "what the method is, where it is used, what will be shown",
    "code walkthrough": "every cell run, every setting named with its reason, saved and reloaded",
    "deep dive": "how the method works inside, with the dial moved",
    "data format": "real rows, what the form demands, how they are converted",
    "results": "scores before and after, the curve, answers to several questions, limits",
    "best practices": "what to turn first, what goes wrong, what to do next",
}


def _summary(board: Board, run: ExecutedCopy) -> list[str]:
    said = sum(scene.speaking for scene in board.scenes)
    paused = sum(scene.pausing for scene in board.scenes)
    ran = sum(scene.running for scene in board.scenes)
    full = sum(scene.measured or 0 for scene in board.scenes)
    lines = [
        f"{board.minutes:.1f} minutes: {said / 60:.1f} of speech at {board.pace:g} words a minute, {paused / 60:.1f} "
        f"of pauses, {ran / 60:.1f} of running cells",
        f"{board.profile} profile; running times were recorded on {board.device or 'no machine yet'}: {full:.0f} s "
        f"in all, of which {ran:.0f} s are in the take",
        f"outputs and replays: {run.label or 'none; this profile has no run to show, make one and name it with --run'}",
    ]
    if board.unmeasured:
        lines.append(f"not measured, counted as nothing: {', '.join(board.unmeasured)}")
    return lines


def _segments(board: Board) -> list[tuple[str, str, str, str]]:
    return [(one.name, f"{one.minutes:.1f}", one.wanted, stamp(one.start)) for one in board.segments]


def _rows(board: Board) -> Iterator[str]:
    section = ""
    for scene in board.scenes:
        if scene.section != section:
            section = scene.section
            yield f"<h2>{stamp(scene.start)} {html.escape(section)}</h2>"
        if scene.parts or scene.is_felt:
            runs = f'<p class="run">{html.escape(running(scene, board.device))}</p>' if scene.is_felt else ""
            shown = "".join(screen.to_html(page[0]) for page in screen.pages(scene.cell, ()))
            yield (
                f'<div class="scene"><div class="clock">{stamp(scene.start)}</div><div class="shown">{shown}</div>'
                f"<div><p>{spoken(scene.parts)}</p>{runs}</div></div>"
            )


def _on_screen(cell: NotebookNode) -> str:
    if cell.cell_type == "code":
        lines = [line for line in cell.source.splitlines() if line.strip()] or [""]
        return f"`{lines[0].strip()}`" + (f" and {len(lines) - 1} more lines" if len(lines) > 1 else "")
    titles = [text for _, text in lessons.cell_headings(cell)]
    return _plain(titles[0] if titles else " ".join(cell.source.split())[:60] + " ...")


def _marked(part: Part) -> str:
    return f"{_plain(part.text)} " if part.kind == "say" else f"**\\[{_plain(mark(part))}\\]** "


def _plain(text: str) -> str:
    """Text in which Markdown sees no marks."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", text)
