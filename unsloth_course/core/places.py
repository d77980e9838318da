"""Where the course's own files lie."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parent  # of a checkout; an installed package has none
NOTEBOOKS = REPOSITORY / "notebooks"
RECORDED = PACKAGE / "recorded"
BUNDLED_MODEL = PACKAGE / "pocket" / "base"
