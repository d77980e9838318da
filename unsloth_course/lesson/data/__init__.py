"""Data sets, one file per shape: each is checked on the way in and converted to the columns that a trainer takes."""

from unsloth_course.lesson.data import chat, corpus, files, function_calling, instruction, preference, problems, sources

__all__ = ["chat", "corpus", "files", "function_calling", "instruction", "preference", "problems", "sources"]
