"""Marks, intervals, chance, and the skills behind them: arithmetic first, the model last."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from conftest import TWO_CORES
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import evaluation, models, profile
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import general, instruction
from unsloth_course.lesson.evaluation import Answers, asking, interval, intervals, is_exact
from unsloth_course.lesson.evaluation.asking import _recalled
from unsloth_course.lesson.evaluation.scores import luck
from unsloth_course.lesson.evaluation.scores import score as score_of_two
from unsloth_course.pocket import datasets, skills
from unsloth_course.pocket.english import is_short


def answers(given, expected, skills=()):
    right = [is_exact(mine, theirs) for mine, theirs in zip(given, expected, strict=True)]
    return Answers([f"question {n}" for n in range(len(given))], list(expected), list(given), right, list(skills))


@pytest.mark.parametrize(
    "given", ["", "5", "58.", "58 58", "58\nQuestion:", "58<|endoftext|>", "The sum is 58", "５８"]
)
def test_white_space_around_an_answer_does_not_count_and_all_else_does(given):
    assert not is_exact(given, "58") and not is_exact("rome", "Rome")
    assert all(is_exact(same, "58") for same in ("58", " 58", "58\n", "\t58 "))


def test_an_answer_that_does_not_stop_is_wrong(monkeypatch):
    """The model's text is marked as far as it wrote, and not only its beginning."""
    from datasets import Dataset

    rows = Dataset.from_list([{"instruction": "What is 1 plus 1?", "input": "", "output": "2"}] * 2)
    monkeypatch.setattr(models, "answer", lambda model, tokenizer, questions, limit: ["2", "2\nQuestion:"])
    found = evaluation.ask(None, None, rows)
    assert found.right == [True, False]
    assert (found.share, str(found)) == (0.5, "1 of 2 right (50.0 %)")


def test_the_input_is_part_of_the_question(monkeypatch):
    from datasets import Dataset

    asked = []
    monkeypatch.setattr(models, "answer", lambda model, tokenizer, questions, limit: asked.extend(questions) or ["7"])
    rows = Dataset.from_list([{"instruction": "Add the two numbers.", "input": "3 and 4", "output": "7"}])
    found = evaluation.ask(None, None, rows)
    assert asked == found.questions == ["Add the two numbers.\n\n3 and 4"]
    assert found.skills == ["add"] and found.by_skill == {"add": 1.0}


def test_shares_by_skill():
    found = answers("aabb", "abbb", ["b", "b", "a", None])
    assert found.by_skill == {"a": 1.0, "b": 0.5}
    assert list(found.by_skill) == ["a", "b"]
    assert answers("ab", "ab").by_skill == {}
    assert answers("ab", "ab", [None, None]).by_skill == {}


def marks(both, lost, won, none):
    """Marks before and after, from the four counts of a table."""
    return [1] * (both + lost) + [0] * (won + none), [1] * both + [0] * lost + [1] * won + [0] * none


@pytest.mark.parametrize(
    ("table", "published"),
    [
        ((20, 12, 2, 16), (-0.3292, -0.0562)),  # Newcombe 1998
        ((59, 6, 16, 80), (0.0046, 0.1186)),  # Cavo et al. 2012, in Fagerland et al. 2014
        ((14, 5, 0, 22), (-0.2265, -0.0115)),  # Altman et al. 2000, table 6.2
    ],
)
def test_the_interval_of_marks_is_the_published_one(table, published):
    assert interval(*marks(*table)) == pytest.approx(published, abs=1e-3)


def test_the_test_of_the_changed_marks_is_the_published_one():
    assert intervals.mid_p(16, 6) == pytest.approx(0.034690, abs=1e-6)
    assert (intervals.mid_p(0, 0), intervals.mid_p(2, 0)) == (1.0, 0.25)


@pytest.mark.parametrize("mark", [0, 1])
def test_no_change_has_a_width_that_shrinks_with_the_questions(mark):
    few, many = interval([mark] * 25, [mark] * 25), interval([mark] * 2500, [mark] * 2500)
    assert -0.2 < few[0] < -0.1 and 0.1 < few[1] < 0.2
    assert -0.002 < many[0] < 0 < many[1] < 0.002


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_few_lucky_questions_are_no_effect(count):
    """By the score interval alone 2 of 2 would be one; so would they be by the bootstrap of any numbers."""
    assert interval([0] * count, [1] * count) == (min(0.0, interval([0] * count, [1] * count)[0]), 1.0)
    assert interval([1] * count, [0] * count)[1] >= 0
    assert interval([0.5] * count, [9.5] * count) == (0.0, 9.0)
    assert evaluation.smallest_change(count).startswith(f"n = {count} is too few to show any change")


def test_what_few_questions_can_show_is_said():
    assert evaluation.smallest_change(25) == "n = 25 can only show changes of 20 points or more."
    assert interval(*marks(0, 0, 5, 20))[0] > 0 >= interval(*marks(0, 0, 4, 21))[0]


table_of_marks = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(table_of_marks)
def test_before_and_after_swapped_turn_the_interval_round(pairs):
    before, after = zip(*pairs, strict=True)
    low, high = interval(before, after)
    assert interval(after, before) == pytest.approx((-high, -low))


def test_it_is_paired():
    """The same shares, 50 % each: with the pairs kept there is nothing to doubt, with others there is."""
    before, swapped = [0, 1] * 50, [1, 0] * 50
    low, high = interval(before, before)
    assert -0.02 < low < 0 < high < 0.02
    low, high = interval(before, swapped)
    assert low < -0.15 and high > 0.15


def test_it_gives_the_same_numbers_twice_and_takes_booleans():
    before, after = [False, True, False, False, True] * 8, [True, True, False, True, True] * 8
    assert interval(before, after) == interval(before, after) == interval(list(map(int, before)), list(map(int, after)))
    spread = [number / 7 for number in range(40)]
    assert interval([0] * 40, spread, seed=1) != interval([0] * 40, spread, seed=2)


def test_it_covers_the_truth_about_as_often_as_it_says():
    """200 simulated evaluations of 100 questions, each right with 0.4 before and 0.6 after: the change is 0.2."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        before, after = rng.random(100) < 0.4, rng.random(100) < 0.6
        low, high = interval(before, after)
        covered += low <= 0.2 <= high
    assert 0.90 <= covered / 200 <= 0.99


@given(table_of_marks | st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_it_is_around_the_mean_and_within_bounds(pairs):
    before, after = zip(*pairs, strict=True)
    low, high = interval(before, after)
    mean = np.mean(after) - np.mean(before)
    assert -1 <= low <= mean + 1e-9 and mean - 1e-9 <= high <= 1


@pytest.mark.parametrize(
    ("given", "expected", "skills", "shares"),
    [
        (["odd", "odd", "odd", "7"], ["odd", "odd", "even", "even"], [], [1 / 3, 1 / 3, 2 / 3, 0.0]),
        (["odd", "odd", "red", "red"], ["odd", "even", "red", "odd"], [*"eecc"], [0.0, 1.0, 0.0, 1.0]),
        (["red", "odd", "odd"], ["red", "odd", "red"], [*"cee"], [1 / 2, 0.0, 1.0]),  # one of a skill: with all
        (["red"], ["red"], [], [0.0]),
    ],
)
def test_luck_is_the_share_of_the_other_questions_of_the_skill_that_an_answer_fits(given, expected, skills, shares):
    assert luck(answers(given, expected, skills)) == shares


def test_answers_dealt_out_at_random_are_right_as_often_as_luck_says():
    rng = random.Random(0)
    wanted = [rng.choice(["odd", "even", "red", "blue", "7"]) for _ in range(2000)]
    dealt = wanted[:]
    rng.shuffle(dealt)
    found = answers(dealt, wanted)
    assert sum(luck(found)) / 2000 == pytest.approx(0.2, abs=0.02)
    assert found.share == pytest.approx(0.2, abs=0.03)
    low, high = interval(luck(found), found.right)
    assert low < 0 < high


def test_a_score_holds_both_comparisons():
    before = answers(["x"] * 100, [str(n) for n in range(100)])
    after = answers([str(n) for n in range(80)] + ["x"] * 20, [str(n) for n in range(100)])
    kept = answers("aaab", "aaaa"), answers("aabb", "aaaa")
    score = score_of_two(before, after, kept)
    assert (score.metric, score.n, score.before, score.after) == ("exact_match", 100, 0.0, 0.8)
    assert score.interval == interval(before.right, after.right)
    assert score.interval[0] < 0.8 < score.interval[1]
    assert score.retention == evaluation.Retention("exact_match", 0.75, 0.5)
    assert score.chance == 0.0 and score.above_chance == pytest.approx(score.interval, abs=0.02)
    assert (score.measures, score.judge.name, score.judge.interval) == ((), "exact_match", score.interval)
    assert score_of_two(before, after).retention is None


@pytest.mark.parametrize(
    ("text", "answer", "recalled"),
    [
        (" Paris.", "Paris", True),
        ("Paris, the city of light", "Paris", True),
        ("the city of Paris.", "Paris", True),
        ("paris", "Paris", True),
        ("\n\nParis\nThe capital of Italy is Rome", "Paris", True),
        ("65<|endoftext|>Question:", "65", True),
        ("82 minus 17 is 65.", "65", True),
        ("H2O.", "H2O", True),
        ("made of (ice)", "ice", True),
        ('the "East"!', "east", True),
        ("", "Paris", False),
        ("   \n ", "Paris", False),
        ("<|endoftext|>Paris", "Paris", False),
        ("Rome\nParis", "Paris", False),
        ("Parisian", "Paris", False),
        ("not the Paris that we know", "Paris", False),
        ("655", "65", False),
        ("165", "65", False),
        ("65a", "65", False),
        ("rice", "ice", False),
        ("AxB", "A.B", False),
        ("(", "(", False),
    ],
)
def test_an_answer_alone_or_at_the_end_of_a_sentence_is_recalled(text, answer, recalled):
    assert _recalled(text, answer) is recalled


@given(st.text(), st.text(min_size=1))
def test_no_text_breaks_it(text, answer):
    assert _recalled(text, answer) in (True, False)


def test_the_bundled_model_is_probed_on_skills_that_no_lesson_trains(machine):
    found = evaluation.probes(machine)
    assert set(found["skill"]) == {skill.name for skill in skills.UNTOUCHED}
    assert all(found["skill"].count(skill.name) == asking.PROBES_EACH for skill in skills.UNTOUCHED)
    assert found["prompt"] == evaluation.probes(machine)["prompt"]


def test_a_hub_model_is_probed_on_general_knowledge():
    found = evaluation.probes(profile.decide(TWO_CORES, model=profile.HUB_MODEL))
    assert list(zip(found["prompt"], found["answer"], strict=True)) == list(general.FACTS)
    assert set(found["skill"]) == {"general"}


def test_the_general_facts_are_sixty_plain_ones():
    assert len(general.FACTS) == 60
    assert len({prompt for prompt, _ in general.FACTS}) == 60
    for prompt, answer in general.FACTS:
        assert prompt == prompt.strip() and answer == answer.strip() and answer
        assert not prompt.endswith("."), "a finished sentence leaves nothing to say"
        assert answer.lower() not in prompt.lower().split(), "the answer is in the question"
        assert _recalled(f" {answer}.", answer)


def test_samples_do_not_flatter():
    before, after = answers("abcdxx", "abxxxx"), answers("axxxbx", "abxxxx")
    found = evaluation.changed(before, after, {"newly right": 1, "still wrong": 3, "newly wrong": 3})
    assert found.counts == {"newly right": 2, "still wrong": 0, "newly wrong": 2, "still right": 2}
    assert found.shown == [
        ("newly right", "question 2", "x", "c", "x"),
        ("newly wrong", "question 1", "b", "b", "x"),
        ("newly wrong", "question 4", "x", "x", "b"),
    ]
    assert str(found).splitlines()[0] == "newly right 2, still wrong 0, newly wrong 2, still right 2"
    assert evaluation.changed(answers("ab", "xx"), answers("cd", "xx")).counts["still wrong"] == 2


def test_answers_that_cannot_be_marked_are_shown_without_marks():
    long = Answers(["q"] * 5, ["an essay " * 99] * 5, ["text"] * 5, [])
    found = evaluation.changed(long, long)
    cut = ("an essay " * 33)[:297] + "..."
    assert (found.counts, found.shown) == ({}, [("", "q", cut, "text", "text")] * 3)
    assert str(long) == "5 answers, none of which can be marked" and math.isnan(long.share)


def test_one_answer_to_all_questions_is_found():
    expected = ["black", "white", "red", "blue"] * 6
    assert evaluation.one_answer(answers(["black"] * 24, expected)) == ("black", 24, 24)
    assert evaluation.one_answer(answers(["black"] * 13 + ["red"] * 11, expected)) == ("black", 13, 24)
    for mine, wanted in (
        (["black"] * 12 + ["red"] * 12, expected),  # half is not most
        (["black"] * 7, expected[:7]),  # too few to tell
        (["yes"] * 14 + ["no"] * 10, ["yes"] * 8 + ["no"] * 16),  # a leaning towards one of two answers
        (["black"] * 24, ["black"] * 24),
    ):
        assert evaluation.one_answer(answers(mine, wanted)) is None


def test_the_base_fails_in_chat_and_recalls_what_it_read(load, machine):
    model, tokenizer = load()
    asked = evaluation.ask(model, tokenizer, datasets.instructions(48, held_out=True, seed=5))
    kept = evaluation.recall(model, tokenizer, datasets.probes(12, seed=5))
    assert asked.share <= 0.05
    assert kept.share >= 0.9
    assert set(asked.by_skill) == {skill.name for skill in skills.TAUGHT}
    assert set(kept.by_skill) == {skill.name for skill in skills.UNTOUCHED}


@pytest.fixture(scope="module")
def instructions():
    """Rows with a short answer, and between them some with a long one."""
    rows = datasets.instructions(24, held_out=True, seed=5)
    return rows.map(lambda row, n: {"output": "It is\n" + row["output"]} if n % 4 == 3 else row, with_indices=True)


def test_answers_of_any_length_are_measured_and_the_short_ones_asked(load, instructions, monkeypatch):
    model, tokenizer = load()
    found = evaluation.answered(model, tokenizer, instructions, 128)
    turns = instructions.map(instruction.to_prompt_completion, batched=True)
    assert found.likelihood.losses == pytest.approx(
        evaluation.answer_perplexity(model, tokenizer, turns, 128).losses, rel=1e-4
    )
    short = [text for text in instructions["output"] if is_short(text)]
    assert len(short) == 18 and found.asked.expected == short and len(found.likelihood.losses) == 24
    assert found.asked == evaluation.ask(model, tokenizer, instructions.filter(lambda r: r["output"] in short))
    assert found.form["length"] == [*map(len, found.given)] and not any(found.form["stops"])
    assert found.form["one_line"] == ["\n" not in text.strip() for text in found.given]
    lines = str(found).splitlines()
    assert len(lines) == 3 and "24 rows" in lines[0] and "of 18 with a short answer 0 of 18 right" in lines[1]
    assert "stop by themselves" in lines[2]


def test_where_no_answer_is_short_nothing_is_marked(load, instructions):
    model, tokenizer = load()
    long = instructions.map(lambda row: {"output": f"It is\n{row['output']}"})
    found = evaluation.answered(model, tokenizer, long.select(range(4)), 128)
    assert (len(found.given), found.right, found.apart) == (4, [], [])
    made = evaluation.instruction_score(found, found)
    assert (made.metric, made.before, made.chance) == ("perplexity", found.likelihood.perplexity, None)
    assert [one.name for one in made.measures] == ["answer_perplexity", "one_line", "stops", "length"]


def test_what_leaves_no_room_for_an_answer_is_not_asked(load, instructions):
    model, tokenizer = load()
    sizes = [len(tokenizer(models.chat_prompt(tokenizer, n * "Why? "))["input_ids"]) for n in (1, 12, 300)]
    rows = instructions.select(range(3)).map(
        lambda row, n: {"instruction": (1, 12, 300)[n] * "Why? ", "input": ""}, with_indices=True
    )
    found = evaluation.answered(model, tokenizer, rows, sizes[1] + 3)
    assert (len(found.likelihood.losses), len(found.given), found.left_out) == (2, 1, 1)
    assert "2 rows; 1 more are left out, as their question alone fills the length" in str(found)
    with pytest.raises(CourseError, match=r"Of 1 held-out questions none leaves room .* Raise --max-length"):
        evaluation.answered(model, tokenizer, rows.select([2]), 64)


def test_the_score_of_a_healthy_run_has_all_measures(healthy, load):
    model, tokenizer = load()
    length = 128
    before = evaluation.answered(model, tokenizer, healthy.held_out, length)
    after = evaluation.answered(healthy.model, healthy.tokenizer, healthy.held_out, length)
    assert (before.right, after.right) == (healthy.before.right, healthy.after.right)
    made = evaluation.instruction_score(before, after, (before.asked, after.asked))
    found = {one.name: one for one in made.measures}
    assert list(found) == ["answer_perplexity", "told_apart", "one_line", "stops", "length"]
    assert made.judge is found["answer_perplexity"] and made.judge.likelier > 40 and made.judge.better[0] > 0
    assert found["told_apart"].after > 0.9 and found["stops"].before == 0 and found["stops"].after > 0.8
    assert replace(made, measures=()) == score_of_two(before.asked, after.asked, (before.asked, after.asked))
    assert made.after > 0.7 and made.chance < 0.25 and made.above_chance[0] > 0.4
    text = str(made)
    assert text.startswith("answer perplexity, n = 48") and f"{made.judge.likelier} of 48 became likelier" in text
    assert text.splitlines()[-1] == evaluation.smallest_change(48)


def test_pairs_are_of_one_skill_and_of_different_answers():
    known = ["3", "3", "4", "red", "5", "blue"]
    skills = ["add", "add", "add", "colour", "add", "colour"]
    assert asking._pairs(range(6), known, skills) == [(0, 2), (3, 5)]
    assert asking._pairs([], known, []) == []


def test_answers_likelier_where_they_belong_are_told_apart():
    """Also where one answer is far likelier than the other, wherever it stands."""
    own, swapped = [(1.0, 1, 1), (9.0, 1, 1), None, (1.0, 1, 1)], [(9.5, 1, 1), (1.5, 1, 1), None, (1.0, 1, 1)]
    assert asking._apart([(0, 1)], own, swapped[:2]) == [True]
    assert asking._apart([(0, 1)], own, [(8.0, 1, 1), (1.0, 1, 1)]) == [False]
    assert asking._apart([(0, 1), (2, 3)], own, swapped) == [True]
