"""Did it really train? The receipt of a run, and the detectors behind its verdict.

A falling loss proves little and a finished loop proves nothing. So a run is watched: the weights before and after, the
updates that the optimizer made, the tokens that carried a loss, the loss seen and unseen, and the held-out score.
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.diagnosis.judging import NOT_TRAINED, SUSPICIOUS, TRAINED, Evidence, Finding, judge
    from unsloth_course.lesson.diagnosis.receipts import WHAT_NOW, Receipt
    from unsloth_course.lesson.diagnosis.watching import Watch, receipt, watch
    from unsloth_course.lesson.fingerprint import data_hash

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
