"""Exports of a trained adapter and their round trips: those that hold, and those that are broken on purpose."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unsloth_course import chat, cli, export, install, models
from unsloth_course.errors import CourseError
from unsloth_course.export import llama, own_process, proof

needs_llama = pytest.mark.skipif(
    bool(install.llama_cpp_missing(install.llama_cpp_folder())),
    reason="llama.cpp is not built (./setup_venv.sh --gguf)",
)


def exchanged(monkeypatch, task: str, source: str) -> None:
    """Lets one task of an export work on another model."""
    run = own_process.run

    def other(name, **arguments):
        return run(name, **(arguments | {"source": source} if name == task else arguments))

    monkeypatch.setattr(own_process, "run", other)


# --- without llama.cpp


def test_a_merged_model_answers_as_its_adapter(adapter, tmp_path):
    done = CliRunner().invoke(cli.app, ["export", str(adapter), "--to", "merged", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    first, merged = json.loads(done.stdout)["formats"]
    assert (first["name"], merged["name"]) == ("adapter", "merged")
    assert merged["compared"] == 50 and merged["same"] >= 48  # the others are ties that 16 bits decide otherwise
    assert bool(merged["difference"]) == (merged["same"] < 50)
    assert merged["path"] == str(tmp_path / "merged")
    assert merged["bytes"] > first["bytes"] and merged["score"] > 0.4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]


def test_a_merge_that_left_the_adapter_out_is_found(adapter, tmp_path, monkeypatch):
    exchanged(monkeypatch, "ask", models.folder("pocket"))
    with pytest.raises(
        CourseError, match=r"The round trip of the merged model failed: the answer to prompt \d+ differs"
    ):
        export.export(adapter, "merged", out=tmp_path, say=lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_a_sentence(tmp_path):
    with pytest.raises(CourseError, match="holds no adapter and no model"):
        export.export(tmp_path, "gguf")
    whole = models.folder("pocket")
    with pytest.raises(CourseError, match="whole model already"):
        export.export(whole, "merged")
    with pytest.raises(CourseError, match="no quant 'q3'"):
        export.export(whole, "gguf", quants=["q3"])
    with pytest.raises(CourseError, match="no export to 'onnx'"):
        export.export(whole, "onnx")
    copy = shutil.copytree(whole, tmp_path / "alone" / "model")
    with pytest.raises(CourseError, match="--data"):
        export.export(copy, "gguf")


def test_a_damaged_adapter_is_a_sentence_from_the_other_process(adapter, tmp_path):
    copy = shutil.copytree(adapter, tmp_path / "run" / "adapter")
    (copy / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CourseError, match="cut off or damaged"):
        export.export(copy, "merged", data="pocket", say=lambda line: None)


def test_without_llama_cpp_the_command_for_it_is_said(adapter, tmp_path, monkeypatch):
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path))
    with pytest.raises(CourseError, match=r"lacks llama-quantize.* Run \./setup_venv\.sh --gguf"):
        export.export(adapter, "gguf", data="pocket")


# --- with real llama.cpp


@needs_llama
def test_every_quant_makes_its_round_trip(quantised):
    by_name = {made.name: made for made in quantised.formats}
    assert list(by_name) == ["adapter", *export.QUANTS]
    assert by_name["f16"].same >= 48 and by_name["q8_0"].same >= 45  # the others are ties that rounding decides
    sizes = [by_name[quant].bytes for quant in export.QUANTS]
    assert sizes == sorted(sizes, reverse=True)
    for quant in export.QUANTS:
        assert abs(by_name[quant].score - by_name["adapter"].score) <= 0.03
    names = sorted(Path(path).name for path in quantised.written)
    assert names == ["Modelfile", *(f"model.{quant}.gguf" for quant in sorted(export.QUANTS))]
    assert sorted(path.name for path in Path(quantised.written[0]).parent.iterdir()) == names


def read(quantised, questions, reference, *more: str, quant: str = "f16", file: Path | None = None) -> dict:
    file = file or Path(next(made.path for made in quantised.formats if made.name == quant))
    with llama.Llama(file, more) as loaded:
        return proof.read_gguf(loaded, questions, reference, 24)


@needs_llama
@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ((), ""),
        (("--chat-template", "zephyr"), "the chat template is another one: prompt 1 differs at character"),
        (
            ("--override-kv", "tokenizer.ggml.eos_token_id=int:0"),
            "the stop token is another one: '<|im_end|>' (2) became '<|endoftext|>' (0)",
        ),
        # llama.cpp then takes the first token out of the prompt's text, to put it there itself.
        (("--override-kv", "tokenizer.ggml.add_bos_token=bool:true"), "the chat template is another one: prompt 1"),
    ],
)
def test_another_template_or_stop_token_is_named(quantised, questions, reference, options, difference):
    found = proof.first_difference(reference, read(quantised, questions, reference, *options), tie=proof.TIE)
    assert found.startswith(difference) and bool(found) == bool(difference)


@needs_llama
def test_without_the_order_of_merges_prompts_are_split_otherwise(quantised, questions, reference, tmp_path):
    file = Path(shutil.copy(quantised.formats[1].path, tmp_path))
    sys.path.insert(0, str(llama.folder() / "gguf-py"))
    try:
        from gguf import GGUFReader
    finally:
        del sys.path[0]
    reader = GGUFReader(str(file), "r+")
    scores = reader.get_field("tokenizer.ggml.scores")
    for part in scores.data:
        scores.parts[part][0] = -1000.0
    reader.data.flush()
    assert "split otherwise" in proof.first_difference(reference, read(quantised, questions, reference, file=file))


@needs_llama
def test_exchanged_weights_are_found_and_not_left_behind(adapter, tmp_path, monkeypatch):
    exchanged(monkeypatch, "convert", models.folder("pocket"))
    with pytest.raises(
        CourseError, match=r"round trip of model\.q8_0\.gguf failed: the answer to prompt \d+ differs at"
    ):
        export.export(adapter, "gguf", quants=["q8_0"], out=tmp_path, say=lambda line: None)
    assert list(tmp_path.iterdir()) == []


@needs_llama
def test_a_gguf_file_can_be_talked_to(quantised, adapter, questions):
    chats = [[{"role": "user", "content": question}] for question in questions[:12]]
    sampling = chat.Sampling(max_new_tokens=24)
    through_llama, through_unsloth = chat.open_model(quantised.formats[2].path), chat.open_model(adapter)
    try:
        answers = through_llama.answer_all(chats, sampling)
        streamed = "".join(through_llama.stream(chats[0], sampling))
    finally:
        through_llama.close()
    ended = [answer.partition("<|endoftext|>")[0] for answer in through_unsloth.answer_all(chats, sampling)]
    assert sum(ours == theirs for ours, theirs in zip(answers, ended, strict=True)) >= 11  # 8 bits may decide a tie
    assert streamed == answers[0]


@needs_llama
def test_a_damaged_gguf_is_a_sentence(quantised, tmp_path):
    file = tmp_path / "cut.gguf"
    file.write_bytes(Path(quantised.formats[1].path).read_bytes()[:100_000])
    with pytest.raises(CourseError, match=r"llama\.cpp could not load"):
        llama.Llama(file)
    with pytest.raises(CourseError, match="There is no file"):
        llama.Llama(tmp_path / "absent.gguf")
