"""The lessons in Colab: what is installed, and checkpoints that outlive a session.

    decisions   which package is kept, installed or replaced (pure), from what is there and what the pinned ones ask for
    session     says what is found, tested and decided, and installs
    keeping     checkpoints in a folder, on Google Drive or anywhere, from which a lost session resumes

A notebook calls `colab.install()` in its first cell and `colab.checkpoints(...)` before it trains. docs/colab.md tells
the rest.
"""

from unsloth_course.lesson.colab.keeping import Kept, checkpoints
from unsloth_course.lesson.colab.session import install, present

__all__ = ["Kept", "checkpoints", "install", "present"]
