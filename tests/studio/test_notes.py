"""Speaker notes: what is spoken, what is a mark."""

import pytest

from unsloth_course.studio import notes


def test_marks_are_told_from_words():
    parts = notes.parse("Look here. [point: the second bar] It rises. [pause 2.5 s]")
    assert [(part.kind, part.text, part.words) for part in parts] == [
        ("say", "Look here.", 2),
        ("point", "the second bar", 0),
        ("say", "It rises.", 2),
        ("pause", "2.5 s", 0),
    ]
    assert sum(part.seconds for part in parts) == 2.5


@pytest.mark.parametrize("text", ["", "  \n ", "[pause 3 s]"])
def test_nothing_spoken_is_no_word(text):
    assert sum(part.words for part in notes.parse(text)) == 0


@pytest.mark.parametrize("slip", ["[pauze 3 s]", "[pause 3]", "[point the bar]", "[pause 3 s", "[point: ]"])
def test_a_slip_in_a_mark_is_found(slip):
    assert notes.unknown_marks(f"Before. {slip} After.")
    assert not notes.unknown_marks("Before. [ pause 3 s ] [point: a, b: c] After.")
