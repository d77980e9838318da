"""Data sets, one file per shape: each is checked on the way in and converted to the columns that a trainer takes."""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.data import (
        chat,
        corpus,
        dividing,
        files,
        function_calling,
        instruction,
        preference,
        problems,
        sources,
    )

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
