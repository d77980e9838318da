"""The new domain: valid Python, varied, with one quantity and one unit for each instrument."""

import ast
import random
import re

import pytest

from unsloth_course.pocket import library


@pytest.fixture(scope="module")
def functions():
    rng = random.Random("library")
    return [library.function(rng, held_out) for held_out in (False, True) for _ in range(1_500)]


def test_a_function_is_python_with_a_docstring_and_a_result(functions):
    for function in functions:
        (parsed,) = ast.parse(function).body
        assert ast.get_docstring(parsed) and parsed.returns is not None and function.endswith("\n")
        compile(function, parsed.name, "exec")  # a return outside, or a name twice among the arguments


def test_no_function_is_longer_than_what_an_evaluation_looks_at(functions):
    from tokenizers import Tokenizer

    from unsloth_course import models

    tokenizer = Tokenizer.from_file(f"{models.folder('pocket')}/tokenizer.json")
    lengths = [len(tokenizer.encode(function).ids) for function in functions]
    assert min(lengths) > 130 and max(lengths) < 300


def test_functions_are_many_and_of_every_shape(functions):
    assert len(set(functions)) > 2_400
    names = {re.match(r"def (\w+)", function)[1] for function in functions}
    assert len(names) > 300
    for template in library._TEMPLATES:
        for name in library._ONE_OF.search(template)[1].split("|"):
            assert any(re.fullmatch(re.sub(r"\{\w+}", r"\\w+", name), made) for made in names), name
    bodies = {function.partition('"""\n')[2] for function in functions}
    assert len(bodies) > 1_500


def test_an_instrument_measures_one_quantity_in_one_unit(functions):
    """Whatever is said of an instrument fits the table: that is what there is to know of this domain."""
    quantities = {quantity: tool for tool, (quantity, _) in library.INSTRUMENTS.items()}
    units = {unit: tool for tool, (_, unit) in library.INSTRUMENTS.items()}
    assert len(quantities) == len(units) == len(library.INSTRUMENTS)
    for function in functions:
        words = set("".join(c if c.isalpha() else " " for c in function).split())
        owners = {tool for tool in library.INSTRUMENTS if tool in words}
        owners |= {owner for named in (quantities, units) for word, owner in named.items() if word in words}
        assert len(owners) == 1, function


def test_the_same_random_numbers_give_the_same_function():
    first, again = (library.function(random.Random(5), True) for _ in range(2))
    assert first == again != library.function(random.Random(6), True)
