"""Did it get better? Scores on held-out data before and after, what was forgotten, and how sure that is.

One file per way to measure: questions asked (`asking`), problems solved (`solving`), answers in the preferred way
(`preferring`), surprise at text (`surprise`); what is drawn from the marks is in `scores`.
"""

from unsloth_course.evaluation.asking import LONGEST_ANSWER, PROBES_EACH, _recalled, ask, is_exact, probes, recall
from unsloth_course.evaluation.preferring import Preferred, follow, is_correct, is_preferred, prefer, preference_score
from unsloth_course.evaluation.scores import Answers, Retention, Score, changed, interval, luck, score
from unsloth_course.evaluation.solving import Attempts, accuracy_score, attempt, is_solved, pass_at, sample, solve
from unsloth_course.evaluation.surprise import (
    Surprise,
    answer_perplexity,
    perplexity,
    perplexity_score,
    shuffled,
    side_by_side,
)

__all__ = [
    "LONGEST_ANSWER",
    "PROBES_EACH",
    "Answers",
    "Attempts",
    "Preferred",
    "Retention",
    "Score",
    "Surprise",
    "_recalled",
    "accuracy_score",
    "answer_perplexity",
    "ask",
    "attempt",
    "changed",
    "follow",
    "interval",
    "is_correct",
    "is_exact",
    "is_preferred",
    "is_solved",
    "luck",
    "pass_at",
    "perplexity",
    "perplexity_score",
    "prefer",
    "preference_score",
    "probes",
    "recall",
    "sample",
    "score",
    "shuffled",
    "side_by_side",
    "solve",
]
