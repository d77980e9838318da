"""Predicted and measured memory of a training run."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import chat
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import data, memory, models, training
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.memory import Meter, Shape, fits, lora_parameters, meter, parameters, predict

SMOLLM2 = Shape(hidden=576, layers=30, heads=9, kv_heads=3, intermediate=1536, vocabulary=49152, tied=True)
POCKET = Shape(hidden=256, layers=4, heads=4, kv_heads=2, intermediate=768, vocabulary=1024, tied=True)
TARGETS = list(memory.PROJECTIONS)
STEPS = 3  # the second is the first with an optimizer's memory


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head_dim", [None, 32])
def test_counts_agree_with_real_models(tied, head_dim):
    pytest.importorskip("unsloth")  # before peft and transformers
    peft = pytest.importorskip("peft")
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"intermediate_size": 96, "vocab_size": 100, "head_dim": head_dim}
    config = LlamaConfig(**sizes, tie_word_embeddings=tied)
    model = LlamaForCausalLM(config)
    assert parameters(Shape.of(model)) == sum(p.numel() for p in model.parameters())
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=TARGETS))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert lora_parameters(Shape.of(adapted), 8) == trained
    assert Shape.of(adapted) == Shape.of(config)


def test_a_config_of_another_kind_is_a_sentence():
    from transformers import GPT2Config

    with pytest.raises(CourseError, match=r"type gpt2 has no .*intermediate_size"):
        Shape.of(GPT2Config())


@pytest.mark.parametrize("method", memory.METHODS)
def test_prediction_explains_every_part(method):
    prediction = predict(POCKET, method=method, micro_batch=16, length=48)
    assert list(prediction.parts) == ["weights", "gradients", "optimizer", "activations"]
    assert prediction.total == sum(prediction.parts.values())
    assert all(isinstance(amount, int) and amount > 0 for amount in prediction.parts.values())
    assert len(json.loads(json.dumps(prediction.reasons))) == 4
    for text in (str(prediction), prediction._repr_html_()):
        assert all(part in text for part in [*prediction.parts, "total", method])
    assert "<script" not in prediction._repr_html_()


def test_static_parts_of_lora_are_exact_counts():
    parts = predict(SMOLLM2, method="lora", micro_batch=2, length=64, dtype="bfloat16").parts
    assert parts["weights"] == 134_515_008 * 2 + 4_884_480 * 4
    assert parts["gradients"] == 4_884_480 * 4
    assert parts["optimizer"] == 4_884_480 * 8


def test_methods_compare_as_taught():
    sizes = {method: predict(SMOLLM2, method=method, micro_batch=4, length=64) for method in memory.METHODS}
    assert sizes["qlora"].parts["weights"] < sizes["lora"].parts["weights"] < sizes["cpt"].parts["weights"]
    assert sizes["lora"].parts["gradients"] < sizes["cpt"].parts["gradients"] < sizes["full"].parts["gradients"]
    assert sizes["dpo"].parts["activations"] > sizes["lora"].parts["activations"]
    assert sizes["lora"].total < sizes["full"].total


def test_checkpointing_saves_and_accumulation_of_full_gradients_costs():
    def total(**knobs):
        return predict(POCKET, method="full", micro_batch=16, length=64, **knobs).total

    assert total(checkpointing=True) < total() < total(accumulation=4)


def test_grpo_on_a_gpu_counts_a_shared_prompt_twice():
    """Both ways through the model are held when they are compared; only where much of a row is prompt."""

    def activations(rows, completion, device="cuda"):
        knobs = {"length": 512, "completion": completion, "dtype": "bfloat16", "device": device}
        return predict(SMOLLM2, method="grpo", micro_batch=rows, **knobs).parts["activations"]

    whole = activations(8, 448)  # 64 of 512 tokens are shared: too few to be worth it
    assert activations(8, 256) > 1.4 * whole
    assert activations(7, 256) < whole  # no whole group of answers
    assert activations(8, 256, "cpu") < activations(8, 448, "cpu")


def test_the_answers_to_a_whole_update_are_written_at_once():
    def total(accumulation):
        knobs = {"length": 4096, "completion": 2048, "dtype": "bfloat16", "device": "cuda", "checkpointing": True}
        return predict(SMOLLM2, method="grpo", micro_batch=1, accumulation=accumulation, **knobs).total

    assert total(64) > 2 * total(2)


@given(
    method=st.sampled_from(memory.METHODS),
    dtype=st.sampled_from(sorted(memory.BYTES)),
    device=st.sampled_from(["cpu", "cuda"]),
    checkpointing=st.booleans(),
    micro_batch=st.integers(1, 64),
    length=st.integers(1, 4096),
)
def test_more_rows_or_tokens_never_need_less(method, dtype, device, checkpointing, micro_batch, length):
    def total(micro_batch, length):
        knobs = {"dtype": dtype, "device": device, "checkpointing": checkpointing}
        return predict(POCKET, method=method, micro_batch=micro_batch, length=length, **knobs).total

    assert total(micro_batch, length) <= min(total(micro_batch + 1, length), total(micro_batch, length + 1))


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"method": "sft"}, "method 'sft'; choose one of full, lora"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"length": 0}, "longest row has 0 tokens"),
        ({"rank": 0}, "rank is 0"),
    ],
)
def test_wrong_knobs_are_sentences(knobs, words):
    with pytest.raises(CourseError, match=words):
        predict(POCKET, **({"method": "lora", "micro_batch": 8, "length": 32} | knobs))


def test_fits_a_named_gpu_and_available_memory():
    small = predict(SMOLLM2, method="lora", micro_batch=2, length=512, dtype="bfloat16", device="cuda")
    answer, sentence = fits(small, "T4")
    assert answer and "14.70 GiB usable on T4: it fits" in sentence
    answer, sentence = fits(small, small.total)
    assert not answer and "100.0% of" in sentence and "does not fit; take a smaller micro-batch" in sentence
    assert fits(small, int(small.total / memory.HEADROOM) + 1)[0]


def test_fits_refuses_a_gpu_that_it_does_not_know():
    with pytest.raises(CourseError, match="No GPU named 'T5'"):
        fits(predict(POCKET, method="lora", micro_batch=1, length=8), "T5")


@pytest.mark.parametrize(("amount", "text"), [(512, "0.5 KiB"), (3 * 2**20, "3.0 MiB"), (5 * 2**28, "1.25 GiB")])
def test_size(amount, text):
    assert memory.size(amount) == text


def test_peak_of_allocations_is_exact():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        first, second = torch.empty(2**20), torch.empty(2**19)
        del first
        third = torch.empty(2**18)
    assert meter._peak_of(profiler) == 4 * (2**20 + 2**19)
    assert second.numel() > third.numel()


# Real trainings of the bundled model


@pytest.fixture
def train(load, machine, tmp_path):
    """A few steps of a training: the trainer, the tokens of its longest row, and its losses."""
    if torch.cuda.is_available():
        pytest.skip("these runs check Unsloth's CPU backend")
    from unsloth import FastLanguageModel

    def run(
        meter=None, full=False, dtype=torch.float32, checkpointing=False, micro_batch=16, accumulation=1, bf16=False
    ):
        knobs = {"dtype": dtype, "load_in_4bit": False, "full_finetuning": full}
        knobs["use_gradient_checkpointing"] = checkpointing
        model, tokenizer = FastLanguageModel.from_pretrained(models.folder("pocket"), max_seq_length=128, **knobs)
        if not full:
            model = FastLanguageModel.get_peft_model(
                model, r=16, target_modules=TARGETS, lora_alpha=16, use_gradient_checkpointing=False
            )
        rows = data.sources.instructions("pocket", train=STEPS * micro_batch * accumulation, held_out=1, seed=3407)[0]
        how = {"steps": STEPS, "learning_rate": 1e-3, "seed": 3407, "out": tmp_path, "logging_steps": 1}
        how |= {"per_device_train_batch_size": micro_batch, "gradient_accumulation_steps": accumulation}
        how |= {"gradient_checkpointing": checkpointing, "bf16": bf16 or dtype == torch.bfloat16}
        how["callbacks"] = [meter] if meter else []
        trainer = training.supervised_trainer(model, tokenizer, chat(rows), machine, **how)
        trainer.train()
        longest = max(len(row["input_ids"]) for row in trainer.train_dataset)
        return trainer, longest, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    return run


@pytest.fixture
def bfloat16(request, monkeypatch, load):
    """What Unsloth takes the processor for: "" as it is, "0" without bfloat16, where it multiplies in 32 bits."""
    from unsloth_zoo.cpu.runtime import cpu_bf16_supported

    monkeypatch.setenv("UNSLOTH_CPU_BF16", request.param)
    cpu_bf16_supported.cache_clear()
    yield
    cpu_bf16_supported.cache_clear()


@pytest.mark.parametrize(
    ("method", "dtype", "accumulation", "bfloat16"),
    [("lora", "float32", 1, ""), ("lora", "bfloat16", 2, ""), ("lora", "bfloat16", 2, "0"), ("full", "float32", 2, "")],
    indirect=["bfloat16"],
)
def test_prediction_is_within_20_percent_of_the_measurement(train, method, dtype, accumulation, bfloat16):
    meter = Meter()
    knobs = {"micro_batch": 16, "accumulation": accumulation}
    trainer, longest, _ = train(meter, method == "full", getattr(torch, dtype), **knobs)
    predicted = predict(Shape.of(trainer.model), method=method, length=longest, dtype=dtype, **knobs)
    assert sum(meter.parts.values()) == meter.peak_bytes
    assert predicted.total == pytest.approx(meter.peak_bytes, rel=0.2)
    assert predicted.parts["activations"] == pytest.approx(meter.parts["activations"], rel=0.2)
    for part in ("weights", "gradients", "optimizer"):
        assert predicted.parts[part] == pytest.approx(meter.parts[part], rel=0.01)


def test_float32_weights_with_products_in_bfloat16_are_predicted(train):
    """As `float32_mixed_precision=True` trains on a GPU; without bfloat16 the processor multiplies in 32 bits."""
    meter = Meter()
    trainer, longest, _ = train(meter, full=True, bf16=True)
    how = {"micro_batch": 16, "length": longest, "autocast": trainer.args.bf16}
    predicted = predict(Shape.of(trainer.model), method="full", **how)
    assert predicted.parts["activations"] == pytest.approx(meter.parts["activations"], rel=0.2)
    assert predicted.total == pytest.approx(meter.peak_bytes, rel=0.2)


def test_checkpointing_saves_what_is_predicted(train):
    """Off and on, both within 20 %; the lesson on full fine-tuning measures the same on larger batches."""
    peaks = {}
    for on in (False, True):
        meter = Meter()
        trainer, longest, losses = train(meter, full=True, micro_batch=48, checkpointing=on)
        predicted = predict(Shape.of(trainer.model), method="full", micro_batch=48, length=longest, checkpointing=on)
        assert predicted.total == pytest.approx(meter.peak_bytes, rel=0.2)
        peaks[on] = meter.peak_bytes, losses
    assert peaks[True][0] < 0.7 * peaks[False][0]
    assert peaks[True][1] == pytest.approx(peaks[False][1], abs=1e-3)  # the same numbers, computed twice


def test_the_meter_changes_no_loss_and_leaves_nothing_behind(train):
    meter = Meter()
    trainer, _, measured = train(meter, micro_batch=4)
    _, _, plain = train(micro_batch=4)
    assert measured == plain and len(measured) == STEPS
    assert not trainer.model._forward_pre_hooks


def test_on_a_gpu_what_else_lay_there_is_not_counted(monkeypatch):
    """With CUDA's counters played by numbers: 1,000 bytes of another model, 400 of this one, a peak of 3,000."""
    layer = torch.nn.Linear(10, 10, bias=False)
    monkeypatch.setattr(memory.meter, "_on_cuda", lambda model: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1400)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3000)
    segments = [{"total_size": 700, "segment_pool_id": (0, 0)}]
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    meter = Meter()
    meter.on_train_begin(None, None, None, model=layer)
    meter.on_train_end(None, None, None, model=layer)
    assert meter.peak_bytes == 2000 and meter.parts["weights"] == 400 and meter.parts["activations"] == 1600

    # With graphs: 3,000 bytes while they are recorded, then 1,600 beside 500 in their pools.
    counter = iter([3000, 1600])
    meter.on_train_begin(None, None, None, model=layer)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: next(counter))
    segments.append({"total_size": 500, "segment_pool_id": (0, 1)})  # what the training's graphs keep
    for step in range(1, 5):
        meter.on_step_end(None, SimpleNamespace(global_step=step), None, model=layer)
    meter.on_train_end(None, None, None, model=layer)
    assert meter.peak_bytes == 2000

    # A second training fills the same pools again: they are not others' memory.
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 1600)
    meter.on_train_begin(None, None, None, model=layer)
    meter.on_train_end(None, None, None, model=layer)
    assert meter.peak_bytes == 1600 + 500 - 1000


def test_a_small_model_is_not_charged_the_workspaces_of_a_large_one():
    """Peaks on an H200, `run LESSON --profile gpu --model pocket`, and the leg of 8 rows of `benchmarks/speed.py`."""
    how = {"dtype": "bfloat16", "device": "cuda", "graphs": True}
    for method, rows, length, mib in (("full", 16, 64, 199), ("cpt", 16, 128, 252), ("lora", 8, 512, 356)):
        predicted = predict(POCKET, method=method, micro_batch=rows, length=length, **how).total
        assert predicted / 2**20 == pytest.approx(mib, rel=0.15)
