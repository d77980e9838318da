"""Word problems of two steps with small numbers, worked as GSM8K's solutions are, for rewards that a rule can check."""

import re
from functools import cache

from unsloth_course.pocket.english import words
from unsloth_course.pocket.english.words import Draw
from unsloth_course.pocket.text import RESULT

LARGEST = 9  # number in a question
MULTIPLICATION = 0.5  # the share of problems of which one step multiplies

# What is counted, and something that holds it.
COUNTED = words.pairs(
    """apples/bag books/box buttons/jar candles/packet cards/packet cookies/box eggs/basket flowers/vase lemons/net
    marbles/jar nuts/bowl oranges/crate pencils/box plums/basket shells/bucket stamps/envelope stickers/packet
    stones/bucket sweets/bag tomatoes/crate"""
)

# Stories by the signs of their two steps: a with b, and what comes out with c.
MULTIPLIED = (
    ("*+", "{p} has {a} {boxes} with {b} {things} each and gets {c} more. How many {things} does {p} have now?"),
    ("*+", "There are {b} {things} in each of {a} {boxes}, and {c} on the table. How many {things} are there in all?"),
    ("*+", "{p} buys {a} {boxes} of {b} {things} and has {c} {things} at home. How many {things} are there in all?"),
    ("*+", "Each day {p} collects {b} {things}. After {a} days {q} brings {c} more. How many {things} are there now?"),
    ("*-", "{p} has {a} {boxes} with {b} {things} each and gives {c} {things} to {q}. How many {things} are left?"),
    ("*-", "{p} fills {a} {boxes} with {b} {things} each. Then {c} {things} are lost. How many {things} remain?"),
    ("*-", "{a} children bring {b} {things} each. {q} takes {c} of them. How many {things} are still there?"),
    ("*-", "{p} needs {a} {boxes} of {b} {things} and already has {c} {things}. How many {things} are missing?"),
    ("+*", "{p} has {a} red and {b} green {boxes}. There are {c} {things} in each. How many {things} does {p} have?"),
    ("+*", "{p} reads {a} pages each morning and {b} each evening. How many pages does {p} read in {c} days?"),
    ("-*", "{p} has {a} {boxes} and gives away {b}. Each holds {c} {things}. How many {things} does {p} keep?"),
    ("-*", "Of {a} {boxes} {b} are empty, and each of the others holds {c} {things}. How many {things} are there?"),
)
ADDED = (
    ("++", "{p} has {a} {things}, finds {b} more and gets {c} from {q}. How many {things} does {p} have now?"),
    ("++", "{p} has {a} {things}, {q} has {b}, and {c} are in a {box}. How many {things} are there in all?"),
    ("++", "There are {a} {things} in a {box}. {p} puts in {b} more, and {q} {c}. How many {things} are in it now?"),
    ("+-", "{p} has {a} {things} and gets {b} more. Then {p} gives {c} to {q}. How many {things} does {p} have left?"),
    ("+-", "A {box} holds {a} {things}. {p} adds {b}, and {q} takes out {c}. How many {things} are in the {box}?"),
    ("+-", "{p} has {a} {things} and {q} has {b}. They lose {c} of them. How many {things} do they still have?"),
    ("-+", "{p} has {a} {things}, loses {b} and then finds {c} others. How many {things} does {p} have in the end?"),
    ("-+", "There were {a} {things} in a {box}. {p} took {b}, and {q} put {c} in. How many {things} are in it now?"),
    ("-+", "{a} people sit on a bus. At the stop {b} get off and {c} get on. How many people are on the bus now?"),
    ("--", "{p} has {a} {things} and gives {b} to {q} and {c} to a friend. How many {things} does {p} have left?"),
    ("--", "A {box} holds {a} {things}. {p} takes {b}, and {q} takes {c}. How many {things} are still in it?"),
    ("--", "{p} has {a} dollars and pays {b} for tea and {c} for cake. How many dollars does {p} have left?"),
)


@cache
def _numbers(signs: str, story: str, held_out: bool) -> list[tuple[int, int, int]]:
    """The numbers of a story that belong to one side and give two results from 1 to 99."""
    found, several = [], range(2, LARGEST + 1)
    for a in several:
        for b in several:
            between = RESULT[signs[0]](a, b)
            for c in several if 1 + (signs == "-*") <= between < 100 else ():
                result = RESULT[signs[1]](between, c)
                if 1 <= result < 100 and words.is_held_out(story, a, b, c) == held_out:
                    found.append((a, b, c))
    return found


def draw_row(draw: Draw) -> dict[str, str]:
    """A problem: question, and an answer with its two steps. The numbers of a story belong to one side of the split."""
    numbers: list[tuple[int, int, int]] = []
    while not numbers:
        signs, story = draw.choice(MULTIPLIED if draw.rng.random() < MULTIPLICATION else ADDED)
        numbers = _numbers(signs, story, draw.held_out)
    a, b, c = draw.choice(numbers)
    between = RESULT[signs[0]](a, b)
    result = RESULT[signs[1]](between, c)
    p, q = draw.rng.sample(words.FIRST_NAMES, 2)
    things, box = draw.choice(COUNTED)
    boxes = f"{box}es" if box.endswith("x") else f"{box}s"
    question = story.format(p=p, q=q, a=a, b=b, c=c, things=things, box=box, boxes=boxes)
    steps = f"{a} {signs[0]} {b} = {between}\n{between} {signs[1]} {c} = {result}"
    question = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", question)
    return {"question": question, "answer": f"{steps}\n#### {result}"}
