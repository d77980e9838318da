"""Every answer is worked out a second time, from the words of the question alone."""

import random
import re

import pytest

from unsloth_course.pocket import skills, world

PEOPLE = {person.name: person for person in world.people()}
BOTH_SIDES = pytest.mark.parametrize("held_out", [False, True])
EACH_SKILL = pytest.mark.parametrize("skill", skills.ALL, ids=lambda skill: skill.name)


def code_in(question: str) -> str:
    return re.search(r"[A-Z]{3,}", question).group()


def numbers_in(question: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", question)]


def person_in(question: str) -> world.Person:
    return next(PEOPLE[word] for word in re.findall(r"[A-Z][a-z]+", question) if word in PEOPLE)


def minus(question: str) -> int:
    first, second = numbers_in(question)
    return second - first if "from" in question else first - second


WORKED_OUT = {
    "reverse": lambda question: "".join(reversed(code_in(question))),
    "first": lambda question: code_in(question)[:1],
    "last": lambda question: code_in(question)[-1:],
    "count": lambda question: len(code_in(question)),
    "sort": lambda question: "".join(sorted(code_in(question))),
    "add": lambda question: sum(numbers_in(question)),
    "larger": lambda question: sorted(numbers_in(question))[-1],
    "next": lambda question: numbers_in(question)[0] + 1,
    "even": lambda question: "even" if re.search(r"[02468](?!\d)", question) else "odd",
    "town": lambda question: person_in(question).town,
    "job": lambda question: person_in(question).job,
    "colour": lambda question: person_in(question).colour,
    "pet": lambda question: person_in(question).pet,
    "shorten": lambda question: code_in(question)[1:],
    "subtract": minus,
    "second": lambda question: code_in(question)[1],
}


def test_there_are_at_least_ten_taught_skills_and_some_untouched_ones():
    names = [skill.name for skill in skills.ALL]
    assert len(skills.TAUGHT) >= 10 and len(skills.UNTOUCHED) >= 3
    assert len(names) == len(set(names))
    assert set(names) == set(WORKED_OUT)


@BOTH_SIDES
@EACH_SKILL
def test_answers_are_right_in_every_form_of_asking(skill, held_out):
    rng = random.Random(11)
    for _ in range(60):
        item = skill.draw(rng, held_out)
        asked = [form.format(x=item.x, y=item.y) for form in skill.questions]
        asked += [f"{task}\n{skill.given.format(x=item.x, y=item.y)}" for task in skill.tasks]
        assert {str(WORKED_OUT[skill.name](question)) for question in asked} == {item.answer}


@EACH_SKILL
def test_the_sentence_holds_the_short_answer_as_a_word(skill):
    rng = random.Random(12)
    for _ in range(60):
        item = skill.draw(rng, False)
        for told in skill.told:
            assert re.search(rf"\b{item.answer}\b", told.format(x=item.x, y=item.y, a=item.answer))
        assert skill.sentence(item).endswith(".") and skill.sentence(item) != item.answer


@EACH_SKILL
def test_questions_and_tasks_have_their_places(skill):
    assert len(skill.questions) == 3 == len(set(skill.questions))
    assert all("{x}" in question and ("{y}" in question) == ("{y}" in skill.given) for question in skill.questions)
    assert all("{" not in task for task in skill.tasks)  # a task is whole without its input
    assert bool(skill.tasks) == (skill in skills.TAUGHT) and (not skill.tasks or "{x}" in skill.given)


def test_no_form_of_asking_belongs_to_two_skills():
    forms = [form for skill in skills.ALL for form in (*skill.questions, *skill.tasks)]
    assert len(forms) == len(set(forms))


@EACH_SKILL
def test_the_two_sides_share_no_item(skill):
    rng = random.Random(13)
    to_learn, to_test = ([skill.draw(rng, held_out) for _ in range(1_500)] for held_out in (False, True))
    assert len(set(to_test)) > 10
    assert not {(item.x, item.y) for item in to_learn} & {(item.x, item.y) for item in to_test}


def test_ask_takes_every_form_of_the_question():
    skill = skills.TAUGHT[0]
    item = skills.Item("ABC", "", "CBA")
    rng = random.Random(1)
    assert {skills.ask(skill, item, rng) for _ in range(60)} == {form.format(x="ABC") for form in skill.questions}
