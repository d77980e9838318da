"""Data sets, one file per shape: each is checked on the way in and converted to the columns that a trainer takes."""

from unsloth_course.data import corpus, files, instruction, preference, problems, sources

__all__ = ["corpus", "files", "instruction", "preference", "problems", "sources"]
