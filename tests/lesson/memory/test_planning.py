"""The plan for the batch: what it picks, why, and what it does when memory runs out all the same."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import memory, profile
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data.instruction import Lengths
from unsloth_course.lesson.memory import GIB, Shape, formulas, planning

SMOLLM2 = Shape(hidden=576, layers=30, heads=9, kv_heads=3, intermediate=1536, vocabulary=49152, tied=True)
CPU = profile.Machine(cuda_name=None, cuda_bytes=0, bfloat16=False, cores=2, memory_bytes=24 * GIB, apple_silicon=False)
H200 = replace(CPU, cuda_name="NVIDIA H200", cuda_bytes=140 * GIB, bfloat16=True, capability=(9, 0))
T4 = replace(CPU, cuda_name="Tesla T4", cuda_bytes=15 * GIB, capability=(7, 5))


def plan(method="lora", machine=H200, longest=512, **how):
    return memory.plan(SMOLLM2, profile.decide(machine), method, longest=longest, **how)


def test_on_a_cpu_the_plan_is_the_profiles_own():
    machine = profile.decide(CPU)
    for method in ("full", "lora", "dpo", "cpt"):
        made = memory.plan(SMOLLM2, machine, method, longest=100)
        assert made.arguments == machine.arguments
        assert (made.micro_batch, made.accumulation, made.checkpointing, made.fits) == (16, 1, False, True)


def test_a_small_model_goes_through_in_one_piece():
    for machine in (H200, T4):
        made = plan(machine=machine)
        assert (made.micro_batch, made.accumulation, made.checkpointing) == (8, 1, False)


@pytest.mark.parametrize("method", memory.METHODS)
@pytest.mark.parametrize("rows", [8, 12, 64, 96])
def test_the_effective_batch_is_kept(method, rows):
    for budget in (2, 4, 15):
        made = plan(method, replace(T4, cuda_bytes=budget * GIB), 1024, rows=rows)
        assert made.rows == rows == made.micro_batch * made.accumulation
        assert made.arguments["per_device_train_batch_size"] == made.micro_batch
        assert made.arguments["gradient_accumulation_steps"] == made.accumulation


def test_what_does_not_fit_in_one_piece_is_taken_in_several():
    machine = replace(profile.decide(T4), max_length=2048)
    made = memory.plan(SMOLLM2, machine, "lora", longest=2048, rows=64)
    assert (made.micro_batch, made.accumulation, made.checkpointing) == (8, 8, False)
    assert made.fits and made.prediction.total <= memory.HEADROOM * 15 * GIB
    assert "for all of them at once" in str(made)


def test_checkpointing_is_for_rows_that_fit_no_other_way():
    machine = replace(profile.decide(replace(T4, cuda_bytes=2 * GIB)), max_length=8192)
    made = memory.plan(SMOLLM2, machine, "lora", longest=8192, rows=1)
    assert made.checkpointing and made.fits and made.arguments["gradient_checkpointing"] is True
    assert "without it, not one row fits" in str(made)


def test_what_fits_in_no_way_is_said():
    made = plan("full", replace(T4, cuda_bytes=GIB // 2))
    assert not made.fits and "still too much" in str(made)


def test_more_memory_never_makes_an_update_dearer():
    found = [plan("dpo", replace(H200, cuda_bytes=n * GIB), rows=64) for n in (4, 8, 16, 40, 140)]
    ground = planning._Ground(SMOLLM2, "dpo", 512, 0, 1, {}, None)
    costs = [planning._seconds(ground, made.micro_batch, made.accumulation, made.checkpointing) for made in found]
    assert costs == sorted(costs, reverse=True) and costs[-1] < costs[0]


def test_static_shapes_are_for_gpus_that_were_measured():
    made = plan("lora", H200, longest=300)
    assert made.arguments["padding_free"] is False and made.arguments["pad_to_multiple_of"] == 320
    other = plan("lora", T4, longest=300)
    assert "padding_free" not in other.arguments and "Unsloth's choice" in str(other)
    assert "padding_free" not in plan("dpo").arguments and plan("dpo").arguments["precompute_ref_log_probs"] is True


def test_on_a_cpu_rows_of_a_real_model_go_by_length():
    for model, method, on in (("smollm2", "lora", True), ("pocket", "lora", False), ("smollm2", "dpo", False)):
        machine = profile.decide(CPU, model=model)
        made = memory.plan(SMOLLM2, machine, method, longest=100, completion=50)
        assert (made.arguments.get("train_sampling_strategy") == "group_by_length") is on, (model, method)
        assert ("order of rows" in str(made)) is on


def test_without_bfloat16_all_weights_are_trained_in_32_bits():
    made = {machine: plan("full", machine).prediction.parts["weights"] for machine in (H200, T4)}
    assert made == {H200: 2 * memory.parameters(SMOLLM2), T4: 4 * memory.parameters(SMOLLM2)}
    assert plan("lora", T4).prediction.parts["weights"] < made[T4]


def test_mixed_precision_keeps_32_bits_of_all_but_the_products():
    """16 bytes for each parameter in place of 8; what a layer keeps of a token grows by its input in 32 bits only."""
    machine = profile.decide(H200, lesson="full")
    made = memory.plan(SMOLLM2, machine, "full", longest=512)
    parts, why = made.prediction.parts, made.prediction.reasons[0]
    assert (parts["weights"], parts["gradients"], parts["optimizer"]) == tuple(134_515_008 * n for n in (4, 4, 8))
    assert why == "134,515,008 parameters x 4 bytes (float32; products in 16 bits)"
    assert memory.plan(SMOLLM2, machine, "lora", longest=512).prediction == plan("lora").prediction
    runs = (formulas.Run(SMOLLM2, "full", 16, dtype, True, "cuda", True) for dtype in ("bfloat16", "float32"))
    layer = [formulas.layer_bytes(run) for run in runs]
    assert layer == [576 * n + (2 * 576 + 2 * 192 + 3 * 1536 + 2 * 576) * 2 + 4 * 9 for n in (2, 4)]


@pytest.mark.parametrize(
    ("method", "rows", "length", "mib", "more"),
    [
        ("lora", 1, 1245, 1145, {}),  # eight rows, strung together
        ("full", 1, 1245, 3136, {"dtype": "float32"}),
        ("dpo", 8, 40, 765, {"completion": 18}),
        ("cpt", 8, 512, 3085, {"rank": 64}),
    ],
)
def test_float16_is_predicted_within_15_percent(method, rows, length, mib, more):
    """Peaks of the largest batches of a stand-in at the true size with the knobs of CI, on an H200 without bfloat16."""
    sizes = {"micro_batch": rows, "length": length, "dtype": "float16", "device": "cuda"} | more
    assert memory.predict(SMOLLM2, method=method, **sizes).total / 2**20 == pytest.approx(mib, rel=0.15)


def test_rows_that_are_not_padded_count_with_their_own_lengths():
    """As on a T4: rows of 64 tokens and a few of 300. Padded ones, and those of DPO, count as the longest."""
    lengths = Lengths.of([64] * 90 + [300] * 10, 512)
    strung, padded = plan("lora", T4, **lengths.sizes), plan("lora", T4, longest=300)
    tokens = lengths.together(8)
    assert 8 * 64 < tokens < 8 * 300 and f"1 row x {tokens} tokens" in str(strung) and "8 rows x 300" in str(padded)
    assert strung.prediction.total < padded.prediction.total and strung.micro_batch == padded.micro_batch == 8
    assert "strings the rows" in str(strung) and strung.arguments == padded.arguments
    for method, machine in (("dpo", T4), ("cpt", T4), ("lora", H200), ("lora", CPU)):
        assert str(plan(method, machine, **lengths.sizes)) == str(plan(method, machine, longest=300))
    long = profile.decide(T4, updates=profile.COMPILING_PAYS)  # the rows may be padded there
    made = memory.plan(SMOLLM2, long, "lora", **lengths.sizes)
    assert "8 rows x 300 tokens" in str(made)


@pytest.mark.parametrize("config", ["SFTConfig", "DPOConfig", "GRPOConfig"])
def test_trl_knows_every_argument(config):
    import dataclasses

    pytest.importorskip("unsloth")
    import trl

    known = {field.name for field in dataclasses.fields(getattr(trl, config))}
    for method in {"SFTConfig": ("lora", "full", "cpt"), "DPOConfig": ("dpo",), "GRPOConfig": ("grpo",)}[config]:
        for machine in (H200, CPU):
            assert plan(method, machine).arguments.keys() <= known


def test_rows_are_shared_by_processes():
    made = plan(rows=32, processes=4)
    assert (made.micro_batch, made.accumulation, made.rows) == (8, 1, 32)
    assert "8 in each of 4 processes" in str(made)
    with pytest.raises(CourseError, match="30 rows cannot be shared evenly by 4 processes"):
        plan(rows=30, processes=4)


@given(
    method=st.sampled_from(memory.METHODS),
    rows=st.integers(1, 64),
    longest=st.integers(1, 4096),
    gib=st.integers(1, 80),
    processes=st.integers(1, 4),
    measured=st.booleans(),
)
def test_any_plan_is_whole(method, rows, longest, gib, processes, measured):
    machine = replace(H200 if measured else T4, cuda_bytes=gib * GIB)
    made = plan(method, machine, longest, rows=rows * processes, processes=processes)
    assert made.rows == rows * processes
    assert made.fits == (made.prediction.total <= memory.HEADROOM * gib * GIB)
    assert all(reason.why for reason in made.reasons) and "<table>" in made._repr_html_()


class Crowded:
    """Raises as a full GPU does when a batch has more than `most` rows, `times` times."""

    def __init__(self, trainer, most, times=9):
        self.inner, self.most, self.times, self.seen = trainer.compute_loss, most, times, []
        trainer.compute_loss = self

    def __call__(self, model, inputs, *args, **kwargs):
        rows = len(inputs["input_ids"])
        self.seen.append(rows)
        if rows > self.most and self.times:
            self.times -= 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.inner(model, inputs, *args, **kwargs)


def test_out_of_memory_starts_over_in_smaller_pieces_and_loses_nothing(small_trainer, capsys):
    whole = small_trainer(steps=3)
    whole.train()
    crowded = small_trainer(steps=3)
    watch = Crowded(crowded, most=4)
    plan("lora").guard(crowded)
    crowded.train()
    assert "Out of memory with 8 rows at a time. Starting over with 4 x 2" in capsys.readouterr().out
    assert watch.seen == [8] + [4] * 6
    assert crowded.state.global_step == 3
    losses = [[row["loss"] for row in trainer.state.log_history if "loss" in row] for trainer in (whole, crowded)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    for (name, a), (_, b) in zip(whole.model.named_parameters(), crowded.model.named_parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4), name


def test_weights_that_had_moved_are_put_back(small_trainer):
    trainer = small_trainer(steps=2)
    began = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    seen = []
    inner = trainer.train

    def train():
        if not seen:
            with torch.no_grad():
                for parameter in trainer.model.parameters():
                    if parameter.requires_grad:
                        parameter += 1
            seen.append("moved")
            raise torch.OutOfMemoryError("CUDA out of memory.")
        seen.append(all(torch.equal(began[name], p) for name, p in trainer.model.named_parameters()))
        return inner()

    trainer.train = train
    plan("lora").guard(trainer)
    trainer.train()
    assert seen == ["moved", True]


def test_memory_that_is_short_again_and_at_last_is_a_sentence(small_trainer):
    trainer = small_trainer(steps=2)
    watch = Crowded(trainer, most=0)
    plan("lora").guard(trainer)
    with pytest.raises(CourseError, match="with one row at a time"):
        trainer.train()
    assert watch.seen == [8, 4, 2, 1]
