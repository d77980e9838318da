"""The scoreboard: one battery of questions for every model of the course, and all runs side by side.

A lesson ends with

    scoreboard.base(machine, OUT)  # the untouched model, measured once
    battery = scoreboard.battery(model, tokenizer, machine)
    results.write(results.build(..., battery=battery, file_bytes=models.disk_bytes(saved)), OUT)

and then shows `board = scoreboard.read(OUT)` and `board.picture()`. What is asked is in `measuring`, the table and the
picture of all runs in `board`.
"""

from unsloth_course.scoreboard.board import LESSONS, Row, Scoreboard, page, read, show, write
from unsloth_course.scoreboard.measuring import SCORES, base, battery

__all__ = ["LESSONS", "SCORES", "Row", "Scoreboard", "base", "battery", "page", "read", "show", "write"]
