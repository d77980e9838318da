"""The teleprompter: the words scroll at a set pace, with the cell on screen beside them."""

import html
from pathlib import Path

from unsloth_course.core import markup
from unsloth_course.studio import screen, script
from unsloth_course.studio.clock import Board, Scene, stamp
from unsloth_course.studio.executed import ExecutedCopy

HERE = Path(__file__).parent / "prompter"
POLICY = f"{markup.POLICY}; script-src 'unsafe-inline'"
KEYS = "space start/stop · ↑ ↓ pace · ← → cell · + − letters · m mirror · f full screen"


def page(board: Board, run: ExecutedCopy) -> str:
    """The teleprompter as one HTML file that fetches nothing."""
    css, js = ((HERE / f"teleprompter.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    scenes = [scene for scene in board.scenes if scene.seconds > 0]
    words = "".join(_block(board, scene) for scene in scenes)
    screens = ""
    for scene in scenes:
        cell = html.escape(scene.cell.id, quote=True)
        for shown in screen.pages(scene.cell, run.outputs.get(scene.cell.id, ())):
            screens += f'<article data-cell="{cell}">{"".join(map(screen.to_html, shown))}</article>'
    body = (
        f'<body data-pace="{board.pace:g}"><div id="stage"><div id="window"><div id="mark"></div>'
        f'<div id="roll">{words}</div></div><div id="screen">{screens}</div>'
        f'<div id="bar"><span id="clock"></span><span id="pace"></span><span id="where"></span>'
        f'<span id="keys">{KEYS}</span></div></div><script>{js}</script></body>'
    )
    return markup.document(f"{board.title}: teleprompter", body, css + screen.colours(), POLICY)


def _block(board: Board, scene: Scene) -> str:
    runs = f'<p class="run">▶ {html.escape(script.running(scene, board.device))}</p>' if scene.is_felt else ""
    where = html.escape(f"{scene.segment} · {scene.section}", quote=True)
    return (
        f'<section data-cell="{html.escape(scene.cell.id, quote=True)}" data-say="{scene.speaking:.2f}" '
        f'data-rest="{scene.pausing + scene.running:.2f}" data-where="{where}">'
        f"<h2>{stamp(scene.start)} · {html.escape(scene.section)}</h2><div>{script.spoken(scene.parts)}</div>{runs}"
        f"</section>"
    )
