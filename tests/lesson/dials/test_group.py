"""The group dial: advantages of rewards set by hand, its static twin, and its widget."""

import re

import pytest

from unsloth_course import dials, rewards
from unsloth_course.lesson.dials.group import EXAMPLES


def parts(box):
    """The list of groups, the sliders and the table of a widget."""
    left, table = box.children
    chosen, *sliders = left.children
    return chosen, sliders, table


def test_the_groups_are_of_eight_and_one_kind_of_each():
    assert all(len(group) == 8 for group in EXAMPLES.values())
    flat = {name for name, group in EXAMPLES.items() if len(set(group)) == 1}
    assert flat == {"all 8 alike"}


def test_the_picture_has_the_advantages_of_every_group():
    dial = dials.advantages()
    picture = dial.picture()
    for axes, (name, group) in zip(picture.axes, EXAMPLES.items(), strict=True):
        assert axes.get_title(loc="left") == name
        assert [bar.get_height() for bar in axes.patches] == pytest.approx(rewards.advantages(group))
        assert [label.get_text() for label in axes.get_xticklabels()] == [f"{reward:g}" for reward in group]
    assert "all 8 alike: advantages +0.00 to +0.00." in picture.caption


def test_the_table_has_a_bar_on_one_side_and_says_what_is_learned():
    found = dials.advantages().table([1.0, 0.0])
    assert "+0.71" in found and "-0.71" in found and "1 of 2 completions is above the mean" in found
    assert re.findall(r"(left|right):50%;width:(\d+)px", found) == [("left", "71"), ("right", "71")]


def test_zero_spread_teaches_nothing():
    found = dials.advantages().table([0.7] * 8)
    assert "nothing to learn" in found and found.count("+0.00") == 8


def test_a_slider_changes_the_advantages_of_all():
    dial = dials.advantages()
    _, sliders, table = parts(dial.widget())
    assert [slider.value for slider in sliders] == pytest.approx(EXAMPLES["1 of 8 is right"])
    assert table.value == dial.table([slider.value for slider in sliders])
    before = table.value
    sliders[7].value = 1.25
    assert table.value == dial.table([1.0, *[0.0] * 6, 1.25]) != before


def test_choosing_a_group_sets_every_slider():
    dial = dials.advantages()
    chosen, sliders, table = parts(dial.widget())
    chosen.value = "all 8 alike"
    assert {slider.value for slider in sliders} == {0.0}
    assert "nothing to learn" in table.value
