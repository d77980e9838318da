"""What was saved, read again: the proof that a training left something behind, whatever its exit code was.

On Windows a training that went well may end with exit code 1, and one that learned nothing may end with 0. Neither
counts: `adapter` and `model` open the files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unsloth_course.core import hub, model_files
from unsloth_course.core.errors import CourseError

ADAPTER = "adapter_model.safetensors"


def adapter(folder: str | Path) -> None:
    """Returns if a folder holds an adapter that was trained, with its settings.

    LoRA's B matrices begin as zeros and stay so until an update lands (Hu et al. 2021, section 4.1). Raises CourseError
    when one is all zero, when a file is missing, cut off or damaged, and when a number is infinite or none at all.
    Taught in lesson colab2 (LoRA).
    """
    folder = Path(folder)
    missing = [name for name in ("adapter_config.json", ADAPTER) if not (folder / name).is_file()]
    if missing:
        raise CourseError(
            f"No adapter was saved: {folder} lacks {' and '.join(missing)}. Look for the first error above, and train "
            "again."
        )
    model_files.read_json(folder / "adapter_config.json")
    changed = {name: bool(t.any()) for name, t in _finite_tensors(folder / ADAPTER) if ".lora_B." in name}
    if not changed:
        raise CourseError(f"{folder / ADAPTER} holds no LoRA B matrix, so it is no LoRA adapter. Train again.")
    if zero := [name for name in changed if not changed[name]]:
        raise CourseError(
            f"{len(zero)} of {len(changed)} LoRA B matrices in {folder / ADAPTER} are all zero, the first of them "
            f"{zero[0]}: no update reached them. Check the learning rate and the number of updates, and train again."
        )


def model(folder: str | Path) -> None:
    """Returns if a folder holds a whole model: config, tokenizer and complete weights, every number finite.

    Raises CourseError otherwise, as `hub.fetch_model` does for a folder. Taught in lesson colab1 (full fine-tuning).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CourseError(f"No model was saved: there is no folder {folder}. Look for the first error above.")
    hub.fetch_model(folder)
    for file in sorted(folder.glob("*.safetensors")):
        for _ in _finite_tensors(file):
            pass


def _finite_tensors(file: Path) -> Iterator[tuple[str, Any]]:
    """Names and tensors of a safetensors file, one after the other. Raises CourseError for a damaged one."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (no dict)
                tensor = opened.get_tensor(name)
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise CourseError(
                        f"{name} in {file} holds numbers that are infinite or none at all: the training broke down. "
                        "Lower the learning rate, and train again."
                    )
                yield name, tensor
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CourseError(f"{file} is cut off or damaged ({reason}). Save or train again.") from None
