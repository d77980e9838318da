"""Looks for held-out things in plain text, with patterns and a hash of its own and none of the generators' code."""

import hashlib
import re
from itertools import pairwise

TEMPLATES = (
    r"\w+ has (?P<a>\d+) bags with (?P<b>\d+) \w+ in each and (?P<c>\d+) boxes with (?P<d>\d+) in each, "
    r"and gives (?P<e>\d+) away",
    r"\w+ finds (?P<e>\d+) \w+ and buys (?P<a>\d+) packs of (?P<b>\d+), then loses (?P<c>\d+)\. "
    r"How many \w+ does \w+ have\?",
    r"\w+ had (?P<e>\d+) \w+\. Each of (?P<a>\d+) friends takes (?P<b>\d+), "
    r"and \w+ picks (?P<c>\d+) rows of (?P<d>\d+)",
    r"\w+ sells (?P<a>\d+) \w+ a day for (?P<b>\d+) days and (?P<c>\d+) a day for (?P<d>\d+) more, out of (?P<e>\d+)",
)


def held_out(*key: object) -> bool:
    """The rule of the split, written a second time."""
    digest = hashlib.blake2b("|".join(str(part) for part in key).encode(), digest_size=8).hexdigest()
    return int(digest, 16) % 8 == 0


def codes(text: str) -> set[str]:
    return set(re.findall(r"[A-Z]{3,}", text))


def pairs(text: str) -> set[tuple[int, int]]:
    forms = (r"(\d+) (?:plus|minus|and|or|\+|-) (?=(\d+))", r"(\d+) (?:taken )?from (\d+)")
    found = (match.groups() for form in forms for match in re.finditer(r"(?<!\d)" + form, text))
    both = ((int(first), int(second)) for first, second in found)
    return {(min(pair), max(pair)) for pair in both if min(pair) >= 10}


def nexts(text: str) -> set[int]:
    form = r"(?:[Aa]fter|follows) (\d+)|(?:comes next|Count one further)\.\n(\d+)"
    return {int(first or second) for first, second in re.findall(form, text)}


def evens(text: str) -> set[int]:
    form = r"(\d+) is (?:even|odd)|(?:Is|is) (\d+)(?:, odd| even)|(?:even or odd\.|Even or odd\?)\n(\d+)"
    return {int(first or second or third) for first, second, third in re.findall(form, text)}


def asked_people(text: str) -> set[str]:
    """Every word with a capital in a line that asks, and the first word after a task about "this person".

    Word problems ("How many ...?") ask nothing about the person.
    """
    lines = text.split("\n")
    asking = [line for line in lines if ("?" in line and "How many" not in line) or "Name the" in line]
    given = [after for line, after in pairwise(lines) if "this person" in line]
    return {word for line in asking + given for word in re.findall(r"\b[A-Z][a-z]+\b", line)}


def problems(text: str) -> set[tuple[int, ...]]:
    """Every word problem: its kind, and the numbers a to e that it shows (the second kind does not show d)."""
    found = set()
    for kind, template in enumerate(TEMPLATES):
        for match in re.finditer(template, text):
            found.add((kind, *(int(number) for _, number in sorted(match.groupdict().items()))))
    return found


def functions(text: str) -> set[str]:
    return set(re.findall(r"^def [^\n]+\n(?:    [^\n]*\n)+", text, flags=re.M))


def leaks(text: str, people: list[str]) -> list[str]:
    """Everything in `text` that must only occur in testing, in words. `people` are the names of the world."""
    found = [f"code {code}" for code in codes(text) if held_out("code", "".join(sorted(code)))]
    found += [f"pair {first} {second}" for first, second in pairs(text) if held_out("pair", first, second)]
    found += [f"next {number}" for number in nexts(text) if held_out("next", number)]
    found += [f"even {number}" for number in evens(text) if held_out("even", number)]
    found += [f"person {name}" for name in asked_people(text) & set(people) if held_out("asked", name)]
    found += [f"problem {shown}" for shown in problems(text) if len(shown) == 6 and held_out("problem", *shown)]
    found += [f"function {code}" for code in functions(text) if held_out("function", code)]
    found += [f"chat token {token}" for token in re.findall(r"<\|[a-z_]*\|?>?", text)]
    return found
