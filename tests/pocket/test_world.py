"""The world is the same everywhere, and each thing is on one side of the split."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from unsloth_course.pocket import text, world

ROOT = Path(__file__).parents[2]
FINGERPRINT = """
import hashlib, random
from unsloth_course.pocket import code, skills, text, world
rng = random.Random(5)
made = [text.document(rng) for _ in range(300)] + [code.function(rng, True) for _ in range(20)]
made += [str(skill.draw(rng, side)) for skill in skills.ALL for side in (True, False)] + [str(world.people())]
print(hashlib.sha256("".join(made).encode()).hexdigest())
"""


def fingerprint(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FINGERPRINT]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_processes_with_other_hash_seeds_make_the_same_world():
    assert fingerprint("0") == fingerprint("1") != ""


def test_the_generator_still_makes_what_the_base_was_trained_on():
    rng = random.Random("3407-0")  # the first documents of the corpus
    made = "".join(text.document(rng) for _ in range(20_000))
    assert (
        hashlib.sha256(made.encode()).hexdigest() == "cf6ca73910c00e215dc0edc1f1337db97db90c89c04a3f396f00be590a32fd63"
    )


def test_there_are_240_people_with_names_of_their_own():
    names = [person.name for person in world.people()]
    assert len(names) == len(set(names)) == 240
    assert not {name.lower() for name in names} & {town.lower() for town in world.TOWNS}
    assert all(name.isalpha() and name.istitle() for name in names)


@pytest.mark.parametrize("fact, known", [("town", world.TOWNS), ("job", world.JOBS), ("pet", world.PETS)])
def test_each_person_has_each_fact(fact, known):
    found = {getattr(person, fact) for person in world.people()}
    assert found == set(known)


def test_about_one_key_in_eight_is_held_out():
    share = sum(world.is_held_out("next", number) for number in range(8_000)) / 8_000
    assert 0.11 < share < 0.14


def test_a_code_its_reverse_and_its_sorted_form_are_on_one_side():
    rng = random.Random(2)
    for _ in range(500):
        code = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=4))
        sides = {world.code_is_held_out(form) for form in (code, code[::-1], "".join(sorted(code)))}
        assert len(sides) == 1


def test_a_pair_is_held_out_in_both_orders_and_never_with_a_number_below_ten():
    pairs = [(first, second) for first in range(1, 90) for second in range(1, 90)]
    assert all(world.pair_is_held_out(*pair) == world.pair_is_held_out(*pair[::-1]) for pair in pairs)
    held_out = [pair for pair in pairs if world.pair_is_held_out(*pair)]
    assert held_out and min(min(pair) for pair in held_out) >= 10


def test_both_sides_have_people_to_ask_about():
    sides = [world.question_is_held_out(person.name) for person in world.people()]
    assert sides.count(True) >= 20 and sides.count(False) >= 200
