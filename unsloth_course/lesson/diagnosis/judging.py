"""The detectors: what the numbers of a run give to say, and the verdict that follows."""

import math
from dataclasses import dataclass, field, replace

from unsloth_course.core.writing import cut
from unsloth_course.lesson import evaluation, memory

TRAINED, SUSPICIOUS, NOT_TRAINED = "trained", "suspicious", "not trained"
FORGOTTEN = 0.05
FORGOTTEN_TEXT = 0.15  # rise of the perplexity of text that should stay
KEPT_TEXT = {"perplexity": "general text", "chat_perplexity": "answers in chat"}
FORGOTTEN_CHAT = 0.05  # of answers in chat
LESS_LIKELY = 0.10  # rise of the perplexity of the chosen answers
STEPS_LOST = 0.10  # fall of the share of tries with steps
SLIGHT = 0.01  # a fall of a perplexity by less is no effect, however sure it is
LEARNED = 0.9  # an exact match from here on has little left to learn
MEMORY_MISS = 0.2
LN_2 = math.log(2)


@dataclass(frozen=True)
class Finding:
    """One thing that a detector saw. `level` is "fatal", "doubt" or "note"; `name` is a fixed word; `text` explains."""

    level: str
    name: str
    text: str


@dataclass(frozen=True)
class Evidence:
    """The numbers that a verdict is drawn from.

    steps: of the training loop. updates: that the optimizer really made (a gradient scaler skips some; one that does
    not count, such as SGD, is taken to have made them all if any weight changed). changed_tensors of trainable_tensors:
    with another value than before. trained_tokens: labels that count, in sampled_rows rows as the collator gives them.
    learning_rate: the largest that was logged. losses: logged during training, in order. unseen: held-out losses, the
    first from before training. score: the held-out score. method: "sft", "dpo", "grpo" or "cpt". For GRPO, one number
    per logged step: rewards (their mean), spreads (their standard deviation within a group, the mean of the groups),
    spreadless (the share of groups whose completions all got the same reward), clipped (the share of completions that
    reached the length limit). repeated: the one answer that was given to most questions, how often, and to how many.
    """

    steps: int
    updates: int
    changed_tensors: int
    trainable_tensors: int
    trained_tokens: int
    sampled_rows: int
    learning_rate: float | None
    losses: list[float]
    unseen: list[float] = field(default_factory=list)
    score: evaluation.Score | None = None
    finite_weights: bool = True
    predicted_bytes: int = 0
    measured_bytes: int = 0
    method: str = "sft"
    rewards: list[float] = field(default_factory=list)
    spreadless: list[float] = field(default_factory=list)
    clipped: list[float] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)
    repeated: tuple[str, int, int] | None = None


def judge(evidence: Evidence) -> tuple[str, list[Finding]]:
    """The verdict on a run, and every finding that speaks for or against it."""
    seen = {"fatal": _fatal(evidence), "doubt": _doubts(evidence), "note": _notes(evidence)}
    verdict = NOT_TRAINED if seen["fatal"] else SUSPICIOUS if seen["doubt"] else TRAINED
    return verdict, [Finding(level, *one) for level, found in seen.items() for one in found.items()]


def _fatal(e: Evidence) -> dict[str, str]:
    found = {}
    if e.trained_tokens == 0:
        found["no trained token"] = (
            f"No token in the {e.sampled_rows} rows looked at carries a label, so there was no error to learn from."
        )
    if e.steps == 0:
        found["no step"] = "The training loop made no step. Check max_steps and the data set."
    elif e.updates == 0:
        found["no update"] = f"The loop made {e.steps} steps, but the optimizer applied none of them to the weights."
    if e.learning_rate == 0:
        found["learning rate 0"] = "The learning rate was 0 throughout, so no update could move."
    if not e.finite_weights:
        found["broken weights"] = "Some weights are no longer numbers. Lower the learning rate."
    elif e.changed_tensors == 0:
        found["weights unchanged"] = (
            f"All {e.trainable_tensors} trainable tensors have the values that they had before training."
        )
    if any(not math.isfinite(loss) for loss in e.losses):
        found["loss not a number"] = "The loss became infinite or not a number during training."
    if e.method == "dpo" and _stays_at_ln_2(e.losses):
        found["loss stays at ln 2"] = (
            f"The loss ends at {_last(e.losses):.4f}. DPO starts at ln 2 = 0.6931, where chosen and rejected are "
            "told apart no better than by a coin, and this run did not leave it. Raise the learning rate, or the steps."
        )
    if e.spreadless and min(e.spreadless) >= 1:
        found["no spread in rewards"] = (
            "In every group all completions got the same reward, so every advantage was 0 and there was nothing to "
            "prefer. Check the reward functions on a few completions."
        )
    return found


def thirds_of(values: list[float]) -> tuple[float, float] | None:
    """The means of the first and of the last third, or None of fewer than three values or of infinite ones."""
    third = len(values) // 3
    if not third or not all(map(math.isfinite, values)):
        return None
    return sum(values[:third]) / third, sum(values[-third:]) / third


def _stays_at_ln_2(losses: list[float]) -> bool:
    """Whether a DPO loss starts at ln 2 and ends within 0.005 of it; other losses than the sigmoid start elsewhere."""
    if not losses or not all(map(math.isfinite, losses)):
        return False
    return abs(losses[0] - LN_2) < 0.02 and abs(_last(losses) - LN_2) < 0.005


def _last(losses: list[float]) -> float:
    """Where a loss ends: the mean of its last third; of fewer than three values, the last one."""
    thirds = thirds_of(losses)
    return thirds[1] if thirds else losses[-1]


def _doubts(e: Evidence) -> dict[str, str]:
    found = {}
    # GRPO's loss is minus the advantages, and those of a group add up to 0: it lies about 0 whatever is learned.
    thirds = None if e.method == "grpo" else thirds_of(e.losses)
    if thirds and thirds[1] >= thirds[0]:
        found["loss did not fall"] = (
            f"The training loss did not fall: {thirds[0]:.3f} in the first third, {thirds[1]:.3f} in the last."
        )
    risen = thirds_of(e.rewards)
    if risen and risen[1] <= risen[0]:
        found["reward did not rise"] = (
            f"The reward did not rise: {risen[0]:.3f} in the first third, {risen[1]:.3f} in the last."
        )
    if e.clipped and sum(e.clipped) / len(e.clipped) > 0.5:
        share = 100 * sum(e.clipped) / len(e.clipped)
        found["completions cut off"] = (
            f"{share:.0f} % of the completions were cut off at the length limit. Raise max_completion_length."
        )
    if len(e.unseen) > 1 and not e.unseen[-1] < e.unseen[0]:  # not a number is no fall either
        found["unseen loss did not fall"] = (
            f"The loss on unseen rows did not fall: {e.unseen[0]:.3f} before, {e.unseen[-1]:.3f} after."
        )
    if e.repeated:
        text, times, count = e.repeated
        found["one answer"] = (
            f"One answer was given to {times} of {count} questions: {cut(text, 80)!r}. They want different ones."
        )
    return found | (_doubts_of_score(e.score) if e.score else {})


def _doubts_of_score(score: evaluation.Score) -> dict[str, str]:
    """What the held-out measures give to doubt: first of all the one that judges, then the metric beside it."""
    found = {}
    named = {measure.name: measure for measure in score.measures}
    judge, own = score.judge, score.own
    low, high = judge.better
    apart, steps = named.get("told_apart"), named.get("worked")
    if high < 0 or own.better[1] < 0:
        worse = judge if high < 0 else own
        what = worse.title if score.measures else "score"
        text = f"The held-out {what} got worse: {worse.before:.3f} before, {worse.after:.3f} after."
        if high < 0 and judge.name in ("preference_rate", "preference_accuracy"):
            text += " The rejected way of answering was taught: chosen and rejected are probably swapped."
        found["held-out score worse"] = text
    elif not low > 0:
        found["no held-out effect"] = (
            f"No effect on held-out {TESTED.get(judge.name, 'questions')} can be told from chance: "
            f"{judge.before:.3f} before, {judge.after:.3f} after, and the 95 % interval of the difference includes 0."
        )
    elif judge.lower and judge.after > (1 - SLIGHT) * judge.before:
        found["no held-out effect"] = (
            f"The held-out {judge.title} fell by less than {SLIGHT:.0%}: {judge.before:.3f} before, {judge.after:.3f} "
            "after. Raise the learning rate, or the steps."
        )
    elif own.better[0] > 0 and score.above_chance and not replace(own, interval=score.above_chance).better[0] > 0:
        if score.metric == "perplexity":
            found["order not learned"] = (
                "Text in its own order is no less surprising than its words shuffled: perplexity "
                f"{score.after:.3f} against {score.chance:.3f}. Which words occur was learned, and not how "
                "they follow each other. Read a few rows of the training data: is their text in order?"
            )
        else:
            found["no better than chance"] = (
                f"The answers are right no more often than they would be on other questions: {score.after:.3f} "
                f"against {score.chance:.3f}. The form of the answers was learned, and not what to answer."
            )
    elif apart and not evaluation.share_above_a_coin(apart.after, apart.n)[0] > 0:
        found["no better than chance"] = (
            "The model finds answers no likelier where they belong than swapped between two questions: in "
            f"{100 * apart.after:.0f} % of {apart.n} pairs, and a coin gives 50 %. The form of the answers was "
            "learned, and not what to answer. Read a few training rows: do their answers belong to the questions?"
        )
    if judge.name == "accuracy" and low > 0 and steps and round(steps.before - steps.after, 9) > STEPS_LOST:
        found["guessing"] = (
            f"The gain comes from guessing without steps: {100 * steps.before:.0f} % of the tries showed steps before, "
            f"{100 * steps.after:.0f} % after. Pay for the right number alone, or make the warm-up longer."
        )
    right = score.correctness
    if right and round(right.before - right.after, 9) > FORGOTTEN:
        found["correctness fell"] = (
            f"The preferred way was learned at the cost of being right: {100 * right.before:.1f} % right before, "
            f"{100 * right.after:.1f} % after. Lower the learning rate or the steps, or raise beta."
        )
    return found


def _notes(e: Evidence) -> dict[str, str]:
    found = {}
    if 0 < e.updates < e.steps:
        found["skipped steps"] = (
            f"The optimizer applied {e.updates} of {e.steps} steps; in float16 the gradient scaler skips the first few."
        )
    found |= _notes_of_score(e.score) if e.score else {}
    kept = e.score.retention if e.score else None
    if kept and kept.metric in KEPT_TEXT:
        rise = kept.after / kept.before - 1
        if rise > FORGOTTEN_TEXT:
            more = f"{100 * rise:.0f} % more surprising: {kept.before:.3f} before, {kept.after:.3f} after."
            found["forgetting"] = f"The model finds {KEPT_TEXT[kept.metric]} {more}"
    elif kept and round(kept.before - kept.after, 9) > FORGOTTEN:
        points = 100 * (kept.before - kept.after)
        found["forgetting"] = (
            f"Untouched skills fell by {points:.1f} points: {kept.before:.3f} before, {kept.after:.3f} after."
        )
    if e.predicted_bytes and e.measured_bytes:
        miss = e.predicted_bytes / e.measured_bytes - 1
        if abs(miss) > MEMORY_MISS:
            found["memory"] = (
                f"The memory prediction was {100 * miss:+.0f} % off; measured were {memory.size(e.measured_bytes)}."
            )
    return found


def _notes_of_score(score: evaluation.Score) -> dict[str, str]:
    found = {}
    named = {measure.name: measure for measure in score.measures}
    judge, own = score.judge, score.own
    form = judge.name == "answer_perplexity" and judge.better[0] > 0
    if form and own.name == "exact_match" and not own.better[0] > 0 and own.after < LEARNED:
        found["form only"] = (
            "The form was learned, and the facts were not: held-out answers became likelier (perplexity "
            f"{judge.before:,.2f} before, {judge.after:,.2f} after), and exact match did not rise clearly "
            f"({100 * own.before:.1f} % before, {100 * own.after:.1f} % after, n = {own.n})."
        )
    for name, most, what, why in (
        ("chat_perplexity", FORGOTTEN_CHAT, "Answers in chat", "Mix more chat into the replay."),
        ("chosen_perplexity", LESS_LIKELY, "The chosen answers", "That is common in DPO; read what it writes."),
    ):
        one = named.get(name)
        if one and one.interval[0] > 0 and one.after > (1 + most) * one.before:
            rise = 100 * (one.after / one.before - 1)
            found[f"{one.title} rose"] = (
                f"{what} became {rise:.0f} % more surprising: {one.before:.3f} before, {one.after:.3f} after. {why}"
            )
    return found


TESTED = {
    "exact_match": "questions",
    "perplexity": "texts",
    "answer_perplexity": "answers",
    "preference_rate": "answers",
    "preference_accuracy": "pairs",
    "accuracy": "problems",
}
