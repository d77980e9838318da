"""The scoreboard: one battery of questions for every model of the course, and all runs side by side.

A lesson ends with

    scoreboard.base(machine, OUT)  # the untouched model, measured once
    battery = scoreboard.battery(model, tokenizer, machine)
    results.write(results.build(..., battery=battery, file_bytes=models.disk_bytes(saved)), OUT)

and then shows `board = scoreboard.read(OUT)` and `board.picture()`. What is asked is in `measuring`, how results files
are checked and compared in `reading`, how they are shown in `board`.
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.scoreboard.board import LESSONS, Scoreboard, page, write
    from unsloth_course.lesson.scoreboard.measuring import SCORES, base, battery
    from unsloth_course.lesson.scoreboard.reading import read

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
