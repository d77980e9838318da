"""Did it really train? The receipt of a run, and the detectors behind its verdict.

A falling loss proves little and a finished loop proves nothing. So a run is watched: the weights before and after, the
updates that the optimizer made, the tokens that carried a loss, the loss seen and unseen, and the held-out score.
"""

import html
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import evaluation, memory, rewards
from unsloth_course.lesson.fingerprint import data_hash

TRAINED, SUSPICIOUS, NOT_TRAINED = "trained", "suspicious", "not trained"
SAMPLED_ROWS = 256
FORGOTTEN = 0.05
FORGOTTEN_TEXT = 0.15  # rise of the perplexity of text that should stay
_KEPT_TEXT = {"perplexity": "general text", "chat_perplexity": "answers in chat"}
FORGOTTEN_CHAT = 0.05  # of answers in chat
LESS_LIKELY = 0.10  # rise of the perplexity of the chosen answers
STEPS_LOST = 0.10  # fall of the share of tries with steps
SLIGHT = 0.01  # a fall of a perplexity by less is no effect, however sure it is
LEARNED = 0.9  # an exact match from here on has little left to learn
MEMORY_MISS = 0.2
ROUNDING = 1e-6  # a spread of rewards below this is none
LN_2 = math.log(2)
WHAT_NOW = 'TROUBLESHOOTING.md says "What to do when the receipt says suspicious".'


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
    """The verdict on a run, and every finding that speaks for or against it. Taught in lesson colab2 (LoRA)."""
    findings = [*_fatal(evidence), *_doubts(evidence), *_notes(evidence)]
    levels = {finding.level for finding in findings}
    verdict = NOT_TRAINED if "fatal" in levels else SUSPICIOUS if "doubt" in levels else TRAINED
    return verdict, findings


def _fatal(e: Evidence) -> list[Finding]:
    found = []
    if e.trained_tokens == 0:
        text = f"No token in the {e.sampled_rows} rows looked at carries a label, so there was no error to learn from."
        found.append(Finding("fatal", "no trained token", text))
    if e.steps == 0:
        found.append(Finding("fatal", "no step", "The training loop made no step. Check max_steps and the data set."))
    elif e.updates == 0:
        text = f"The loop made {e.steps} steps, but the optimizer applied none of them to the weights."
        found.append(Finding("fatal", "no update", text))
    if e.learning_rate == 0:
        found.append(
            Finding("fatal", "learning rate 0", "The learning rate was 0 throughout, so no update could move.")
        )
    if not e.finite_weights:
        found.append(Finding("fatal", "broken weights", "Some weights are no longer numbers. Lower the learning rate."))
    elif e.changed_tensors == 0:
        text = f"All {e.trainable_tensors} trainable tensors have the values that they had before training."
        found.append(Finding("fatal", "weights unchanged", text))
    if any(not math.isfinite(loss) for loss in e.losses):
        found.append(Finding("fatal", "loss not a number", "The loss became infinite or not a number during training."))
    if e.method == "dpo" and _stays_at_ln_2(e.losses):
        text = (
            f"The loss ends at {_last(e.losses):.4f}. DPO starts at ln 2 = 0.6931, where chosen and rejected are "
            "told apart no better than by a coin, and this run did not leave it. Raise the learning rate, or the steps."
        )
        found.append(Finding("fatal", "loss stays at ln 2", text))
    if e.spreadless and min(e.spreadless) >= 1:
        text = (
            "In every group all completions got the same reward, so every advantage was 0 and there was nothing to "
            "prefer. Check the reward functions on a few completions."
        )
        found.append(Finding("fatal", "no spread in rewards", text))
    return found


def _thirds(values: list[float]) -> tuple[float, float] | None:
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
    thirds = _thirds(losses)
    return thirds[1] if thirds else losses[-1]


def _doubts(e: Evidence) -> list[Finding]:
    found = []
    # GRPO's loss is minus the advantages, and those of a group add up to 0: it lies about 0 whatever is learned.
    thirds = None if e.method == "grpo" else _thirds(e.losses)
    if thirds and thirds[1] >= thirds[0]:
        text = f"The training loss did not fall: {thirds[0]:.3f} in the first third, {thirds[1]:.3f} in the last."
        found.append(Finding("doubt", "loss did not fall", text))
    risen = _thirds(e.rewards)
    if risen and risen[1] <= risen[0]:
        text = f"The reward did not rise: {risen[0]:.3f} in the first third, {risen[1]:.3f} in the last."
        found.append(Finding("doubt", "reward did not rise", text))
    if e.clipped and sum(e.clipped) / len(e.clipped) > 0.5:
        share = 100 * sum(e.clipped) / len(e.clipped)
        text = f"{share:.0f} % of the completions were cut off at the length limit. Raise max_completion_length."
        found.append(Finding("doubt", "completions cut off", text))
    if len(e.unseen) > 1 and not e.unseen[-1] < e.unseen[0]:  # not a number is no fall either
        text = f"The loss on unseen rows did not fall: {e.unseen[0]:.3f} before, {e.unseen[-1]:.3f} after."
        found.append(Finding("doubt", "unseen loss did not fall", text))
    if e.repeated:
        text, times, count = e.repeated
        text = f"One answer was given to {times} of {count} questions: {_cut(text)!r}. They want different ones."
        found.append(Finding("doubt", "one answer", text))
    return found + (_doubts_of_score(e.score) if e.score else [])


def _doubts_of_score(score: evaluation.Score) -> list[Finding]:
    """What the held-out measures give to doubt: first of all the one that judges, then the metric beside it."""
    found = []
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
        found.append(Finding("doubt", "held-out score worse", text))
    elif not low > 0:
        text = (
            f"No effect on held-out {_TESTED.get(judge.name, 'questions')} can be told from chance: "
            f"{judge.before:.3f} before, {judge.after:.3f} after, and the 95 % interval of the difference includes 0."
        )
        found.append(Finding("doubt", "no held-out effect", text))
    elif judge.lower and judge.after > (1 - SLIGHT) * judge.before:
        text = (
            f"The held-out {judge.title} fell by less than {SLIGHT:.0%}: {judge.before:.3f} before, {judge.after:.3f} "
            "after. Raise the learning rate, or the steps."
        )
        found.append(Finding("doubt", "no held-out effect", text))
    elif own.better[0] > 0 and score.above_chance and not replace(own, interval=score.above_chance).better[0] > 0:
        if score.metric == "perplexity":
            name = "order not learned"
            text = (
                "Text in its own order is no less surprising than its words shuffled: perplexity "
                f"{score.after:.3f} against {score.chance:.3f}. Which words occur was learned, and not how "
                "they follow each other. Read a few rows of the training data: is their text in order?"
            )
        else:
            name = "no better than chance"
            text = (
                f"The answers are right no more often than they would be on other questions: {score.after:.3f} "
                f"against {score.chance:.3f}. The form of the answers was learned, and not what to answer."
            )
        found.append(Finding("doubt", name, text))
    elif apart and not evaluation.share_above_a_coin(apart.after, apart.n)[0] > 0:
        text = (
            "The model finds answers no likelier where they belong than swapped between two questions: in "
            f"{100 * apart.after:.0f} % of {apart.n} pairs, and a coin gives 50 %. The form of the answers was "
            "learned, and not what to answer. Read a few training rows: do their answers belong to the questions?"
        )
        found.append(Finding("doubt", "no better than chance", text))
    if judge.name == "accuracy" and low > 0 and steps and round(steps.before - steps.after, 9) > STEPS_LOST:
        text = (
            f"The gain comes from guessing without steps: {100 * steps.before:.0f} % of the tries showed steps before, "
            f"{100 * steps.after:.0f} % after. Pay for the right number alone, or make the warm-up longer."
        )
        found.append(Finding("doubt", "guessing", text))
    right = score.correctness
    if right and round(right.before - right.after, 9) > FORGOTTEN:
        text = (
            f"The preferred way was learned at the cost of being right: {100 * right.before:.1f} % right before, "
            f"{100 * right.after:.1f} % after. Lower the learning rate or the steps, or raise beta."
        )
        found.append(Finding("doubt", "correctness fell", text))
    return found


def _cut(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _notes(e: Evidence) -> list[Finding]:
    found = []
    if 0 < e.updates < e.steps:
        text = (
            f"The optimizer applied {e.updates} of {e.steps} steps; in float16 the gradient scaler skips the first few."
        )
        found.append(Finding("note", "skipped steps", text))
    found += _notes_of_score(e.score) if e.score else []
    kept = e.score.retention if e.score else None
    if kept and kept.metric in _KEPT_TEXT:
        rise = kept.after / kept.before - 1
        if rise > FORGOTTEN_TEXT:
            more = f"{100 * rise:.0f} % more surprising: {kept.before:.3f} before, {kept.after:.3f} after."
            text = f"The model finds {_KEPT_TEXT[kept.metric]} {more}"
            found.append(Finding("note", "forgetting", text))
    elif kept and round(kept.before - kept.after, 9) > FORGOTTEN:
        points = 100 * (kept.before - kept.after)
        text = f"Untouched skills fell by {points:.1f} points: {kept.before:.3f} before, {kept.after:.3f} after."
        found.append(Finding("note", "forgetting", text))
    if e.predicted_bytes and e.measured_bytes:
        miss = e.predicted_bytes / e.measured_bytes - 1
        if abs(miss) > MEMORY_MISS:
            text = f"The memory prediction was {100 * miss:+.0f} % off; measured were {memory.size(e.measured_bytes)}."
            found.append(Finding("note", "memory", text))
    return found


def _notes_of_score(score: evaluation.Score) -> list[Finding]:
    found = []
    named = {measure.name: measure for measure in score.measures}
    judge, own = score.judge, score.own
    form = judge.name == "answer_perplexity" and judge.better[0] > 0
    if form and own.name == "exact_match" and not own.better[0] > 0 and own.after < LEARNED:
        text = (
            "The form was learned, and the facts were not: held-out answers became likelier (perplexity "
            f"{judge.before:,.2f} before, {judge.after:,.2f} after), and exact match did not rise clearly "
            f"({100 * own.before:.1f} % before, {100 * own.after:.1f} % after, n = {own.n})."
        )
        found.append(Finding("note", "form only", text))
    for name, most, what, why in (
        ("chat_perplexity", FORGOTTEN_CHAT, "Answers in chat", "Mix more chat into the replay."),
        ("chosen_perplexity", LESS_LIKELY, "The chosen answers", "That is common in DPO; read what it writes."),
    ):
        one = named.get(name)
        if one and one.interval[0] > 0 and one.after > (1 + most) * one.before:
            rise = 100 * (one.after / one.before - 1)
            text = f"{what} became {rise:.0f} % more surprising: {one.before:.3f} before, {one.after:.3f} after. {why}"
            found.append(Finding("note", f"{one.title} rose", text))
    return found


_PROOF = {
    "perplexity": "held-out text is predicted better",
    "answer_perplexity": "held-out answers became likelier",
    "preference_accuracy": "the chosen answers of held-out pairs gained on the rejected ones",
    "preference_rate": "held-out answers are written in the preferred way more often",
    "accuracy": "unseen problems are solved more often",
}
_TESTED = {
    "exact_match": "questions",
    "perplexity": "texts",
    "answer_perplexity": "answers",
    "preference_rate": "answers",
    "preference_accuracy": "pairs",
    "accuracy": "problems",
}


@dataclass(frozen=True, repr=False)
class Receipt:
    """What is known of a finished run, with the verdict. Shown as a table in a notebook, as text elsewhere."""

    verdict: str
    findings: list[Finding]
    evidence: Evidence
    layer_change: dict[int, float]
    answers: evaluation.Changed | None
    seed: int
    data_hash: str
    versions: dict[str, str]

    def sentence(self) -> str:
        """The verdict in words."""
        if self.verdict == TRAINED:
            seen = ["the weights moved"]
            if self.evidence.method == "grpo":
                if len(self.evidence.rewards) >= 3:
                    seen.append("the reward rose")
            elif len(self.evidence.losses) >= 3:
                seen.append("the loss fell")
            if self.evidence.score:
                seen.append(_PROOF.get(self.evidence.score.judge.name, "held-out questions are answered better"))
            return f"This run trained: {_listed(seen)}."
        reasons = " ".join(f.text for f in self.findings if f.level in ("fatal", "doubt"))
        lead = "This run did not train." if self.verdict == NOT_TRAINED else "This run is suspicious."
        return f"{lead} {reasons}"

    def rows(self) -> list[tuple[str, str]]:
        """The lines of the receipt: what, and its value, as text."""
        e = self.evidence
        lines = [
            ("updates applied", f"{e.updates} of {e.steps} steps"),
            ("tensors changed", f"{e.changed_tensors} of {e.trainable_tensors}"),
        ]
        if self.layer_change:
            change = ", ".join(f"{layer}: {100 * share:.1f} %" for layer, share in self.layer_change.items())
            lines.append(("weight change by layer", change))
        for what, values in (("reward", e.rewards), ("spread within groups", e.spreads)):
            if thirds := _thirds(values):
                lines.append((what, f"{thirds[0]:.3f} in the first third, {thirds[1]:.3f} in the last"))
            elif values:
                lines.append((what, f"{values[0]:.3f} at first, {values[-1]:.3f} at last"))
        if e.spreadless:
            share = 100 * sum(e.spreadless) / len(e.spreadless)
            lines.append(("groups without spread", f"{share:.0f} % of all groups: these taught nothing"))
        if e.losses and e.method != "grpo":
            lines.append(("loss on seen rows", f"{e.losses[0]:.3f} at first, {e.losses[-1]:.3f} at last"))
        if e.unseen:
            lines.append(("loss on unseen rows", f"{e.unseen[0]:.3f} at first, {e.unseen[-1]:.3f} at last"))
        if e.score:
            for measure in e.score.all:
                tested = _TESTED.get(measure.name)
                what = f"{measure.title}, " + (f"{measure.n:,} held-out {tested}" if tested else f"n = {measure.n:,}")
                lines.append((f"{what} (judges)" if measure.judges else what, str(measure)))
            if e.score.few:
                lines.append(("few rows", e.score.few))
            if e.score.correctness:
                right = e.score.correctness
                lines.append(("right answers", f"{right.before:.3f} before, {right.after:.3f} after"))
            if e.score.retention:
                kept = e.score.retention
                text = _KEPT_TEXT.get(kept.metric)
                what = f"perplexity of {text}" if text else "untouched skills"
                lines.append((what, f"{kept.before:.3f} before, {kept.after:.3f} after"))
        if self.answers and self.answers.counts:
            lines.append(("answers", self.answers.total))
        if e.measured_bytes:
            predicted = f"{memory.size(e.predicted_bytes)} predicted, " if e.predicted_bytes else ""
            lines.append(("peak memory", f"{predicted}{memory.size(e.measured_bytes)} measured"))
        lines.append(("seed, data", f"{self.seed}, {self.data_hash}"))
        lines.append(("versions", ", ".join(f"{name} {version}" for name, version in self.versions.items())))
        return lines

    def __str__(self) -> str:
        width = max(len(what) for what, _ in self.rows())
        lines = [f"{self.verdict.upper()}: {self.sentence()}", *(f"{w:<{width}}  {v}" for w, v in self.rows())]
        lines += [f"note: {f.text}" for f in self.findings if f.level == "note"]
        lines += self.answers.lines() if self.answers else []
        lines += [] if self.verdict == TRAINED else [WHAT_NOW]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def cells(values: tuple[str, ...], tag: str = "td") -> str:
            inside = "".join(f'<{tag} style="text-align:left">{html.escape(v)}</{tag}>' for v in values)
            return f"<tr>{inside}</tr>"

        notes = "".join(f"<li>{html.escape(f.text)}</li>" for f in self.findings if f.level == "note")
        page = f"<p><b>{html.escape(self.verdict.capitalize())}.</b> {html.escape(self.sentence())}</p>"
        page += f"<table>{''.join(cells(row) for row in self.rows())}</table>"
        page += f"<ul>{notes}</ul>" if notes else ""
        if self.answers and self.answers.shown:
            head = cells(("", "question", "expected", "before", "after"), "th")
            # A browser would make one line of several.
            rows = (cells(tuple(text.replace("\n", " ⏎ ") for text in row)) for row in self.answers.shown)
            page += f"<p>Some answers of each kind:</p><table>{head}{''.join(rows)}</table>"
        return page if self.verdict == TRAINED else f"{page}<p>{html.escape(WHAT_NOW)}</p>"

    def to_dict(self) -> dict[str, Any]:
        """The "receipt" part of a results file."""
        return {
            "verdict": self.verdict,
            "findings": [{"level": f.level, "name": f.name, "text": f.text} for f in self.findings],
        }


def _listed(parts: list[str]) -> str:
    """Parts of a sentence as one: "a", "a and b", "a, b, and c"."""
    if len(parts) < 3:
        return " and ".join(parts)
    return f"{', '.join(parts[:-1])}, and {parts[-1]}"


class Watch:
    """What has to be noted before training: see `watch`."""

    def __init__(self, trainer: Any):
        if not len(trainer.train_dataset):
            raise CourseError(
                "The train dataset has no rows left: the trainer leaves out rows in which nothing is trained. "
                "Raise max_length, or check which tokens are masked."
            )
        self.trainer = trainer
        self.meter = memory.Meter()
        self.before = {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in trainer.model.named_parameters()
            if parameter.requires_grad
        }
        self.trained_tokens, self.sampled_rows = _trained_tokens(trainer)
        self.method = _method(trainer)
        self.updates = _updates(trainer.optimizer) or 0  # a trainer that is started twice keeps its optimizer


def watch(trainer: Any) -> Watch:
    """Notes the weights of a trainer's model, and has the trainer measure memory and show one line of progress.

    Call it after the trainer is made and before `trainer.train()`; hand the result to `receipt`. Nothing in the
    training itself changes. Raises CourseError when the trainer has no rows. Taught in lesson colab2 (LoRA).
    """
    from transformers import PrinterCallback

    from unsloth_course.core import progress

    watching = Watch(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watching.meter)
    if watching.method == "grpo":
        trainer.add_callback(_spread_logged(trainer))
    trainer.add_callback(progress.shown())
    return watching


def _spread_logged(trainer: Any) -> Any:
    """A callback that notes the spread of the rewards within groups, as `SPREAD`, in each row of GRPO's log.

    TRL's own `reward_std` is the spread over the whole batch, which is there even where all tries of a problem get the
    same. What each completion of the last batch got TRL keeps for its table of completions, in `_logs`.
    """
    from transformers import TrainerCallback

    class Spread(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            paid = getattr(trainer, "_logs", {}).get("rewards")
            if paid and logs and "reward" in logs and state.log_history:
                weights = [float(weight) for weight in trainer.reward_weights]
                spread = rewards.spread_in_groups(list(paid.values()), weights, trainer.num_generations)
                state.log_history[-1][rewards.SPREAD] = spread

    return Spread()


def receipt(
    watching: Watch,
    score: evaluation.Score | None = None,
    answers: tuple[evaluation.Answers, evaluation.Answers] | None = None,
    predicted_bytes: int = 0,
) -> Receipt:
    """The receipt of a finished run.

    score: the held-out score. answers: the held-out answers before and after, to count and show what became of them.
    predicted_bytes: the memory prediction. Taught in lesson colab2 (LoRA).
    """
    from unsloth_course.lesson import results

    trainer = watching.trainer
    after = {name: p.detach().to("cpu") for name, p in trainer.model.named_parameters() if name in watching.before}
    history = trainer.state.log_history
    method = watching.method
    rates = [float(row["learning_rate"]) for row in history if "learning_rate" in row]
    changed = sum(not after[name].equal(old) for name, old in watching.before.items())
    counted = _updates(trainer.optimizer)
    evidence = Evidence(
        steps=trainer.state.global_step,
        updates=counted - watching.updates if counted is not None else trainer.state.global_step if changed else 0,
        changed_tensors=changed,
        trainable_tensors=len(watching.before),
        trained_tokens=_written_tokens(trainer) if method == "grpo" else watching.trained_tokens,
        sampled_rows=watching.sampled_rows,
        learning_rate=max(rates) if rates else None,
        losses=_logged(history, "loss"),
        unseen=_logged(history, "eval_loss"),
        score=score,
        finite_weights=all(bool(tensor.isfinite().all()) for tensor in after.values()),
        predicted_bytes=predicted_bytes,
        measured_bytes=watching.meter.peak_bytes,
        method=method,
        rewards=_logged(history, "reward"),
        spreadless=_spreadless(history),
        clipped=_logged(history, "completions/clipped_ratio"),
        spreads=_logged(history, rewards.SPREAD),
        repeated=evaluation.one_answer(answers[1]) if answers else None,
    )
    verdict, findings = judge(evidence)
    return Receipt(
        verdict=verdict,
        findings=findings,
        evidence=evidence,
        layer_change=_layer_change(trainer.model, watching.before, after),
        answers=evaluation.changed(*answers) if answers else None,
        seed=trainer.args.seed,
        data_hash=data_hash(trainer.train_dataset),
        versions=results.versions(),
    )


def _method(trainer: Any) -> str:
    """What a trainer trains with, from the names of its class and of those that it is built on."""
    names = " ".join(kind.__name__ for kind in type(trainer).__mro__)
    if "GRPOTrainer" in names:
        return "grpo"
    if "DPOTrainer" in names:
        return "dpo"
    return "cpt" if "UnslothTrainer" in names.split() else "sft"


def _logged(history: list[Mapping[str, Any]], name: str) -> list[float]:
    return [float(row[name]) for row in history if name in row]


def _spreadless(history: list[Mapping[str, Any]]) -> list[float]:
    """For each logged step of GRPO the share of groups whose completions all got the same reward.

    TRL's own share is fooled by rounding: eight rewards of 1.2 have a standard deviation of 1e-7 in float32, and count
    as spread. Where all rewards of a step are alike, its logged deviation says so.
    """
    return [
        1.0 if float(row.get("reward_std", 1.0)) < ROUNDING else float(row["frac_reward_zero_std"])
        for row in history
        if "frac_reward_zero_std" in row
    ]


def _written_tokens(trainer: Any) -> int:
    """Tokens of completions that GRPO trained on, about: it makes its own text, so there is no row to look at before.

    Completions that were cut off count as nothing where the trainer masks them.
    """
    args, history = trainer.args, trainer.state.log_history
    lengths, clipped = _logged(history, "completions/mean_length"), _logged(history, "completions/clipped_ratio")
    if getattr(args, "mask_truncated_completions", False) and len(clipped) == len(lengths):
        lengths = [length * (1 - share) for length, share in zip(lengths, clipped, strict=True)]
    return round(sum(lengths) * args.per_device_train_batch_size)


def _trained_tokens(trainer: Any) -> tuple[int, int]:
    """Labels that count in rows from all over the training set, as the trainer's own collator gives them."""
    rows = len(trainer.train_dataset)
    count = min(SAMPLED_ROWS, rows)
    sample = [rows * number // count for number in range(count)]
    columns = trainer._signature_columns or trainer.train_dataset.column_names
    total = 0
    for number in sample:
        row = {name: value for name, value in trainer.train_dataset[number].items() if name in columns}
        batch = trainer.data_collator([row])
        if isinstance(batch, list):  # GRPO hands prompts on as they are
            continue
        if "completion_mask" in batch and "labels" not in batch:  # DPO: both completions count
            total += int(batch["completion_mask"][..., 1:].sum())
        elif "labels" in batch:
            total += int((batch["labels"][..., 1:] != -100).sum())
    return total, len(sample)


def _updates(optimizer: Any) -> int | None:
    """How many updates an optimizer made to the parameter that it changed most often; None where it does not count."""
    states = getattr(optimizer, "state", None) or {}
    return max((int(state["step"]) for state in states.values() if "step" in state), default=None)


def _layer_change(model: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[int, float]:
    """How far each layer moved: the norm of its change over the norm of its weights, 0.01 being one percent.

    A LoRA adapter's change is that of the product (alpha / r) B A which it adds.
    """
    moved: dict[int, float] = {}
    whole: dict[int, float] = {}
    modules = dict(model.named_modules())
    for name, old in before.items():
        found = re.search(r"layers\.(\d+)\.", name)
        if not found:
            continue
        layer = int(found[1])
        if ".lora_A." in name:
            owner, adapter = re.fullmatch(r"(.*)\.lora_A\.(.*)\.weight", name).groups()
            partner = name.replace(".lora_A.", ".lora_B.")
            scale = modules[owner].scaling[adapter]
            change = scale * (after[partner].float() @ after[name].float() - before[partner].float() @ old.float())
            weight = _dense(modules[owner].base_layer.weight)
            moved[layer] = moved.get(layer, 0.0) + float(change.norm()) ** 2
            whole[layer] = whole.get(layer, 0.0) + float(weight.norm()) ** 2
        elif ".lora_B." not in name:
            moved[layer] = moved.get(layer, 0.0) + float((after[name].float() - old.float()).norm()) ** 2
            whole[layer] = whole.get(layer, 0.0) + float(old.float().norm()) ** 2
    return {layer: math.sqrt(moved[layer] / whole[layer]) if whole[layer] else 0.0 for layer in sorted(moved)}


def _dense(weight: Any) -> Any:
    """A frozen weight as float32 numbers; of one in 4 bits those that it stands for."""
    if getattr(weight, "quant_state", None) is None:
        return weight.detach().float()
    import bitsandbytes

    return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).float()
