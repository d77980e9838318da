"""Asking a function that somebody is still writing: whatever it does, a sentence comes of it."""

import itertools
import linecache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesson.exercises.sources import ALL, solution
from unsloth_course.lesson.exercises.asking import Given, Learner, NotTried, Wrong, brief

SOLUTIONS = {one.id: solution(one.id) for one in ALL}
by_id = pytest.mark.parametrize("one", ALL, ids=lambda one: one.id)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary()
arrays = st.sampled_from(
    [
        np.zeros(0),
        np.zeros((5, 3)),
        np.full(7, np.nan),
        np.array("text"),
        np.array([{}, None]),
        np.float32(2),
        np.array([[1, 2], [3, 4]], dtype=complex),
    ]
)
odd = st.sampled_from([object(), ..., print, type, 10**400, {1, 2}, range(3), "".join, iter([1])])
values = st.recursive(
    scalars | arrays | odd,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, min_size=2, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(value=values)
def test_whatever_a_function_returns_is_found_wrong_in_a_sentence(value):
    for one in ALL:  # making a value takes longer than all checks of it
        try:
            found = one.test(lambda *arguments, **keywords: value)
        except NotTried:
            assert value is None or value is ...
        else:
            assert found.startswith(f"{one.function}(") and found.endswith("."), one.id


@settings(max_examples=25)
@given(value=values, after=st.integers(1, 30))
def test_whatever_it_returns_after_right_answers_is_a_sentence_too(value, after):
    """Right for a while, then anything: each question of a check meets each kind of answer."""
    for one in ALL:
        answers = itertools.chain(itertools.repeat(SOLUTIONS[one.id], after), itertools.repeat(lambda *_, **__: value))
        found = one.test(lambda *given, answers=answers, **named: next(answers)(*given, **named))
        assert found is None or found.endswith("."), one.id


@by_id
@pytest.mark.parametrize(
    "error", [ValueError("x\n  y"), KeyError("chosen"), RecursionError(), StopIteration(), MemoryError()]
)
def test_whatever_a_function_raises_is_a_sentence(one, error):
    def answer(*arguments, **keywords):
        raise error

    found = one.test(answer)
    assert found.startswith(f"{one.function}(") and f"raised {type(error).__name__}" in found and "\n" not in found


@by_id
@pytest.mark.parametrize("answer", [30, "text", [1, 2], {"a": 1}, np.zeros(3)], ids=lambda value: type(value).__name__)
def test_something_that_is_no_function_is_told_so(one, answer):
    assert "wants the function itself" in one.test(answer)


@by_id
def test_wrong_parameters_are_told(one):
    assert "raised TypeError" in one.test(lambda: 1)
    assert "raised TypeError" in one.test(lambda a, b, c, d, e, f: 1)


@by_id
@pytest.mark.parametrize("nothing", [None, ..., lambda *a, **k: None, lambda *a, **k: ...])
def test_nothing_is_no_attempt(one, nothing):
    with pytest.raises(NotTried, match=r"othing was counted\.$"):
        one.test(nothing)


@by_id
def test_a_function_cannot_spoil_the_check_by_changing_what_it_was_given(one):
    """It empties every list it gets, after it has answered; the check goes on with its own copies."""
    right = solution(one.id)

    def answer(*arguments, **keywords):
        value = right(*arguments, **keywords)
        for argument in [*arguments, *keywords.values()]:
            if isinstance(argument, list):
                argument.clear()
        return value

    found = one.test(answer)
    assert found is None or "itself" in found


def test_the_exception_is_located_in_the_learners_own_code():
    function = {}
    lines = ["def f(x):\n", "    y = x\n", "    return 1 / (y - y)\n"]
    linecache.cache["<cell 7>"] = (len("".join(lines)), None, lines, "<cell 7>")
    exec(compile("".join(lines), "<cell 7>", "exec"), function)
    with pytest.raises(Wrong, match=r"^f\(2\) raised ZeroDivisionError \(.+\) in its line `return 1 / \(y - y\)`\.$"):
        Learner(function["f"], "f")(2)


def test_ctrl_c_goes_through():
    def answer(*arguments):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Learner(answer, "f")(1)


def test_none_is_an_answer_after_the_first_call():
    learner = Learner(lambda x: x, "f")
    assert learner(1).value == 1
    assert learner(None).value is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1 + 0.2, "0.3"),
        (np.float64(1.5), "1.5"),
        (np.zeros((3, 5)), "<3 x 5 array>"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, ...]"),
        ([list(range(9))], "[[0, 1, 2, 3, ...]]"),
        (np.random.default_rng(0), "rng"),
        (True, "True"),
    ],
)
def test_values_are_short_in_a_sentence(value, text):
    assert brief(value) == text


@given(value=values)
def test_no_value_makes_a_long_sentence(value):
    assert len(brief(value)) < 2000


def test_a_torch_tensor_is_an_array_too():
    weight = torch.ones(2, 3, requires_grad=True)
    assert brief(weight) == "<2 x 3 array>"
    assert made(weight.detach()).array((2, 3)).tolist() == [[1.0] * 3] * 2
    assert made(torch.tensor([1, 2])).numbers(2) == [1.0, 2.0]
    assert made(torch.tensor(3.0)).number() == 3.0
    with pytest.raises(Wrong, match="array of numbers"):
        made(weight).array((2, 3))


def made(value):
    return Given("f(1)", value, (1,), (1,))


@pytest.mark.parametrize("value", ["3", None, [1, 2], {}, 1j, b"ab"])
def test_what_is_no_number(value):
    with pytest.raises(Wrong, match=r"^f\(1\) gave .*, and one number is wanted\.$"):
        made(value).number()


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.float32(3), True + 2])
def test_what_is_a_number(value):
    assert made(value).number() == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2.0])
def test_expecting_a_number(value):
    made(3.0 + 1e-9).expect(3.0, "so")
    with pytest.raises(Wrong):
        made(value).expect(3.0, "so")


def test_lists_of_numbers():
    assert made((1, 2)).numbers(2) == [1, 2]
    assert made([np.array([1, 2]), (3,)]).items() == [[1, 2], [3]]
    with pytest.raises(Wrong, match="that is 2 numbers, and 3 are wanted"):
        made([1, 2]).numbers(3)
    with pytest.raises(Wrong, match="a list is wanted"):
        made(iter([1])).items()
    with pytest.raises(Wrong, match=r"gave \[1, 2\], and 2 x 1 is wanted"):
        made([1, 2]).array((2, 1))
