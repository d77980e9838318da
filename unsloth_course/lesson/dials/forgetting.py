"""The continued-pretraining lesson's dial: how much general text is read again beside the new domain."""

from unsloth_course.lesson.dials import sweeps


def replay(mark: float | None = None) -> sweeps.SweepDial:
    """Shares of replay from none to half of all blocks: recorded runs of the pocket model over the same domain blocks.

    mark: the share to point out. Taught in lesson colab5 (continued pretraining).
    """
    return sweeps.SweepDial(sweeps.read("cpt-replay"), mark=mark)
