"""Low rank: spectra against exact decompositions, cuts that come back to the bit, and sentences that follow numbers."""

import math

import pytest
import torch
from conftest import chat
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import evaluation, lowrank, training
from unsloth_course.core.errors import CourseError


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Toy(torch.nn.Module):
    """Two projections of a layer, an embedding and a norm, named as in a Llama."""

    def __init__(self):
        super().__init__()
        self.model = torch.nn.Module()
        self.model.embed_tokens = torch.nn.Embedding(9, 6)
        self.model.layers = torch.nn.ModuleList([torch.nn.Module()])
        self.model.layers[0].self_attn = torch.nn.Module()
        self.model.layers[0].self_attn.q_proj = torch.nn.Linear(6, 8, bias=False)
        self.model.layers[0].mlp = torch.nn.Module()
        self.model.layers[0].mlp.down_proj = torch.nn.Linear(12, 6, bias=False)
        self.model.norm = torch.nn.LayerNorm(6, bias=False)


Q, DOWN = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def toy():
    """A toy model that was changed, and its weights from before: rank 2 in q_proj, all ranks elsewhere."""
    torch.manual_seed(0)
    model = Toy()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        weights = dict(model.named_parameters())
        weights[Q] += numbers(8, 2, seed=1) @ numbers(2, 6, seed=2)
        weights[DOWN] += numbers(6, 12, seed=3)
        weights["model.embed_tokens.weight"] += numbers(9, 6, seed=4)
        weights["model.norm.weight"] += 0.5
    return model, before


@pytest.mark.parametrize("shape", [(8, 6), (6, 8), (7, 7), (1, 5)])
def test_singular_values_are_those_of_an_exact_decomposition(shape):
    change = numbers(*shape)
    exact = torch.linalg.svdvals(change.double())
    assert lowrank.spectrum(change) == pytest.approx(exact.tolist(), abs=1e-7)


def test_a_product_of_thin_matrices_has_their_rank():
    values = lowrank.spectrum(numbers(40, 3) @ numbers(3, 30, seed=1))
    assert len(values) == 30 and min(values[:3]) > 1 and max(values[3:]) < 1e-5


def test_energy_is_the_share_of_the_squared_norm_that_the_best_approximation_keeps():
    change = numbers(9, 5)
    left, values, right = torch.linalg.svd(change.double(), full_matrices=False)
    for rank, held in enumerate(lowrank.energy(values.tolist()), 1):
        best = left[:, :rank] * values[:rank] @ right[:rank]
        assert held == pytest.approx(float(best.norm() ** 2 / change.double().norm() ** 2))


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), st.floats(0.01, 1.0))
def test_the_rank_is_the_smallest_that_reaches_the_share(values, share):
    values = sorted(values, reverse=True)
    held, rank = lowrank.energy(values), lowrank.rank_for(values, share)
    assert held == sorted(held) and held[-1] == pytest.approx(1)
    assert held[rank - 1] >= share - 1e-9 and (rank == 1 or held[rank - 2] < share)


def test_no_change_needs_no_direction():
    assert lowrank.rank_for([0.0, 0.0]) == 0
    assert lowrank.energy([0.0, 0.0]) == [1.0, 1.0]


def test_random_numbers_have_no_few_strong_directions():
    values = lowrank.noise(64, 32, seed=1)
    assert len(values) == 32 and lowrank.rank_for(values) > 20
    assert values == lowrank.noise(64, 32, seed=1) != lowrank.noise(64, 32, seed=2)


def test_changes_are_after_minus_before_by_place(toy):
    model, before = toy
    found = lowrank.changes(model, before)
    assert list(found) == ["embed_tokens", "0.q_proj", "0.down_proj"]  # a norm is no matrix
    torch.testing.assert_close(found["0.q_proj"], numbers(8, 2, seed=1) @ numbers(2, 6, seed=2), atol=1e-5, rtol=1e-5)


def test_how_far_each_weight_moved(toy):
    model, before = toy
    found = lowrank.moved(model, before)
    assert set(found) == {"embed_tokens", "0.q_proj", "0.down_proj", "norm"}
    assert found["norm"] == pytest.approx(0.5)
    assert found["0.down_proj"] == pytest.approx(float(numbers(6, 12, seed=3).norm() / before[DOWN].norm()))
    assert lowrank.moved(model, {DOWN: torch.zeros(6, 12)}) == {"0.down_proj": math.inf}


def test_a_model_that_was_not_watched_is_a_sentence(toy):
    model, _ = toy
    for look in (lowrank.changes, lowrank.cut):
        with pytest.raises(CourseError, match=r"watching\.before"):
            look(model, {})


def test_the_change_of_an_adapter_is_its_product(healthy):
    found = lowrank.changes(healthy.model, {})
    assert len(found) == 7 * 4 and "0.q_proj" in found and "embed_tokens" not in found
    layer = healthy.model.base_model.model.model.layers[2].mlp.down_proj
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(found["2.down_proj"], product.detach())
    values = lowrank.spectrum(found["2.down_proj"])
    assert values[15] > 1e-5 * values[0] and max(values[16:]) < 1e-5 * values[0]  # rank 16 and not more


def test_a_cut_keeps_the_best_approximation_of_each_change(toy):
    model, before = toy
    trained = {name: p.detach().clone() for name, p in model.named_parameters()}
    cut = lowrank.cut(model, before)
    assert cut.full_rank == 6
    for rank in (1, 3):
        with cut.to(rank):
            for name, weight in model.named_parameters():
                if weight.dim() == 2:
                    left, values, right = torch.linalg.svd((trained[name] - before[name]).double(), full_matrices=False)
                    best = before[name] + left[:, :rank] * values[:rank] @ right[:rank]
                    torch.testing.assert_close(weight.detach().double(), best, atol=1e-4, rtol=1e-4)
            assert torch.equal(model.model.norm.weight, trained["model.norm.weight"])


def test_afterwards_every_weight_is_the_trained_one_to_the_bit(toy):
    model, before = toy
    trained = {name: p.detach().clone() for name, p in model.named_parameters()}
    cut = lowrank.cut(model, before)
    with cut.to(0):
        assert torch.equal(dict(model.named_parameters())[Q], before[Q])
    with pytest.raises(KeyboardInterrupt), cut.to(2):
        raise KeyboardInterrupt
    assert all(torch.equal(p, trained[name]) for name, p in model.named_parameters())


def test_at_the_rank_of_the_change_nothing_is_lost(toy):
    model, before = toy
    weights = dict(model.named_parameters())
    trained = {name: p.detach().clone() for name, p in weights.items()}
    cut = lowrank.cut(model, before)
    with cut.to(2):
        torch.testing.assert_close(weights[Q].detach(), trained[Q], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(weights[DOWN], trained[DOWN], atol=1e-2)
    for rank in (cut.full_rank, 1000):
        with cut.to(rank):
            torch.testing.assert_close(weights[DOWN].detach(), trained[DOWN], atol=1e-5, rtol=1e-5)


def test_a_cut_says_how_many_directions_each_projection_needs(toy):
    cut = lowrank.cut(*toy)
    assert set(cut.spectra) == {"embed_tokens", "0.q_proj", "0.down_proj"}
    assert set(cut.needed()) == {"0.q_proj", "0.down_proj"}  # LoRA does not adapt embeddings
    assert cut.needed()["0.q_proj"] <= 2 < cut.needed(0.99)["0.down_proj"]
    assert cut.hardest == "0.down_proj"
    assert str(cut).splitlines()[1:] == [
        f"q_proj     {n:>3} to {n:>3} of 6" if place == "0.q_proj" else f"down_proj  {n:>3} to {n:>3} of 6"
        for place, n in cut.needed().items()
    ]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({0: 0.0, 1: 0.4, 4: 0.95, 16: 0.96, 256: 0.95}, "Rank 4 keeps 100 % .* low rank suffices here"),
        ({0: 0.0, 1: 0.1, 16: 0.4, 64: 0.7, 256: 0.9}, "Rank 256 keeps 100 % .*rank 16 only 44 %: low rank does not"),
        ({0: 0.2, 16: 0.58, 256: 0.6}, r"Rank 16 keeps 95 % .* suffices here\.$"),
        ({0: 0.0, 8: 0.9, 256: 0.9}, r"Rank 8 keeps 100 % of what the whole change of rank 256 gained\.$"),
        ({0: -7.0, 2: -1.0, 16: -0.2, 256: -0.1}, "Rank 16 keeps 99 % .* suffices"),  # losses
        ({0: 0.0, 16: 0.0, 256: 0.0}, "gained nothing, so nothing can be said"),
        ({0: 0.5, 16: 0.9, 256: 0.4}, "gained nothing"),
    ],
)
def test_the_sentence_follows_the_numbers(scores, said):
    import re

    assert re.search(said, lowrank.sentence(scores, 16)), lowrank.sentence(scores, 16)


def test_what_is_kept_of_a_gain():
    assert lowrank.kept({256: -1.0, 0: -5.0, 4: -2.0}) == {0: 0.0, 4: 0.75, 256: 1.0}
    assert lowrank.kept({0: 0.5, 256: 0.4}) == {0: 0.0, 256: 0.0}


def test_a_real_full_fine_tuning_moves_in_few_directions(load, machine, tmp_path):
    """What the lesson claims, on a shorter run: a cut to rank 16 answers nearly as well, one to rank 0 not at all."""
    from unsloth_course import data

    train, held_out, _ = data.sources.instructions("pocket", train=16 * 60, held_out=48, seed=3407)
    model, tokenizer = load(full_finetuning=True, use_gradient_checkpointing=False)
    trainer = training.supervised(
        model, tokenizer, chat(train), machine, steps=60, learning_rate=3e-4, seed=3407, out=tmp_path, watched=True
    )
    whole = evaluation.ask(model, tokenizer, held_out)
    assert whole.share > 0.7
    cut = lowrank.cut(model, trainer.watching.before)
    with cut.to(16):
        assert evaluation.ask(model, tokenizer, held_out).share > 0.9 * whole.share
    with cut.to(0):
        assert evaluation.ask(model, tokenizer, held_out).share <= 0.05
    assert evaluation.ask(model, tokenizer, held_out).given == whole.given
    assert set(lowrank.moved(model, trainer.watching.before)) >= {"embed_tokens", "norm", "3.down_proj"}
