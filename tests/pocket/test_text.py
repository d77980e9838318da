"""Documents and word problems: their form, and the arithmetic of every worked step."""

import random
import re

import pytest

from unsloth_course.pocket import code, skills, text

STEP = re.compile(r"(\d+) ([*+-]) (\d+) = (\d+)")


@pytest.mark.parametrize("held_out", [False, True])
def test_worked_steps_are_right_and_lead_to_the_answer(held_out):
    rng = random.Random(31)
    for _ in range(500):
        problem = text.problem(rng, held_out)
        results = []
        for step in problem.steps:
            first, sign, second, result = STEP.fullmatch(step).groups()
            first, second, result = int(first), int(second), int(result)
            assert result == {"*": first * second, "+": first + second, "-": first - second}[sign]
            assert all(0 <= number <= 99 for number in (first, second, result))
            # Every number of a step is in the question or was worked out before.
            known = [int(number) for number in re.findall(r"\d+", problem.question)] + results
            assert first in known and second in known
            results.append(result)
        assert results[-1] == problem.answer
        assert 3 <= len(problem.steps) <= 4


def test_a_solution_ends_as_in_gsm8k():
    problem = text.problem(random.Random(1), True)
    assert problem.solution.split("\n") == [*problem.steps, f"#### {problem.answer}"]


def test_some_solutions_show_their_steps_and_more_do_not():
    rng = random.Random(32)
    made = "".join(text.document(rng) for _ in range(20_000))
    solutions = re.findall(r"Solution:\n(#### |\d+ [*])", made)
    worked = sum(not solution.startswith("#") for solution in solutions) / len(solutions)
    assert 0.35 < worked < 0.45


def test_short_answers_are_commoner_than_sentences():
    rng = random.Random(33)
    made = "".join(text.document(rng) for _ in range(20_000))
    answers = re.findall(r"^Question:\nWhich letter does (\w+) start with\?\nAnswer:\n(.*)\n", made, flags=re.M)
    sentences = sum(answer == f"The first letter of {code} is {code[0]}." for code, answer in answers)
    assert all(answer in (code[0], f"The first letter of {code} is {code[0]}.") for code, answer in answers)
    assert len(answers) > 100 and 0.1 < sentences / len(answers) < 0.3


def test_a_document_ends_in_a_line_break_and_repeats_with_the_seed():
    first, again = random.Random(34), random.Random(34)
    for _ in range(300):
        document = text.document(first)
        assert document == text.document(again)
        assert document.endswith("\n") and document.isascii()


def test_code_is_almost_absent():
    rng = random.Random(35)
    share = sum(text.document(rng).startswith("def ") for _ in range(10_000)) / 10_000
    assert 0 < share < 0.01


def test_a_story_is_one_line_of_sentences_without_a_gap():
    rng = random.Random(36)
    for _ in range(300):
        story = text.story(rng)
        assert re.fullmatch(r"[A-Z][^\n{}]*[.]\n", story)


def test_every_function_is_python_with_a_docstring():
    import ast

    rng = random.Random(37)
    for _ in range(300):
        (function,) = ast.parse(code.function(rng, rng.random() < 0.5)).body
        assert ast.get_docstring(function).endswith(".")


def test_the_plain_layout_is_common():
    rng = random.Random(38)
    made = [text.document(rng) for _ in range(5_000)]
    asked = [document for document in made if any(name in document for name in ("?\n", "? |"))]
    plain = [document for document in asked if document.startswith(text.PLAIN[0]) and text.PLAIN[1] in document]
    assert len(plain) / len(asked) > 0.2


def test_every_skill_is_read():
    rng = random.Random(39)
    made = "".join(text.document(rng) for _ in range(5_000))
    for skill in skills.ALL:
        for form in skill.questions:
            assert re.search(re.escape(form).replace(r"\{x\}", r"\w+").replace(r"\{y\}", r"\w+"), made), form
