"""The words that generated rows are made of, and the side of the split that each belongs to.

One in five names, places and things is kept for the test. A row holds at least one such word, or its numbers are
divided in the same way, so nothing that the test asks was trained.
"""

import random
import zlib
from collections.abc import Sequence
from functools import cache

HELD_OUT_ONE_IN = 5


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def pairs(text: str) -> tuple[tuple[str, ...], ...]:
    """Words that belong together, such as `shelf/shelves`."""
    return tuple(tuple(pair.split("/")) for pair in text.split())


def blocks(text: str) -> tuple[tuple[str, ...], ...]:
    """The lines of each block of a text; an empty line is between two."""
    return tuple(tuple(block.splitlines()) for block in text.strip().split("\n\n"))


FIRST_NAMES = _words(
    """Adam Alice Amir Anna Arthur Ben Bella Bruno Carla Carlos Clara Daniel Daria David Diana Edith Elena Eli Emma Erik
    Esther Felix Fiona Frank Fatima George Grace Greta Hannah Hassan Helen Henry Hugo Ines Irene Ivan Jack Jane Jonas
    Joseph Julia Karim Kate Laura Leo Linda Lucas Lucy Maria Marta Martin Maya Mila Nadia Nina Noah Nora Oliver Olga
    Oscar Paul Paula Peter Priya Rachel Ravi Rosa Ruth Samuel Sara Simon Sofia Stella Tara Theo Thomas Tina Victor Vera
    Walter Wendy Yara Yusuf Zoe"""
)
LAST_NAMES = _words(
    """Adler Baker Barnes Becker Bell Brandt Brown Carter Castro Chen Clark Cole Cruz Diaz Evans Fischer Ford Foster
    Garcia Gray Green Hall Hayes Hill Hughes Jensen Kaplan Keller Khan Kim King Lee Lopez Marino Meyer Miller Moore
    Morgan Murphy Nguyen Novak Olsen Ortiz Parker Patel Perry Price Reed Rossi Russo Santos Shah Silva Singh Stone
    Taylor Turner Wagner Walsh Ward Weber White Wood Wright Young"""
)
CITIES = _words(
    """Amsterdam Athens Austin Barcelona Berlin Bern Boston Brussels Budapest Cairo Chicago Copenhagen Dallas Denver
    Dublin Edinburgh Florence Geneva Hamburg Helsinki Istanbul Lima Lisbon London Lyon Madrid Miami Milan Montreal
    Munich Naples Nairobi Oslo Ottawa Paris Porto Prague Rome Seattle Seoul Stockholm Sydney Tokyo Toronto Turin Vienna
    Venice Warsaw Zurich"""
)
JOBS = _words(
    """baker barber builder carpenter cook dentist doctor driver farmer gardener lawyer librarian mechanic nurse painter
    pharmacist photographer pilot plumber tailor teacher translator waiter writer"""
)
# One, and several.
THINGS = pairs(
    """backpack/backpacks basket/baskets blanket/blankets bottle/bottles bowl/bowls camera/cameras candle/candles
    carpet/carpets chair/chairs clock/clocks cup/cups curtain/curtains cushion/cushions desk/desks drum/drums
    fan/fans guitar/guitars hammer/hammers hat/hats helmet/helmets jacket/jackets kettle/kettles keyboard/keyboards
    ladder/ladders lamp/lamps mirror/mirrors notebook/notebooks pillow/pillows plate/plates printer/printers
    radio/radios scarf/scarves shelf/shelves suitcase/suitcases table/tables teapot/teapots telephone/telephones
    tent/tents towel/towels vase/vases wallet/wallets watch/watches"""
)
FOOD = _words(
    """apples bananas beans bread butter carrots cheese coffee cucumbers eggs fish flour garlic grapes honey jam lemons
    lettuce milk mushrooms noodles oil onions oranges pasta pears pepper potatoes rice salt soup spinach sugar tea
    tomatoes yoghurt"""
)
EVENTS = _words(
    """auction concert exhibition fair festival lecture market meeting parade picnic race seminar show tournament
    workshop"""
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TIMES = ("8 am", "9 am", "10 am", "11 am", *(f"{hour} pm" for hour in range(1, 9)))
MONTHS = _words("January February March April May June July August September October November December")


def is_held_out(*parts: object) -> bool:
    """Whether a combination of numbers belongs to the test."""
    return zlib.crc32("|".join(map(str, parts)).encode()) % HELD_OUT_ONE_IN == 0


def article(noun: str) -> str:
    """A noun with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def listed(words: Sequence[str]) -> str:
    """Words with commas and "and"."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


@cache
def side(words: tuple, held_out: bool) -> tuple:
    """The words of one side: every fifth is kept for the test."""
    last = HELD_OUT_ONE_IN - 1
    return tuple(word for number, word in enumerate(words) if (number % HELD_OUT_ONE_IN == last) == held_out)


class Draw:
    """Draws words of one side of the split."""

    def __init__(self, rng: random.Random, held_out: bool):
        self.rng, self.held_out = rng, held_out
        self.choice, self.number = rng.choice, rng.randint

    def one(self, words: tuple):
        """A word of this side."""
        return self.rng.choice(side(words, self.held_out))

    def several(self, words: tuple, count: int) -> list:
        """Different words of this side."""
        return self.rng.sample(side(words, self.held_out), count)

    def mine(self, *parts: object) -> bool:
        """Whether these numbers belong to this side."""
        return is_held_out(*parts) == self.held_out

    def person(self) -> str:
        """A first and a last name."""
        return f"{self.one(FIRST_NAMES)} {self.one(LAST_NAMES)}"
