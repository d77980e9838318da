"""What the pinned packages ask for, recorded, so that a session knows it before it has any of them.

`upkeep/needs.py` writes the record.
"""

import json

from unsloth_course.core import places

RECORD = places.RECORDED / "needs.json"


def recorded() -> dict[str, list[str]]:
    """Requirement lines by package, of the pinned versions."""
    return json.loads(RECORD.read_text(encoding="utf-8"))
