"""The one exception that the course raises for things a learner can mend."""


class CourseError(Exception):
    """A sentence for the learner: what was found, where, and what to do next.

    The command line prints it without a traceback and exits with status 1. Bugs of ours stay ordinary exceptions, so
    that they keep their traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Lines that IPython prints in place of a traceback, so that a notebook shows the sentence alone."""
        return [f"{type(self).__name__}: {self}"]
