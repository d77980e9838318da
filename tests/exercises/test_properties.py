"""The solutions against other sources of truth, and right answers that look different from the solutions."""

import math
import random

import numpy as np
import pytest
from exercises.sources import ALL, solution
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import evaluation, exercises, memory
from unsloth_course.exercises import full, lora

numbers = st.floats(-50, -0.01)


# Against other sources of truth


@given(
    layers=st.integers(1, 4),
    hidden=st.integers(2, 12),
    keys=st.integers(1, 2),
    middle=st.integers(1, 200),
    rank=st.integers(1, 40),
)
def test_lora_1_counts_as_the_course_does(layers, hidden, keys, middle, rank):
    shape = memory.Shape(
        layers=layers,
        hidden=8 * hidden,
        heads=8,
        key_value_heads=8 // keys,
        intermediate=middle,
        vocabulary=100,
        tied=True,
    )
    found = solution("lora.1")([shape.linears[name] for name in shape.linears] * layers, rank)
    assert found == memory.lora_parameters(shape, rank)


def test_lora_1_holds_the_two_models_of_the_lesson():
    assert solution("lora.1")(lora.SMOLLM2, 16) == 4_884_480
    assert solution("lora.1")(lora.POCKET, 16) == 311_296


def test_full_1_is_sixteen_bytes_for_each_parameter():
    count, _ = full.SMOLLM2[0]
    assert solution("full.1")(count, count) == 16 * 134_515_008


@given(marks=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=30, max_size=80), seed=st.integers(0, 99))
def test_full_2_agrees_with_the_courses_own_interval(marks, seed):
    one, two = ([int(mark) for mark in side] for side in zip(*marks, strict=True))
    low, high = solution("full.2")(one, two, np.random.default_rng(seed))
    theirs = evaluation.interval(one, two)
    spread = np.subtract(two, one).std() / math.sqrt(len(marks))
    assert abs(low - theirs[0]) <= 0.5 * spread + 2 / len(marks)
    assert abs(high - theirs[1]) <= 0.5 * spread + 2 / len(marks)


@given(four=st.tuples(numbers, numbers, numbers, numbers), beta=st.floats(0.01, 1))
def test_dpo_1_is_torchs_logsigmoid(four, beta):
    import torch

    chosen, rejected, ref_chosen, ref_rejected = four
    margin = torch.tensor((chosen - ref_chosen) - (rejected - ref_rejected), dtype=torch.float64)
    assert solution("dpo.1")(*four, beta) == pytest.approx(-torch.nn.functional.logsigmoid(beta * margin).item())


@given(groups=st.lists(st.lists(st.floats(-5, 5), min_size=4, max_size=4), min_size=1, max_size=5))
def test_grpo_1_is_trls_formula_in_torch(groups):
    import torch

    rewards = torch.tensor(groups, dtype=torch.float64)
    theirs = (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + 1e-4)
    assert solution("grpo.1")(rewards.flatten().tolist(), 4) == pytest.approx(theirs.flatten().tolist(), abs=1e-7)


@given(data=st.data(), k=st.integers(1, 6))
def test_grpo_3_is_the_courses_own(data, k):
    right = data.draw(st.lists(st.lists(st.booleans(), min_size=6, max_size=9), min_size=1, max_size=5))
    assert solution("grpo.3")(k, right) == pytest.approx(evaluation.pass_at(k, right))


@given(text=st.text(), answer=st.integers(-999, 999).map(str))
def test_grpo_2_takes_any_text(text, answer):
    reward = solution("grpo.2")
    said = [[{"role": "assistant", "content": one}] for one in (text, f"{text.replace('#', '')}\n#### {answer}")]
    assert reward(completions=said, answer=[answer, answer], step=3) == [float(text.strip() == f"#### {answer}"), 1.0]


@given(losses=st.lists(st.lists(st.floats(0, 12), min_size=1, max_size=9), min_size=1, max_size=6))
def test_cpt_1_is_the_courses_own(losses):
    theirs = evaluation.Surprise([*map(sum, losses)], [*map(len, losses)], [1] * len(losses))
    assert solution("cpt.1")(losses) == pytest.approx(theirs.perplexity)


@given(
    texts=st.lists(st.lists(st.integers(3, 50), max_size=12), max_size=8),
    length=st.integers(1, 9),
    end=st.integers(0, 2),
)
def test_cpt_2_loses_less_than_a_block(texts, length, end):
    flat = [token for block in solution("cpt.2")(texts, end, length) for token in block]
    stream = [token for text in texts for token in [*text, end]]
    assert stream[: len(flat)] == flat and 0 <= len(stream) - len(flat) < length


@given(count=st.integers(0, 200), share=st.floats(0, 0.8), seed=st.integers())
def test_cpt_3_keeps_the_share(count, share, seed):
    domain, general = [[0, n] for n in range(count)], [[1, n] for n in range(1000)]
    mixed = solution("cpt.3")(domain, general, share, seed)
    assert sorted(block for block in mixed if block[0] == 0) == domain
    assert abs(sum(block[0] for block in mixed) - share * len(mixed)) <= 1


# Right answers that are written otherwise


def merge_in_torch(W, A, B, alpha):  # noqa: N803
    import torch

    W, A, B = map(torch.from_numpy, (W, A, B))  # noqa: N806
    return W + (alpha / A.shape[0]) * (B @ A)


def labels_as_an_array(ids, start, length):
    places = np.arange(len(ids))
    return np.where((places >= start) & (places < length), ids, -100)


def interval_one_by_one(lora, full, rng):
    means = []
    for _ in range(1000):
        drawn = rng.integers(len(lora), size=len(lora))
        means.append(sum(full[i] - lora[i] for i in drawn) / len(lora))
    means.sort()
    return [means[25], means[974]]


def rank_in_torch(change, share):
    import torch

    energy = torch.linalg.svdvals(torch.from_numpy(change)) ** 2
    return torch.searchsorted(energy.cumsum(0) / energy.sum(), torch.tensor(share, dtype=energy.dtype)) + 1


def loss_in_torch(policy_yes, policy_no, reference_yes, reference_no, beta):
    """With other parameter names, in float32."""
    import torch

    margin = torch.tensor(policy_yes - reference_yes - policy_no + reference_no)
    return -torch.nn.functional.logsigmoid(beta * margin)


def split_by_place(chosen, rejected):
    turn = "\n\nAssistant:"
    one, two = chosen.rfind(turn), rejected.rfind(turn)
    if one < 0 or chosen[:one] != rejected[:two]:
        return None
    good, bad = chosen[one + len(turn) :].strip(), rejected[two + len(turn) :].strip()
    return [chosen[: one + len(turn)], good, bad] if good and bad else None


def keep_by_sorting(base, runs):
    good = [run for run in runs if run["correct"] + 0.05 >= base["correct"] and run["preferred"] > base["preferred"]]
    return sorted(good, key=lambda run: run["preferred"])[-1] if good else None


def advantages_in_torch(rewards, size):
    import torch

    groups = torch.tensor(rewards).view(-1, size)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()


def reward_with_a_pattern(completions, answer, **kwargs):
    import re

    found = []
    for completion, right in zip(completions, answer, strict=True):
        match = re.fullmatch(r"(?s)((?!####).)*####(((?!####).)*)", completion[0]["content"])
        found.append(bool(match) and match[2].strip() == right)
    return found


def pass_at_by_product(k, right):
    total = 0.0
    for tries in right:
        n, c = len(tries), sum(tries)
        total += 1 - math.prod((n - c - i) / (n - i) for i in range(k)) if n - c >= k else 1
    return np.float64(total / len(right))


def pack_with_numpy(texts, end, length):
    stream = np.array([token for text in texts for token in [*text, end]], dtype=int)
    return stream[: len(stream) // length * length].reshape(-1, length)


def mix_with_numpy(domain, general, share, seed):
    rng = np.random.default_rng(seed)
    count = math.ceil(len(domain) * share / (1 - share))
    chosen = [general[i] for i in rng.permutation(len(general))[:count]]
    blocks = [*domain, *chosen]
    return [blocks[i] for i in rng.permutation(len(blocks))]


OTHERWISE = {
    "lora.1": lambda shapes, rank: np.int64(rank * sum(map(sum, shapes))),
    "lora.2": merge_in_torch,
    "lora.3": labels_as_an_array,
    "full.1": lambda total, trained: 4.0 * total + 12.0 * trained,
    "full.2": interval_one_by_one,
    "full.3": rank_in_torch,
    "cpt.1": lambda losses: np.exp(np.mean(np.concatenate(losses))),
    "cpt.2": pack_with_numpy,
    "cpt.3": mix_with_numpy,
    "dpo.1": loss_in_torch,
    "dpo.2": split_by_place,
    "dpo.3": keep_by_sorting,
    "grpo.1": advantages_in_torch,
    "grpo.2": reward_with_a_pattern,
    "grpo.3": pass_at_by_product,
}


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.id)
def test_a_right_answer_may_be_written_otherwise(one):
    assert one.test(OTHERWISE[one.id]) is None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("draws", [1000, 5000])
def test_full_2_accepts_every_seed_and_number_of_draws(seed, draws):
    """The check measures a random interval; no right answer may be refused by chance."""

    def interval(one, two, rng):
        rng = np.random.default_rng([seed, rng.integers(2**31)])
        change = np.subtract(two, one)
        drawn = rng.integers(len(change), size=(draws, len(change)))
        return np.percentile(change[drawn].mean(axis=1), [2.5, 97.5])

    assert exercises.find("full.2").test(interval) is None


@pytest.mark.parametrize("seed", range(40))
def test_cpt_3_accepts_every_shuffle(seed):
    def mix(domain, general, share, own):
        rng = random.Random(f"{seed} {own}")
        blocks = domain + rng.sample(general, round(len(domain) * share / (1 - share)))
        rng.shuffle(blocks)
        return blocks

    assert exercises.find("cpt.3").test(mix) is None
