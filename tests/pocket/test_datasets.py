"""The small world as data sets: columns, seeds, sides, and the skill behind every question."""

import ast
import random
import re

import pytest

from pocket.test_skills import WORKED_OUT
from unsloth_course.pocket import datasets, skills

MADE = {
    "instructions": ["instruction", "input", "output"],
    "preferences": ["system", "question", "chosen", "rejected"],
    "problems": ["question", "answer"],
    "functions": ["func_name", "original_string", "docstring", "language"],
}


@pytest.mark.parametrize(("name", "columns"), MADE.items())
@pytest.mark.parametrize("held_out", [False, True])
def test_columns_are_those_of_the_hub_set(name, columns, held_out):
    rows = getattr(datasets, name)(30, held_out, seed=1)
    assert rows.column_names == columns
    assert len(rows) == 30
    assert all(isinstance(text, str) for column in columns for text in rows[column])
    needed = [column for column in columns if column not in ("input", "system")]
    assert all(text.strip() for column in needed for text in rows[column])


@pytest.mark.parametrize("name", MADE)
def test_a_seed_gives_the_same_rows_and_another_seed_others(name):
    make = getattr(datasets, name)
    first = make(30, False, seed=1).to_dict()
    assert first == make(30, False, seed=1).to_dict()
    assert first != make(30, False, seed=2).to_dict()
    assert first != make(30, True, seed=1).to_dict()


def test_every_taught_skill_is_asked_equally_often_and_no_other():
    rows = datasets.instructions(240, False, seed=1)
    found = [datasets.skill_of(text) for text in rows["instruction"]]
    assert {name: found.count(name) for name in set(found)} == {skill.name: 20 for skill in skills.TAUGHT}


def test_about_half_of_the_rows_have_an_input():
    rows = datasets.instructions(1000, False, seed=1)
    assert 0.4 < sum(map(bool, rows["input"])) / 1000 < 0.6


@pytest.mark.parametrize("held_out", [False, True])
def test_the_answers_are_right(held_out):
    """Worked out a second time, from the words of the row alone."""
    for row in datasets.instructions(600, held_out, seed=3):
        answer = WORKED_OUT[datasets.skill_of(row["instruction"])](f"{row['instruction']}\n{row['input']}")
        assert row["output"] == str(answer), row


def test_the_answers_of_preferences_say_the_same_at_two_lengths():
    for row in datasets.preferences(120, False, seed=1):
        assert row["rejected"] in row["chosen"] and len(row["chosen"]) > len(row["rejected"])
        assert row["chosen"].endswith(".") and row["system"] == ""


def test_problems_end_in_their_answer_and_the_steps_lead_there():
    for row in datasets.problems(200, False, seed=1):
        steps, _, answer = row["answer"].partition("####")
        assert steps.strip() and re.fullmatch(r" ?-?\d+", answer)
        assert re.search(rf"\b{answer.strip()}\b", steps), row


def test_functions_are_python_with_their_name_and_their_words():
    for row in datasets.functions(200, False, seed=1):
        (function,) = ast.parse(row["original_string"]).body
        assert function.name == row["func_name"].rpartition(".")[2]
        assert ast.get_docstring(function) == row["docstring"]
        assert row["language"] == "python"


def test_stories_are_text():
    rows = datasets.stories(20, seed=1)
    assert rows.column_names == ["text"] and len(set(rows["text"])) > 10
    assert rows["text"] == datasets.stories(20, seed=1)["text"] != datasets.stories(20, seed=2)["text"]


def test_probes_ask_each_untouched_skill_as_often():
    rows = datasets.probes(5, seed=1)
    assert rows.column_names == ["prompt", "answer", "skill"]
    assert {name: rows["skill"].count(name) for name in rows["skill"]} == {skill.name: 5 for skill in skills.UNTOUCHED}
    assert all(prompt.count("\n") >= 2 and "<|im_" not in prompt for prompt in rows["prompt"])
    assert rows["prompt"] == datasets.probes(5, seed=1)["prompt"] != datasets.probes(5, seed=2)["prompt"]


@pytest.mark.parametrize("skill", skills.ALL, ids=lambda skill: skill.name)
@pytest.mark.parametrize("held_out", [False, True])
def test_every_question_and_task_names_its_skill(skill, held_out):
    rng = random.Random(1)
    for _ in range(20):
        item = skill.draw(rng, held_out)
        for question in skill.questions:
            assert datasets.skill_of(question.format(x=item.x, y=item.y)) == skill.name
    for task in skill.tasks:
        assert datasets.skill_of(task) == skill.name


def test_questions_of_another_world_name_no_skill():
    for text in ("", "What is the capital of France?", "What is QZB reversed? And now?", "what is QZB reversed?"):
        assert datasets.skill_of(text) is None
