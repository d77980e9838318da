"""The skills of the pocket model: questions that can be asked, and their answers, computed and not stored.

Twelve skills are taught in chat by the lessons; four are never asked there and show what fine-tuning made the model
forget (the lesson's *retention*).
"""

import operator
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from unsloth_course.pocket import world


@dataclass(frozen=True)
class Item:
    """One thing to ask: what fills the question, and the answer. Both are text."""

    x: str
    y: str
    answer: str


@dataclass(frozen=True)
class Skill:
    """One kind of question.

    ``draw(rng, held_out)`` gives an item of the asked side of the split. ``questions`` stand alone; ``tasks`` are
    instructions that come with a separate ``input``, whose text is ``given``. ``told`` says the same as a full
    sentence: it is the long style of answering, and how pretraining prose tells it.
    """

    name: str
    draw: Callable[[random.Random, bool], Item]
    questions: tuple[str, ...]
    told: tuple[str, ...]
    tasks: tuple[str, ...] = ()

    @property
    def given(self) -> str:
        """The input of a task."""
        return "{x} and {y}" if "{y}" in self.questions[0] else "{x}"

    def sentence(self, item: Item) -> str:
        """The long answer: a full sentence that holds the short one."""
        return self.told[0].format(x=item.x, y=item.y, a=item.answer)


def _code(
    answer: Callable[[str], str], rng: random.Random, held_out: bool, lengths: tuple[int, ...] = (3, 4, 5)
) -> Item:
    while True:
        code = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.choice(lengths)))
        if world.code_is_held_out(code) == held_out:
            return Item(code, "", answer(code))


def _shorter_code(rng: random.Random, held_out: bool) -> Item:
    # What is left is a code too, so both must be on the same side: no held-out code may appear as an answer.
    while True:
        item = _code(lambda code: code[1:], rng, held_out, (4, 5))
        if world.code_is_held_out(item.answer) == held_out:
            return item


def _pair(answer: Callable[[int, int], int], rng: random.Random, held_out: bool) -> Item:
    while True:
        first, second = rng.randint(10, 89), rng.randint(10, 89)
        if first != second and world.pair_is_held_out(first, second) == held_out:
            result = answer(first, second)
            if 0 <= result <= 99:
                return Item(str(first), str(second), str(result))


def _number(kind: str, answer: Callable[[int], str], rng: random.Random, held_out: bool) -> Item:
    while True:
        number = rng.randint(10, 998)
        if world.is_held_out(kind, number) == held_out:
            return Item(str(number), "", answer(number))


@cache
def askable(held_out: bool) -> tuple[world.Person, ...]:
    """The people on one side of the split."""
    return tuple(person for person in world.people() if world.question_is_held_out(person.name) == held_out)


def _fact(which: str, rng: random.Random, held_out: bool) -> Item:
    person = rng.choice(askable(held_out))
    return Item(person.name, "", getattr(person, which))


_DRAWS: dict[str, Callable[[random.Random, bool], Item]] = {
    "reverse": partial(_code, lambda code: code[::-1]),
    "first": partial(_code, lambda code: code[0]),
    "last": partial(_code, lambda code: code[-1]),
    "count": partial(_code, lambda code: str(len(code))),
    "sort": partial(_code, lambda code: "".join(sorted(code))),
    "add": partial(_pair, operator.add),
    "larger": partial(_pair, max),
    "next": partial(_number, "next", lambda number: str(number + 1)),
    "town": partial(_fact, "town"),
    "job": partial(_fact, "job"),
    "colour": partial(_fact, "colour"),
    "even": partial(_number, "even", lambda number: "odd" if number % 2 else "even"),
    "shorten": _shorter_code,
    "subtract": partial(_pair, operator.sub),
    "pet": partial(_fact, "pet"),
    "second": partial(_code, lambda code: code[1]),
}
# Of each skill its name, how it is asked and how it is told; of those that lessons teach, how the task is set.
_SAID = """
reverse
What is {x} reversed? | Write {x} backwards. | Reverse the code {x}.
{x} reversed is {a}. | Read backwards, {x} becomes {a}.
Reverse the code. | Write this code backwards.

first
What is the first letter of {x}? | Which letter does {x} start with? | Name the first letter of {x}.
The first letter of {x} is {a}. | {x} starts with {a}.
Give the first letter of the code. | Name the letter that this code starts with.

last
What is the last letter of {x}? | Which letter does {x} end with? | Name the last letter of {x}.
The last letter of {x} is {a}. | {x} ends with {a}.
Give the last letter of the code. | Name the letter that this code ends with.

count
How many letters does {x} have? | How long is {x}? | Count the letters of {x}.
The number of letters in {x} is {a}. | {x} has {a} letters.
Count the letters of the code. | Say how long this code is.

sort
What is {x} in alphabetical order? | Sort the letters of {x}. | Put {x} in alphabetical order.
{x} in alphabetical order is {a}. | Sorted, {x} becomes {a}.
Sort the letters of the code. | Put this code in alphabetical order.

add
What is {x} plus {y}? | How much is {x} plus {y}? | Add {x} and {y}.
{x} plus {y} is {a}. | The sum of {x} and {y} is {a}.
Add the two numbers. | Find the sum of the numbers.

larger
Which is larger, {x} or {y}? | What is the larger of {x} and {y}? | Name the larger of {x} and {y}.
The larger of {x} and {y} is {a}. | Of {x} and {y}, the larger is {a}.
Choose the larger number. | Say which of the numbers is larger.

next
What number comes after {x}? | Which number follows {x}? | Name the number after {x}.
The number after {x} is {a}. | After {x} comes {a}.
Give the number that comes next. | Count one further.

town
Where does {x} live? | In which town does {x} live? | Name the home of {x}.
{x} lives in {a}. | The home of {x} is {a}. | You can find {x} in {a}. | {x} has a house in {a}.
Name the town where this person lives. | Say where this person lives.

job
What is the job of {x}? | What does {x} do for a living? | Name the work of {x}.
{x} works as a {a}. | The job of {x} is {a}. | {x} is a {a}. | By trade, {x} is a {a}.
Name the job of this person. | Say what this person does for a living.

colour
What colour does {x} like? | Which colour does {x} wear? | Name the colour of {x}.
{x} likes {a}. | The colour of {x} is {a}. | {x} wears {a}. | {x} is always dressed in {a}.
Name the colour that this person likes. | Say which colour this person wears.

even
Is {x} even or odd? | Say whether {x} is even or odd. | Which is {x}, odd or even?
{x} is {a}. | The number {x} is {a}.
Say whether the number is even or odd. | Even or odd?

shorten
What is {x} without its first letter? | Drop the first letter of {x}. | Shorten {x} by its first letter.
{x} without its first letter is {a}. | Without the first letter, {x} becomes {a}.

subtract
What is {x} minus {y}? | How much is {x} minus {y}? | Take {y} from {x}.
{x} minus {y} is {a}. | {y} taken from {x} leaves {a}.

pet
What pet does {x} have? | Which animal does {x} keep? | Name the pet of {x}.
{x} has a {a}. | The pet of {x} is a {a}. | {x} keeps a {a}. | At home, {x} has a {a}.

second
What is the second letter of {x}? | Which letter comes second in {x}? | Name the second letter of {x}.
The second letter of {x} is {a}. | In {x}, {a} comes second.
"""
ALL = tuple(
    Skill(name, _DRAWS[name], *(tuple(line.split(" | ")) for line in lines))
    for name, *lines in map(str.splitlines, _SAID.strip().split("\n\n"))
)
TAUGHT = tuple(skill for skill in ALL if skill.tasks)
UNTOUCHED = tuple(skill for skill in ALL if not skill.tasks)


def ask(skill: Skill, item: Item, rng: random.Random) -> str:
    """One of the skill's questions about the item, as text."""
    return rng.choice(skill.questions).format(x=item.x, y=item.y)
