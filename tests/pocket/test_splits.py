"""Nothing held out is read in pretraining or trained in a lesson: shown by scanning the text itself."""

import random
import re

import pytest

from pocket import scan
from unsloth_course.pocket import code, datasets, library, skills, text, world

NAMES = [person.name for person in world.people()]
# A held-out thing of each kind, in a text that would give it away.
PLANTED = {
    "code": "Question:\nWhat is {code} reversed?\n",
    "pair": "The sum of {first} and {second} is not told.\n",
    "next": "After {next} comes another.\n",
    "even": "Even or odd?\n{even}\n",
    "person": "Ask: Where does {person} live?\n",
    "problem": "{problem}\n",
    "function": "{function}\n",
    "chat token": "<|im_end|>",
}


@pytest.fixture(scope="module")
def documents() -> str:
    rng = random.Random("no document of the tests' own making")
    return "".join(text.document(rng) for _ in range(30_000))


def held_out_things() -> dict[str, object]:
    rng = random.Random(3)
    by_name = {skill.name: skill for skill in skills.ALL}
    pair = by_name["add"].draw(rng, True)
    return {
        "code": by_name["reverse"].draw(rng, True).x,
        "first": pair.x,
        "second": pair.y,
        "next": by_name["next"].draw(rng, True).x,
        "even": by_name["even"].draw(rng, True).x,
        "person": by_name["job"].draw(rng, True).x,
        "problem": text.problem(rng, True).question,
        "function": code.function(rng, True),
    }


def test_pretraining_reads_nothing_held_out(documents):
    assert scan.leaks(documents, NAMES) == []


def test_the_scan_had_something_to_look_at(documents):
    assert len(scan.codes(documents)) > 30_000
    assert len(scan.pairs(documents)) > 2_500
    assert len(scan.nexts(documents)) > 800 and len(scan.evens(documents)) > 800
    assert len(scan.asked_people(documents) & set(NAMES)) == len(skills.askable(False))
    assert {shown[0] for shown in scan.problems(documents)} == {0, 1, 2, 3}
    assert len(scan.functions(documents)) > 100


@pytest.mark.parametrize("kind", PLANTED)
def test_the_scan_finds_what_is_planted(documents, kind):
    found = scan.leaks(documents[:200_000] + "\n" + PLANTED[kind].format(**held_out_things()), NAMES)
    assert len(found) == 1 and found[0].startswith(kind)


def test_no_held_out_question_occurs_in_pretraining(documents):
    rng = random.Random(21)
    for skill in skills.ALL:
        for _ in range(12):
            item = skill.draw(rng, True)
            told = () if skill.name in world.FACTS else skill.told  # of people, only asking is held out
            for form in (*skill.questions, *told):
                line = form.format(x=item.x, y=item.y, a=item.answer)
                found = line in documents and re.search(rf"(?<!\w){re.escape(line)}", documents)
                assert not found, line


def test_facts_about_held_out_people_are_told(documents):
    for person in skills.askable(True):
        assert person.name in documents


def test_no_problem_is_on_both_sides(documents):
    rng = random.Random(22)
    held_out = scan.problems("\n".join(text.problem(rng, True).question for _ in range(3_000)))
    to_learn = scan.problems("\n".join(text.problem(rng, False).question for _ in range(10_000)))
    assert len(held_out) > 400
    assert not held_out & (to_learn | scan.problems(documents))


@pytest.mark.parametrize("made", [code.function, library.function])
def test_no_function_is_on_both_sides(made):
    rng = random.Random(23)
    sides = [{made(rng, held_out) for _ in range(3_000)} for held_out in (False, True)]
    assert len(sides[1]) > 100 and not sides[0] & sides[1]
    assert all(scan.held_out("function", text) for text in sides[1])


def test_pretraining_reads_nothing_of_the_library(documents):
    """Not one of its instruments, types or quantities: the lesson's domain is new."""
    rng = random.Random(24)
    learned = "".join(library.function(rng, False) for _ in range(2_000))
    for tool, (_, unit) in library.INSTRUMENTS.items():
        assert tool in learned and tool not in documents and unit in learned
    for word in ("Device", "Reading", "raise ", "assert ", "-> "):
        assert word in learned and word not in documents


def rows_as_text(rows) -> str:
    return "\n".join("\n".join(str(value) for value in row.values()) for row in rows) + "\n"


@pytest.mark.parametrize(
    "made",
    [datasets.instructions, datasets.preferences, datasets.problems, datasets.functions],
    ids=lambda made: made.__name__,
)
def test_lessons_train_on_nothing_held_out_and_test_on_nothing_else(made):
    assert scan.leaks(rows_as_text(made(2_000, held_out=False, seed=7)), NAMES) == []
    assert all(scan.leaks(rows_as_text([row]), NAMES) for row in made(200, held_out=True, seed=7))


def test_probes_ask_about_held_out_things():
    assert all(scan.leaks(rows_as_text([row]), NAMES) for row in datasets.probes(50, seed=1))
