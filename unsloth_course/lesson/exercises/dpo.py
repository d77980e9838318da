"""Exercises of the DPO lesson (colab3): its loss, a pair out of nested text, and which run to keep."""

import math
import random

from unsloth_course.lesson.exercises.asking import Learner, exercise


def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    import math

    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    x = beta * margin
    return math.log1p(math.exp(-abs(x))) + max(0, -x)


@exercise(
    "dpo.1",
    "The loss of one pair",
    dpo_loss,
    (
        "How much more did the chosen answer gain on its reference than the rejected one? That is the margin; beta "
        "scales it, and the loss is -log sigmoid of the product."
    ),
    (
        "-log sigmoid(x) = log(1 + exp(-x)). For x far below zero that is nearly -x; "
        "`max(0, -x) + math.log1p(math.exp(-abs(x)))` is the same and never overflows."
    ),
)
def _losses(learner: Learner) -> None:
    rng = random.Random("dpo.1")
    for _ in range(4):
        chosen, rejected, beta = round(rng.uniform(-60, -1), 2), round(rng.uniform(-60, -1), 2), rng.choice([0.1, 0.5])
        learner(chosen, rejected, chosen, rejected, beta).expect(
            math.log(2), "and a policy that is still its reference has the loss ln 2 = 0.693147"
        )
    for _ in range(25):
        four = [round(rng.uniform(-15, -1), 2) for _ in range(4)]
        beta = rng.choice([0.02, 0.1, 0.3])
        given = learner(*four, beta)
        loss = given.number()
        better = learner(four[0] + 0.5, *four[1:], beta).number()
        if not better < loss:
            given.wrong(f"and with `chosen` half a nat likelier the loss is {better:.6g}: it has to fall")
        swapped = learner(four[1], four[0], four[3], four[2], beta)
        margin = (four[0] - four[2]) - (four[1] - four[3])
        if not math.isclose(swapped.number() - loss, beta * margin, rel_tol=1e-5, abs_tol=1e-5):
            swapped.wrong(
                f"and the same pair the other way round gave {loss:.6g}: the two differ by beta times the margin, "
                f"{beta * margin:.6g}, where the margin says how much more chosen gained on its reference than rejected"
            )
        given.expect(_loss(beta * margin), f"where beta times the margin is {beta * margin:.6g}")
    far, near = -50_000.0, -10.0
    for chosen, rejected in ((near, far), (far, near)):
        learner(chosen, rejected, near, near, 0.1).expect(
            _loss(0.1 * (chosen - rejected)),
            f"where the margin is {chosen - rejected:,.0f}: the loss of such a pair is finite too",
        )


def _loss(logit: float) -> float:
    """-log sigmoid, for any size of logit."""
    return math.log1p(math.exp(-abs(logit))) + max(0.0, -logit)


WORDS = "the answer is a short one I think that you may try this or look it up in a good book first"
HUMAN, ASSISTANT = "\n\nHuman: ", "\n\nAssistant:"


def _sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS.split(), k=rng.randint(2, 8))).capitalize() + "."


def _history(rng: random.Random, turns: int) -> str:
    asked = [HUMAN + _sentence(rng) + ASSISTANT + " " + _sentence(rng) for _ in range(turns - 1)]
    return "".join([*asked, HUMAN, _sentence(rng), ASSISTANT])


def split_pair(chosen, rejected):
    turn = "\n\nAssistant:"
    prompt, found, good = chosen.rpartition(turn)
    other, _, bad = rejected.rpartition(turn)
    good, bad = good.strip(), bad.strip()
    if not found or prompt != other or not good or not bad:
        return None
    return prompt + turn, good, bad


@exercise(
    "dpo.2",
    "A pair out of nested text",
    split_pair,
    "Do not look for what the two texts share: two answers may begin alike. Cut each by itself, then compare.",
    '`text.rpartition("\\n\\nAssistant:")` cuts at the last turn. Compare the parts before it.',
)
def _pairs(learner: Learner) -> None:
    rng = random.Random("dpo.2")
    for turns in (1, 1, 2, 2, 3, 4):
        prompt = _history(rng, turns)
        # Answers that begin alike: what two texts share is more than the prompt.
        begin = _sentence(rng) + " " if turns % 2 else ""
        chosen, rejected = begin + _sentence(rng) + " Good", begin + _sentence(rng) + " Bad"
        given = learner(f"{prompt} {chosen}", f"{prompt} {rejected}\n")
        if given.value is None:
            given.wrong("and there is a pair in it")
        found = given.items()
        if len(found) != 3:
            given.wrong("and (prompt, chosen, rejected) is wanted")
        for name, one, wanted in zip(("prompt", "chosen", "rejected"), found, (prompt, chosen, rejected), strict=True):
            if one != wanted:
                given.wrong(f"where {name} is {wanted[-60:]!r}" + (" at its end" if len(wanted) > 60 else ""))
    one, other = _history(rng, 2), _history(rng, 2)
    answered = f"{_history(rng, 1)} Yes."
    longer = f"{answered}{HUMAN}Why?{ASSISTANT} So."
    cases = [
        (f"{one} Yes.", f"{other} No.", "and the two histories differ"),
        (answered, longer, "and one history is longer than the other"),
        (f"{one} Yes.", f"{one}", "and the rejected answer is empty"),
        (f"{one} \n", f"{one} No.", "and the chosen answer is empty"),
        ("Hello.", "Hello.", "and there is no assistant in it"),
    ]
    for chosen, rejected, why in cases:
        given = learner(chosen, rejected)
        if given.value is not None:
            given.wrong(f"{why}: None is wanted")


POINTS = 0.05


def run_to_keep(base, runs):
    best = None
    for run in runs:
        if run["correct"] < base["correct"] - 0.05:
            continue
        if run["preferred"] > (best or base)["preferred"]:
            best = run
    return best


@exercise(
    "dpo.3",
    "Which run to keep",
    run_to_keep,
    "One of the three measurements says nothing about the text. Which two are about what the model writes?",
    (
        "Leave out the runs that are less correct than `base` by more than 0.05, and those that are not preferred "
        "more often than `base`; of the rest take the most preferred. The margin plays no part."
    ),
)
def _choices(learner: Learner) -> None:
    rng = random.Random("dpo.3")
    for number in range(40):
        base, runs = _base(rng), []
        for _ in range(rng.randint(1, 6)):
            # Far from the limit of 5 points on either side, so that rounding decides nothing.
            fall = rng.choice([-0.02, 0.0, 0.03, 0.12, 0.3])
            runs.append(_run(rng, rng.uniform(0.0, 1.0), base["correct"] - fall))
        if number == 0:
            runs = [_run(rng, base["preferred"] + 0.5, base["correct"])]
        if number in (1, 2, 3):  # nothing is worth keeping
            runs = [_run(rng, base["preferred"] * 0.5, base["correct"]), _run(rng, 0.99, base["correct"] - 0.3)]
        allowed = [run for run in runs if run["correct"] >= base["correct"] - POINTS]
        better = [run for run in allowed if run["preferred"] > base["preferred"]]
        best = max(better, key=lambda run: run["preferred"], default=None)
        given = learner(base, runs)
        if given.value is not None and not isinstance(given.value, dict):
            given.wrong("and one of the runs, itself, or None is wanted")
        if given.value != best:
            given.wrong(_reason(given.value, best, base))


def _base(rng: random.Random) -> dict[str, float]:
    return {"margin": 0.0, "preferred": round(rng.uniform(0.05, 0.4), 3), "correct": round(rng.uniform(0.5, 0.9), 3)}


def _run(rng: random.Random, preferred: float, correct: float) -> dict[str, float]:
    return {"margin": round(rng.uniform(0.1, 6), 2), "preferred": round(preferred, 3), "correct": round(correct, 3)}


def _reason(found: object, best: dict[str, float] | None, base: dict[str, float]) -> str:
    if best is None:
        return f"and no run is both preferred more often than the base and nearly as correct ({base['correct']}): None"
    if isinstance(found, dict) and found.get("correct", 1) < base["correct"] - POINTS:
        return f"which gives up more than 5 points of the base's correctness ({base['correct']})"
    return f"where {best} writes the preferred form most often of those that stay correct"
