"""Exercises of the GRPO lesson (colab4): advantages, a reward that cannot be fooled, and pass@k."""

import itertools
import math
import random
import statistics

from unsloth_course.lesson.exercises.asking import Learner, exercise

EPSILON = 1e-4


def group_advantages(rewards, size):
    import statistics

    found = []
    for start in range(0, len(rewards), size):
        group = rewards[start : start + size]
        mean, std = statistics.mean(group), statistics.stdev(group)
        found += [(reward - mean) / (std + 1e-4) for reward in group]
    return found


@exercise(
    "grpo.1",
    "From rewards to advantages",
    group_advantages,
    "A completion competes only with the others of its own prompt. Where does each group begin and end?",
    (
        "`rewards[start : start + size]` is a group, for `start` in `range(0, len(rewards), size)`. "
        "`statistics.stdev` divides by n - 1; the 0.0001 keeps a group without spread from dividing by zero."
    ),
)
def _advantages(learner: Learner) -> None:
    rng = random.Random("grpo.1")
    cases = [([0.0, 0.0, 0.0, 1.0], 4), ([0.5] * 4, 4), ([1.0] * 4 + [0.0, 1.0, 0.0, 1.0], 4)]
    for _ in range(20):
        size, groups = rng.choice([2, 4, 8]), rng.randint(1, 4)
        # Each group is on its own scale, as an easy question is beside a hard one; some have no spread.
        rewards = []
        for _ in range(groups):
            low, spread = rng.uniform(-1, 3), rng.choice([0.0, 0.3, 1.0])
            rewards += [round(20 * (low + spread * rng.random())) / 20 for _ in range(size)]
        cases.append((rewards, size))
    for rewards, size in cases:
        given = learner(rewards, size)
        found = given.numbers(len(rewards))
        for start in range(0, len(rewards), size):
            _one_group(given, rewards[start : start + size], found[start : start + size])


def _one_group(given, rewards: list[float], found: list[float]) -> None:
    spread = statistics.stdev(rewards)
    shown = [round(reward, 3) for reward in rewards]
    if spread < 1e-9:
        if any(not abs(one) < 0.01 for one in found):  # in float32 a mean may be off by a last digit; NaN is refused
            given.wrong(f"where the group {shown} has no spread: nobody did better, so all its advantages are 0")
        return
    if abs(sum(found)) > 1e-4 * len(found):
        given.wrong(
            f"and in the group {shown} the advantages add up to {sum(found):.4g}; the group's own mean makes it 0"
        )
    for reward, one in zip(rewards, found, strict=True):
        wanted = (reward - statistics.fmean(rewards)) / (spread + EPSILON)
        if not math.isclose(one, wanted, rel_tol=5e-5, abs_tol=1e-5):
            given.wrong(
                f"where in the group {shown} with the standard deviation {spread:.4f} the reward {reward:g} has the "
                f"advantage {wanted:.4f}, not {one:.4f}"
            )


def exact_reward(completions, answer, **kwargs):
    found = []
    for completion, right in zip(completions, answer, strict=True):
        parts = completion[0]["content"].split("####")
        exact = len(parts) == 2 and parts[1].strip() == right
        found.append(1.0 if exact else 0.0)
    return found


@exercise(
    "grpo.2",
    "A reward that cannot be fooled",
    exact_reward,
    'The text is `completion[0]["content"]`. How many parts has `text.split("####")` where `####` is once?',
    "Two parts; then compare text with text: `parts[1].strip() == right`. A conversion to a number may raise.",
)
def _rewards(learner: Learner) -> None:
    rng = random.Random("grpo.2")
    everything = " ".join(map(str, range(1000)))
    marked = " ".join(f"#### {number}" for number in range(1000))
    cases = [
        ("3 + 4 = 7\n#### 7", "7", 1.0, "the answer is right and in its place"),
        ("#### 8", "7", 0.0, "the answer is wrong"),
        ("####   -12 \n", "-12", 1.0, "white space around the answer does not count"),
        ("#### 17", "7", 0.0, "17 is not 7"),
        ("The answer is 7.", "7", 0.0, "there is no `####`"),
        ("", "7", 0.0, "there is nothing"),
        ("####", "7", 0.0, "nothing follows"),
        ("#### seven", "7", 0.0, "that is no number"),
        ("#### __import__('os').getcwd()", "7", 0.0, "that is code, and no answer"),
        ("#### 3+4", "7", 0.0, "that is a sum, and not the answer"),
        (everything, "7", 0.0, "who lists every number has answered nothing"),
        (marked, "999", 0.0, "who marks every number has answered nothing"),
        (marked, "0", 0.0, "who marks every number has answered nothing"),
        ("#### 7 or 8", "7", 0.0, "that is two answers"),
    ]
    for _ in range(60):
        number = rng.randint(-200, 200)
        other = number + rng.choice([-10, -1, 1, 10, 1000])
        written = rng.choice([number, other])
        text = f"{rng.randint(1, 99)} steps, {other} of them odd.\n#### {written}"
        cases.append((text, str(number), float(written == number), "only what follows `####` counts"))
    for _ in range(60):
        junk = "".join(rng.choices("#0123456789 \n-+*/().,abcé∑😀\x00\\'\"", k=rng.randint(0, 40)))
        if junk.partition("####")[2].strip() != "7":
            cases.append((junk, "7", 0.0, "that is noise"))
    for text, answer, reward, why in cases:
        given = _asked(learner, [text], [answer])
        if given.numbers(1) != [reward]:
            given.wrong(f"where {[reward]} is due: {why}")
    rng.shuffle(cases)
    for start in range(0, len(cases), 8):
        group = cases[start : start + 8]
        given = _asked(learner, [case[0] for case in group], [case[1] for case in group])
        if given.numbers(len(group)) != [case[2] for case in group]:
            given.wrong(f"where {[case[2] for case in group]} is due: one reward per completion, in their order")


def _asked(learner: Learner, texts: list[str], answers: list[str]):
    """As TRL calls it: by keyword, and with more than is asked for."""
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    return learner(completions=completions, answer=answers, trainer_state=None)


def pass_at_k(k, right):
    from math import comb

    missed = []
    for tries in right:
        wrong = len(tries) - sum(tries)
        missed.append(comb(wrong, k) / comb(len(tries), k))
    return 1 - sum(missed) / len(missed)


@exercise(
    "grpo.3",
    "pass@k without bias",
    pass_at_k,
    "Ask for the opposite: in how many ways can you choose k tries that are all wrong?",
    (
        "With c of n tries right there are `comb(n - c, k)` such ways, of `comb(n, k)` in all. Average over the "
        "problems last."
    ),
)
def _passes(learner: Learner) -> None:
    rng = random.Random("grpo.3")
    learner(1, [[True, False, False, False]]).expect(0.25, "and at one try the chance is the share that is right")
    learner(4, [[True, False, False, False]]).expect(1.0, "and whoever takes all four tries takes the right one")
    learner(3, [[False] * 5]).expect(0.0, "and no try is right")
    learner(5, [[True] * 6]).expect(1.0, "and every try is right")
    for _ in range(25):
        tries = rng.choice([4, 6, 8])
        k = rng.randint(1, tries)
        right = [[rng.random() < chance for _ in range(tries)] for chance in (rng.random(), 0.2, 0.7)][
            : rng.randint(1, 3)
        ]
        # By counting, without a formula: every choice of k tries is as likely as any other.
        shares = []
        for marks in right:
            chosen = list(itertools.combinations(marks, k))
            shares.append(sum(map(any, chosen)) / len(chosen))
        wanted = sum(shares) / len(shares)
        learner(k, right).expect(
            wanted,
            f"and of all ways to choose {k} of {tries} tries the share {wanted:.6g} holds a right one, on average",
        )
