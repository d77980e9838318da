"""The receipt of a run: what is known of it, with the verdict, as text and as a table."""

from dataclasses import dataclass
from typing import Any

from unsloth_course.core import markup
from unsloth_course.lesson import memory
from unsloth_course.lesson.diagnosis.judging import (
    KEPT_TEXT,
    NOT_TRAINED,
    TESTED,
    TRAINED,
    Evidence,
    Finding,
    thirds_of,
)
from unsloth_course.lesson.evaluation.scores import Changed

WHAT_NOW = 'TROUBLESHOOTING.md says "What to do when the receipt says suspicious".'
_PROOF = {
    "perplexity": "held-out text is predicted better",
    "answer_perplexity": "held-out answers became likelier",
    "preference_accuracy": "the chosen answers of held-out pairs gained on the rejected ones",
    "preference_rate": "held-out answers are written in the preferred way more often",
    "accuracy": "unseen problems are solved more often",
}


@dataclass(frozen=True, repr=False)
class Receipt:
    """What is known of a finished run, with the verdict. Shown as a table in a notebook, as text elsewhere."""

    verdict: str
    findings: list[Finding]
    evidence: Evidence
    layer_change: dict[int, float]
    answers: Changed | None
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
            if thirds := thirds_of(values):
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
                tested = TESTED.get(measure.name)
                what = f"{measure.title}, " + (f"{measure.n:,} held-out {tested}" if tested else f"n = {measure.n:,}")
                lines.append((f"{what} (judges)" if measure.judges else what, str(measure)))
            if e.score.few:
                lines.append(("few rows", e.score.few))
            if e.score.correctness:
                right = e.score.correctness
                lines.append(("right answers", f"{right.before:.3f} before, {right.after:.3f} after"))
            if e.score.retention:
                kept = e.score.retention
                text = KEPT_TEXT.get(kept.metric)
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

    def __repr__(self) -> str:
        width = max(len(what) for what, _ in self.rows())
        lines = [f"{self.verdict.upper()}: {self.sentence()}", *(f"{w:<{width}}  {v}" for w, v in self.rows())]
        lines += [f"note: {f.text}" for f in self.findings if f.level == "note"]
        lines += self.answers.lines() if self.answers else []
        lines += [] if self.verdict == TRAINED else [WHAT_NOW]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        verdict = markup.Html(f"<b>{self.verdict.capitalize()}.</b> {markup.escaped(self.sentence())}")
        page = markup.paragraphs([verdict]) + markup.table(self.rows())
        page += markup.points(f.text for f in self.findings if f.level == "note")
        if self.answers and self.answers.shown:
            # A browser would make one line of several.
            rows = ([text.replace("\n", " ⏎ ") for text in row] for row in self.answers.shown)
            head = ("", "question", "expected", "before", "after")
            page += markup.paragraphs(["Some answers of each kind:"]) + markup.table(rows, head)
        return page if self.verdict == TRAINED else page + markup.paragraphs([WHAT_NOW])

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
