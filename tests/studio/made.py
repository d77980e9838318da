"""A small lesson to time, show and record, with what the real ones have and traps that they do not have."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from unsloth_course.core import lessons
from unsloth_course.studio import clock

PNG = (  # one black pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
SECONDS = {"device": "a made machine", "date": "2026-11-21", "cells": {"quick": 2.0, "long": 60.0}}


def course(segment, notes="", **more):
    return {"course": {"segment": segment, **({"notes": notes} if notes else {}), **more}}


def lesson(notes="one two three"):
    cells = [
        new_markdown_cell("# A made lesson\n\nWords.", id="title", metadata=course("introduction", "word " * 140)),
        new_markdown_cell("## 1 · First\n\nMore words.", id="first", metadata=course("code walkthrough", notes)),
        new_code_cell("x = 1\nx", id="quick", metadata=course("code walkthrough", "say [pause 5 s] more")),
        new_code_cell("%pip install y", id="install", metadata={"tags": ["skip-execution"]}),
        new_markdown_cell("## 2 · Second", id="second", metadata=course("results", "word " * 70)),
        new_code_cell("train()", id="long", metadata=course("results", "look [point: the <b>bar</b>]", picture="p")),
    ]
    cells[2].outputs = [new_output("execute_result", {"text/plain": "1"}, execution_count=1)]
    cells[5].outputs = [
        new_output("stream", name="stdout", text="trained\n"),
        new_output("display_data", {"image/png": PNG, "text/plain": "<Figure>"}),
        new_output("display_data", {"text/html": "<script>alert(1)</script><p onclick='x()'>kept</p>"}),
    ]
    return new_notebook(cells=cells)


def board_of(name, profile="cpu", pace=clock.PACE):
    """The storyboard of a real lesson."""
    return clock.board(name, nbformat.read(lessons.notebook_path(name), 4), profile, pace)
