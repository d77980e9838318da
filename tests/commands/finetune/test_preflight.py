"""What is said before anything is downloaded, against the small local Hub of `hub_server.py`."""

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from core.test_hub import downloads, write_model
from hub_server import HubServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unsloth_course import profile
from unsloth_course.commands.finetune import Options, preflight
from unsloth_course.commands.finetune.preflight import sizes
from unsloth_course.commands.finetune.recipes import Recipe
from unsloth_course.core import hub
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import BUNDLED_MODEL

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKED = "unsloth/SmolLM2-135M-Instruct-bnb-4bit"
DATASET = "yahma/alpaca-cleaned"
GIB = 1024**3
Usage = namedtuple("Usage", "total used free")


def cpu(memory_bytes: int = 8 * GIB, **asked: str) -> profile.Profile:
    """A machine with two cores and so much memory."""
    facts = profile.Machine(None, 0, False, 2, memory_bytes, False)
    return profile.decide(facts, **({"model": MODEL} | asked))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_model(tmp_path / "repository")


@pytest.fixture
def packed(tmp_path: Path, repository: Path) -> Path:
    """The same model, as if it were in 4 bits: its weights a quarter as large."""
    folder = tmp_path / "packed"
    shutil.copytree(repository, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 4])
    return folder


@pytest.fixture
def server(hub_here: HubServer, tmp_path: Path, repository: Path, packed: Path, monkeypatch: pytest.MonkeyPatch):
    """A running Hub with a model in both forms and a data set, and a disk with much room."""
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "alpaca.json").write_text(json.dumps([{"instruction": "a", "input": "", "output": "b"}] * 20))
    hub_here.add_model(MODEL, repository)
    hub_here.add_model(PACKED, packed)
    hub_here.add_dataset(DATASET, rows)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**12, 0, 10**12))
    return hub_here


def look(tmp_path: Path, model: str = MODEL, data: str = DATASET, method: str = "lora", **more) -> preflight.Preflight:
    machine = replace(more.pop("machine", cpu()), model=model, data=data)
    machine = replace(machine, max_length=more.pop("length", machine.max_length))
    processes = more.pop("processes", 1)
    options = Options(method, data, model, out=tmp_path / "out", **more)
    return preflight.look(options, machine, Recipe(options, machine), processes)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# --- what is fetched


def test_sizes_are_said_side_by_side_and_only_the_config_is_fetched(server, tmp_path, repository, packed, capsys):
    found = look(tmp_path)
    assert (found.model.bytes, found.model.to_download) == (size(repository), size(repository))
    assert found.siblings == {"unsloth/SmolLM2-135M-Instruct-unsloth-bnb-4bit": None, PACKED: size(packed)}
    assert (found.model.state, found.data.state, found.problems) == ("nothing", "nothing", [])
    assert found.data.to_download == size(tmp_path / "rows")
    assert downloads(server) == {"config.json"} and capsys.readouterr().out == ""
    text = str(found)
    assert "not there" in text and PACKED in text and f"{size(repository) / 1e6:,.1f} MB" in text
    found.require()
    again = look(tmp_path).model
    assert again.state == "nothing" and "config.json" not in again.missing, "what the first look fetched is no download"


def test_of_a_name_in_4_bits_the_full_weights_are_looked_for(server, tmp_path, repository):
    server.add_model("unsloth/SmolLM2-135M-Instruct", repository)
    found = look(tmp_path, PACKED)
    assert found.quantised and found.siblings == {"unsloth/SmolLM2-135M-Instruct": size(repository)}
    assert found.plan.method == "qlora", "an adapter on packed weights needs the memory of QLoRA"


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("a/b-8b", ["unsloth/b-8b-unsloth-bnb-4bit", "unsloth/b-8b-bnb-4bit"]),
        ("unsloth/b-8b-bnb-4bit", ["unsloth/b-8b"]),
        ("unsloth/b-20b-unsloth-bnb-4bit", ["unsloth/b-20b"]),
    ],
)
def test_other_forms_go_by_unsloth_s_naming(name, others):
    assert sizes.other_forms(name) == others


def test_a_half_downloaded_cache_says_what_is_missing(server, tmp_path, repository):
    server.cut(MODEL, "model.safetensors", 1000)
    with pytest.raises(CourseError, match="broke off"):
        hub.fetch_model(MODEL)
    server.heal()
    found = look(tmp_path)
    assert (found.model.state, found.model.missing) == ("half downloaded", ("model.safetensors",))
    assert found.model.to_download == (repository / "model.safetensors").stat().st_size
    assert "3 of 4 files are there; missing: model.safetensors" in str(found)


def test_a_complete_cache_has_nothing_to_download(server, tmp_path):
    hub.fetch_model(MODEL)
    hub.fetch_dataset(DATASET)
    server.requests.clear()
    found = look(tmp_path)
    assert (found.model.state, found.data.state) == ("all there", "all there")
    assert found.model.to_download == found.data.to_download == 0 and downloads(server) == set()
    assert [disk.place for disk in found.disks] == [tmp_path], "nothing is written to the cache"


# --- no Hub


def test_offline_a_complete_cache_is_enough(server, tmp_path):
    hub.fetch_model(MODEL)
    hub.fetch_dataset(DATASET)
    server.down()
    found = look(tmp_path)
    assert found.problems == [] and found.siblings == {} and found.plan.fits
    assert len([note for note in found.notes if "cannot be reached; the complete copy" in note]) == 2
    found.require()


@pytest.mark.parametrize("status", [0, 503])
def test_offline_without_a_cache_is_the_first_problem(server, tmp_path, status):
    server.down(status)
    found = look(tmp_path, data="pocket")
    assert found.model.state == "unknown" and found.plan is None
    assert MODEL in found.problems[0] and "no complete copy" in found.problems[0]
    assert "--model smollm2" in found.problems[0]
    with pytest.raises(CourseError, match="cannot be downloaded"):
        found.require()


def test_offline_with_half_a_cache_names_what_is_missing(server, tmp_path):
    weights = hub.fetch_model(MODEL) / "model.safetensors"
    weights.resolve().unlink()
    server.down()
    found = look(tmp_path, data="pocket")
    assert found.model.state == "half downloaded"
    assert "no complete copy: model.safetensors is missing" in found.problems[0]


# --- what cannot be had


def test_model_and_data_that_are_not_there_are_both_said_the_model_first(server, tmp_path):
    found = look(tmp_path, "a/b", "c/d")
    assert "not known" in str(found)
    with pytest.raises(CourseError, match=r"no model named a/b.*\n.*no dataset named c/d"):
        found.require()


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_is_a_sentence_and_its_size_is_said_all_the_same(server, tmp_path, repository, status):
    server.gate(MODEL, status)
    found = look(tmp_path)
    assert found.model.bytes == size(repository)
    assert "accept its licence" in found.problems[0] and len(found.problems) == 1


def test_a_gated_model_that_is_open_to_this_login_is_only_noted(server, tmp_path):
    config = hub.read_config(MODEL)
    server.gate(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "read_config", lambda name: config)
        found = look(tmp_path)
    assert found.problems == [] and any("is gated" in note for note in found.notes)


@pytest.mark.parametrize(("fetched", "state", "missing"), [(True, "all there", 0), (False, "nothing", 92_871_040)])
def test_the_model_of_the_package_index_needs_no_hub(server, tmp_path, monkeypatch, fetched, state, missing):
    server.down(0)
    monkeypatch.setattr(sizes.smollm2, "is_fetched", lambda: fetched)
    found = look(tmp_path, "smollm2", "english", machine=cpu(model="smollm2"))
    assert not found.problems and found.plan.fits
    assert (found.model.state, found.model.to_download) == (state, missing)
    assert "rounded to about 4.5 bits" in str(found) and "generated" in str(found)


def test_data_of_this_machine_is_measured(server, tmp_path):
    file = tmp_path / "rows" / "alpaca.json"
    assert look(tmp_path, "pocket", str(file), machine=cpu(model="pocket")).data.bytes == file.stat().st_size
    assert look(tmp_path, "pocket", str(tmp_path / "rows"), machine=cpu(model="pocket")).data.state == "here"
    gone = look(tmp_path, "pocket", str(tmp_path / "gone.jsonl"), machine=cpu(model="pocket"))
    assert "gone.jsonl" in gone.problems[0] and server.requests == []


def test_the_bundled_model_asks_nobody(server, tmp_path):
    found = look(tmp_path, "pocket", "pocket", machine=cpu(model="pocket"), length=128)
    assert server.requests == [] and found.problems == [] and found.siblings == {}
    (disk,) = found.disks
    adapter = 311_296 * 4
    assert disk.parts == {"adapter": adapter, "checkpoints": 3 * 3 * adapter}
    assert "bundled" in str(found) and "generated" in str(found)


# --- what will not fit


def test_a_disk_that_is_too_small_for_everything_is_one_sentence(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10_000, 5_000, 5_000))
    found = look(tmp_path)
    (problem,) = found.problems
    assert "0.0 MB free" in problem and "model download" in problem and "adapter" in problem
    assert "set HF_HOME" in problem and "--out" in problem
    assert str(found).startswith("will not do: The disk")


def test_two_disks_are_told_apart(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "_on_one_disk", lambda one, other: False)
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 0, 10 if Path(place) == out else 10**9))
    (problem,) = look(tmp_path, merge=True, gguf=("q4_k_m",)).problems
    assert f"The disk of {out}" in problem and "--out" in problem and "HF_HOME" not in problem
    for part in ("adapter", "checkpoints", "merged", "gguf"):
        assert part in problem


def test_the_download_alone_may_be_too_much(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "_on_one_disk", lambda one, other: False)
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 0, 10**9 if Path(place) == out else 2_000))
    (problem,) = look(tmp_path).problems
    assert "HF_HOME" in problem and "--out" not in problem


def test_memory_that_is_too_small_is_said_with_both_sizes(server, tmp_path):
    found = look(tmp_path, "pocket", "pocket", machine=cpu(16 * 1024**2, model="pocket"))
    (problem,) = found.problems
    assert not found.plan.fits and "16.0 MiB" in problem and "--max-length" in problem and "--method qlora" in problem


def test_the_most_important_problem_comes_first(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10_000, 8_000, 2_000))
    found = look(tmp_path, data="a/b", machine=cpu(1024))
    expected = ("no dataset named a/b", "The disk of", "Shorten the rows")
    assert [words in text for words, text in zip(expected, found.problems, strict=True)] == [True] * 3, found.problems


def test_rows_that_processes_cannot_share_are_a_sentence(server, tmp_path):
    assert "shared evenly" in look(tmp_path, batch=7, processes=2).problems[0]


# --- what is not done


def test_full_fine_tuning_of_packed_weights_is_refused_with_the_full_ones(server, tmp_path, repository):
    server.add_model("unsloth/SmolLM2-135M-Instruct", repository)
    (problem,) = look(tmp_path, PACKED, method="full").problems
    assert "--model unsloth/SmolLM2-135M-Instruct" in problem


@pytest.mark.parametrize("more", [{"merge": True}, {"gguf": ("q8_0",)}, {"hand_on": True}])
def test_packed_weights_are_not_merged_on_a_cpu(server, tmp_path, more):
    (problem,) = look(tmp_path, PACKED, method="qlora", **more).problems
    assert "merges no adapter" in problem
    assert look(tmp_path, PACKED, method="qlora").problems == []


def test_qlora_on_full_weights_exports_and_cannot_hand_on(server, tmp_path):
    exported = look(tmp_path, method="qlora", merge=True)
    assert exported.problems == [] and any("merges it into the full weights" in note for note in exported.notes)
    (problem,) = look(tmp_path, method="qlora", hand_on=True).problems
    assert "--method lora" in problem


def test_a_smaller_download_is_pointed_out(server, tmp_path):
    assert any(f"--model {PACKED}" in note for note in look(tmp_path, method="qlora").notes)
    assert not any("--model" in note for note in look(tmp_path, method="full").notes)


def test_reading_full_weights_into_4_bits_is_reckoned_with(server, tmp_path, repository, monkeypatch):
    weights = (repository / "model.safetensors").stat().st_size
    found = look(tmp_path, method="qlora")
    assert found.loading == weights + found.plan.prediction.parts["weights"] > weights
    assert "loading" in str(found) and look(tmp_path, PACKED, method="qlora").loading == 0
    assert look(tmp_path, method="lora").loading == 0
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=weights))
    assert any("the loading will be slow" in note for note in look(tmp_path, method="qlora").notes)


def test_memory_that_others_use_is_noted(server, tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1024))
    found = look(tmp_path, "pocket", "pocket", machine=cpu(model="pocket"))
    assert found.problems == [] and any("1.0 KiB is free" in note for note in found.notes)


# --- anybody's files


SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers())


@given(
    spoilt=st.dictionaries(
        st.sampled_from([*SIZES, "vocab_size", "head_dim", "tie_word_embeddings", "quantization_config"]),
        ANYTHING,
        min_size=1,
    )
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_config_is_planned_for_or_a_sentence(tmp_path, spoilt):
    config = json.loads((BUNDLED_MODEL / "config.json").read_text())
    folder = tmp_path / "spoilt"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | spoilt))
    found = look(tmp_path, str(folder), "pocket")
    assert (found.plan is None) <= bool(found.problems)
    assert str(found)
