"""Loading, counting, asking and saving, on the pocket model through Unsloth."""

import copy
import importlib.util
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import unsloth_source

from unsloth_course import evaluation, memory, models
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import BUNDLED_MODEL, REPOSITORY
from unsloth_course.lesson import smollm2
from unsloth_course.lesson.models import asking

QUESTIONS = ["What is 41 plus 17?", "Even or odd?\n\n7", "Sort the letters of QZB.", "Name the number after 99."]


@pytest.fixture(scope="module")
def base(load):
    """The model as it was pretrained; the tests leave it so."""
    return load()


def test_the_bundled_model_is_a_folder_and_a_folder_is_taken_as_it_is():
    assert Path(models.folder("pocket")) == BUNDLED_MODEL == Path(models.folder(models.folder("pocket")))


def test_all_weights_are_counted_and_shared_ones_once(base):
    model, _ = base
    found = models.count(model)
    assert found.total == memory.parameters(memory.Shape.of(model))
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_a_count_in_words():
    found = models.Count(total=134_515_008, trainable=4_884_480)
    assert found.share == pytest.approx(0.0363, abs=1e-4)
    assert str(found) == "4,884,480 of 134,515,008 parameters are trained (3.63 %)"


def test_full_fine_tuning_trains_every_weight(load):
    model, _ = load(full_finetuning=True)
    found = models.require_full(model)
    assert found.trainable == found.total == memory.parameters(memory.Shape.of(model))


def test_frozen_embeddings_are_not_full_fine_tuning(load):
    model, _ = load(full_finetuning=True)
    model.get_input_embeddings().weight.requires_grad_(False)
    with pytest.raises(CourseError, match=r"not full .*1 tensors.*embed_tokens.*full_finetuning=True"):
        models.require_full(model)


def test_an_adapter_is_not_full_fine_tuning(with_adapter):
    model, _ = with_adapter()
    with pytest.raises(CourseError, match="not full fine-tuning"):
        models.require_full(model)


@pytest.mark.parametrize("rank", [4, 16])
def test_an_adapter_on_all_seven_projections_has_the_count_of_its_shape(with_adapter, rank):
    model, _ = with_adapter(rank)
    shape = memory.Shape.of(model)
    found = models.require_lora(model, rank)
    assert found.trainable == memory.lora_parameters(shape, rank)
    assert found.total == memory.parameters(shape) + found.trainable


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        ({"rank": 16}, 8),
        ({"target_modules": ["q_proj", "v_proj"]}, 16),
        ({"target_modules": models.PROJECTIONS[:-1]}, 16),
        ({"bias": "none", "target_modules": [*models.PROJECTIONS, "embed_tokens"]}, 16),
    ],
    ids=["another rank", "two projections", "one missing", "embeddings too"],
)
def test_another_adapter_than_said_is_a_sentence(with_adapter, made, asked):
    model, _ = with_adapter(**made)
    with pytest.raises(
        CourseError, match=r"rank-.* adapter on the seven projections has .* parameters, but .* trained"
    ):
        models.require_lora(model, asked)


CPT = {"target_modules": [*models.PROJECTIONS, "embed_tokens", "lm_head"], "use_rslora": True}
TEXTS = ["def f(x):\n    return x\n", "It was a sunny morning in Ravenna."]


def moved(model):
    """The model after a step in a random direction, of everything that is trained."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    return model


def one_tensor(model):
    return model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()


@pytest.mark.parametrize("rank", [8, 64])
def test_the_embeddings_are_counted_once(with_adapter, rank):
    model, _ = with_adapter(rank, ensure_weight_tying=True, **CPT)
    shape = memory.Shape.of(model)
    found = models.require_cpt(model, rank)
    assert found.trainable == memory.lora_parameters(shape, rank) + shape.vocabulary * shape.hidden
    assert models.require_tied(model) and one_tensor(model)


@pytest.mark.parametrize("made", [{}, {"ensure_weight_tying": False}], ids=["not said", "said no"])
def test_two_copies_of_the_embeddings_are_a_sentence(with_adapter, made):
    model, _ = with_adapter(16, **CPT, **made)
    for require in (models.require_tied, lambda model: models.require_cpt(model, 16)):
        with pytest.raises(CourseError, match=r"should be one tensor, and they are two.*ensure_weight_tying=True"):
            require(model)


@pytest.mark.parametrize(
    "made",
    [
        {"target_modules": models.PROJECTIONS},
        {"target_modules": [*models.PROJECTIONS[:-1], "embed_tokens", "lm_head"], "ensure_weight_tying": True},
        {"r": 8, "target_modules": CPT["target_modules"], "ensure_weight_tying": True},
    ],
    ids=["frozen embeddings", "a projection missing", "another rank"],
)
def test_another_set_of_parameters_than_said_is_a_sentence(with_adapter, made):
    model, _ = with_adapter(**made)
    with pytest.raises(CourseError, match=r"with one table of embeddings has .* parameters, but .* trained"):
        models.require_cpt(model, 16)


def test_a_model_that_ties_nothing_may_have_two(base):
    model = SimpleNamespace(config=copy.deepcopy(base[0].config))
    model.config.tie_word_embeddings = False
    assert models.require_tied(model) is False


def test_a_trained_table_stays_one_after_saving_and_merging(load, with_adapter, tmp_path):
    from unsloth import FastLanguageModel

    model, tokenizer = with_adapter(16, ensure_weight_tying=True, **CPT)
    moved(model)
    known = evaluation.perplexity(model, tokenizer, TEXTS, 64)
    saved = models.save_adapter(model, tokenizer, tmp_path / "adapter", base="pocket")
    # The table is in the file under both of its names, in float32, and the adapter beside it.
    shape = memory.Shape.of(model)
    numbers = memory.lora_parameters(shape, 16) + 2 * shape.vocabulary * shape.hidden
    assert 4 * numbers < models.disk_bytes(saved) < 4 * numbers + 20_000
    again, tokens = models.load_adapter(saved, max_length=64, dtype=model.dtype)
    assert models.require_tied(again) and one_tensor(again)
    assert evaluation.perplexity(again, tokens, TEXTS, 64).losses == pytest.approx(known.losses, rel=1e-4)

    model.save_pretrained_merged(str(tmp_path / "merged"), tokenizer, save_method="merged_16bit")
    merged, tokens = FastLanguageModel.from_pretrained(
        model_name=str(tmp_path / "merged"), max_seq_length=64, dtype=model.dtype, load_in_4bit=False
    )
    assert models.require_tied(merged) and one_tensor(merged)
    assert models.count(merged).total == memory.parameters(memory.Shape.of(merged)) == models.count(load()[0]).total
    assert evaluation.perplexity(merged, tokens, TEXTS, 64).loss == pytest.approx(known.loss, rel=0.01)


def test_the_mode_of_the_model_is_put_back_also_after_an_error(with_adapter):
    model, tokenizer = with_adapter()
    for training in (True, False):
        model.train(training)
        models.answer(model, tokenizer, ["What is 1 plus 1?"], 2)
        assert model.training is training
        assert all(module.training is training for module in model.modules())
    model.train()
    with pytest.raises(RuntimeError), models.answering(model):
        assert not model.training
        raise RuntimeError
    assert model.training


def test_the_keys_and_values_of_the_answers_are_let_go(with_adapter, monkeypatch):
    """Or they lie beside the weights until a training is under way, and its measured memory is too low by them."""
    spec = importlib.util.spec_from_file_location("graphs", unsloth_source("_decode_graphs"))
    graphs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(graphs)
    monkeypatch.setitem(sys.modules, "unsloth.models._decode_graphs", graphs)
    model, _ = with_adapter()
    attention = next(module for name, module in model.named_modules() if name.endswith("self_attn"))
    past = torch.zeros(1, 2, 5, 8)  # a row, heads, tokens, numbers
    with models.answering(model):
        # What a GPU's second token of an answer does; on a CPU, Unsloth answers in another way.
        graphs.alloc_decode_buffers(attention, past, past, 1, 4, 2, 8, 32, past.dtype, past.device, 256)
        assert attention.paged_attention.numel() > 2 * past.numel()
    left = {name for name, value in vars(attention).items() if isinstance(value, torch.Tensor)}
    assert not left & set(graphs._BUFFER_NAMES)


def test_on_a_cpu_nothing_of_unsloths_gpu_part_is_loaded(with_adapter):
    """It patches transformers and TRL for a GPU, and then DPO takes steps that change nothing."""
    model, tokenizer = with_adapter()
    models.answer(model, tokenizer, ["What is 1 plus 1?"], 2)
    assert model.device.type == "cuda" or "unsloth.models" not in sys.modules


def test_the_chat_form_stops_where_the_answer_begins(base):
    _, tokenizer = base
    text = models.chat_prompt(tokenizer, "What is 1 plus 1?")
    assert text == "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n<|im_start|>assistant\n"


def test_a_conversation_that_cannot_be_written_is_a_sentence(base):
    _, tokenizer = base
    bare, strict = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    bare.chat_template, strict.chat_template = None, "{{ raise_exception('No system prompts.') }}"
    with pytest.raises(CourseError, match="This model has no chat template"):
        models.chat_prompt(bare, "a")
    turns = [{"role": role, "content": "a"} for role in ("system", "user")]
    with pytest.raises(CourseError, match=r"refuses turns of system, user: No system prompts. Take rows without"):
        models.in_chat_form(strict, turns, tokenize=False)
    assert models.in_chat_form(tokenizer, turns, tokenize=True) == tokenizer.apply_chat_template(turns, tokenize=True)


def test_answers_in_a_batch_are_those_one_by_one(healthy):
    """Questions of other lengths are padded on the left, so the answer must not depend on its neighbours."""
    questions = [*healthy.before.questions[:8], *QUESTIONS]
    tokenizer = copy.deepcopy(healthy.tokenizer)  # one that Unsloth does not turn to the left by itself
    tokenizer.padding_side = "right"
    together = models.answer(healthy.model, tokenizer, questions)
    assert together == [models.answer(healthy.model, tokenizer, [question])[0] for question in questions]
    assert len({len(tokenizer(question)["input_ids"]) for question in questions}) > 3


def test_more_prompts_than_fit_into_one_batch_keep_their_order(healthy, monkeypatch):
    whole = models.answer(healthy.model, healthy.tokenizer, healthy.before.questions[:7])
    monkeypatch.setattr(asking, "ANSWERS_AT_ONCE", 3)
    assert models.answer(healthy.model, healthy.tokenizer, healthy.before.questions[:7]) == whole
    assert models.complete(healthy.model, healthy.tokenizer, []) == []


@pytest.mark.parametrize(("free", "longest", "rows"), [(2**34, 192, 256), (2**31, 512, 91), (2**28, 512, 64)])
def test_a_gpu_answers_as_many_prompts_together_as_its_free_memory_holds(monkeypatch, free, longest, rows):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 2**37))
    model = SimpleNamespace(device=torch.device("cuda"), config=smollm2.CONFIG)
    assert asking._at_once(model, longest) == rows


def test_an_answer_is_cut_at_the_limit_and_not_before(base):
    """The base has never written the token that ends a turn, so it goes on to the limit."""
    model, tokenizer = base
    for limit in (1, 5):
        (given,) = models.answer(model, tokenizer, ["What is 41 plus 17?"], limit)
        assert len(tokenizer(given, add_special_tokens=False)["input_ids"]) == limit


def test_the_end_is_left_out_and_other_control_tokens_are_shown(healthy):
    assert not any(healthy.tokenizer.eos_token in text for text in healthy.after.given)
    # The base begins a new document where an answer should end, and that shows.
    assert any("<|endoftext|>" in text for text in healthy.before.given)


def test_the_side_of_the_padding_is_put_back(base):
    model, tokenizer = base
    for side in ("right", "left"):
        tokenizer.padding_side = side
        models.answer(model, tokenizer, QUESTIONS, 2)
        assert tokenizer.padding_side == side
        with pytest.raises(ValueError):
            models.complete(model, tokenizer, [3.5])
        assert tokenizer.padding_side == side


def test_the_pieces_of_a_stream_make_up_the_answer(healthy, base):
    """Also one that is cut: the base goes on to the limit."""
    asked = [(healthy.model, healthy.tokenizer, question) for question in healthy.before.questions[:6]]
    for model, tokenizer, question in [*asked, (*base, "What is 41 plus 17?")]:
        pieces = list(models.stream(model, tokenizer, question))
        assert "".join(pieces) == models.answer(model, tokenizer, [question])[0]
        assert all(pieces)
    assert len(pieces) > 2


def test_a_failing_generation_is_raised_to_the_reader(with_adapter, monkeypatch):
    model, tokenizer = with_adapter()
    model.train()

    def fail(**arguments):
        raise MemoryError("no room for the cache")

    monkeypatch.setattr(model, "generate", fail)
    seen = []

    def read():
        try:
            seen.extend(models.stream(model, tokenizer, "What is 1 plus 1?"))
        except MemoryError as error:
            seen.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(timeout=20)
    assert not reader.is_alive(), "the stream waits for a piece that never comes"
    assert [str(piece) for piece in seen] == ["no room for the cache"]
    assert model.training


def test_a_reader_may_stop_early(healthy):
    model, tokenizer = healthy.model, healthy.tokenizer
    threads = threading.active_count()
    pieces = models.stream(model, tokenizer, "Sort the letters of QZB.")
    next(pieces)
    pieces.close()
    assert threading.active_count() == threads
    assert models.answer(model, tokenizer, healthy.before.questions[:1]) == healthy.after.given[:1]


def logits(model, tokenizer):
    prompt = tokenizer(models.chat_prompt(tokenizer, QUESTIONS[0]), return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        return model(input_ids=prompt["input_ids"], attention_mask=prompt["attention_mask"]).logits


def test_a_scale_of_0_is_the_base_and_1_is_the_trained_model(base, healthy):
    model, tokenizer = healthy.model, healthy.tokenizer
    trained, pretrained = logits(model, tokenizer), logits(*base)
    assert not torch.allclose(trained, pretrained, atol=0.1)
    with models.adapter_scaled(model, 0):
        assert torch.equal(logits(model, tokenizer), pretrained)
    with models.adapter_scaled(model, 1):
        assert torch.equal(logits(model, tokenizer), trained)
    with models.adapter_scaled(model, 0.5):
        between = logits(model, tokenizer)
        assert not torch.allclose(between, trained, atol=0.1) and not torch.allclose(between, pretrained, atol=0.1)
    assert torch.equal(logits(model, tokenizer), trained)


def test_a_scale_is_the_factor_before_b_a(with_adapter):
    model, _ = with_adapter(rank=4, lora_alpha=8)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    with models.adapter_scaled(model, 1.5):
        assert layer.scaling == {"default": 1.5 * 8 / 4}
    assert layer.scaling == {"default": 8 / 4}


def test_the_scale_is_put_back_after_an_error_and_inside_another(with_adapter):
    model, _ = with_adapter()
    scales = {name: dict(module.scaling) for name, module in model.named_modules() if hasattr(module, "lora_A")}
    assert len(scales) == 7 * model.config.num_hidden_layers
    with pytest.raises(KeyError), models.adapter_scaled(model, 2):
        with models.adapter_scaled(model, 0.5):
            assert all(model.get_submodule(name).scaling == {"default": 1.0} for name in scales)
        raise KeyError
    assert {name: dict(model.get_submodule(name).scaling) for name in scales} == scales


def test_a_model_without_an_adapter_cannot_be_scaled(base):
    with pytest.raises(CourseError, match="no LoRA adapter"), models.adapter_scaled(base[0], 0.5):
        pass


def test_a_copy_of_an_adapter_brings_it_back_exactly(with_adapter):
    model, _ = with_adapter()
    start = models.adapter_state(model)
    assert len(start) == 2 * 7 * model.config.num_hidden_layers and all("lora_" in name for name in start)
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name in start:
            named[name].add_(1.0)
    moved = {name: named[name].clone() for name in start}
    assert not any(named[name].equal(start[name]) for name in start)  # a copy, and no second name of the same tensor
    models.restore_adapter(model, start)
    assert all(named[name].equal(start[name]) and named[name].requires_grad for name in start)
    models.restore_adapter(model, moved)
    assert all(named[name].equal(moved[name]) for name in start)


@pytest.fixture(scope="module")
def saved(healthy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    assert models.save_adapter(healthy.model, healthy.tokenizer, folder, base="pocket") == folder
    return folder


def test_an_adapter_comes_back_as_it_was(healthy, saved, machine):
    model, tokenizer = models.load_adapter(saved, max_length=machine.max_length, dtype=machine.torch_dtype)
    assert models.answer(model, tokenizer, healthy.after.questions) == healthy.after.given
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_saved_adapter_names_its_base_and_no_path_of_this_machine(saved):
    settings = json.loads((saved / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "pocket"
    assert "base_model: pocket" in (saved / "README.md").read_text()
    home = str(REPOSITORY)
    texts = [path for path in saved.iterdir() if path.suffix != ".safetensors"]
    assert len(texts) >= 4
    assert not [path.name for path in texts if home in path.read_text() or str(saved.parent) in path.read_text()]


def test_an_adapter_is_small(healthy, saved):
    trained = memory.lora_parameters(memory.Shape.of(healthy.model), 16)
    assert models.disk_bytes(saved) == pytest.approx(4 * trained, rel=0.02)
    assert models.disk_bytes(saved) < models.disk_bytes(models.folder("pocket")) / 4
    assert models.disk_bytes(saved / "adapter_model.safetensors") == models.disk_bytes(saved)


def test_saving_over_a_file_is_a_sentence(healthy, tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(CourseError, match=r"taken.*Choose another folder"):
        models.save_adapter(healthy.model, healthy.tokenizer, tmp_path / "taken", base="pocket")
    assert (tmp_path / "taken").read_text() == "mine"


def spoiled(saved, tmp_path, name, change):
    """A copy of the saved adapter in which one file is changed; None takes it away."""
    copy = shutil.copytree(saved, tmp_path / "copy")
    content = change((copy / name).read_bytes())
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    return copy


def setting(name, value):
    return lambda content: json.dumps(json.loads(content) | {name: value}).encode()


CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (CONFIG, lambda content: None, "holds no adapter"),
        (WEIGHTS, lambda content: None, "holds no adapter"),
        (CONFIG, lambda content: content[:40], "does not hold a JSON object"),
        (CONFIG, lambda content: b"[1, 2]", "does not hold a JSON object"),
        (CONFIG, lambda content: b"\xff\xfe", "does not hold a JSON object"),
        (CONFIG, setting("base_model_name_or_path", None), "names no base model"),
        (CONFIG, setting("base_model_name_or_path", ""), "names no base model"),
        (CONFIG, setting("base_model_name_or_path", 7), "names no base model"),
        (CONFIG, setting("base_model_name_or_path", "../elsewhere"), "neither a folder on this machine nor a Hub name"),
        (CONFIG, setting("r", 8), "does not fit its base pocket"),
        (CONFIG, setting("target_modules", ["c_attn"]), "does not fit its base pocket"),
        (WEIGHTS, lambda content: content[:5000], "cut off or damaged"),
        (WEIGHTS, lambda content: b"", "cut off or damaged"),
    ],
)
def test_a_damaged_adapter_is_a_sentence(load, saved, tmp_path, name, change, sentence):
    folder = spoiled(saved, tmp_path, name, change)
    with pytest.raises(CourseError, match=sentence):
        models.load_adapter(folder)


def test_a_whole_model_is_not_an_adapter(tmp_path):
    with pytest.raises(CourseError, match=r"holds no adapter.*load it with FastLanguageModel"):
        models.load_adapter(models.folder("pocket"))
    with pytest.raises(CourseError, match="holds no adapter"):
        models.load_adapter(tmp_path / "nowhere")


def test_an_adapter_is_not_a_whole_model(saved):
    """The classic mistake, caught before Unsloth sees it."""
    with pytest.raises(CourseError, match=r"is an adapter, not a whole model.*\(pocket\)"):
        models.folder(saved)


def test_a_whole_model_does_not_take_the_adapter_from_the_next(monkeypatch):
    monkeypatch.setenv("UNSLOTH_ENABLE_FULL_FINETUNING", "1")  # as Unsloth leaves it on a GPU
    models.allow_adapters()
    assert os.environ["UNSLOTH_ENABLE_FULL_FINETUNING"] == "0"
