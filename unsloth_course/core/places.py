"""Where the course's own files lie."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parent  # of a checkout; an installed package has none
NOTEBOOKS = REPOSITORY / "notebooks"
RECORDED = PACKAGE / "recorded"
BUNDLED_MODEL = PACKAGE / "pocket" / "base"


def existing(path: Path) -> Path:
    """A path made absolute or, where there is nothing, the nearest folder above it."""
    path = path.expanduser().absolute()
    return next(place for place in (path, *path.parents) if place.exists())
