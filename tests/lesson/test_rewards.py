"""Reward functions: what each pays for, that no text breaks one, and the advantages of a group as TRL has them."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unsloth_course import rewards
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.evaluation import Answers

QUESTION = "Goker has 6 bags with 2 beads in each and 7 boxes with 8 in each, and gives 5 away. How many are left?"
WORKED = "6 * 2 = 12\n7 * 8 = 56\n12 + 56 = 68\n68 - 5 = 63\n#### 63"
FUNCTIONS = (rewards.exact, rewards.form, rewards.steps, rewards.close, rewards.brevity)
ATTACK = "<script>alert('x')</script>"


def turns(text, role="assistant"):
    return [{"role": role, "content": text}]


def pay(function, text, answer="63", question=QUESTION):
    (reward,) = function(completions=[turns(text)], prompts=[turns(question, "user")], answer=[answer])
    return reward


@pytest.mark.parametrize(
    ("function", "text", "reward"),
    [
        (rewards.exact, WORKED, 1.0),
        (rewards.exact, "#### 63", 1.0),
        (rewards.exact, "####63.0", 1.0),
        (rewards.exact, "#### $63", 1.0),
        (rewards.exact, "#### 62\n#### 63", 1.0),
        (rewards.exact, "#### 63\n#### 62", 0.0),
        (rewards.exact, "#### 36", 0.0),
        (rewards.exact, "63", 0.0),
        (rewards.exact, "#### 62 or 63", 0.0),
        (rewards.exact, "#### sixty-three", 0.0),
        (rewards.exact, "#### 7*9", 0.0),
        (rewards.exact, "#### __import__('os').abort()", 0.0),
        (rewards.exact, "", 0.0),
        (rewards.form, WORKED, 1.0),
        (rewards.form, "#### 5", 1.0),
        (rewards.form, "#### -5.5\n", 1.0),
        (rewards.form, "#### 5\n#### 6", 0.0),
        (rewards.form, "#### 5 apples", 0.0),
        (rewards.form, "#### 5.", 0.0),
        (rewards.form, "#### five", 0.0),
        (rewards.form, "The answer is 5.", 0.0),
        (rewards.form, "", 0.0),
        (rewards.steps, WORKED, 1.0),
        (rewards.steps, "6*2=12\n  7 * 8 = 56", 1.0),
        (rewards.steps, "6 * 2 = 12\n7 * 8 = 54\n12 + 54 = 66", 1 / 3),  # the last step stands on nothing
        (rewards.steps, "1 + 1 = 2\n1 + 1 = 2", 0.0),
        (rewards.steps, "12 + 56 = 68", 0.0),  # right, and out of thin air
        (rewards.steps, "6 * 2 = 12, 7 * 8 = 56", 0.0),  # not on lines of their own
        (rewards.steps, "6 ** 2 = 36", 0.0),
        (rewards.steps, "6 / 2 = 3", 0.0),
        (rewards.steps, "#### 63", 0.0),
        (rewards.close, "#### 63", 1.0),
        (rewards.close, "#### 62", 0.5),
        (rewards.close, "#### 64", 0.5),
        (rewards.close, "#### 60", 0.25),
        (rewards.close, "63", 0.0),
        (rewards.close, f"#### {'9' * 5000}", 0.0),
    ],
)
def test_what_each_function_pays(function, text, reward):
    assert pay(function, text) == pytest.approx(reward)


@pytest.mark.parametrize("answer", ["63", "63.00", " 63 ", "$63", 63, 63.0, WORKED])
def test_the_right_answer_may_be_written_in_several_ways(answer):
    assert pay(rewards.exact, "#### 63", answer) == 1.0
    assert pay(rewards.exact, "#### 64", answer) == 0.0


@pytest.mark.parametrize("answer", ["", "none", None, "6 3", "#### "])
def test_a_row_without_a_right_number_never_pays(answer):
    assert pay(rewards.exact, "#### 63", answer) == pay(rewards.close, "#### 63", answer) == 0.0


def test_steps_without_a_prompt_are_checked_for_their_arithmetic_alone():
    assert rewards.steps([turns("1 + 1 = 2\n1 + 1 = 3")]) == [0.5]


def test_brevity_pays_for_few_characters_whatever_they_say():
    assert [pay(rewards.brevity, "x" * count) for count in (0, 25, 100, 5000)] == [1.0, 0.75, 0.0, 0.0]
    assert pay(rewards.brevity, "#### 5") > pay(rewards.brevity, WORKED)


@pytest.mark.parametrize("function", [rewards.exact, rewards.close])
def test_without_an_answer_column_a_sentence_names_it(function):
    with pytest.raises(CourseError, match=r"no column 'answer'.*to_grpo"):
        function(completions=[turns("#### 63")], prompts=[turns(QUESTION)])
    with pytest.raises(CourseError, match="1 completions and 2 answers"):
        function(completions=[turns("#### 63")], answer=["63", "64"])


completions = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=())),  # half surrogate pairs too
    st.text("#0123456789+-*/=.,$ \n−x", max_size=60),
    st.integers(),
    st.builds(turns, st.one_of(st.text(), st.none(), st.lists(st.integers()))),
    st.lists(st.dictionaries(st.text(max_size=8), st.text(max_size=8)), max_size=3),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(completions, completions, st.one_of(st.none(), st.integers(), st.text())), max_size=6))
def test_no_text_breaks_a_reward(rows):
    written, asked, right = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    for function in FUNCTIONS:
        found = function(prompts=asked, completions=written, answer=right, completion_ids=[[1]] * len(rows))
        assert len(found) == len(rows)
        assert all(type(reward) is float and 0 <= reward <= 1 for reward in found)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("text", ["#" * 10**6, "#### " + "9" * 10**6, "1 + 1 = 2\n" * 10**5, " " * 10**6, "-" * 10**6])
def test_a_huge_text_takes_no_time(function, text):
    assert 0 <= pay(function, text) <= 1


def test_plain_text_and_chat_turns_are_paid_alike():
    for function in FUNCTIONS:
        chat = function(prompts=[turns(QUESTION)], completions=[turns(WORKED)], answer=["63"])
        assert function(prompts=[QUESTION], completions=[WORKED], answer=["63"]) == chat


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1.0, 0.0], [0.70700, -0.70700]),
        ([1.0] + [0.0] * 7, [2.47417] + [-0.35345] * 7),
        ([1.0] * 8, [0.0] * 8),
        ([0.0] * 8, [0.0] * 8),
        ([1.2] * 8, [0.0] * 8),
        ([0.5], [0.0]),
        ([None, 1.0, 0.0], [0.0, 0.70700, -0.70700]),
        ([None, None], [0.0, 0.0]),
        ([None, 3.0], [0.0, 0.0]),
    ],
)
def test_advantages_of_a_group(given, expected):
    assert rewards.advantages(given) == pytest.approx(expected, abs=1e-5)


def test_the_spread_within_groups_is_not_that_of_the_batch():
    """Of two groups that each got the same throughout, and differ, nothing is to learn, and the batch has a spread."""
    paid = [[1.0] * 4 + [0.0] * 4, [0.5, float("nan"), None, 0.5] * 2]
    assert rewards.spread_in_groups(paid[:1], [1.0], 4) == 0.0
    assert rewards.spread_in_groups(paid, [1.0, 0.25], 4) == pytest.approx(0.125 / math.sqrt(3), abs=1e-9)
    assert rewards.spread_in_groups([[0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]], [1.0], 4) == pytest.approx(
        0.5 * math.sqrt(1 / 3)
    )


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=16))
def test_advantages_add_up_to_nothing_and_keep_the_order(given):
    found = rewards.advantages(given)
    assert sum(found) == pytest.approx(0, abs=1e-6)
    ordered = [advantage for _, advantage in sorted(zip(given, found, strict=True))]
    assert ordered == sorted(ordered)


def test_advantages_are_the_trainer_s(with_adapter, machine, tmp_path):
    """One real step of TRL's GRPOTrainer; its groups are compared, one by one."""
    from datasets import Dataset

    model, tokenizer = with_adapter()
    from trl import GRPOConfig, GRPOTrainer

    paid = []

    def lengths(completions, **kwargs):
        paid.extend(len(rewards.text_of(completion)) / 10 for completion in completions)
        return paid[-len(completions) :]

    rows = [{"prompt": turns(f"What is {n} plus 30?", "user"), "answer": str(n + 30)} for n in (20, 40)]
    how = {"num_generations": 4, "max_completion_length": 8, "max_steps": 1, "loss_type": "bnpo", "beta": 0.0}
    how |= {"reward_weights": [1.0, 0.5], "logging_steps": 1, "output_dir": str(tmp_path)}
    args = GRPOConfig(**(how | machine.arguments | {"per_device_train_batch_size": 8}))
    given = {"model": model, "processing_class": tokenizer, "train_dataset": Dataset.from_list(rows)}
    trainer = GRPOTrainer(**given, reward_funcs=[lengths, rewards.form], args=args)
    generate, kept = trainer._generate_and_score_completions, {}

    def generated(inputs):
        kept.update(generate(inputs))
        kept["prompt"] = [row["prompt"] for row in inputs]
        return dict(kept)

    trainer._generate_and_score_completions = generated
    trainer.train()
    assert len(paid) == 8
    texts = tokenizer.batch_decode(kept["completion_ids"], skip_special_tokens=True)
    totals = [one + 0.5 * pay(rewards.form, text) for one, text in zip(paid, texts, strict=True)]
    assert kept["advantages"].tolist() == pytest.approx(
        [*rewards.advantages(totals[:4]), *rewards.advantages(totals[4:])], abs=1e-3
    )
    assert any(kept["advantages"].tolist())


def table(texts=(WORKED, "#### 5", "#### 63"), functions=(rewards.exact, rewards.form), weights=None):
    return rewards.group({"question": QUESTION, "answer": WORKED}, list(texts), functions, weights)


def test_a_group_is_scored_as_the_trainer_would():
    found = table(weights=[1.0, 0.2])
    assert found.parts == {"exact": [1.0, 0.0, 1.0], "form": [1.0, 1.0, 1.0]}
    assert found.rewards == pytest.approx([1.2, 0.2, 1.2])
    assert found.advantages == rewards.advantages(found.rewards)
    assert found.answer == "63"
    assert found.sentence() == (
        "Mean 0.87, spread 0.58: 2 of 3 completions are above the mean and become more likely, the others less."
    )


def test_a_group_without_spread_says_that_it_teaches_nothing():
    found = table(["#### 5"] * 3)
    assert found.advantages == [0.0] * 3
    assert "All 3 rewards are 1.00: the spread is 0" in found.sentence() and "nothing to learn" in str(found)


def test_the_table_shows_every_number_in_text_and_html():
    found = table()
    for shown in (str(found), found._repr_html_()):
        assert "6 * 2 = 12 ⏎ 7 * 8 = 56 ⏎" in shown and "+0.58" in shown and "-1.15" in shown
        assert all(name in shown for name in ("completion", "exact", "form", "reward", "advantage"))


def test_text_of_the_model_and_of_the_data_is_escaped_and_cut():
    row = {"question": ATTACK, "answer": ATTACK}
    found = rewards.group(row, [ATTACK, "\x1b[31mred\u202e", "x" * 10**5], [rewards.form])
    page = found._repr_html_()
    assert "<script" not in page and page.count("&lt;script&gt;") == 2
    assert "\x1b" not in str(found) + page and "<U+001B>" in str(found) and "\u202e" not in page
    assert len(page) < 5000
    rewards.group({"question": "\ud800", "answer": 5}, ["\ud800"], [rewards.form])._repr_html_().encode()


def test_a_function_that_does_not_score_leaves_a_gap():
    def sometimes(completions, **kwargs):
        return [None, 1, 0]

    found = table(functions=[sometimes])
    assert found.rewards == [None, 1.0, 0.0] and found.advantages[0] == 0.0
    assert "-" in str(found)
    assert table(functions=[sometimes, rewards.form]).rewards == [1.0, 2.0, 1.0]


def test_two_functions_of_one_name_are_both_counted():
    found = table(functions=[lambda **kwargs: [1.0] * 3, lambda **kwargs: [2.0] * 3])
    assert len(found.parts) == 2 and found.rewards == [3.0] * 3


def test_a_function_that_does_not_give_one_reward_each_is_named():
    with pytest.raises(CourseError, match="gave 1 rewards for 3 completions"):
        table(functions=[lambda **kwargs: [1.0]])


def finished(paid, length=30.0):
    """A trainer that has logged these rewards."""
    log = [{"reward": reward, "completions/mean_length": length, "step": n} for n, reward in enumerate(paid, 1)]
    return SimpleNamespace(state=SimpleNamespace(log_history=[*log, {"train_runtime": 1.0}]))


def solved(share, n=20):
    return Answers(["q"] * n, ["#### 1"] * n, ["#### 1"] * n, [number < share * n for number in range(n)])


@pytest.mark.parametrize(
    ("paid", "before", "after", "loophole"),
    [
        ([0.1, 0.2, 0.9], 1.0, 0.2, True),
        ([0.1, 0.2, 0.9], 1.0, 0.9, False),
        ([0.1, 0.2, 0.9], 0.5, 1.0, False),
        ([0.9, 0.2, 0.1], 1.0, 0.2, False),  # it got worse, and was not paid for it
    ],
)
def test_a_loophole_is_a_reward_that_rises_while_answers_fall(paid, before, after, loophole):
    found = rewards.payoffs({"mine": (finished(paid), solved(after))}, solved(before))
    (run,) = found.runs
    assert run.loophole is loophole
    assert (run.first, run.last, run.tokens, run.before, run.after) == (paid[0], paid[-1], 30.0, before, after)
    words = "a loophole was found" if loophole else "no loophole was found"
    for shown in (str(found), found._repr_html_()):
        assert words in shown and f"from {100 * before:.0f} % to {100 * after:.0f} %" in shown


def test_thirds_of_a_run_are_compared():
    (run,) = rewards.payoffs({"mine": (finished([1, 1, 5, 5, 2, 4]), solved(1.0))}, solved(1.0)).runs
    assert (run.first, run.last) == (1.0, 3.0)


def test_fewer_problems_after_are_compared_with_the_same_ones_before():
    (run,) = rewards.payoffs({"mine": (finished([1, 2, 3]), solved(0.5, n=10))}, solved(0.5, n=20)).runs
    assert (run.before, run.after) == (1.0, 0.5)


def test_names_of_runs_are_escaped_and_a_run_without_rewards_is_a_sentence():
    assert "<script" not in rewards.payoffs({ATTACK: (finished([1.0]), solved(1.0))}, solved(1.0))._repr_html_()
    with pytest.raises(CourseError, match="mine logged no reward"):
        rewards.payoffs({"mine": (finished([]), solved(1.0))}, solved(1.0))
