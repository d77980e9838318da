"""What all dials have in common: a widget for a person, and the same as a picture elsewhere."""

import pytest

from unsloth_course import dials, plots
from unsloth_course.core import frontend
from unsloth_course.lesson.dials import AdapterDial, Setting

SCALES = AdapterDial([Setting(factor, 0.5, 0.5, 0.5, []) for factor in (0.0, 1.0, 2.0)])
ALL = [dials.advantages(), dials.preference(), dials.learning_rate(1e-4), dials.replay(0.4), SCALES]


@pytest.mark.parametrize("dial", ALL, ids=lambda dial: type(dial).__name__)
def test_a_program_gets_the_picture_and_a_person_the_widget(dial, monkeypatch):
    shown = dial.show()
    assert isinstance(shown, plots.Picture) and shown._repr_png_().startswith(b"\x89PNG")
    monkeypatch.setattr(frontend, "is_interactive", lambda: True)
    assert type(dial.show()).__name__ in ("VBox", "HBox")
