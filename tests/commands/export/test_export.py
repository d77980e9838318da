"""Exports of a trained adapter and their round trips: those that hold, and those that are broken on purpose."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unsloth_course import cli, models
from unsloth_course.commands import chat, export
from unsloth_course.commands.export import llama, own_process, proof
from unsloth_course.core.errors import CourseError
from unsloth_course.setup import llama_cpp

needs_llama = pytest.mark.skipif(
    bool(llama_cpp.missing(llama_cpp.home())),
    reason="llama.cpp is not built (./setup_venv.sh --gguf)",
)


def exchanged(monkeypatch, task: str, source: str) -> None:
    """Lets one task of an export work on another model."""
    run = own_process.run

    def other(name, **arguments):
        return run(name, **(arguments | {"source": source} if name == task else arguments))

    monkeypatch.setattr(own_process, "run", other)


# --- without llama.cpp


@pytest.mark.parametrize(
    ("source", "base", "needs_the_hub"),
    [
        ("somebody/model", None, True),
        ("adapter", "somebody/model", True),
        ("adapter", "pocket", False),
        ("adapter", "smollm2", False),
        ("model", None, False),
    ],
)
def test_the_network_is_used_where_the_weights_may_be_on_the_hub(tmp_path, monkeypatch, source, base, needs_the_hub):
    from unsloth_course import profile

    def decided(**asked):
        machine = profile.Machine(None, 0, False, 2, 8 * 1024**3, False)
        assert ("HF_HUB_OFFLINE" not in profile.decide(machine, **asked).environment) == needs_the_hub
        raise CourseError("seen")

    monkeypatch.setattr(profile, "detect", decided)
    if "/" not in source:
        (tmp_path / source).mkdir()
        source = tmp_path / source
    if base:
        (source / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    with pytest.raises(CourseError, match="seen"):
        own_process.load(source)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"base_model_name_or_path": 3}'])
def test_an_adapter_whose_base_is_not_told_is_looked_at_later(tmp_path, content):
    (tmp_path / "adapter_config.json").write_text(content)
    assert own_process.base_of(tmp_path) == str(tmp_path)


def test_a_merged_model_answers_as_its_adapter(adapter, tmp_path, monkeypatch):
    """In fresh processes, as everybody's; the other tests run in forks of one."""
    monkeypatch.setattr(own_process, "subprocess", subprocess)
    done = CliRunner().invoke(cli.app, ["export", str(adapter), "--to", "merged", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    first, merged = json.loads(done.stdout)["formats"]
    assert (first["name"], merged["name"]) == ("adapter", "merged")
    assert merged["compared"] == 50 and merged["same"] >= 48  # the others are ties that 16 bits decide otherwise
    assert 0 < merged["drift"] < 0.02 and merged["metric"] == "exact_match"
    assert bool(merged["difference"]) == (merged["same"] < 50)
    assert merged["path"] == str(tmp_path / "merged")
    assert merged["bytes"] > first["bytes"] and merged["score"] > 0.4
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_merge_that_left_the_adapter_out_is_found(adapter, tmp_path, monkeypatch):
    exchanged(monkeypatch, "ask", models.folder("pocket"))
    with pytest.raises(
        CourseError, match=r"The round trip of the merged model failed: the answer to prompt \d+ differs"
    ):
        export.export(adapter, "merged", out=tmp_path, say=lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_one_changed_matrix_is_found_though_the_tokens_may_stay(adapter, reference, rows, tmp_path):
    from safetensors.torch import load_file, save_file

    own_process.run("merge", source=str(adapter), rows=rows[:1], target=str(tmp_path / "merged"))
    file = tmp_path / "merged" / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.2.mlp.down_proj.weight"] *= 1.05
    save_file(weights, file, metadata={"format": "pt"})
    changed = own_process.run("ask", source=str(tmp_path / "merged"), rows=rows)
    assert proof.drift(reference, changed) > proof.SAME["merged"].drift
    with pytest.raises(CourseError, match=r"The round trip of it failed: .*(leads|differs at token)"):
        proof.require_same("it", "merged", reference, changed, rows, proof.EXACT)


def test_a_merged_weight_is_the_rounded_sum_of_base_and_adapter(with_adapter, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    model, tokenizer = with_adapter()
    changes = [p for name, p in model.named_parameters() if "lora_B" in name]
    with torch.no_grad():
        for change in changes:
            change.normal_(0, 0.01)
    model.save_pretrained_merged(str(tmp_path / "merged"), tokenizer, save_method="merged_16bit")
    own_process._check_sums(model, tmp_path / "merged")
    file = tmp_path / "merged" / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.2.mlp.down_proj.weight"] *= 1.05
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CourseError, match=r"layers\.2\.mlp\.down_proj\.weight is not the base's plus the adapter's"):
        own_process._check_sums(model, tmp_path / "merged")


class Parrot:
    """A model that says the last token of the prompt twice and stops."""

    longest = 512

    def __init__(self):
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(models.folder("pocket"))

    def next(self, prompt, wanted):
        return wanted

    def write(self, prompt, most):
        return [prompt[-1], prompt[-1], self.tokenizer.eos_token_id], [1.0, 2.0, 3.0]


def test_a_reading_leaves_out_what_is_too_long_for_the_model_and_says_so():
    short, long = ({"messages": [{"role": "user", "content": text}], "answer": "7"} for text in ("3 + 4?", "9" * 600))
    text = {"prompt": "Once", "answer": " upon a <|im_end|>"}
    found = own_process.reading(Parrot(), [long, short, long, text], "float32")
    assert found["left_out"] == [0, 2] and found["dtype"] == "float32" and found["most"] == 24
    assert found["prompts"] == ["<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n", "Once"]
    assert found["wanted"][0][-1] == 2 and 2 not in found["wanted"][1]  # in a text control tokens are characters
    assert found["next"] == found["wanted"]
    first = found["answers"][0]
    assert (first["text"], first["stopped"], len(first["tokens"])) == ("\n\n", True, 2)
    with pytest.raises(CourseError, match="None of the 1 held-out prompts fits into this model"):
        own_process.reading(Parrot(), [long], "float32")


def test_of_long_answers_only_50_are_written_and_64_tokens_scored():
    rows = [{"messages": [{"role": "user", "content": "Count"}], "answer": "1 2 3 " * 40}] * 60
    found = own_process.reading(Parrot(), rows, "float32")
    assert (len(found["answers"]), len(found["next"]), found["most"]) == (50, 60, 64)
    assert {len(ids) for ids in found["wanted"]} == {64}


def test_what_cannot_be_exported_is_a_sentence(tmp_path):
    with pytest.raises(CourseError, match="holds no adapter and no model"):
        export.export(tmp_path, "gguf")
    whole = models.folder("pocket")
    with pytest.raises(CourseError, match="whole model already"):
        export.export(whole, "merged")
    with pytest.raises(CourseError, match="no quant 'q3'"):
        export.export(whole, "gguf", quants=["q3"])
    with pytest.raises(CourseError, match="no export to 'exl2'"):
        export.export(whole, "exl2")
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
    assert str(quantised).count("%") == 5 and "exact answers, 120 held-out prompts" in str(quantised)
    assert sorted(path.name for path in Path(quantised.written[0]).parent.iterdir()) == names


def read(quantised, rows, reference, *more: str, quant: str = "f16", file: Path | None = None) -> dict:
    file = file or Path(next(made.path for made in quantised.formats if made.name == quant))
    with llama.Llama(file, more) as loaded:
        return proof.read_gguf(loaded, rows, reference)


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
        # llama.cpp then takes the first token out of the prompt's text, to put it there itself: the same token ids.
        (("--override-kv", "tokenizer.ggml.add_bos_token=bool:true"), ""),
    ],
)
def test_another_template_or_stop_token_is_named(quantised, rows, reference, options, difference):
    found = proof.first_difference(reference, read(quantised, rows, reference, *options), tie=0.1)
    assert found.startswith(difference) and bool(found) == bool(difference)


@needs_llama
def test_without_the_order_of_merges_prompts_are_split_otherwise(quantised, rows, reference, tmp_path):
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
    assert "split otherwise" in proof.first_difference(reference, read(quantised, rows, reference, file=file))


@needs_llama
def test_exchanged_weights_are_found_and_not_left_behind(adapter, tmp_path, monkeypatch):
    exchanged(monkeypatch, "convert", models.folder("pocket"))
    with pytest.raises(
        CourseError, match=r"round trip of model\.q8_0\.gguf failed: the answer to prompt \d+ differs at"
    ):
        export.export(adapter, "gguf", quants=["q8_0"], out=tmp_path, say=lambda line: None)
    assert list(tmp_path.iterdir()) == []


@needs_llama
def test_after_a_training_with_tools_both_exports_are_made_and_proven(adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "adapter")
    call = '<functioncall> {"name": "get_weather", "arguments": {"city": "Oslo"}}'
    system = {"role": "system", "content": "You may call functions."}
    asked = [[system, {"role": "user", "content": f"What is the weather in {city}?"}] for city in ("Oslo", "Rome")]
    told = [*asked[0], {"role": "assistant", "content": call}, {"role": "tool", "content": '{"sky": "blue"}'}]
    rows = [{"messages": asked[0], "answer": call}, {"messages": told, "answer": "The sky is blue."}]
    lines = [*rows, {"messages": asked[1], "answer": call.replace("Oslo", "Rome")}, {"text": "Once upon a time."}]
    (tmp_path / "held-out.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = []
    merged, gguf = export.after_training(tmp_path, merge=True, quants=["f16"], say=said.append)
    assert [made.name for made in merged.formats] == ["adapter", "merged"]
    assert [made.name for made in gguf.formats] == ["adapter", "f16"]
    assert {made.metric for made in gguf.formats} == {"next_token_accuracy"}
    assert gguf.formats[1].questions == 4 and abs(gguf.formats[1].score - gguf.formats[0].score) < 0.03
    assert "next-token accuracy" in str(gguf)
    assert (tmp_path / "merged/model.safetensors").is_file() and (tmp_path / "gguf/model.f16.gguf").is_file()
    assert not list(tmp_path.glob("unproven-*"))
    assert len([line for line in said if line.startswith("asking the adapter")]) == 1
    through_llama, through_unsloth = (chat.open_model(tmp_path / name) for name in ("gguf/model.f16.gguf", "merged"))
    try:
        short = chat.Sampling(max_new_tokens=8)
        answers = [model.answer_all([told], short)[0] for model in (through_llama, through_unsloth)]
        assert answers[0] == answers[1].partition("<|endoftext|>")[0]  # where llama.cpp stops by itself
        warm = chat.Sampling(temperature=2.0, max_new_tokens=8, seed=1)
        assert "".join(through_llama.stream(told, warm)) == "".join(through_llama.stream(told, warm))
    finally:
        through_llama.close()


@needs_llama
def test_teacher_forcing_in_llama_cpp_gives_the_tokens_of_one_pass(quantised, reference):
    with llama.Llama(next(made.path for made in quantised.formats if made.name == "f16")) as loaded:
        pairs = list(zip(reference["prompt_tokens"], reference["wanted"], reference["next"], strict=True))[:10]
        found = [loaded.follow(prompt, wanted) for prompt, wanted, _ in pairs]
        backwards = [wanted[::-1] for _, wanted, _ in pairs]  # hardly a token is the likeliest one
        lengths = [len(loaded.follow(prompt, wanted)) for (prompt, _, _), wanted in zip(pairs, backwards, strict=True)]
    known = [token for _, _, tokens in pairs for token in tokens]
    same = [mine == theirs for mine, theirs in zip([token for ids in found for token in ids], known, strict=True)]
    assert sum(same) >= len(same) - 1  # rounding may decide a tie
    assert lengths == [len(wanted) for wanted in backwards]


@needs_llama
def test_a_gguf_file_can_be_talked_to(quantised, adapter, rows):
    chats = [row["messages"] for row in rows[:12]]
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


# --- with ONNX Runtime

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export.onnx.PACKAGES),
    reason="the packages for ONNX are not installed",
)


def test_without_its_packages_an_export_to_onnx_says_which(monkeypatch, tmp_path):
    monkeypatch.setattr(export.onnx, "PACKAGES", ("json", "onnx_of_nobody"))
    with pytest.raises(CourseError, match=r"needs onnx_of_nobody\. Run `pip install onnx_of_nobody`"):
        export.export(models.folder("pocket"), "onnx", out=tmp_path, data="pocket")


@needs_onnx
def test_an_onnx_model_makes_its_round_trip_with_every_token(adapter, tmp_path):
    found = export.export(adapter, "onnx", out=tmp_path, say=lambda line: None)
    made = found.formats[-1]
    assert (made.name, made.compared) == ("onnx", 50) and made.same >= 48 and made.drift < 0.02
    assert made.bytes > 13e6  # 32 bit
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]
    assert (tmp_path / "onnx" / "model.onnx").is_file() and (tmp_path / "onnx" / "tokenizer.json").is_file()
