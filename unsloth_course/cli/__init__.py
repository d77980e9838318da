"""The commands, thin, and side by side: so their options can be compared, and one word means one thing everywhere.

Each imports what it needs when it runs, so that `--help` stays quick.
"""

import sys
from pathlib import Path

from unsloth_course.cli import learn, yours
from unsloth_course.cli.app import PANELS, app, complain
from unsloth_course.core.errors import CourseError

__all__ = ["PANELS", "app", "learn", "main", "yours"]


def main() -> None:
    """Entry point of `unsloth-course` and `python -m unsloth_course`: errors a learner can mend print as a sentence."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a Windows pipe may not know every character of a heading
    try:
        if not Path(".").exists():
            raise CourseError("The folder that this terminal is in has been deleted; go to another one with cd.")
        app(prog_name="unsloth-course")
    except CourseError as error:
        complain(str(error))
        sys.exit(1)
