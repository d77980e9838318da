"""Data sets, one file per shape: each is checked on the way in and converted to the columns that a trainer takes."""

from unsloth_course.data import files, instruction, problems, sources

__all__ = ["files", "instruction", "problems", "sources"]
