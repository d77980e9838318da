"""Did it get better? Scores on held-out data before and after, what was forgotten, and how sure that is.

One file per way to measure: questions asked (`asking`), problems solved (`solving`), answers in the preferred way
(`preferring`), surprise at text (`surprise`); what is drawn from the marks is in `scores`, how sure that is in
`intervals`.
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.evaluation.asking import (
        Answered,
        answered,
        ask,
        enough_short,
        instruction_score,
        is_exact,
        probes,
        recall,
    )
    from unsloth_course.lesson.evaluation.intervals import interval, share_above_a_coin, smallest_change
    from unsloth_course.lesson.evaluation.preferring import (
        LONGEST_PREFERRED,
        is_correct,
        pair_likelihood,
        prefer,
        preference_score,
    )
    from unsloth_course.lesson.evaluation.reloading import Reloaded, same_answers
    from unsloth_course.lesson.evaluation.scores import Answers, Measure, Retention, Score, changed, one_answer
    from unsloth_course.lesson.evaluation.solving import accuracy_score, attempt, gate, solve
    from unsloth_course.lesson.evaluation.surprise import (
        Surprise,
        answer_perplexity,
        perplexity,
        perplexity_score,
        reading_score,
        shuffled,
        side_by_side,
        surprises,
    )

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
