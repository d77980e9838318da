"""The helper package of unsloth-course: what is not the lesson itself.

Each module is one room, named after what lives there; `import unsloth_course` loads none of them. A notebook writes
`from unsloth_course import profile, plots` or `import unsloth_course as course; course.plots.loss(...)`.
"""

import importlib

__version__ = "0.1.0"

ROOMS = (
    "colab",
    "data",
    "diagnosis",
    "dials",
    "doctor",
    "evaluation",
    "exercises",
    "export",
    "finetune",
    "frontend",
    "hub",
    "known_warnings",
    "lowrank",
    "memory",
    "models",
    "plots",
    "pocket",
    "processes",
    "profile",
    "recording",
    "recordings",
    "results",
    "rewards",
    "saved",
    "scoreboard",
    "training",
    "xray",
)


def __getattr__(name: str):
    if name in ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"unsloth_course has no room {name!r}; its rooms are {', '.join(ROOMS)}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *ROOMS])
