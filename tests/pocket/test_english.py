"""Rows in plain English: every answer is right when it is worked out anew, and the two sides share nothing."""

import json
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unsloth_course import rewards
from unsloth_course.lesson.data import dividing, instruction, preference, problems
from unsloth_course.lesson.scoreboard.measuring import is_worked
from unsloth_course.pocket.english import is_short, library, pairs, sums, words
from unsloth_course.pocket.english import rows as english

SEEDS = st.integers(0, 10**6)
SIDES = st.booleans()
# Four characters a token, and the default system prompt with the template's own tokens: SmolLM2's rows have up to 123.
MOST_CHARACTERS = 4 * (200 - 40)
# The smallest unit of each kind, and what the others are of it. Of a foot, 12 inches; of a year, 12 months.
SIZES = {
    "seconds": {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400, "weeks": 604_800},
    "months": {"months": 1, "years": 12, "decades": 120, "centuries": 1200},
    "millimetres": {"millimetres": 1, "centimetres": 10, "metres": 1000, "kilometres": 1_000_000},
    "grams": {"grams": 1, "kilograms": 1000, "tonnes": 1_000_000},
    "inches": {"inches": 1, "feet": 12, "yards": 36},
    "millilitres": {"millilitres": 1, "litres": 1000},
    "ounces": {"ounces": 1, "pounds": 16},
    "pints": {"pints": 1, "gallons": 8},
    "cents": {"cents": 1, "dollars": 100},
}
AMOUNT = re.compile(r"(\d+) ([a-z]+)")


def amount(text):
    """(kind, size in its smallest unit) of a text such as "7 weeks"."""
    number, unit = AMOUNT.fullmatch(text).groups()
    kind, sizes = next((kind, sizes) for kind, sizes in SIZES.items() if unit in sizes)
    return kind, Fraction(number) * sizes[unit]


def converted(row):
    """The amount that a question about units gives, which is the last one in it, and the answer."""
    given = AMOUNT.findall(f"{row['instruction']} {row['input']}")[-1]
    return " ".join(given), row["output"]


def is_conversion(row):
    return bool(re.search(r"^How many \w+ are|^Convert|^Write \d|^An? .*has \d", row["instruction"]))


def right(row):
    """Whether an answer to an instruction follows from what was asked, told apart by how it was asked."""
    asked, told, answer = row["instruction"], row["input"], row["output"]
    if is_conversion(row):
        given, answer = map(amount, converted(row))
        return given == answer
    if "JSON" in asked:
        keys = re.findall(r'"(\w+)"', asked) or re.split(r", | and ", asked.split("give ")[1].removesuffix(" as JSON."))
        return [*(found := json.loads(answer))] == keys and all(str(value) in told for value in found.values())
    if "costs" in asked and "Which" in asked:
        prices = {thing: int(price) for thing, price in re.findall(r"[tT]he (\w+) (?:costs )?(\d+)", told)}
        return answer == "the " + (max if "most" in asked else min)(prices, key=prices.get)
    if limit := re.search(r"(\d+) dollars", asked):
        above = int(re.search(r"for (\d+) dollars", told)[1]) >= int(limit[1])
        return answer == re.findall('"(.*?)"', asked)[not above]
    if labels := re.findall('"(.*?)"', asked):
        return answer in labels
    if question := re.match(r"Who (\w+) the (\w+)\?", asked):
        person, past, thing = re.match(r"(?:It was )?(\w+)", answer)[1], *question.groups()
        return bool(re.search(rf"{person} (was there too and )?{past} an? {thing}", told))
    if asked.startswith("What did") and "and" in asked:
        return all(re.sub("[.,]|^and ", "", part) in shortened(told) for part in answer.split(", "))
    if person := re.match(r"What did (\w+) ", asked):
        return bool(re.search(rf"{person[1]} \w+ {answer}\b", shortened(told)))
    if "line for each person" in asked:
        lines = [re.fullmatch(r"- (\w+): (.*)", line).groups() for line in answer.split("\n")]
        return all(re.search(rf"{person} \w+ {thing}\b", shortened(told)) for person, thing in lines)
    if "\n" in answer:
        items = [line.split(" ", 1)[1] for line in answer.split("\n")]
        marks = [f"{number}." for number in range(1, 9)] if "umber" in asked else ["-"] * 9
        found = [mark for mark, _ in zip(marks, items, strict=False)] == [
            line.split(" ")[0] for line in answer.split("\n")
        ]
        return found and words.listed(items) in told
    if not told:  # a letter: whatever is named in what was asked is in it
        return set(re.findall(r"[A-Z]\w+|\d+", asked.split(" ", 1)[1])) <= set(re.findall(r"\w+", answer))
    if ": " in told and "\n" in told:  # notes
        return all(line.split(": ", 1)[1] in answer for line in told.split("\n"))
    return answer in told


def shortened(told):
    return told.replace("was there too and ", "")


@settings(max_examples=15)
@given(SEEDS, SIDES)
def test_every_instruction_is_answered_right_and_every_other_answer_is_short(seed, held_out):
    rows = english.instructions(140, held_out, seed)
    assert [row for row in rows if not right(row)] == []
    assert sum(map(is_short, rows["output"])) == 70 and len(set(dividing.keys(rows, "instruction"))) >= 139
    assert instruction.load(rows).set_aside == []
    assert max(sum(map(len, row.values())) for row in rows) < MOST_CHARACTERS


@settings(max_examples=15)
@given(SEEDS, SIDES)
def test_every_problem_is_worked_right_in_two_steps(seed, held_out):
    rows = english.problems(50, held_out, seed)
    assert problems.load(rows).set_aside == []
    for row in rows:
        steps, answer = row["answer"].split("\n")[:-1], int(problems.final(row["answer"]))
        numbers = [int(number) for number in re.findall(r"\d+", row["question"])]
        assert len(steps) == 2 and max(numbers) <= sums.LARGEST and 1 <= answer < 100 and is_worked(row["answer"])
        assert sorted(map(int, re.findall(r"\d+", " ".join(re.sub("=.*", "", step) for step in steps)))) == sorted(
            [*numbers, int(steps[0].split("= ")[1])]
        )
        assert rewards.steps([row["answer"]], [row["question"]]) == [1.0] == rewards.exact([row["answer"]], [answer])
        assert len("".join(row.values())) < MOST_CHARACTERS
    assert 10 < sum("*" in answer for answer in rows["answer"]) < 40


# What a story asks, worked out by hand for 8, 4 and 3.
BY_HAND = {"*+": 35, "*-": 29, "+*": 36, "-*": 12, "++": 15, "+-": 9, "-+": 7, "--": 1}


@pytest.mark.parametrize(("signs", "story"), [*sums.MULTIPLIED, *sums.ADDED])
def test_a_story_is_told_of_its_three_numbers_and_multiplies_where_it_says_each(signs, story):
    first = sums.RESULT[signs[0]](8, 4)
    assert sums.RESULT[signs[1]](first, 3) == BY_HAND[signs]
    assert sorted(re.findall(r"\{([abc])\}", story)) == ["a", "b", "c"]
    assert ("*" in signs) == bool(re.search(r"[eE]ach|boxes\} of", story))


@settings(max_examples=15)
@given(SEEDS, SIDES)
def test_pairs_are_a_plain_answer_and_another_and_length_alone_does_not_tell_them_apart(seed, held_out):
    rows = english.preferences(200, held_out, seed)
    assert preference.load(rows).set_aside == [] and set(rows["system"]) == {""}
    known = [[part.strip() for part in row.split("|")] for _, _, table in pairs.KINDS for row in table]
    for row in rows:
        (found,) = ((subject, told) for subject, *told in known if row["chosen"].startswith(told[0]))
        assert row["chosen"] in (found[1][0], " ".join(found[1])) and found[0] in row["question"]
        assert len(row["question"]) + len(row["rejected"]) < MOST_CHARACTERS
    longer = sum(len(row["rejected"]) > len(row["chosen"]) for row in rows)
    assert 0.45 * len(rows) < longer < 0.8 * len(rows)


@settings(max_examples=10)
@given(SEEDS, SEEDS)
def test_the_two_sides_share_no_name_amount_numbers_or_advice(one, other):
    learned, tested = (english.instructions(300, side, seed) for side, seed in ((False, one), (True, other)))
    for kept in (words.FIRST_NAMES, words.LAST_NAMES, words.CITIES, words.FOOD):
        mine, its = words.side(kept, False), words.side(kept, True)
        assert mine and its and not set(mine) & set(its)
        said = [set(re.findall(r"\w+", " ".join(" ".join(row.values()) for row in rows))) for rows in (learned, tested)]
        assert not said[0] & {*its} and not said[1] & {*mine}
    amounts = [{frozenset(converted(row)) for row in rows if is_conversion(row)} for rows in (learned, tested)]
    assert amounts[0] and amounts[1] and not amounts[0] & amounts[1]
    advice = [set(english.preferences(100, side, one)["chosen"]) for side in (False, True)]
    assert not advice[0] & advice[1]
    stories = [
        {re.sub("[A-Z][a-z]+ ", "", row["question"]) for row in english.problems(200, side, one)}
        for side in (False, True)
    ]
    assert not stories[0] & stories[1]


@pytest.mark.parametrize("make", [english.instructions, english.preferences, english.problems, english.functions])
def test_the_same_seed_gives_the_same_rows_and_another_one_others(make):
    first, again, other = (make(40, False, seed) for seed in (1, 1, 2))
    assert first.to_dict() == again.to_dict() != other.to_dict() and len(first) == len(other) == 40


def test_functions_are_of_the_library_of_this_python_and_no_module_is_on_both_sides():
    import ast

    learned, tested = (english.functions(300, side, 1) for side in (False, True))
    for row in (*learned, *tested):
        (node,) = ast.parse(row["original_string"]).body
        assert node.name == row["func_name"] and ast.get_docstring(node).split() == row["docstring"].split()
        assert library.LEAST <= len(row["original_string"]) <= library.MOST
    assert not set(learned["original_string"]) & set(tested["original_string"])
    sides = [{*library.modules(side)} for side in (False, True)]
    assert not sides[0] & sides[1] and not any("site-packages" in path.parts for path in sides[0] | sides[1])
    twins = [
        {path.stem for path in side if path.stem in ("datetime", "_pydatetime", "decimal", "_pydecimal")}
        for side in sides
    ]
    assert all(f"_py{name}" not in other for side, other in (twins, twins[::-1]) for name in side)
