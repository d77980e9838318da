"""The rows of the dials' tables."""

import pytest

from unsloth_course.lesson.dials.tables import row


@pytest.mark.parametrize("tag", ["td", "th"])
def test_a_row_has_a_cell_for_each_text_with_room_around_it(tag):
    found = row("a", "<b>b</b>", tag=tag)
    assert found.count(f"</{tag}>") == found.count("padding:") == 2 and ">a<" in found and "><b>b</b><" in found
