"""Tasks on records of a few fields, such as an order: a field copied, the record as JSON, as a sentence."""

import json
import re
from collections.abc import Callable

from unsloth_course.pocket.english import words
from unsloth_course.pocket.english.words import Draw, listed

# The fields of records: how each is drawn, and how it is asked for by itself.
DRAWN: dict[str, Callable[[Draw], object]] = {
    "name": Draw.person,
    "city": lambda draw: draw.one(words.CITIES),
    "item": lambda draw: draw.one(words.THINGS)[0],
    "items": lambda draw: draw.one(words.THINGS)[1],
    "quantity": lambda draw: draw.number(2, 40),
    "price": lambda draw: draw.number(5, 95),
    "job": lambda draw: draw.one(words.JOBS),
    "age": lambda draw: draw.number(21, 64),
    "event": lambda draw: draw.one(words.EVENTS),
    "date": lambda draw: f"{draw.number(1, 28)} {draw.choice(words.MONTHS)}",
    "day": lambda draw: draw.choice(words.DAYS),
    "time": lambda draw: draw.choice(words.TIMES),
}
ASKED = """
name | Give the full name of the person in this text. | Copy the person's name. | Who is named?
city | Which city is named in this text? | Copy the name of the city. | Name the city in the text.
item | Which item is this text about? | What was bought? Name only that.
items | Which items is this text about? | What was ordered? Name only that.
quantity | How many were ordered? Give the number. | Copy the number of items ordered.
price | How many dollars were paid? Give the number. | Copy the price in dollars, as a number.
job | What does this person work as? | Copy the job of the person.
age | How old is the person? Give the number. | Copy the age of the person.
event | What kind of event is it? Give one word. | Name the event in one word.
date | Which date is given in this text? | Copy the date. | On which date is this?
day | On which day of the week is this? | Copy the day of the week.
time | At what time is this? | Copy the time of day. | Which time is given?
"""
QUESTIONS = {name: questions for name, *questions in (line.split(" | ") for line in ASKED.strip().splitlines())}
# Ways to tell a record; which fields it has, the text says itself.
RECORDS = words.blocks("""
{name} from {city} ordered {quantity} {items} on {date}.
On {date}, {name} ordered {quantity} {items}. The order goes to {city}.
Order from {date}: {quantity} {items} for {name}, to be sent to {city}.

{name} bought the {item} in {city} for {price} dollars.
In {city}, {name} paid {price} dollars for the {item}.
{name} saw the {item} in {city} and bought it for {price} dollars.

{name} works as a {job} in {city} and is {age} years old.
{name}, who is {age}, lives in {city} and works as a {job}.
At {age}, {name} moved to {city} to work as a {job}.

The {event} in {city} begins on {date} at {time}. {name} sells the tickets.
{name} sells the tickets for the {event}, which begins in {city} on {date} at {time}.
Come to the {event} in {city}! It begins on {date} at {time}, and {name} sells the tickets.

{name} takes the train to {city} on {day} at {time}.
On {day} at {time}, {name} takes the train to {city}.
The train to {city} leaves on {day} at {time}, and {name} will be on it.
""")


def _record(draw: Draw) -> tuple[tuple[str, ...], dict[str, object]]:
    """The ways to tell a record, and its fields."""
    tellings = draw.choice(RECORDS)
    return tellings, {name: DRAWN[name](draw) for name in re.findall(r"{(\w+)}", tellings[0])}


def field(draw: Draw) -> tuple[str, str, str]:
    """One field of a record, copied."""
    tellings, values = _record(draw)
    name = draw.choice([*values])
    return draw.choice(QUESTIONS[name]), draw.choice(tellings).format(**values), str(values[name])


def as_json(draw: Draw) -> tuple[str, str, str]:
    """Several fields of a record as JSON."""
    tellings, values = _record(draw)
    kept = draw.rng.sample([*values], draw.number(2, len(values)))
    keys = listed([f'"{name}"' for name in kept])
    asked = draw.choice(
        (
            f"Write this as JSON with the keys {keys}.",
            f"Turn the text into a JSON object with the keys {keys}.",
            f"Read the text and give {listed(kept)} as JSON.",
        )
    )
    return asked, draw.choice(tellings).format(**values), json.dumps({name: values[name] for name in kept})


def as_sentence(draw: Draw) -> tuple[str, str, str]:
    """A record that is given as notes, told in a sentence."""
    tellings, values = _record(draw)
    asked = draw.choice(
        ("Write these notes as a sentence.", "Tell this in plain English.", "Put these facts in words.")
    )
    return asked, "\n".join(f"{name}: {value}" for name, value in values.items()), tellings[0].format(**values)
