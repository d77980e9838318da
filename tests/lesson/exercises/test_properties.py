"""The solutions against other sources of truth, and right answers that look different from the solutions."""

import itertools
import math
import random
import re
import statistics

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lesson.exercises.sources import ALL, solution
from unsloth_course import data, evaluation, exercises, lowrank, memory, rewards
from unsloth_course.lesson.evaluation import solving
from unsloth_course.lesson.exercises import full, lora

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
        kv_heads=8 // keys,
        intermediate=middle,
        vocabulary=100,
        tied=True,
    )
    found = solution("lora.1")([shape.linears[name] for name in shape.linears] * layers, rank)
    assert found == memory.lora_parameters(shape, rank)


def test_lora_1_holds_the_two_models_of_the_lesson():
    assert solution("lora.1")(lora.SMOLLM2, 16) == 4_884_480
    assert solution("lora.1")(lora.POCKET, 16) == 311_296


@given(marks=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=30, max_size=80), seed=st.integers(0, 99))
def test_full_2_agrees_with_the_courses_own_interval(marks, seed):
    one, two = ([int(mark) for mark in side] for side in zip(*marks, strict=True))
    low, high = solution("full.2")(one, two, np.random.default_rng(seed))
    theirs = evaluation.interval(*([float(mark) for mark in side] for side in (one, two)))  # of numbers: the bootstrap
    spread = np.subtract(two, one).std() / math.sqrt(len(marks))
    assert abs(low - theirs[0]) <= 0.5 * spread + 2 / len(marks)
    assert abs(high - theirs[1]) <= 0.5 * spread + 2 / len(marks)


@given(four=st.tuples(numbers, numbers, numbers, numbers), beta=st.floats(0.01, 1))
def test_dpo_1_is_torchs_logsigmoid(four, beta):
    chosen, rejected, ref_chosen, ref_rejected = four
    margin = torch.tensor((chosen - ref_chosen) - (rejected - ref_rejected), dtype=torch.float64)
    assert solution("dpo.1")(*four, beta) == pytest.approx(-torch.nn.functional.logsigmoid(beta * margin).item())


@given(groups=st.lists(st.lists(st.sampled_from([0, 0.2, 0.5, 1]), min_size=8, max_size=8), min_size=1, max_size=4))
def test_grpo_1_is_the_courses_own(groups):
    flat = [reward for group in groups for reward in group]
    theirs = [advantage for group in groups for advantage in rewards.advantages(group)]
    assert solution("grpo.1")(flat, 8) == pytest.approx(theirs, abs=1e-6)


@given(
    energies=st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
)
def test_full_3_is_the_courses_own(energies, share, seed):
    values = sorted(np.sqrt(energies), reverse=True)
    assume(min(abs(held - share) for held in lowrank.energy(values)) > 1e-6)
    matrix = full._matrix(np.random.default_rng(seed), np.array(values), len(values) + 3, len(values))
    assert solution("full.3")(matrix, share) == lowrank.rank_for(values, share)


said = st.sampled_from(["Yes.", "No, Human: said so.", "Why not?", "An Assistant: here.", "Two\n\nparagraphs.", ""])


@given(turns=st.lists(st.tuples(said, said), min_size=1, max_size=3), other=said, answers=st.tuples(said, said))
def test_dpo_2_sets_aside_what_the_course_does(turns, other, answers):
    assume(answers[0] != answers[1])

    def told(first, answer):
        asked = "".join(f"\n\nHuman: {one}\n\nAssistant: {two}" for one, two in [(first, turns[0][1]), *turns[1:]])
        return f"{asked}\n\nHuman: And?\n\nAssistant: {answer}"

    row = {"chosen": told(turns[0][0], answers[0]), "rejected": told(other, answers[1])}
    found = solution("dpo.2")(row["chosen"], row["rejected"])
    assert (found is None) == (other != turns[0][0] or "" in answers)
    if all(one and two for one, two in turns) and other and all(answers):  # the course also refuses an empty turn
        rows = [row, {"chosen": told("Hello.", "a"), "rejected": told("Hello.", "b")}]
        checked = data.preference.load(rows)
        assert (found is None) == (len(checked.dataset) == 1)
        if found:
            assert (found[1], found[2]) == (checked.dataset[0]["chosen"], checked.dataset[0]["rejected"])


@given(data=st.data(), k=st.integers(1, 6))
def test_grpo_3_is_the_courses_own(data, k):
    right = data.draw(st.lists(st.lists(st.booleans(), min_size=6, max_size=9), min_size=1, max_size=5))
    assert solution("grpo.3")(k, right) == pytest.approx(solving.pass_at(k, right))


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


def merge_in_torch(W, A, B, alpha):
    W, A, B = map(torch.from_numpy, (W, A, B))
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
    energy = torch.linalg.svdvals(torch.from_numpy(change)) ** 2
    return torch.searchsorted(energy.cumsum(0) / energy.sum(), torch.tensor(share, dtype=energy.dtype)) + 1


def loss_in_torch(policy_yes, policy_no, reference_yes, reference_no, beta):
    """With other parameter names, in float32."""
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
    groups = torch.tensor(rewards).view(-1, size)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()


def reward_with_a_pattern(completions, answer, **kwargs):
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


# Wrong answers


def added_into_the_base(W, A, B, alpha):
    W += alpha / len(A) * B @ A
    return W


def labels_without_padding_ids(ids, start, length):
    return [-100] * start + [-100 if token == ids[-1] else token for token in ids[start:]]


def each_model_drawn_by_itself(lora, full, rng):
    means = []
    for _ in range(1000):
        one, two = (np.array(side)[rng.integers(len(side), size=len(side))].mean() for side in (full, lora))
        means.append(one - two)
    return tuple(np.percentile(means, [2.5, 97.5]))


def drawn_without_replacement(lora, full, rng):
    means = [rng.permutation(np.subtract(full, lora)).mean() for _ in range(1000)]
    return tuple(np.percentile(means, [2.5, 97.5]))


def five_per_cent_cut_off_either_end(lora, full, rng):
    change = np.subtract(full, lora)
    return tuple(np.percentile(change[rng.integers(len(change), size=(1000, len(change)))].mean(axis=1), [5, 95]))


def rank_of(values, share):
    return int(np.argmax(np.cumsum(values) / values.sum() >= share)) + 1


def overflows(chosen, rejected, ref_chosen, ref_rejected, beta):
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    return -math.log(1 / (1 + math.exp(-beta * margin)))


def cut_where_the_texts_part(chosen, rejected):
    pairs = zip(chosen, rejected, strict=False)
    prompt = "".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    good, bad = chosen[len(prompt) :].strip(), rejected[len(prompt) :].strip()
    return (prompt.rstrip(), good, bad) if "Assistant:" in prompt and good and bad else None


def cut_at_the_first_turn(chosen, rejected):
    turn = "\n\nAssistant:"
    (prompt, found, good), (other, _, bad) = chosen.partition(turn), rejected.partition(turn)
    return (prompt + turn, good.strip(), bad.strip()) if found and prompt == other and good and bad else None


def histories_not_compared(chosen, rejected):
    turn = "\n\nAssistant:"
    (prompt, found, good), (_, _, bad) = chosen.rpartition(turn), rejected.rpartition(turn)
    return (prompt + turn, good.strip(), bad.strip()) if found and good.strip() and bad.strip() else None


def correctness_ignored(base, runs):
    best = max(runs, key=lambda run: run["preferred"])
    return best if best["preferred"] > base["preferred"] else None


def never_none(base, runs):
    good = [run for run in runs if run["correct"] >= base["correct"] - 0.05]
    return max(good or runs, key=lambda run: run["preferred"])


def groups_of(rewards, size):
    return [rewards[i : i + size] for i in range(0, len(rewards), size)]


def divided_by_zero(rewards, size):
    return [(r - statistics.mean(g)) / statistics.stdev(g) for g in groups_of(rewards, size) for r in g]


def not_divided(rewards, size):
    return [r - statistics.mean(g) for g in groups_of(rewards, size) for r in g]


def said_by(completions):
    return [completion[0]["content"] for completion in completions]


def answer_anywhere(completions, answer, **kwargs):
    return [float(a in text) for text, a in zip(said_by(completions), answer, strict=True)]


def raises_where_there_is_no_number(completions, answer, **kwargs):
    given = [int(text.split("####")[1]) for text in said_by(completions)]
    return [float(g == int(a)) for g, a in zip(given, answer, strict=True)]


def last_mark_counts(completions, answer, **kwargs):
    given = [text.rpartition("####")[2].strip() for text in said_by(completions)]
    return [float(g == a) for g, a in zip(given, answer, strict=True)]


def no_end_between_texts(texts, end, length):
    stream = [token for text in texts for token in text]
    return [stream[i : i + length] for i in range(0, len(stream) - len(stream) % length, length)]


def last_block_kept_short(texts, end, length):
    stream = [token for text in texts for token in [*text, end]]
    return [stream[i : i + length] for i in range(0, len(stream), length)]


def aliased_labels(ids, start, length):
    for place in range(len(ids)):
        if not start <= place < length:
            ids[place] = -100
    return ids


def shuffled_in_place(domain, general, share, seed):
    rng = random.Random(seed)
    domain += rng.sample(general, round(len(domain) * share / (1 - share)))
    rng.shuffle(domain)
    return domain


def same_order_for_every_seed(domain, general, share, seed):
    return solution("cpt.3")(domain, general, share, 0)


def replay_twice(domain, general, share, seed):
    mixed = solution("cpt.3")(domain, general, share, seed)
    first = next((block for block in mixed if block[0] == 1), None)
    return [first if block[0] == 1 else block for block in mixed]


def population_advantages(rewards, size):
    return [(r - statistics.mean(g)) / (statistics.pstdev(g) + 1e-4) for g in groups_of(rewards, size) for r in g]


def strict_reward(completions, answer, **kwargs):
    return [float(text == f"#### {a}") for text, a in zip(said_by(completions), answer, strict=True)]


def ignores_kwargs(completions, answer):
    return solution("grpo.2")(completions, answer)


def one_reward_for_all(completions, answer, **kwargs):
    return solution("grpo.2")(completions, answer)[:1]


def unseeded_interval(lora, full, rng):
    return solution("full.2")(lora, full, np.random.default_rng())


def turned_round(lora, full, rng):
    low, high = solution("full.2")(lora, full, rng)
    return -high, -low


def guesses_when_empty(chosen, rejected):
    turn = "\n\nAssistant:"
    prompt, _, good = chosen.rpartition(turn)
    other, _, bad = rejected.rpartition(turn)
    return (prompt + turn, good.strip(), bad.strip()) if prompt == other else None


WRONG = [
    ("lora.1", lambda shapes, rank: sum(rank * inputs * outputs for inputs, outputs in shapes)),
    ("lora.1", lambda shapes, rank: sum(2 * rank * inputs for inputs, _ in shapes)),
    ("lora.1", lambda shapes, rank: sum(rank * outputs for _, outputs in shapes)),
    ("lora.2", lambda W, A, B, alpha: W + B @ A),
    ("lora.2", lambda W, A, B, alpha: W + alpha / len(A) ** 0.5 * B @ A),
    ("lora.2", added_into_the_base),
    ("lora.3", labels_without_padding_ids),
    ("lora.3", lambda ids, start, length: [*solution("lora.3")(ids, start, length)[1:], -100]),
    ("lora.3", lambda ids, start, length: solution("lora.3")(ids, 0, length)),
    ("full.1", lambda total, trained: 4 * total + 4 * trained),
    ("full.1", lambda total, trained: 8 * total + 8 * trained),
    ("full.1", lambda total, trained: 4 * total + 8 * trained),
    ("full.2", each_model_drawn_by_itself),
    ("full.2", drawn_without_replacement),
    ("full.2", five_per_cent_cut_off_either_end),
    ("full.3", lambda change, share: rank_of(np.linalg.svd(change, compute_uv=False), share)),
    ("full.3", lambda change, share: solution("full.3")(change, share) - 1),
    ("full.3", lambda change, share: rank_of(np.sort((change**2).sum(axis=1))[::-1], share)),
    ("dpo.1", lambda c, r, rc, rr, beta: solution("dpo.1")(c, r, 0, 0, beta)),
    ("dpo.1", lambda c, r, rc, rr, beta: beta * solution("dpo.1")(c, r, rc, rr, 1)),
    ("dpo.1", overflows),
    ("dpo.2", cut_where_the_texts_part),
    ("dpo.2", cut_at_the_first_turn),
    ("dpo.2", histories_not_compared),
    ("dpo.3", lambda base, runs: max(runs, key=lambda run: run["margin"])),
    ("dpo.3", correctness_ignored),
    ("dpo.3", never_none),
    ("grpo.1", lambda rewards, size: solution("grpo.1")(rewards, len(rewards))),
    ("grpo.1", not_divided),
    ("grpo.1", divided_by_zero),
    ("grpo.2", answer_anywhere),
    ("grpo.2", raises_where_there_is_no_number),
    ("grpo.2", last_mark_counts),
    ("grpo.3", lambda k, right: sum(1 - (1 - sum(tries) / len(tries)) ** k for tries in right) / len(right)),
    ("grpo.3", lambda k, right: sum(any(tries[:k]) for tries in right) / len(right)),
    ("grpo.3", lambda k, right: solution("grpo.3")(k, [[*itertools.chain(*right)]])),
    ("cpt.1", lambda losses: np.mean([solution("cpt.1")([text]) for text in losses])),
    ("cpt.1", lambda losses: math.exp(np.mean([np.mean(text) for text in losses]))),
    ("cpt.1", lambda losses: 2 ** math.log(solution("cpt.1")(losses))),
    ("cpt.2", no_end_between_texts),
    ("cpt.2", lambda texts, end, length: [b for text in texts for b in solution("cpt.2")([text], end, length)]),
    ("cpt.2", last_block_kept_short),
    ("cpt.3", lambda domain, general, share, seed: solution("cpt.3")(domain, general, share / (1 + share), seed)),
    ("cpt.3", lambda domain, general, share, seed: solution("cpt.3")(domain, general, share, random.random())),
    ("cpt.3", lambda domain, general, share, seed: sorted(solution("cpt.3")(domain, general, share, seed))),
    ("lora.1", lambda shapes, rank: rank * sum(map(sum, set(shapes)))),
    ("lora.2", lambda W, A, B, alpha: W + alpha / len(B) * B @ A),
    ("lora.3", aliased_labels),
    ("lora.3", lambda ids, start, length: ids[start:length]),
    ("full.1", lambda total, trained: (4 * total + 12 * trained) / 2**30),
    ("full.2", unseeded_interval),
    ("full.2", turned_round),
    ("dpo.1", lambda c, r, rc, rr, beta: solution("dpo.1")(r, c, rr, rc, beta)),
    ("dpo.1", lambda c, r, rc, rr, beta: solution("dpo.1")(c, r, rc, rr, 0.1)),
    ("dpo.2", guesses_when_empty),
    ("dpo.3", lambda base, runs: solution("dpo.3")(base | {"correct": base["correct"] + 0.05}, runs)),
    ("grpo.1", population_advantages),
    ("grpo.1", lambda rewards, size: rewards),
    ("grpo.2", strict_reward),
    ("grpo.2", ignores_kwargs),
    ("grpo.2", one_reward_for_all),
    ("cpt.1", lambda losses: math.exp(max(map(max, losses)))),
    ("cpt.2", lambda texts, end, length: solution("cpt.2")(texts[::-1], end, length)),
    ("cpt.3", shuffled_in_place),
    ("cpt.3", same_order_for_every_seed),
    ("cpt.3", replay_twice),
]


RAISING = (overflows, raises_where_there_is_no_number, ignores_kwargs)


@pytest.mark.parametrize(("name", "answer"), WRONG)
def test_a_wrong_answer_is_found_out(name, answer):
    one = exercises.find(name)
    found, again = one.test(answer), one.test(answer)
    assert found is not None, "this wrong answer passes"
    assert found.startswith(f"{one.function}(") and found.endswith(".") and "\n" not in found
    # It is a wrong answer and not a broken one: it is refused for what it says, or where its fault is to raise.
    assert ("raised" in found) == (answer in RAISING), found
    # Whoever draws without the seed gets another list each time; what is wrong with it stays.
    assert found == again or found.rpartition(": ")[2] == again.rpartition(": ")[2]
