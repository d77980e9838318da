"""The small world that the pocket model knows: its people, towns and things, and which of it is held out.

Everything is drawn from a seed, so the world is the same on every machine. What is held out is decided by a hash of
the thing itself and not by a draw, so no generator can leak it by accident: a code, a pair of numbers or a problem is
either for learning or for testing, always, in pretraining and in every lesson.
"""

import hashlib
import random
from dataclasses import dataclass
from functools import cache

HELD_OUT_ONE_IN = 8
FACTS = ("town", "job", "colour", "pet")  # what is known of each person

# fmt: off
TOWNS = (
    "Tarn", "Selby", "Orrin", "Maren", "Colver", "Pells", "Hadley", "Brisk", "Wexcombe", "Dunmoor", "Fenwick",
    "Lorne", "Garth", "Tilbury", "Ashford", "Quill", "Ravenna", "Stoke", "Ember", "Norwell", "Kestrel", "Vale",
    "Ilmar", "Harrow",
)
JOBS = (
    "baker", "sailor", "teacher", "farmer", "painter", "doctor", "carpenter", "gardener", "miller", "tailor",
    "fisher", "weaver", "singer", "builder", "cook", "potter", "hunter", "writer", "clerk", "smith",
)
# fmt: on
PETS = ("cat", "dog", "rabbit", "parrot", "goat", "turtle", "horse", "mouse", "pony", "fox", "hen", "duck")
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "grey", "pink", "purple")


@dataclass(frozen=True)
class Person:
    """Somebody of the world, with the four facts that can be asked about."""

    name: str
    town: str
    job: str
    colour: str
    pet: str


def is_held_out(*key: object) -> bool:
    """True for one key in eight, by a hash of the key: the same on every machine and in every process."""
    digest = hashlib.blake2b("|".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0


@cache
def code_is_held_out(code: str) -> bool:
    """Whether a code of capital letters is for testing.

    The key is its letters, sorted, so that a code, its reverse and its sorted form are always on one side.
    """
    return is_held_out("code", "".join(sorted(code)))


@cache
def pair_is_held_out(first: int, second: int) -> bool:
    """Whether two numbers may only meet in testing. Pairs with a number below 10 are too few to hold any out."""
    return min(first, second) >= 10 and is_held_out("pair", min(first, second), max(first, second))


@cache
def question_is_held_out(name: str) -> bool:
    """Whether no question about this person's town, job, colour or pet is asked in pretraining or training.

    The fact itself is told there, in prose: a fact that was never told cannot be known. Only asking is held out.
    (A word problem may bear the person's name: it asks nothing about the person.)
    """
    return is_held_out("asked", name)


@cache
def people() -> tuple[Person, ...]:
    """The 240 people of the world, the same in every process."""
    rng = random.Random("people")
    taken = {name.lower() for name in TOWNS}
    names: list[str] = []
    while len(names) < 240:
        name = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(2)) + rng.choice("nrlskm")
        if name not in taken:
            taken.add(name)
            names.append(name.capitalize())
    return tuple(
        Person(name, rng.choice(TOWNS), rng.choice(JOBS), rng.choice(COLOURS), rng.choice(PETS)) for name in names
    )
