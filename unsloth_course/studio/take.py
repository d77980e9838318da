"""In the kernel of a recording copy: cells show what they showed in the recorded run, and say so.

`begin(True)` puts itself between the notebook and IPython. From then on a cell that the recorded run knows is not
executed: a label says that this is a replay, of which machine and how long it took there, and then its outputs appear.
A cell that was changed, or that the run does not know, is executed as always. `begin(False)` executes everything.

Where the whole lesson has run for real in this kernel, the cells with a dial or an exercise are live also in a replay,
unless they take long: the names that they need are there.
"""

import html
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.studio.clock import REPLAY_SECONDS
from unsloth_course.studio.recording_copy import TAKE

LIVE = re.compile(r"\b(dials|exercises)\.")
LETTERS = "<style>:root { --jp-code-font-size: 20px; --jp-content-font-size1: 20px; --jp-ui-font-size1: 16px; }</style>"


@dataclass
class Take:
    """The state of a take: what the file of a recorded run holds, and which cells have run for real in this kernel."""

    recorded: Mapping[str, Any]
    replaying: bool = False
    ran: set[str] = field(default_factory=set)

    @property
    def cells(self) -> dict[str, Any]:
        return self.recorded.get("cells", {})

    def transform(self, lines: list[str]) -> list[str]:
        """IPython's hook: the lines of a cell in, what is executed in their place out."""
        source = "".join(lines).strip()
        id = next((id for id, cell in self.cells.items() if cell["source"].strip() == source), None)
        if id is None:
            return lines
        if not self.replaying or self.is_live(id):
            self.ran.add(id)
            return lines
        return [f"__import__('unsloth_course.studio.take', fromlist=['_'])._now.play({id!r})\n"]

    def is_live(self, id: str) -> bool:
        """Whether the cell runs for real in a replay, too."""
        cell, rehearsed = self.cells[id], self.ran >= self.cells.keys()
        return rehearsed and bool(LIVE.search(cell["source"])) and cell["seconds"] <= REPLAY_SECONDS

    def play(self, id: str) -> None:
        """Shows the label, waits as long as the cell took but not longer than a take shows, and shows the outputs."""
        from IPython.display import display

        cell = self.cells[id]
        shortened = cell["seconds"] > REPLAY_SECONDS
        said = ["Replay of the recorded run", *(str(self.recorded.get(name, "")) for name in ("device", "date"))]
        if shortened:
            said.append(f"this cell took {cell['seconds']:.0f} s, shown after {REPLAY_SECONDS:g}")
        elif cell["seconds"] >= 0.5:
            said.append(f"this cell took {cell['seconds']:.1f} s")
        label = " · ".join(filter(None, said))
        size = "padding:10px 16px;font-size:20px;font-weight:bold" if shortened else "padding:2px 10px;font-size:14px"
        banner = f'<div style="background:#f2dca6;color:#1b1b1b;{size}">{html.escape(label)}</div>'
        display({"text/html": banner, "text/plain": f"[{label}]"}, raw=True)
        time.sleep(min(cell["seconds"], REPLAY_SECONDS))
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                print(output["text"], end="")
            elif "data" in output:
                display(output["data"], metadata=output.get("metadata") or {}, raw=True)


_now: Take | None = None


def begin(replay: bool, file: str | Path = TAKE) -> None:
    """Starts or ends replaying in this kernel, and enlarges the letters. Call it again to switch.

    file: what `storyboard` wrote beside the copy. Raises CourseError outside a notebook, and where the file is missing
    although replays are wanted.
    """
    global _now
    from IPython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    if shell is None:
        raise CourseError("A take runs in a notebook; open the recording copy in JupyterLab.")
    if _now is None:
        _now = Take({})
        shell.input_transformers_cleanup.append(_now.transform)
    if replay or Path(file).is_file():  # without replays, too, it is noted which cells have run for real
        _now.recorded = _read(Path(file))
    _now.replaying = replay
    said = f"Replays are on: {len(_now.cells)} cells show the recorded run." if replay else "Everything runs for real."
    display({"text/html": f"{LETTERS}<p>{said}</p>", "text/plain": said}, raw=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(
            f"{path.name} is not beside this notebook or cannot be read ({type(error).__name__}); `storyboard` writes "
            "it together with the copy. Without the file, set REPLAY = False."
        ) from None
