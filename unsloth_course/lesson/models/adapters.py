"""Adapters: scaled, put back, saved, loaded."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.core.model_files import read_json
from unsloth_course.lesson.models.counting import folder
from unsloth_course.lesson.profile import POCKET, SMOLLM2


@contextmanager
def adapter_scaled(model: Any, factor: float) -> Iterator[None]:
    """The model with its adapter's contribution times `factor` inside the block: 0 is the base, 1 the trained model.

    LoRA adds (alpha / r) B A to a weight (Hu et al. 2021, section 4.1); the factor multiplies that.
    """
    layers = [module for module in model.modules() if isinstance(getattr(module, "scaling", None), dict)]
    if not layers:
        raise CourseError("This model has no LoRA adapter to scale. Call FastLanguageModel.get_peft_model first.")
    kept = [dict(layer.scaling) for layer in layers]
    try:
        for layer, scaling in zip(layers, kept, strict=True):
            layer.scaling.update({name: factor * value for name, value in scaling.items()})
        yield
    finally:
        for layer, scaling in zip(layers, kept, strict=True):
            layer.scaling.update(scaling)


def adapter_state(model: Any) -> dict[str, Any]:
    """A copy of an adapter's weights by name, to go back to with `restore_adapter`.

    What is copied is every trainable tensor, so nothing of the frozen base. Taught in lessons colab3 (DPO) and colab4
    (GRPO), which train twice from the same start.
    """
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def restore_adapter(model: Any, state: Mapping[str, Any]) -> None:
    """Puts the weights of `adapter_state` back, exactly, so that the next training starts where that copy was made."""
    import torch

    found = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            found[name].copy_(tensor)


def save_adapter(model: Any, tokenizer: Any, target: str | Path, base: str) -> Path:
    """Saves the adapter with the name of its base, so that another machine finds the base again.

    PEFT notes the folder that the base was loaded from, in the settings and in the model card: a path of this machine.
    In its place "pocket" and "smollm2" are noted by these names, which only `load_adapter` understands.
    A base that is a folder of the learner's is noted in full, so that it is found from every other folder. The copy of
    the adapter that TRL's DPOTrainer keeps as its reference ("ref") is no part of what was learned and is left out.
    Raises CourseError when the folder cannot be written.
    """
    target = Path(target)
    if base not in (POCKET, SMOLLM2) and os.path.isdir(own := os.path.expanduser(base)):
        base = os.path.realpath(own)
    learned = [name for name in model.peft_config if name != "ref"]
    try:
        target.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(str(target), selected_adapters=learned)
        tokenizer.save_pretrained(str(target))
        config, card = target / "adapter_config.json", target / "README.md"
        settings = json.loads(config.read_text(encoding="utf-8"))
        noted, settings["base_model_name_or_path"] = settings["base_model_name_or_path"], base
        config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        card.write_text(card.read_text(encoding="utf-8").replace(noted, base), encoding="utf-8")
    except OSError as error:
        raise CourseError(
            f"The adapter could not be written to {target}: {error.strerror}. Choose another folder."
        ) from None
    return target


def load_adapter(source: str | Path, *, max_length: int = 512, dtype: Any = None) -> tuple[Any, Any]:
    """Loads a saved adapter the right way: first the base that it names, then the adapter, then inference mode.

    Returns the model and its tokenizer. Raises CourseError when the folder holds no adapter or a damaged one, when it
    names no base, and when it does not fit the base that it names. Unsloth's own loader takes an adapter's folder, too,
    and does the same where the base is a folder or a Hub name; "pocket" and "smollm2" are names of this course, which
    it does not know. Taught in lesson colab2 (LoRA).
    """
    source = Path(source)
    config = source / "adapter_config.json"
    if not config.is_file() or not (source / "adapter_model.safetensors").is_file():
        raise CourseError(
            f"{source} holds no adapter: adapter_config.json and adapter_model.safetensors are needed. "
            "If it is a whole model, load it with FastLanguageModel.from_pretrained."
        )
    base = read_json(config).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CourseError(f"{config} names no base model. Set base_model_name_or_path to the model it was trained on.")

    from unsloth import FastLanguageModel  # isort: skip
    from peft import PeftModel
    from safetensors import SafetensorError

    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=folder(base), max_seq_length=max_length, dtype=dtype, load_in_4bit=False
    )
    try:
        model = PeftModel.from_pretrained(model, str(source))
    except SafetensorError:
        raise CourseError(f"The weights in {source} are cut off or damaged. Save or fetch the adapter again.") from None
    except (RuntimeError, ValueError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(" .:")
        raise CourseError(f"The adapter in {source} does not fit its base {base} ({reason}). Save it again.") from None
    FastLanguageModel.for_inference(model)
    return model, tokenizer


def disk_bytes(path: str | Path) -> int:
    """Bytes of a file, or of the weights (safetensors) in a folder."""
    path = Path(path)
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)
