"""What was saved is read again: adapters and whole models, sound, untrained and damaged."""

import json
import shutil

import numpy as np
import pytest
from core.test_hub import write_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from unsloth_course.commands.finetune import saved
from unsloth_course.core.errors import CourseError

NAMES = [f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_{m}.weight" for n in (0, 1) for m in "AB"]


@pytest.fixture
def folder(tmp_path):
    tensors = {name: np.full((4, 2), 0.5, dtype=np.float32) for name in NAMES}
    tensors["base_model.model.model.embed_tokens.weight"] = np.zeros((3, 2), dtype=np.float32)
    write(tmp_path, tensors)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2}))
    return tmp_path


def write(folder, tensors) -> None:
    save_file(tensors, folder / saved.ADAPTER, metadata={"format": "pt"})


def changed(folder, name, value, dtype=np.float32) -> None:
    tensors = load_file(folder / saved.ADAPTER)
    tensors[name] = np.asarray(np.full((4, 2), 0.5) * value, dtype=dtype)
    write(folder, tensors)


def test_a_trained_adapter_passes_also_with_an_a_matrix_of_zeros(folder):
    assert saved.adapter(folder) is None and saved.adapter(str(folder)) is None
    changed(folder, NAMES[0], 0)
    saved.adapter(folder)


def test_an_adapter_of_one_kind_of_number_or_another_passes(folder):
    for name in NAMES:
        changed(folder, name, 1, np.float16)
    saved.adapter(folder)
    import torch
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save_torch

    tensors = load_file(folder / saved.ADAPTER)
    save_torch({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, folder / saved.ADAPTER)
    saved.adapter(folder)


def test_a_b_matrix_of_zeros_was_never_updated(folder):
    changed(folder, NAMES[3], 0)
    with pytest.raises(CourseError, match=r"1 of 2 LoRA B matrices .*layers\.1\..*: no update reached them"):
        saved.adapter(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", [NAMES[0], "base_model.model.model.embed_tokens.weight"])
def test_a_number_that_is_none_is_named_with_its_tensor(folder, value, name):
    changed(folder, name, value)
    with pytest.raises(CourseError, match=f"{name} .*infinite or none at all.*learning rate"):
        saved.adapter(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", saved.ADAPTER])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CourseError, match=f"No adapter was saved: .*{name}"):
        saved.adapter(folder)


def test_a_folder_that_is_not_there_and_one_without_b_matrices(folder):
    with pytest.raises(CourseError, match="No adapter was saved"):
        saved.adapter(folder / "gone")
    write(folder, {"weight": np.ones(3, dtype=np.float32)})
    with pytest.raises(CourseError, match="no LoRA B matrix"):
        saved.adapter(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_damaged_settings_are_a_sentence(folder, content):
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(CourseError, match=r"adapter_config\.json is damaged"):
        saved.adapter(folder)


@given(keep=st.integers(0, 400), more=st.binary(max_size=20))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cut_weights_are_a_sentence(folder, keep, more):
    path = folder / saved.ADAPTER
    whole = path.read_bytes()
    path.write_bytes(whole[:keep] + more)
    try:
        with pytest.raises(CourseError, match="cut off or damaged"):
            saved.adapter(folder)
    finally:
        path.write_bytes(whole)


def test_a_whole_model_passes_and_prints_nothing(tmp_path, capsys):
    saved.model(write_model(tmp_path / "model"))
    assert capsys.readouterr().out == ""


def test_a_model_with_broken_weights_or_without_a_part_is_a_sentence(tmp_path):
    folder = write_model(tmp_path / "model")
    with pytest.raises(CourseError, match="No model was saved"):
        saved.model(tmp_path / "gone")
    (folder / "tokenizer.json").rename(folder / "other.json")
    with pytest.raises(CourseError, match="no tokenizer"):
        saved.model(folder)
    (folder / "other.json").rename(folder / "tokenizer.json")
    shutil.copy(folder / "model.safetensors", tmp_path / "sound")
    save_file({"model.norm.weight": np.full(16, np.nan, dtype=np.float32)}, folder / "model.safetensors")
    with pytest.raises(CourseError, match=r"model\.norm\.weight .*infinite or none"):
        saved.model(folder)


def test_packed_weights_are_no_floating_point_numbers(tmp_path):
    folder = write_model(tmp_path / "model")
    save_file({"weight": np.full(8, 255, dtype=np.uint8)}, folder / "model.safetensors")
    saved.model(folder)
