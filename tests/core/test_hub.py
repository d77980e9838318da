"""The Hub path over real HTTP, against the small local Hub of `hub_server.py`."""

import contextlib
import errno
import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ENVIRONMENT
from hub_server import HubServer
from huggingface_hub import constants
from huggingface_hub.errors import CachedRepoTreeNotFoundError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from unsloth_course.core import hub
from unsloth_course.core.errors import CourseError

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
DATASET = "yahma/alpaca-cleaned"
COLUMNS = ("instruction", "input", "output")
ROWS = [{"instruction": f"Say {n}.", "input": "aloud", "output": f"It is {n}."} for n in range(20)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TABLE = "".join(",".join(row) + "\n" for row in (ROWS[0], *map(dict.values, ROWS))).encode()
FORMS = {"rows.jsonl": LINES, "rows.jsonl.gz": gzip.compress(LINES), "rows.csv": TABLE}
NEEDED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
WEIGHTS = ("model.safetensors", "consolidated.safetensors")
BAIT = {"pytorch_model.bin", "modeling_llama.py", "training_args.pt", "onnx/model.safetensors", WEIGHTS[1]}
ROOT = Path(__file__).parents[2]


def write_model(folder: Path) -> Path:
    """A random Llama of one layer, written by hand: the test process must not import transformers before unsloth."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True)
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "the", "cat", "sat"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(words[:3])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": words[1], "eos_token": words[2], "pad_token": words[2], "unk_token": words[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | special))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 32}
    config |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": len(words)}
    config |= {"max_position_embeddings": 256, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 2, "torch_dtype": "float32"}))
    shapes = {"self_attn.q_proj": (16, 16), "self_attn.k_proj": (8, 16), "self_attn.v_proj": (8, 16)}
    shapes |= {"self_attn.o_proj": (16, 16), "mlp.gate_proj": (32, 16), "mlp.up_proj": (32, 16)}
    shapes |= {"mlp.down_proj": (16, 32), "input_layernorm": (16,), "post_attention_layernorm": (16,)}
    shapes = {f"model.layers.0.{name}": shape for name, shape in shapes.items()}
    shapes |= {"model.embed_tokens": (len(words), 16), "model.norm": (16,)}
    draw = np.random.default_rng(0)
    tensors = {f"{name}.weight": draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "repository")
    for name in BAIT:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never to be downloaded")
    return folder


@pytest.fixture
def dataset_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Rows\n")
    (folder / "alpaca_data_cleaned.json").write_text(json.dumps(ROWS))
    return folder


@pytest.fixture
def server(hub_here: HubServer, model_folder: Path, dataset_folder: Path) -> HubServer:
    """A running Hub with a model and a data set."""
    hub_here.add_model(MODEL, model_folder)
    hub_here.add_dataset(DATASET, dataset_folder)
    return hub_here


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub waits a second before each of its five attempts to resume; the tests do not."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)


def downloads(server: HubServer) -> set[str]:
    """Names of the files whose content was sent."""
    return {
        r.path.split("/resolve/")[1].split("/", 1)[1]
        for r in server.requests
        if r.method == "GET" and "/resolve/" in r.path
    }


def assert_cache_is_sound(cache: Path, source: Path) -> None:
    """No temporary file is left, and every file of a snapshot equals the repository's."""
    assert not list(cache.rglob("*.incomplete"))
    for path in cache.glob("*/snapshots/*/*"):
        assert path.read_bytes() == (source / path.name).read_bytes()


def test_a_model_is_fetched_without_pickle_scripts_and_duplicates_when_its_size_is_said(
    server, model_folder, monkeypatch
):
    said = []
    monkeypatch.setattr("builtins.print", lambda line: said.append((line, downloads(server))))
    folder = hub.fetch_model(MODEL)
    assert {path.name for path in folder.iterdir()} == NEEDED == downloads(server)
    assert_cache_is_sound(Path(constants.HF_HUB_CACHE), model_folder)
    total = sum((model_folder / name).stat().st_size for name in NEEDED) / 1e6
    assert said == [(f"{MODEL}: {total:,.1f} MB to download, 0 of 4 files are in the cache.", set())]


def test_a_complete_cache_downloads_nothing_and_a_new_commit_what_changed(server, model_folder, capsys):
    first = hub.fetch_model(MODEL)
    server.requests.clear()
    capsys.readouterr()
    assert hub.fetch_model(MODEL) == first
    assert downloads(server) == set()
    assert "all 4 files" in capsys.readouterr().out
    (model_folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    assert hub.fetch_model(MODEL) != first
    assert downloads(server) == {"tokenizer_config.json"}


def test_sharded_weights_come_with_every_shard(server, model_folder):
    (model_folder / "model.safetensors").rename(model_folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}
    (model_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert (hub.fetch_model(MODEL) / "model-00001-of-00001.safetensors").is_file()


@pytest.mark.parametrize("fault", ["refused", "503", "offline"])
def test_a_complete_cache_needs_no_hub(server, monkeypatch, capsys, fault):
    online, model, dataset = hub.look_up(MODEL), hub.fetch_model(MODEL), hub.fetch_dataset(DATASET)
    capsys.readouterr()
    break_network(server, monkeypatch, fault)
    assert hub.fetch_model(MODEL) == model
    assert "using the complete copy in the cache" in capsys.readouterr().out
    assert hub.fetch_dataset(DATASET).to_list() == dataset.to_list()
    found = hub.look_up(MODEL)
    assert (found.sizes, found.missing) == (online.sizes, ()) and found.reason
    (model / "tokenizer.json").unlink()
    assert hub.look_up(MODEL).missing == ("tokenizer.json",)


@pytest.mark.parametrize("fault", ["refused", "503", "offline"])
@pytest.mark.parametrize("fetch, name", [(hub.fetch_model, MODEL), (hub.fetch_dataset, DATASET)])
def test_no_hub_and_no_cache_is_a_sentence_that_names_the_offline_choice(server, monkeypatch, fault, fetch, name):
    break_network(server, monkeypatch, fault)
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(CourseError) as error:
        fetch(name)
    assert sum(waited) < 5
    expected = {"refused": "cannot be reached", "503": "HTTP 503", "offline": "HF_HUB_OFFLINE is set"}[fault]
    offline = ('MODEL = "smollm2"', "--model smollm2", 'PROFILE = "cpu"', "run LESSON --profile cpu")
    for words in (name, expected, *offline):
        assert words in str(error.value)


def break_network(server: HubServer, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    if fault == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        server.down(503 if fault == "503" else 0)


def test_a_hub_that_never_answers_is_given_up(server, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub.hub_errors, "TIMEOUT", 0.3)
        with pytest.raises(CourseError, match="did not answer within"):
            hub.fetch_model(MODEL)


@pytest.mark.parametrize("fetch, kind", [(hub.fetch_model, "model"), (hub.fetch_dataset, "dataset")])
def test_a_misspelt_name_is_a_sentence(server, fetch, kind):
    with pytest.raises(CourseError, match=f"no {kind} named nobody/nothing.*misspelt.*private"):
        fetch("nobody/nothing")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("fetch, name", [(hub.fetch_model, MODEL), (hub.fetch_dataset, DATASET)])
def test_a_gated_repository_names_page_and_login(server, fetch, name, status):
    server.gate(name, status)
    with pytest.raises(CourseError) as error:
        fetch(name)
    page = f"{server.endpoint}/{'datasets/' if name == DATASET else ''}{name} "
    for words in ("gated", "accept its licence", page.strip(), "hf auth login"):
        assert words in str(error.value)
    server.heal()
    fetch(name)


@pytest.mark.parametrize(
    "status, words",
    [
        *((200, "is no Hub"), (400, "broke off"), (401, "hf auth login"), (403, "hf auth login")),
        *((404, "misspelt"), (429, "too many requests")),
    ],
)
def test_a_refusal_without_a_code_is_a_sentence(server, status, words):
    server.down(status)
    with pytest.raises(CourseError, match=words):
        hub.fetch_model(MODEL)


@pytest.mark.parametrize("name", ["a/b/c", "no spaces please", "/no/such/folder", "../up", "x" * 200, "a--b/c..d"])
def test_what_cannot_be_a_hub_name_is_a_sentence(server, name):
    with pytest.raises(CourseError, match="neither a folder on this machine nor a Hub name"):
        hub.fetch_model(name)
    assert server.requests == []


@given(name=st.text(max_size=300) | st.text(alphabet="ab-_./~\\", max_size=12))
@settings(max_examples=200)
def test_any_text_for_a_name_is_a_sentence(name):
    if os.path.isdir(os.path.expanduser(name)):
        return
    with pytest.MonkeyPatch.context() as patch, pytest.raises(CourseError):
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setattr(constants, "HF_HUB_CACHE", "absent")
        hub.fetch_model(name)


def test_a_hub_adapter_or_pickle_model_is_refused_before_any_download(server, model_folder):
    (model_folder / "model.safetensors").unlink()
    (model_folder / "consolidated.safetensors").unlink()
    with pytest.raises(CourseError, match=r"pickle weights \(pytorch_model.bin, training_args.pt\).*can run code"):
        hub.fetch_model(MODEL)
    (model_folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CourseError, match=r"is an adapter.*base first.*then put the adapter"):
        hub.fetch_model(MODEL)
    assert downloads(server) == set()


@pytest.mark.parametrize("after_bytes", [0, 1, 1000])
def test_a_cut_download_leaves_nothing_half_and_the_next_call_succeeds(server, model_folder, no_waiting, after_bytes):
    server.cut(MODEL, "model.safetensors", after_bytes)
    with pytest.raises(CourseError, match=r"broke off.*--model smollm2.*--profile cpu"):
        hub.fetch_model(MODEL)
    assert_cache_is_sound(Path(constants.HF_HUB_CACHE), model_folder)
    server.down()
    with pytest.raises(CourseError, match="no complete copy"):
        hub.fetch_model(MODEL)
    server.heal()
    server.requests.clear()
    folder = hub.fetch_model(MODEL)
    assert {path.name for path in folder.iterdir()} == NEEDED
    assert downloads(server) == {"model.safetensors"}
    assert_cache_is_sound(Path(constants.HF_HUB_CACHE), model_folder)


def test_a_file_cut_off_in_the_cache_is_not_used_without_the_hub_and_fetched_again_with_it(server, model_folder):
    weights = hub.fetch_model(MODEL) / "model.safetensors"
    weights.resolve().write_bytes(weights.read_bytes()[:500])
    server.down()
    with pytest.raises(CourseError, match=r"no complete copy: model.safetensors is missing or damaged"):
        hub.fetch_model(MODEL)
    server.heal()
    server.requests.clear()
    assert hub.fetch_model(MODEL) == weights.parent
    assert downloads(server) == {"model.safetensors"}
    assert_cache_is_sound(Path(constants.HF_HUB_CACHE), model_folder)


def test_a_cache_of_an_older_library_without_the_hub_s_list_is_judged_by_its_files(server, monkeypatch):
    def no_list(*_: object, **__: object) -> None:
        raise CachedRepoTreeNotFoundError

    folder = hub.fetch_model(MODEL)
    server.down()
    monkeypatch.setattr("huggingface_hub._snapshot_download.read_tree_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.get_cached_repo_tree", no_list)
    assert hub.fetch_model(MODEL) == folder
    (folder / "config.json").unlink()
    with pytest.raises(CourseError, match=r"holds no config\.json"):
        hub.fetch_model(MODEL)


def test_a_file_that_arrives_in_another_size_than_listed_is_not_kept(server, model_folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("builtins.print", lambda line: (model_folder / "tokenizer.json").write_text("{}"))
        with pytest.raises(CourseError, match=r"tokenizer.json arrived in another size"):
            hub.fetch_model(MODEL)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("tokenizer.json"))
    assert hub.fetch_model(MODEL)


def test_too_small_a_disk_is_noticed_before_the_download(server, monkeypatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(CourseError, match=r"has 0\.0 MB free"):
        hub.fetch_model(MODEL)
    assert downloads(server) == set()


@pytest.mark.parametrize(
    "failure, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk became full"),
        (PermissionError(errno.EACCES, "Permission denied"), "set HF_HOME"),
        (RuntimeError("Data processing error: CAS service error"), "broke off"),
    ],
)
def test_a_failure_while_writing_is_a_sentence_and_leaves_nothing(server, model_folder, monkeypatch, failure, words):
    def fail(url: str, file, **_: object) -> None:
        file.write(b"half")
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", fail)
        with pytest.raises(CourseError, match=words):
            hub.fetch_model(MODEL)
    assert_cache_is_sound(Path(constants.HF_HUB_CACHE), model_folder)
    assert {path.name for path in hub.fetch_model(MODEL).iterdir()} == NEEDED


def test_names_that_leave_the_folder_are_not_followed():
    assert hub._stays_inside("data/train.json")
    assert not hub._stays_inside("../../secret.json")
    assert not hub._stays_inside(str(Path("/etc/secret.json").absolute()))


def test_a_local_folder_is_returned_as_it_is(local_model, capsys):
    assert hub.fetch_model(local_model) == hub.fetch_model(str(local_model)) == local_model
    assert capsys.readouterr().out == ""


def test_a_local_adapter_folder_says_base_first(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": MODEL}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(CourseError, match=rf"is an adapter.*base first \({MODEL}\), then put the adapter on it"):
        hub.fetch_model(tmp_path)


@pytest.mark.parametrize(
    "remove, words",
    [
        (("config.json",), "holds no config.json"),
        (("tokenizer.json",), "holds no tokenizer"),
        (WEIGHTS, "pickle weights"),
        ((*WEIGHTS, "pytorch_model.bin", "training_args.pt"), "holds no weights"),
    ],
)
def test_a_local_folder_that_lacks_something_is_a_sentence(model_folder, remove, words):
    for name in remove:
        (model_folder / name).unlink()
    with pytest.raises(CourseError, match=words):
        hub.fetch_model(model_folder)


def test_an_empty_folder_and_a_file_are_sentences(tmp_path):
    with pytest.raises(CourseError, match="it is empty"):
        hub.fetch_model(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CourseError, match="is a file, and a model is a folder"):
        hub.fetch_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize("index", ['{"weight_map": {"a": "model-2.safetensors"}}', '{"weight_map": []}', "[]", "{"])
def test_a_missing_shard_or_damaged_index_is_a_sentence(tmp_path, index):
    folder = write_model(tmp_path / "model")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CourseError, match=r"model-2.safetensors is missing|is damaged"):
        hub.fetch_model(folder)


@pytest.fixture(scope="module")
def local_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("local") / "model")


@contextlib.contextmanager
def changed(file: Path, content: bytes) -> Iterator[None]:
    """A file with another content, which is put back."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_weights_cut_off_anywhere_are_a_sentence(local_model, data):
    weights = local_model / "model.safetensors"
    content = weights.read_bytes()
    keep = data.draw(st.integers(0, len(content) - 1))
    with changed(weights, content[:keep]), pytest.raises(CourseError, match="cut off or damaged"):
        hub.fetch_model(local_model)


@given(
    content=st.binary(max_size=64)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr).map(str.encode)
)
@settings(max_examples=60)
def test_any_bytes_for_json_and_weights_are_a_sentence(local_model, content):
    header = len(content).to_bytes(8, "little") + content
    for name, bad in (("model.safetensors", header), ("config.json", content)):
        with changed(local_model / name, bad), pytest.raises(CourseError, match="damaged"):
            hub.fetch_model(local_model)


def write_table(rows: list[dict], file: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    file.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


@pytest.mark.parametrize("name", ["alpaca_data_cleaned.json", "data/train-00000-of-00001.parquet", *FORMS])
def test_a_data_set_is_fetched_as_json_json_lines_csv_or_parquet(server, dataset_folder, capsys, name):
    if not name.endswith(".json"):
        (dataset_folder / "alpaca_data_cleaned.json").unlink()
    if name in FORMS:
        (dataset_folder / name).write_bytes(FORMS[name])
    elif name.endswith("parquet"):
        write_table(ROWS, dataset_folder / name)
    dataset = hub.fetch_dataset(DATASET, columns=COLUMNS)
    assert dataset.to_list() == ROWS
    assert f"{DATASET}: 0.0 MB to download, 0 of 2 files" in capsys.readouterr().out


def test_scripts_of_a_data_set_are_neither_downloaded_nor_run(server, dataset_folder, tmp_path):
    (dataset_folder / "alpaca-cleaned.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert hub.fetch_dataset(DATASET).num_rows == len(ROWS)
    assert "alpaca-cleaned.py" not in downloads(server)
    (dataset_folder / "alpaca_data_cleaned.json").unlink()
    with pytest.raises(CourseError, match=r"no JSON, CSV or parquet file.*scripts are not run"):
        hub.fetch_dataset(DATASET)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"columns": ("chosen", "rejected")}, "the columns instruction, input, output; chosen, rejected is missing"),
        ({"split": "test"}, r"with the split 'test'.*train"),
    ],
)
def test_what_a_data_set_lacks_is_named_with_what_it_has(server, asked, words):
    with pytest.raises(CourseError, match=words):
        hub.fetch_dataset(DATASET, **asked)


@pytest.mark.parametrize(
    "content", ['[{"instruction": "a"', "", "[]", "nonsense", '[1, "a", null]', '{"a": [1], "a": 2}x']
)
def test_a_broken_data_file_is_a_sentence(server, dataset_folder, content):
    (dataset_folder / "alpaca_data_cleaned.json").write_text(content)
    with pytest.raises(CourseError, match=DATASET):
        hub.fetch_dataset(DATASET, columns=COLUMNS)


@pytest.mark.parametrize(
    "card", ["---\nconfigs: [\n---\n", "---\nconfigs: 3\n---\n", "---\nconfigs:\n- config_name: a\n---\n"]
)
def test_a_broken_data_card_is_a_sentence_or_ignored(server, dataset_folder, card):
    (dataset_folder / "README.md").write_text(card)
    try:
        assert hub.fetch_dataset(DATASET).to_list() == ROWS
    except CourseError as error:
        assert DATASET in str(error)


def write_two_languages(folder: Path) -> None:
    """Parquet files in a folder for each language, and a data card that names them, as google/code_x_glue_* has."""
    card = "---\nconfigs:\n"
    for language in ("go", "python"):
        card += f"- config_name: {language}\n  data_files:\n"
        for split in ("train", "validation"):
            rows = [{**row, "output": f"{language} {split}"} for row in ROWS]
            write_table(rows, folder / language / f"{split}-00000-of-00001.parquet")
            card += f"  - split: {split}\n    path: {language}/{split}-*\n"
    (folder / "README.md").write_text(card + "---\n")
    (folder / "alpaca_data_cleaned.json").unlink()


ONLY = ("python/validation-*.parquet",)


def test_of_a_large_set_only_the_named_files_are_looked_up_and_fetched_once(server, dataset_folder, capsys):
    write_two_languages(dataset_folder)
    dataset = hub.fetch_dataset(DATASET, columns=COLUMNS, files=ONLY)
    assert dataset["output"] == ["python validation"] * len(ROWS)
    assert downloads(server) == {"python/validation-00000-of-00001.parquet"}
    assert set(hub.look_up(DATASET, "dataset", ONLY).sizes) == downloads(server)
    assert "0 of 1 files are in the cache" in capsys.readouterr().out
    server.requests.clear()
    assert hub.fetch_dataset(DATASET, files=ONLY).to_list() == dataset.to_list()
    assert downloads(server) == set()
    server.down()
    assert hub.fetch_dataset(DATASET, files=ONLY).to_list() == dataset.to_list()
    assert "using the complete copy in the cache" in capsys.readouterr().out
    with pytest.raises(CourseError, match=r"cannot be downloaded.*no complete copy"):
        hub.fetch_dataset(DATASET, files=("go/train-*.parquet",))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), r"\['go', 'python'\]"),
        (("rust/*.parquet",), r"has no file under rust/\*\.parquet"),
        (("*.md",), r"has README\.md under \*\.md, where files of one kind are wanted"),
        (("python/*.parquet", "*.json"), r"has more\.json, python/.* and 1 more|more\.json, python/train"),
    ],
)
def test_files_that_are_not_named_not_there_or_not_of_one_kind_are_a_sentence(server, dataset_folder, files, words):
    write_two_languages(dataset_folder)
    (dataset_folder / "more.json").write_text(json.dumps(ROWS))
    with pytest.raises(CourseError, match=words):
        hub.fetch_dataset(DATASET, files=files)


def run(code: str, environment: dict[str, str], folder: Path) -> str:
    """Run code in a process of its own, where HF_ENDPOINT is set before anything is imported.

    Unsloth writes a folder of compiled trainers into the working directory, hence `folder`.
    """
    environment = {**ENVIRONMENT, **environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


FETCH_BOTH = f"""
from unsloth_course.core.hub import fetch_dataset, fetch_model
folder = fetch_model({MODEL!r})
print(fetch_dataset({DATASET!r}, columns={COLUMNS!r}).num_rows, folder)
"""


LOAD = """
import os, torch
from unsloth import FastLanguageModel
from huggingface_hub import constants
for offline in (False, True):  # with a Hub in reach, and as without network
    constants.HF_HUB_OFFLINE = offline
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = str(int(offline))
    how = dict(max_seq_length=128, dtype=torch.float32, load_in_4bit=False)
    model, tokenizer = FastLanguageModel.from_pretrained({!r}, **how)
    print("loaded", sum(p.numel() for p in model.parameters()), len(tokenizer))
"""


def test_an_untouched_client_fetches_both_and_unsloth_then_asks_the_hub_for_nothing(server, tmp_path):
    environment = server.environment(tmp_path / "home")
    rows, folder = run(FETCH_BOTH, environment, tmp_path).splitlines()[-1].split(" ", 1)
    assert rows == "20" and {path.name for path in Path(folder).iterdir()} == NEEDED
    offline = run(FETCH_BOTH, environment | {"HF_HUB_OFFLINE": "1"}, tmp_path)
    assert offline.splitlines()[-1] == f"20 {folder}"
    server.requests.clear()
    environment |= {"UNSLOTH_DISABLE_STATISTICS": "1", "HF_HUB_OFFLINE": "0"}
    printed = run(LOAD.format(folder), environment, tmp_path).splitlines()
    assert [line for line in printed if line.startswith("loaded")] == ["loaded 2448 6"] * 2
    assert server.requests == []


def test_a_look_up_says_all_sizes_and_fetches_nothing(server, model_folder, dataset_folder):
    found = hub.look_up(MODEL)
    assert found.sizes == {name: (model_folder / name).stat().st_size for name in NEEDED}
    assert set(found.missing) == NEEDED and found.to_download == found.bytes == sum(found.sizes.values())
    assert not found.gated and not found.reason
    rows = hub.look_up(DATASET, "dataset")
    assert set(rows.sizes) == {"README.md", "alpaca_data_cleaned.json"}
    assert downloads(server) == set() and not Path(constants.HF_HUB_CACHE).exists()
    server.gate(MODEL)
    assert hub.look_up(MODEL).gated


def test_a_look_up_says_what_the_cache_lacks_and_leaves_it_as_it_is(server, model_folder):
    folder = hub.fetch_model(MODEL)
    assert hub.look_up(MODEL).missing == () and hub.look_up(MODEL).to_download == 0
    (folder / "tokenizer.json").resolve().write_bytes(b"cut")
    found = hub.look_up(MODEL)
    assert found.missing == ("tokenizer.json",)
    assert found.to_download == (model_folder / "tokenizer.json").stat().st_size
    assert (folder / "tokenizer.json").read_bytes() == b"cut"


def test_a_config_is_read_from_a_folder_and_from_the_hub(server, model_folder, tmp_path):
    assert hub.read_config(str(model_folder)) == hub.read_config(MODEL)
    assert downloads(server) == {"config.json"}
    with pytest.raises(CourseError, match=r"no config\.json"):
        hub.read_config(str(tmp_path))
    (model_folder / "config.json").write_text("[]")
    with pytest.raises(CourseError, match="damaged"):
        hub.read_config(str(model_folder))
    (model_folder / "config.json").unlink()
    with pytest.raises(CourseError, match=r"no config\.json"):
        hub.read_config(MODEL)
