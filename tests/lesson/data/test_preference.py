"""The preference shape: its three forms, what is set aside and why, and what the trainer is given."""

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from unsloth_course import models
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import dividing, pairs, preference, reading
from unsloth_course.lesson.data.control import Control
from unsloth_course.lesson.data.pairs import conversation
from unsloth_course.lesson.data.preference import load

ORCA = {"system": "", "question": "What is 3 + 4?", "chosen": "It is 7.", "rejected": "7"}
TEXT = {"prompt": "What is 3 + 4?", "chosen": "It is 7.", "rejected": "7"}
USER = {"role": "user", "content": "What is 3 + 4?"}
MADE = {"prompt": [USER], "chosen": "It is 7.", "rejected": "7"}


def said(role, content):
    return {"role": role, "content": content}


CHAT = {"prompt": [USER], "chosen": [said("assistant", "It is 7.")], "rejected": [said("assistant", "7")]}
ASKED = "\n\nHuman: What is 3 + 4?\n\nAssistant:"
NESTED = {"chosen": f"{ASKED} It is 7.", "rejected": f"{ASKED} 7"}
WHOLE = {column: [USER, said("assistant", MADE[column])] for column in pairs.ANSWERS}
FORMS = {"orca": ORCA, "text": TEXT, "chat": CHAT, "nested": NESTED, "whole": WHOLE}


def reason(row, good=MADE):
    """Why a row is set aside, and that it alone is."""
    checked = load([good, row], name="mine")
    assert checked.dataset.to_list() == [MADE]
    (aside,) = checked.set_aside
    assert (aside.file, aside.row) == ("mine", 2)
    return aside.reason


# The forms


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_row(form):
    for source in ([FORMS[form]] * 2, Dataset.from_list([FORMS[form]] * 2)):
        checked = load(source)
        assert checked.dataset.column_names == list(pairs.COLUMNS)
        assert checked.dataset.to_list() == [MADE, MADE]
        assert checked.set_aside == [] and checked.unused_columns == []


def test_forms_may_be_mixed_and_the_order_stays():
    assert load(list(FORMS.values())).dataset.to_list() == [MADE] * len(FORMS)


def test_what_is_loaded_can_be_loaded_again():
    dataset = load([ORCA | {"system": "Be brief."}, NESTED]).dataset
    assert load(dataset).dataset.to_list() == dataset.to_list()


@pytest.mark.parametrize("system", ["Be brief.", " Be brief.\n"])
def test_a_system_prompt_is_a_turn_of_its_own(system):
    assert load([ORCA | {"system": system}]).dataset["prompt"][0] == [said("system", system), USER]


@pytest.mark.parametrize("system", ["", " \n", None, float("nan")])
def test_no_system_prompt_is_no_turn(system):
    assert load([ORCA | {"system": system}]).dataset["prompt"][0] == [USER]
    assert load([{key: value for key, value in ORCA.items() if key != "system"}]).dataset["prompt"][0] == [USER]


def test_an_empty_system_turn_stays_because_it_silences_the_template_s_own():
    prompt = [said("system", ""), USER]
    assert load([CHAT | {"prompt": prompt}]).dataset["prompt"][0] == prompt


def test_what_was_not_read_is_named():
    row = ORCA | {"id": 7, "generations": ["a"]}
    assert load([row]).unused_columns == ["id", "generations"]
    turn = said("assistant", "It is 7.")
    checked = load([CHAT | {"chosen": [turn | {"name": "Ada", "tool_calls": None}], "score": 1.0}])
    assert checked.unused_columns == ["chosen: name", "score"]
    assert load([TEXT | {"mood": "Be brief."}]).unused_columns == ["mood"]
    assert load([ORCA | {"sytem": "Be brief."}]).unused_columns == ["sytem"]
    checked = load([{"id": 1} | NESTED, WHOLE | {"score_chosen": 8.5}])
    assert checked.dataset.to_list() == [MADE] * 2 and checked.unused_columns == ["id", "score_chosen"]


# The nested form


def test_a_long_history_is_the_prompt():
    history = "\n\nHuman: Hello.\n\nAssistant: Hello.\n\nHuman: And then?\n\nAssistant:"
    (row,) = load([{"chosen": f"{history} One.", "rejected": f"{history} Two.\n\nThree."}]).dataset
    assert row["prompt"] == [said("user", "Hello."), said("assistant", "Hello."), said("user", "And then?")]
    assert (row["chosen"], row["rejected"]) == ("One.", "Two.\n\nThree.")


@pytest.mark.parametrize("form", ["text", "turns"])
def test_histories_that_differ_are_set_aside(form):
    row = {"chosen": "\n\nHuman: A\n\nAssistant: one", "rejected": "\n\nHuman: B\n\nAssistant: two"}
    longer = {**row, "rejected": "\n\nHuman: A\n\nAssistant: one\n\nHuman: B\n\nAssistant: two"}
    for bad in (row, longer):
        if form == "turns":
            bad = {column: conversation(text) for column, text in bad.items()}
        assert reason(bad) == "the histories before the two answers differ"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ASKED, "ends in an empty answer"),
        (f"{ASKED} \n", "ends in an empty answer"),
        (f"{ASKED} 7\n\nHuman: Thanks.", "does not end in an answer of the assistant"),
        ("\n\nHuman: What is 3 + 4?", "does not end in an answer of the assistant"),
        ("7", "does not begin with a blank line and 'Human:', and it has no prompt"),
        ("Human: What is 3 + 4?\n\nAssistant: 7", "does not begin with a blank line and 'Human:'"),
        ("\n\nAssistant: 7", "does not begin with a blank line and 'Human:'"),
        ("Note" + ASKED + " 7", "does not begin with a blank line and 'Human:'"),
        ("", "is empty"),
        (None, "is empty"),
    ],
)
@pytest.mark.parametrize("column", pairs.ANSWERS)
def test_what_is_no_conversation_with_an_answer_is_set_aside(column, text, words):
    assert reason(NESTED | {column: text}).startswith(f"column '{column}' {words}")


def test_a_prompt_has_to_end_with_the_user():
    doubled = "\n\nHuman: A\n\nAssistant: one\n\nAssistant:"
    row = {"chosen": f"{doubled} two", "rejected": f"{doubled} three"}
    assert reason(row) == "column 'chosen': the prompt does not end in a turn of the user"
    alone = {column: [said("assistant", column)] for column in pairs.ANSWERS}
    assert reason(alone) == "column 'chosen' has no prompt"


def test_an_empty_turn_in_the_history_is_set_aside():
    start = "\n\nHuman:\n\nAssistant: What?\n\nHuman: 3 + 4\n\nAssistant:"
    assert reason({"chosen": f"{start} 7", "rejected": f"{start} 8"}) == "column 'chosen, turn 1' is empty"


def test_a_text_beside_turns_is_set_aside():
    row = {"chosen": NESTED["chosen"], "rejected": WHOLE["rejected"]}
    assert reason(row) == "of 'chosen' and 'rejected' one is text and the other a list of turns"


def joined(turns):
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in turns)


spoken = (
    st.text("aHumnAsit: \n", min_size=1)
    | st.text(min_size=1)
    | st.lists(st.sampled_from(["Human:", "Assistant:", "\n", " ", "\n\nhuman:", "<"]), min_size=1).map("".join)
)
contents = spoken.map(str.strip).filter(
    lambda text: text and not any(mark in text for mark in ("\n\nHuman:", "\n\nAssistant:"))
)
conversations = st.lists(contents, min_size=2, max_size=8).map(
    lambda texts: [said("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]
)


@given(conversations)
def test_split_and_join_is_the_identity(turns):
    assert conversation(joined(turns)) == turns
    assert joined(conversation(joined(turns))) == joined(turns)


@settings(max_examples=50)
@given(conversations.filter(lambda turns: len(turns) % 2 == 0), contents)
def test_a_nested_row_is_what_it_was_made_of(turns, other):
    *history, answer = turns
    row = {"chosen": joined(turns), "rejected": joined([*history, said("assistant", other)])}
    try:
        (loaded,) = reading.load([row], "preference", control_tokens=Control(())).dataset
    except CourseError as error:
        assert answer["content"] == other and "'chosen' and 'rejected' are the same" in str(error)
    else:
        assert loaded == {"prompt": history, "chosen": answer["content"], "rejected": other}


@given(st.text() | st.lists(st.sampled_from(["\n\nHuman:", "\n\nAssistant:", "\n", " ", "a"])).map("".join))
def test_any_text_is_a_conversation_or_none(text):
    turns = conversation(text)
    assert turns is None or turns[0]["role"] == "user"


@pytest.mark.parametrize("text", ["\n" * 10**6, ASKED * 10**5, "\n\nHuman" * 10**5])
def test_a_huge_text_is_split_at_once(text):
    turns = conversation(text)
    assert turns is None or len(turns) == 2 * 10**5


# What else is set aside


@pytest.mark.parametrize("column", pairs.COLUMNS)
def test_empty_turns_are_set_aside(column):
    assert reason(CHAT | {column: []}) == f"column '{column}' is empty"
    for nothing in ("", " \n"):
        words = "is empty" if column == "prompt" else "ends in an empty answer"
        assert reason(CHAT | {column: [CHAT[column][0] | {"content": nothing}]}) == f"column '{column}' {words}"


@pytest.mark.parametrize("same", ["7", " 7", "7\n"])
def test_two_answers_that_are_the_same_are_set_aside(same):
    for form, value in (("orca", same), ("chat", [said("assistant", same)]), ("nested", f"{ASKED} {same}")):
        assert reason(FORMS[form] | {"chosen": value}) == "'chosen' and 'rejected' are the same"


@pytest.mark.parametrize("spoilt", ["a<|im_start|>", "\ud800"])
def test_they_are_found_in_every_turn_and_form(spoilt):
    history = [said("user", "Hello."), said("assistant", f"Hello. {spoilt}"), USER]
    assert reason(CHAT | {"prompt": history}).startswith("column 'prompt, turn 2' contains")
    for column in pairs.ANSWERS:
        assert reason(CHAT | {column: [said("assistant", spoilt)]}).startswith(f"column '{column}' contains")
        assert reason(NESTED | {column: f"{ASKED} {spoilt}"}).startswith(f"column '{column}' contains")
    asked = joined([said("user", spoilt)])
    row = {column: f"{asked}\n\nAssistant: {column}" for column in pairs.ANSWERS}
    assert reason(row).startswith("column 'chosen' contains")


@pytest.mark.parametrize("role", ["tool", "Users", "", "user<|im_end|>", "\ud800"])
def test_a_role_that_no_template_has_to_know_is_set_aside(role):
    words = reason(CHAT | {"prompt": [USER, said(role, "x")]})
    words.encode()
    assert words.startswith("column 'prompt': turn 2 has the role")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"prompt": [USER, said("assistant", "Well")]},
            "column 'prompt': the prompt does not end in a turn of the user",
        ),
        ({"prompt": [said("system", "Be brief.")]}, "column 'prompt': the prompt does not end in a turn of the user"),
        ({"chosen": [USER]}, "column 'chosen' does not end in an answer of the assistant"),
        (
            {"rejected": [said("user", "Another"), said("assistant", "8")]},
            "column 'rejected' holds turns before the answer that are not the prompt",
        ),
        (
            {"chosen": [said("assistant", "7"), said("assistant", "8")]},
            "column 'chosen' holds turns before the answer that are not the prompt",
        ),
    ],
)
def test_turns_that_are_no_prompt_with_one_answer_are_set_aside(change, words):
    assert reason(CHAT | change) == words


# Columns and values


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "Q", "choosen": "a", "rejected": "b"}, "Did you mean 'chosen' by 'choosen'? Rename it."),
        ({"Prompt": "Q", "chosen": "a", "rejected": "b"}, "Did you mean 'prompt' by 'Prompt'?"),
        ({"questions": "Q", "chosen": "a", "rejected": "b"}, "Did you mean 'question' by 'questions'?"),
        ({"sytem": "S", "question": "Q", "chosen": "a", "rejected": "b"}, "Did you mean 'system' by 'sytem'?"),
        ({"prompt": "Q", "chosen": "a", "reject": "b"}, "Did you mean 'rejected' by 'reject'?"),
        ({"chosen": "a"}, "column 'rejected': this column is missing. It has 'chosen'."),
        ({"text": "Q", "chosen": "a", "rejected": "b"}, "column 'prompt': this column is missing. It has"),
        ({"id": 1, "chosen": "a", "rejected": "b"}, "or let 'chosen' and 'rejected' be whole conversations."),
        ({"id": 1} | NESTED | {"rejected": "b"}, "or let 'chosen' and 'rejected' be whole conversations."),
        (CHAT | {"prompt": ["Q"]}, "column 'prompt': turn 1 is text, not an object"),
        (CHAT | {"prompt": [USER, None]}, "column 'prompt': turn 2 is null, not an object"),
        (CHAT | {"chosen": [{"role": "assistant"}]}, "column 'chosen': turn 1 has no 'content'"),
        (CHAT | {"chosen": [{}]}, "column 'chosen': turn 1 has no 'role' or 'from'; it has nothing"),
        (CHAT | {"prompt": [said("user", ["Q"])]}, "column 'prompt': turn 1 has a list as 'content', not text"),
        (CHAT | {"prompt": [said(1, "Q")]}, "column 'prompt': turn 1 has the role a number"),
    ],
)
def test_a_row_that_cannot_be_read_is_set_aside(row, words):
    assert words in reason(row)


# For the trainer


def test_the_trainer_gets_three_columns_of_turns():
    rows = load([ORCA | {"system": "Be brief."}, NESTED]).dataset
    made = rows.map(preference.to_chat, batched=True, remove_columns=rows.column_names)
    assert made.to_list() == [CHAT | {"prompt": [said("system", "Be brief."), USER]}, CHAT]


def test_a_batch_without_the_columns_is_a_sentence():
    with pytest.raises(CourseError, match=r"no column 'chosen'; it has 'prompt'\. Give it to load"):
        preference.to_chat({"prompt": [[USER]]})


def test_a_question_is_known_by_the_whole_prompt():
    longer = f"{ASKED} 7\n\nHuman: And 4 + 4?\n\nAssistant:"
    rows = [
        ORCA,
        ORCA | {"system": "Be brief.", "question": " WHAT is\n3 + 4? "},
        {"chosen": f"{longer} It is 8.", "rejected": f"{longer} 8"},
        ORCA | {"question": "What is 4 + 4?"},
    ]
    first, second, third, fourth = dividing.keys(load(rows).dataset, "preference")
    assert first == third and len({first, second, fourth}) == 3  # the third goes on from the first
    assert dividing.keys(load([ORCA | {"question": "WHAT  is\n3 + 4? "}]).dataset, "preference") == [first]


@pytest.mark.slow
def test_pairs_whose_prompt_leaves_no_room_are_left_out(tokenizer):
    pairs = load([TEXT, {**TEXT, "prompt": "What is 3 + 4? " * 9}]).dataset
    fits = len(models.in_chat_form(tokenizer, [USER], add_generation_prompt=True, return_dict=True)["input_ids"]) + 5
    kept, told = preference.fitting(pairs, tokenizer, fits, room=5)
    assert kept[:] == pairs.select([0])[:]
    assert (
        told
        == f"1 of 2 pairs are left out: their prompt leaves no room for 5 tokens of an answer within {fits} tokens."
    )
    assert preference.fitting(pairs, tokenizer, 500, room=5)[0] is pairs
    with pytest.raises(CourseError, match=r"All 2 prompts leave no room for 6 tokens .* Raise the row length"):
        preference.fitting(pairs, tokenizer, fits, room=6)
