"""The adapter dial: what it measures, its static twin, and its widget."""

from dataclasses import replace

import pytest

from unsloth_course import dials, evaluation, models
from unsloth_course.lesson.dials import AdapterDial, Setting
from unsloth_course.pocket import datasets

ATTACK = "<script>alert('x')</script>"


def dial(factors=(0.0, 0.5, 1.0, 2.0)):
    answers = {f: [("What is 1 plus 1?", f"answer at {f}")] for f in factors}
    return AdapterDial([Setting(f, min(f, 1), f / 2, 1 - f / 4, answers[f]) for f in factors])


def test_the_table_shows_the_answers_at_the_nearest_position():
    found = dial().table(0.5)
    assert "answer at 0.5" in found and "answer at 1.0" not in found
    assert "Held-out answers 50 % likelier than at 0, 25 % given to the letter, untouched skills 88 % right" in found
    assert "answer at 2.0" in dial().table(1.9)


def test_text_of_the_data_and_of_the_model_is_escaped():
    found = AdapterDial([Setting(1.0, 0.5, 0.5, 0.5, [(ATTACK, ATTACK)])]).table(1.0)
    assert "<script" not in found and found.count("&lt;script&gt;") == 2


def test_the_picture_has_all_lines_and_every_position():
    picture = dial().picture()
    lines = [[0.0, 0.5, 1.0, 1.0], [0.0, 0.25, 0.5, 1.0], [1.0, 0.875, 0.75, 0.5]]
    assert drawn(picture) == lines
    # No answer is short: nothing can be marked, and the line is left away.
    unmarked = AdapterDial([replace(setting, score=float("nan")) for setting in dial().settings])
    assert drawn(unmarked.picture()) == [lines[0], lines[2]] and "to the letter" not in unmarked.table(1.0)


def drawn(picture):
    (axes,) = picture.axes
    found = [line for line in axes.get_lines() if list(line.get_xdata()) == [0.0, 0.5, 1.0, 2.0]]
    return [list(line.get_ydata()) for line in found]


def test_turning_the_widget_changes_the_table_and_the_picture():
    slider, table, picture = dial().widget().children
    assert slider.value == 1.0 and "answer at 1.0" in table.value
    before = bytes(picture.value)
    slider.value = 2.0
    assert "answer at 2.0" in table.value and "answer at 1.0" not in table.value
    assert bytes(picture.value).startswith(b"\x89PNG") and bytes(picture.value) != before
    assert [label for label, _ in slider.options] == ["0.00", "0.50", "1.00", "2.00"]


def test_the_widget_starts_at_the_position_nearest_to_1():
    slider, table, _ = dial((0.0, 0.8, 2.0)).widget().children
    assert slider.value == 0.8 and "answer at 0.8" in table.value


def test_the_dial_is_measured_on_the_model_at_each_scale(healthy):
    model, tokenizer = healthy.model, healthy.tokenizer
    rows, probes = healthy.held_out.select(range(12)), datasets.probes(3, seed=1)
    found = dials.adapter(model, tokenizer, rows, probes, factors=(0.0, 1.0))
    base, trained = found.settings
    assert base.score == base.likelier == 0.0 and base.retention >= 0.9  # the base: it fails in chat and knows the rest
    asked = evaluation.ask(model, tokenizer, rows)
    assert trained.score == asked.share > 0.5 and trained.likelier > 0.9
    assert trained.answers == list(zip(asked.questions[:3], asked.given[:3], strict=True))
    with models.adapter_scaled(model, 0):
        assert [text for _, text in base.answers] == evaluation.ask(model, tokenizer, rows).given[:3]


def test_the_scales_go_from_the_base_to_twice_what_was_learned():
    assert (dials.FACTORS[0], dials.FACTORS[-1]) == (0.0, 2.0) and 1.0 in dials.FACTORS
    assert list(dials.FACTORS) == sorted(dials.FACTORS)


@pytest.mark.parametrize("rows", [1, 2])
def test_fewer_than_three_questions_are_shown_as_they_are(healthy, rows):
    few = healthy.held_out.select(range(rows))
    (found,) = dials.adapter(healthy.model, healthy.tokenizer, few, datasets.probes(1, seed=1), (1.0,)).settings
    assert len(found.answers) == rows
