"""What a folder or a list of files must hold to be a model that the course can load."""

import json
from collections.abc import Iterable
from pathlib import Path

from unsloth_course.core.errors import CourseError

TABLES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".csv", ".parquet")

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def listed(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_names(names: set[str], name: str, kind: str) -> None:
    """Refuse from the Hub's list of files, before anything is downloaded."""
    if kind == "model":
        check_model_names({file for file in names if "/" not in file}, name)
    elif not any(file.endswith(TABLES) for file in names):
        scripts = " It names a Python script, and scripts are not run." if any(n.endswith(".py") for n in names) else ""
        raise CourseError(f"{name} holds no JSON, CSV or parquet file.{scripts} Choose a copy of it in parquet.")


def check_model_names(names: set[str], where: str, base: str = "the model that its adapter_config.json names") -> None:
    if "adapter_config.json" in names:
        raise CourseError(
            f"{where} is an adapter, not a whole model. Load the base first ({base}), then put the adapter on it."
        )
    if "config.json" not in names:
        raise CourseError(f"{where} holds no config.json, so it is not a model: {listed(names) or 'it is empty'}.")
    if not any(name.endswith(".safetensors") for name in names):
        pickles = listed(name for name in names if name.endswith(PICKLE_SUFFIXES))
        found = (
            f"only pickle weights ({pickles}), which can run code while they are loaded" if pickles else "no weights"
        )
        raise CourseError(f"{where} holds {found}. Choose a copy that has *.safetensors.")
    if not names.intersection(TOKENIZER_FILES):
        raise CourseError(f"{where} holds no tokenizer: save it there too, with tokenizer.save_pretrained(folder).")


def in_run(folder: Path) -> Path:
    """The adapter or model in the folder of a `finetune` run; any other folder as it is."""
    if any((folder / name).is_file() for name in ("adapter_config.json", "config.json")):
        return folder
    return next((folder / name for name in ("adapter", "model") if (folder / name).is_dir()), folder)


def base_model(folder: Path) -> str:
    adapter = folder / "adapter_config.json"
    base = read_json(adapter).get("base_model_name_or_path") if adapter.is_file() else None
    return str(base or "the model that its adapter_config.json names")


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CourseError(f"{path} is damaged: it does not hold a JSON object. Fetch or save the model again.")
    return content


def check_weights(folder: Path) -> None:
    """Refuse shards that are absent, and files that `check_safetensors` refuses."""
    read_json(folder / "config.json")
    index = folder / "model.safetensors.index.json"
    shards = read_json(index).get("weight_map", {}) if index.is_file() else {}
    if not isinstance(shards, dict):
        raise CourseError(f"{index} is damaged: weight_map is not a JSON object. Fetch or save the model again.")
    missing = {str(shard) for shard in shards.values() if not (folder / str(shard)).is_file()}
    if missing:
        raise CourseError(f"The weights in {folder} are incomplete: {listed(missing)} is missing. Fetch them again.")
    check_safetensors(folder)


def check_safetensors(folder: Path) -> None:
    """Refuse files that are shorter or longer than their own header says."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np"):  # it holds the header against the file's length
                pass
        except (SafetensorError, OSError):
            raise CourseError(f"{path} is cut off or damaged: delete it, and fetch or save the model again.") from None
