"""A base for Trainer callbacks of this package."""

from typing import Any


class Callback:
    """A TrainerCallback whose base joins when the first one is made: transformers must be imported after unsloth."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        from transformers import TrainerCallback

        return object.__new__(type(cls.__name__, (cls, TrainerCallback), {}))
