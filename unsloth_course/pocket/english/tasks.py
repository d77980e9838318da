"""Tasks in plain English with one right answer each, for the lessons that learn from instructions.

A task is a function that draws (instruction, input, output). About half of all answers are short: they can be marked by
exact match. The others are objects in JSON, lists and sentences, whose likelihood tells what was learned. Those on
records are in `records`.
"""

from unsloth_course.pocket.english import is_short, words
from unsloth_course.pocket.english.records import as_json, as_sentence, field
from unsloth_course.pocket.english.words import Draw, article, listed

Task = tuple[str, str, str]

# What a unit is made of: many, one, parts, how many; and the largest number that is asked.
UNITS = (
    ("weeks", "week", "days", 7, 12),
    ("days", "day", "hours", 24, 7),
    ("hours", "hour", "minutes", 60, 12),
    ("minutes", "minute", "seconds", 60, 12),
    ("years", "year", "months", 12, 12),
    ("feet", "foot", "inches", 12, 12),
    ("yards", "yard", "feet", 3, 30),
    ("pounds", "pound", "ounces", 16, 8),
    ("gallons", "gallon", "pints", 8, 12),
    ("decades", "decade", "years", 10, 90),
    ("centuries", "century", "years", 100, 40),
    ("metres", "metre", "centimetres", 100, 90),
    ("centimetres", "centimetre", "millimetres", 10, 90),
    ("kilometres", "kilometre", "metres", 1000, 90),
    ("kilograms", "kilogram", "grams", 1000, 90),
    ("tonnes", "tonne", "kilograms", 1000, 90),
    ("litres", "litre", "millilitres", 1000, 90),
    ("dollars", "dollar", "cents", 100, 90),
)


def convert(draw: Draw) -> Task:
    """Whole numbers of one unit in another."""
    while True:
        many, one, parts, factor, largest = draw.choice(UNITS)
        number = draw.number(2, largest)
        if draw.mine("convert", many, parts, number):
            break
    given, wanted, answer = f"{number} {many}", parts, f"{number * factor} {parts}"
    if draw.number(0, 2) == 0:
        given, wanted, answer = answer, many, given
    asked = draw.choice(
        (
            (f"How many {wanted} are {given}?", ""),
            (f"Convert {given} to {wanted}.", ""),
            (f"Write {given} in {wanted}.", ""),
            (f"Convert this to {wanted}.", given),
            (f"A {one} has {factor} {parts}. How many {wanted} are {given}?".replace("A hour", "An hour"), ""),
        )
    )
    return *asked, answer


# What people do with things: past, and as a question asks for it.
DEEDS = (("bought", "buy"), ("found", "find"), ("sold", "sell"), ("drew", "draw"), ("ordered", "order"))
DEEDS += (("borrowed", "borrow"), ("cleaned", "clean"), ("chose", "choose"))


def _story(draw: Draw) -> tuple[str, str, str, list[str], list[str]]:
    """A passage about three people, how it was done (past, and in questions), and who did it to what."""
    past, asked = draw.choice(DEEDS)
    people = draw.several(words.FIRST_NAMES, 3)
    things = [article(one) for one, _ in draw.several(words.THINGS, 3)]
    (a, b, c), (x, y, z) = people, things
    day, city = draw.choice(words.DAYS), draw.one(words.CITIES)
    passage = draw.choice(
        (
            f"{a}, {b} and {c} met in {city} on {day}. {a} {past} {x}, {b} {past} {y}, and {c} {past} {z}.",
            f"On {day}, {a} {past} {x}. {b} {past} {y} the day after, and {c} {past} {z} in {city}.",
            f"It was {day}. {a} {past} {x} in {city}. {b} was there too and {past} {y}, but {c} {past} {z}.",
        )
    )
    return passage, past, asked, people, things


def who(draw: Draw) -> Task:
    """A question about a passage, answered with a name or a thing."""
    passage, past, asked, people, things = _story(draw)
    number = draw.number(0, 2)
    person, thing = people[number], things[number]
    brief = draw.choice(("Answer in one or two words.", "Give only the answer."))
    if draw.number(0, 1):
        return f"Who {past} {_the(thing)}? {brief}", passage, person
    return f"What did {person} {asked}? {brief}", passage, thing


def in_full(draw: Draw) -> Task:
    """A question about a passage, answered in a sentence."""
    passage, past, asked, people, things = _story(draw)
    number = draw.number(0, 2)
    person, thing = people[number], things[number]
    full = draw.choice(("Answer in a full sentence.", "Answer with a whole sentence."))
    first, second = (n for n in range(3) if n != number)
    return draw.choice(
        (
            (
                f"What did {people[first]} and {people[second]} {asked}? {full}",
                passage,
                f"{people[first]} {past} {things[first]}, and {people[second]} {past} {things[second]}.",
            ),
            (f"Who {past} {_the(thing)}? {full}", passage, f"It was {person} who {past} {_the(thing)}."),
        )
    )


def by_person(draw: Draw) -> Task:
    """A passage as a list with a line for each person."""
    passage, past, _, people, things = _story(draw)
    asked = f"Make a list that says who {past} what, with one line for each person."
    return asked, passage, "\n".join(f"- {person}: {thing}" for person, thing in zip(people, things, strict=True))


def _the(thing: str) -> str:
    return f"the {thing.split(' ', 1)[1]}"


NOTES = (
    "Hi {name}, please buy {items} on the way home.",
    "{name}, we are out of {items}. Can you get some?",
    "For dinner we still need {items}. Thank you, {name}!",
    "Tonight {name} cooks for all of us and needs {items}.",
    "{name} wrote that the shop has {items} again.",
)


def as_list(draw: Draw) -> Task:
    """The items in a short note as a list."""
    items = draw.several(words.FOOD, draw.number(2, 5))
    note = draw.choice(NOTES).format(name=draw.one(words.FIRST_NAMES), items=listed(items))
    marks, asked = draw.choice(
        (
            ([f"{number}." for number in range(1, 6)], "Write the items in this note as a numbered list."),
            ([f"{number}." for number in range(1, 6)], "Number the things to eat or drink in this note, one a line."),
            (["-"] * 5, "Write the items in this note as a list with dashes."),
            (["-"] * 5, "Make a shopping list from this note. Begin each line with a dash."),
        )
    )
    return asked, note, "\n".join(f"{mark} {item}" for mark, item in zip(marks, items, strict=False))


def extreme(draw: Draw) -> Task:
    """Which of three things is the dearest or the cheapest."""
    things = [one for one, _ in draw.several(words.THINGS, 3)]
    prices = draw.rng.sample(range(3, 99), 3)
    given = [f"the {thing} {price}" for thing, price in zip(things, prices, strict=True)]
    told = f"The {things[0]} costs {prices[0]} dollars, {given[1]} dollars and {given[2]} dollars."
    word, pick = draw.choice((("most", max), ("least", min)))
    asked = draw.choice((f"Which of these costs {word}?", f"Which thing costs the {word}? Name only that."))
    return asked, told, f"the {things[prices.index(pick(prices))]}"


# Rules: the instruction, then each label with texts that it fits.
TOPICS = words.blocks("""
Write "billing" if the message is about money, "delivery" if about a parcel, "account" if about a login.
billing | Why was I charged {n} dollars? | My invoice shows {n} dollars too much. | I paid twice.
delivery | My parcel is {n} days late. | The box with the {x} never arrived. | The {x} came broken.
account | I forgot my password. | I cannot log in any more. | Please change my user name.

Say whether the message is "praise", a "complaint" or a "question".
praise | The new {x} is wonderful. | Thank you, the {x} works very well. | I love my {x}.
complaint | The {x} broke after {n} days. | The {x} is much too small. | I do not like the {x}.
question | Do you have the {x} in blue? | How long is the {x}? | When can I pick up the {x}?

Write "urgent" if the message is about today, and "later" if it is not.
urgent | I need the {x} today. | Can somebody bring the {x} this morning? | Call me today, please.
later | I need the {x} next week. | Call me in {n} days, please. | Send the {x} next month.
""")
LIMITS = (
    ('Write "free" if the order costs {limit} dollars or more, and "paid" if it costs less.', "free", "paid"),
    ('Write "large" for an order of {limit} dollars or more, and "small" for any other.', "large", "small"),
    ('Is the order at least {limit} dollars? Write "yes" or "no".', "yes", "no"),
)


def rule(draw: Draw) -> Task:
    """A label by a rule that the instruction gives."""
    name = draw.one(words.FIRST_NAMES)
    if draw.number(0, 2):
        asked, *labels = draw.choice(TOPICS)
        label, *texts = draw.choice(labels).split(" | ")
        told = draw.choice(texts).format(n=draw.number(3, 90), x=draw.one(words.THINGS)[0])
        greeting = draw.choice((f"Hello, this is {name}. ", f"From {name}: ", f"{name} writes: "))
        return asked, greeting + told, label
    asked, above, below = draw.choice(LIMITS)
    limit, price = draw.number(2, 18) * 5, draw.number(3, 99)
    told = f"{name} orders {article(draw.one(words.THINGS)[0])} for {price} dollars."
    return asked.format(limit=limit), told, above if price >= limit else below


# Short messages: what is asked for, and what is written.
LETTERS = words.blocks("""
Write a short message to {a}: the {event} moves from {day} to {other}.
Hi {a}, the {event} has moved from {day} to {other}. See you then!

Write to {a} that you will be {n} minutes late on {day}.
Hi {a}, I am sorry, but I will be {n} minutes late on {day}.

Thank {a} for the {x} in one sentence.
Dear {a}, thank you very much for the {x}.

Invite {a} to the {event} in {city} on {day}.
Dear {a}, would you like to come to the {event} in {city} on {day}?

Remind {a} to bring the {x} on {day}.
Hi {a}, please remember to bring the {x} on {day}.

Ask {a} whether the {x} is still for sale.
Hello {a}, is the {x} still for sale?
""")


def letter(draw: Draw) -> Task:
    """A short message to somebody."""
    asked, written = draw.choice(LETTERS)
    day, other = draw.rng.sample(words.DAYS, 2)
    filled = {"a": draw.one(words.FIRST_NAMES), "day": day, "other": other, "n": draw.number(2, 11) * 5}
    filled |= {"event": draw.choice(words.EVENTS), "city": draw.one(words.CITIES), "x": draw.one(words.THINGS)[0]}
    return asked.format(**filled), "", written.format(**filled)


BRIEF = (convert, field, who, extreme, rule)
LONG = (as_json, as_json, as_sentence, in_full, by_person, as_list, letter)


def draw_row(draw: Draw, number: int) -> dict[str, str]:
    """The row at a place in a list: every other one has a short answer, and the tasks take turns."""
    brief = number % 2 == 0
    tasks = BRIEF if brief else LONG
    while True:
        asked, given, answer = tasks[number // 2 % len(tasks)](draw)
        if is_short(answer) == brief:
            return {"instruction": asked, "input": given, "output": answer}
