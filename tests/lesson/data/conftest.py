"""The pocket model's own tokenizer, loaded once."""

import pytest

from unsloth_course import models


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(models.folder("pocket"))
