"""The helper package of unsloth-course: what is not the lesson itself.

These are the rooms that a lesson stands in, and what stays stable: `from unsloth_course import data, models`. They
lie in `lesson/`; `import unsloth_course` loads none of them. The rest belongs to the command line (`commands/`), to the
videos (`studio/`), and to what all of these stand on (`pocket/`, `core/`, `setup/`).
"""

import importlib

__version__ = "0.1.0"

ROOMS = (
    "colab",
    "data",
    "diagnosis",
    "dials",
    "evaluation",
    "exercises",
    "known_warnings",
    "lowrank",
    "memory",
    "models",
    "plots",
    "profile",
    "recordings",
    "results",
    "rewards",
    "scoreboard",
    "training",
    "xray",
)


def __getattr__(name: str):
    if name in ROOMS:
        return importlib.import_module(f"{__name__}.lesson.{name}")
    raise AttributeError(f"unsloth_course has no room {name!r}; its rooms are {', '.join(ROOMS)}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *ROOMS])
