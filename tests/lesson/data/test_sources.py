"""Where rows come from, and that the test never asks what the training answered."""

import json
import os
import platform

import pytest
from datasets import Dataset

from unsloth_course.core import hub
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import profile
from unsloth_course.lesson.data import corpus, dividing, instruction, pairs, shapes, sources
from unsloth_course.lesson.machine import Machine
from unsloth_course.lesson.profile import HUB_DATA
from unsloth_course.pocket.english import is_short

CPU = Machine(cuda_name=None, cuda_bytes=0, bfloat16=False, cores=2, memory_bytes=8 * 2**30, apple_silicon=False)


def row(number, output=None, **changes):
    return {
        "instruction": f"What is {number}?",
        "input": "",
        "output": str(number) if output is None else output,
    } | changes


def pair(number, **changes):
    texts = {"question": f"What is {number}?", "chosen": f"It is {number}.", "rejected": str(number)}
    return {"system": ""} | texts | changes


def talk(*said):
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]


def words(number):
    return f"Text number {number}."


def questions(rows):
    return [instruction.question(*pair).casefold() for pair in zip(rows["instruction"], rows["input"], strict=True)]


def both_ask(train, held_out, shape):
    return set(dividing.keys(train, shape)) & set(dividing.keys(held_out, shape))


@pytest.fixture
def file_of(tmp_path):
    def write(rows, name="rows.json"):
        path = tmp_path / name
        text = "\n".join(map(json.dumps, rows)) if name.lower().endswith("l") else json.dumps(rows)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


# Rows that are made here


@pytest.mark.parametrize("source", ["pocket", "english"])
@pytest.mark.parametrize(
    ("read", "shape", "columns"),
    [
        (sources.instructions, "instruction", shapes.INSTRUCTION),
        (sources.preferences, "preference", pairs.COLUMNS),
        (sources.problems, "problems", shapes.PROBLEM),
        (sources.corpus, "text", ("text",)),
    ],
)
def test_made_rows_have_the_columns_of_each_lesson_and_the_test_is_always_the_same(
    monkeypatch, source, read, shape, columns
):
    monkeypatch.setattr(hub, "fetch_dataset", pytest.fail)
    train, held_out, checked = read(source, train=60, held_out=30, seed=1)
    again, other = (read(source, train=60, held_out=30, seed=seed) for seed in (1, 2))
    assert train.column_names == held_out.column_names == list(columns)
    assert (len(train), len(held_out), len(checked.dataset), checked.set_aside) == (60, 30, 60, [])
    assert held_out.to_dict() == again[1].to_dict() == other[1].to_dict()
    assert train.to_dict() == again[0].to_dict() != other[0].to_dict()
    many = read(source, train=1000, held_out=200, seed=3407)
    assert (len(many[0]), len(many[1])) == (1000, 200) and not both_ask(*many[:2], shape)


def test_the_report_says_of_which_python_the_functions_are():
    found = [str(sources.corpus(name, train=9, held_out=3, seed=1)[2]) for name in ("english", "pocket")]
    assert f"functions of the library of Python {platform.python_version()}" in found[0] and "Python" not in found[1]


def test_beside_a_real_models_domain_stands_the_library_that_the_course_made_up():
    found, _ = sources.domains(profile.decide(CPU, model="smollm2", data="english"), 40, 20, 1)
    unread = sources.corpus("pocket", 40, 20, 1)
    assert [side.to_dict() for side in found["unread"]] == [side.to_dict() for side in unread[:2]]
    assert set(found["domain"][0]["text"]).isdisjoint(unread[0]["text"])


@pytest.mark.parametrize("name", ["english", "smollm2"])
def test_general_text_without_the_hub_is_prose_of_pythons_documentation(monkeypatch, name):
    monkeypatch.setattr(hub, "fetch_dataset", pytest.fail)
    train, held_out = sources.general_text(name, train=1000, held_out=40, seed=1)
    again = sources.general_text(name, train=90, held_out=40, seed=2)
    assert len(train) > 300 and len(again[0]) == 90 and held_out.to_dict() == again[1].to_dict()
    assert not both_ask(train, held_out, "text")
    assert all(len(text) >= 150 and "::" not in text for text in [*train["text"], *held_out["text"]])


def test_what_a_real_model_knows_is_read_as_whole_turns_and_asked_as_prompts(tokenizer):
    machine = profile.decide(CPU, model="smollm2", data="english")
    train, held_out = sources.known(machine, 30, 20, 1, tokenizer)
    rows, asked, _ = sources.instructions("english", 30, 20, 1)
    assert train.column_names == ["text"] and len(train) == 30
    for text, question, answer in zip(train["text"], rows["instruction"], rows["output"], strict=True):
        assert text.index(question) < text.index(answer) and text.count("<|im_end|>") == text.count("<|im_start|>")
    assert [row["completion"][0]["content"] for row in held_out] == list(asked["output"])
    read = corpus.blocks(train["text"], tokenizer, 8, control_tokens=True).dataset["input_ids"]
    assert sum(block.count(tokenizer.eos_token_id) for block in read) >= 2 * 30 - 1  # the last block may be cut


# Files


SPLIT = {
    "instruction": (sources.instructions, lambda n, text: row(n, instruction=text), row(99, "")),
    "problems": (sources.problems, lambda n, text: {"question": text, "answer": f"#### {n}"}, {"question": "Q"}),
    "preference": (sources.preferences, lambda n, text: pair(n, question=text), pair(99, chosen="99")),
    "conversations": (sources.conversations, lambda n, text: {"messages": talk(text, str(n))}, {"messages": 3}),
    "text": (sources.corpus, lambda n, text: {"text": text}, {"text": " "}),
}


def asked(row):
    said = row.get("instruction") or row.get("question") or row.get("text") or row["prompt"][-1]["content"]
    return " ".join(said.split()).casefold()


@pytest.mark.parametrize("name", ["rows.json", "ROWS.JSONL"])
@pytest.mark.parametrize("shape", SPLIT)
def test_a_file_is_checked_and_split_by_what_is_asked_and_the_seed_leaves_the_test_alone(file_of, shape, name):
    """What differs in capitals and white space alone stays on one side."""
    read, made, spoilt = SPLIT[shape]
    rows = [made(n, text.format(n)) for n in range(41) for text in ("What is {}?", " WHAT IS  {}? ", "what\nis {}?")]
    path = file_of([*rows, spoilt], name)
    found = [read(path, train=15, held_out=10, seed=seed) for seed in (1, 2, 1)]
    assert [(len(train), len(held_out)) for train, held_out, _ in found] == [(15, 10)] * 3
    assert found[0][1].to_dict() == found[1][1].to_dict()
    assert found[0][0].to_dict() == found[2][0].to_dict() != found[1][0].to_dict()
    train, held_out, checked = read(path, train=1000, held_out=1000, seed=1)
    assert [(aside.file, aside.row) for aside in checked.set_aside] == [(path, 124)]
    sides = [set(map(asked, side)) for side in (train, held_out)]
    assert [len(side) for side in sides] == [21, 20] and sides[0] | sides[1] == {f"what is {n}?" for n in range(41)}
    same = "ask what the test asks|begin with the same question|are the same text"
    with pytest.raises(CourseError, match=rf"(?i)rows\.jsonl?: all \d \w+ ({same}).*Add rows"):
        read(file_of(rows[:2], name), train=5, held_out=5, seed=1)


def test_the_input_belongs_to_the_question(file_of):
    rows = [row(n, instruction="Count one further.", input=str(n)) for n in range(40)]
    train, held_out, _ = sources.instructions(file_of(rows), train=1000, held_out=10, seed=1)
    assert (len(train), len(held_out)) == (30, 10)


@pytest.mark.parametrize(
    ("short", "held_out", "marked"), [(20, 30, 10), (20, 10, 5), (3, 30, 2), (0, 30, 0), (60, 9, 9)]
)
def test_every_other_held_out_answer_is_short_as_long_as_as_many_are_left_to_learn_from(
    file_of, short, held_out, marked
):
    essays = [row(n, f"An essay about {n}. " * 5 if n % 2 else f"{n}\n{n}") for n in range(60 - short)]
    path = file_of(essays + [row(100 + n) for n in range(short)])
    train, test, _ = sources.instructions(path, train=1000, held_out=held_out, seed=1)
    answers = [text for text in test["output"] if is_short(text)]
    assert (len(train), len(test), len(answers)) == (60 - held_out, held_out, marked)
    first = sources.instructions(path, train=1000, held_out=held_out // 2, seed=2)[1]
    assert list(first["output"]) == list(test["output"])[: held_out // 2]
    assert not set(questions(train)) & set(questions(test))


@pytest.mark.parametrize(
    ("read", "name"),
    [(sources.instructions, f"nowhere.{ending}") for ending in ("json", "jsonl.gz")]
    + [(sources.corpus, f"nowhere.{ending}") for ending in ("txt", "md", "py", "jsonl")],
)
def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(monkeypatch, read, name):
    monkeypatch.setattr(hub, "fetch_dataset", pytest.fail)
    with pytest.raises(CourseError, match=f"There is no file {name}"):
        read(name, train=10, held_out=5, seed=1)


def test_a_file_of_another_kind_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "fetch_dataset", pytest.fail)
    path = tmp_path / "rows.xml"
    path.write_text("<rows/>")
    with pytest.raises(CourseError, match=r"rows\.xml has none of the endings"):
        sources.instructions(str(path), train=10, held_out=5, seed=1)
    (tmp_path / "note.txt").write_text("Raw text.")
    with pytest.raises(CourseError, match="form text, which cannot be read as instruction"):
        sources.instructions(str(tmp_path), train=10, held_out=5, seed=1)


# The Hub


@pytest.mark.parametrize(
    ("read", "name", "made", "column", "board"),
    [
        (sources.instructions, HUB_DATA["lora"], row, "output", 240),
        (sources.preferences, HUB_DATA["dpo"], pair, "rejected", 120),
    ],
)
def test_what_the_scoreboard_asks_is_never_trained_on_however_few_a_run_tests(
    monkeypatch, read, name, made, column, board
):
    """The battery asks those of the first held-out rows of the lesson's own set that it can mark."""
    fetched = []
    rows = Dataset.from_list([made(n) for n in range(1000)])
    monkeypatch.setattr(hub, "fetch_dataset", lambda name: fetched.append(name) or rows)
    kept_back = set(read(name, train=1, held_out=board, seed=1)[1][column])
    for held_out in (5, 300):
        train, test, _ = read(name, train=10_000, held_out=held_out, seed=2)
        assert len(test) == held_out and len(train) == 1000 - max(dividing.RESERVED, held_out)
        assert len(kept_back) == board and not kept_back & set(train[column])
    assert set(fetched) == {name}
    assert len(read("somebody/else", train=10_000, held_out=5, seed=2)[0]) == 995


# Preferences


def test_nested_conversations_of_one_beginning_stay_on_one_side(file_of):
    rows = []
    for n in range(30):
        start = f"\n\nHuman: Question {n}\n\nAssistant:"
        longer = f"{start} Well.\n\nHuman: And?\n\nAssistant:"
        rows += [{"chosen": f"{text} yes", "rejected": f"{text} no"} for text in (start, longer)]
    train, held_out, _ = sources.preferences(file_of(rows, "rows.jsonl"), train=1000, held_out=15, seed=1)
    begun = [{turns[0]["content"] for turns in side["prompt"]} for side in (train, held_out)]
    assert len(held_out) == 15 and begun[0] | begun[1] == {f"Question {n}" for n in range(30)}
    assert not begun[0] & begun[1]


# Raw text


def test_a_folder_of_texts_is_split_and_its_doubles_stay_on_one_side(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text(words(number))
        (tmp_path / f"{number}-again.md").write_text(words(number).upper() + "\n\n")
    (tmp_path / "empty.txt").write_text("")
    found = [sources.corpus(str(tmp_path), train=1000, held_out=10, seed=seed) for seed in (1, 2)]
    (train, held_out, checked), (other, same, _) = found
    assert (len(train), len(held_out), len(checked.set_aside)) == (20, 10, 1)
    assert checked.split.startswith("rows to learn from: 20, to test on: 10, left out: 30 (")
    plain = [{" ".join(text.split()).casefold() for text in side["text"]} for side in (train, held_out)]
    assert (len(plain[0]), len(plain[1])) == (20, 10) and not plain[0] & plain[1]
    assert held_out.to_dict() == same.to_dict() and train.to_dict() != other.to_dict()
    assert sorted(train["text"]) == sorted(other["text"])
    assert len(sources.corpus(str(tmp_path), train=7, held_out=10, seed=1)[0]) == 7


def test_a_few_long_texts_are_cut_into_passages(tmp_path):
    (tmp_path / "book.txt").write_text("".join(f"Line {number} of the book.\n" for number in range(2000)))
    (tmp_path / "note.md").write_text("short")
    train, held_out, checked = sources.corpus(str(tmp_path), train=1000, held_out=10, seed=1)
    assert (len(checked.dataset), len(held_out)) == (2, 10) and len(train) > 30
    assert not set(train["text"]) & set(held_out["text"])
    assert sum(map(len, [*train["text"], *held_out["text"]])) == sum(map(len, checked.dataset["text"]))
    assert max(map(len, train["text"])) < 2000


@pytest.mark.parametrize("column", ["code", "original_string"])
def test_texts_of_the_hub_leave_out_what_the_scoreboard_asks(monkeypatch, column):
    rows = Dataset.from_list([{"docstring": "d", column: f"def f{n}(): pass"} for n in range(1000)])
    wanted = []
    monkeypatch.setattr(hub, "fetch_dataset", lambda name, files: wanted.append((name, files)) or rows)
    monkeypatch.setattr(sources, "HUB_TEXTS", 500)
    asked = set(sources.corpus(HUB_DATA["cpt"], train=1, held_out=120, seed=1)[1]["text"])
    assert len(asked) == 120
    for train, held_out, checked_texts, left in ((10, 5, 500, 10), (350, 120, 1000, 350), (10_000, 5, 1000, 760)):
        learned, test, checked = sources.corpus(HUB_DATA["cpt"], train=train, held_out=held_out, seed=2)
        assert (len(learned), len(test), len(checked.dataset)) == (left, held_out, checked_texts)
        assert not asked & set(learned["text"]) and set(test["text"]) <= asked
        assert checked.unused_columns == ["docstring"] or checked.unused_columns == []
    assert set(wanted) == {(HUB_DATA["cpt"], ("python/validation-*.parquet",))}


# Any form, from any file


def as_file(folder, rows, ending):
    import csv
    import gzip

    import pyarrow
    from pyarrow import parquet

    path = folder / f"rows{ending}"
    if ending == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif ending == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif ending == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if ending == ".jsonl.gz" else text)
    return str(path)


ENDINGS = (".json", ".jsonl", ".jsonl.gz", ".csv", ".parquet")


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, ending):
    cases = [
        (sources.instructions, [row(n) for n in range(30)] + [row(40, "")]),
        (sources.problems, [{"question": f"{n}?", "answer": f"#### {n}"} for n in range(31)]),
        (sources.preferences, [pair(n) for n in range(30)] + [pair(40, chosen="40")]),
        (sources.corpus, [{"text": words(n)} for n in range(30)] + [{"text": " "}]),
        (sources.conversations, [{"prompt": f"{n}?", "completion": str(n)} for n in range(31)]),
    ]
    for number, (read, rows) in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        lines = read(as_file(tmp_path / str(number), rows, ".jsonl"), train=12, held_out=9, seed=1)
        found = read(as_file(tmp_path / str(number), rows, ending), train=12, held_out=9, seed=1)
        assert [side.to_dict() for side in found[:2]] == [side.to_dict() for side in lines[:2]]
        assert (len(found[0]), len(found[1])) == (12, 9)
        assert len(found[2].dataset) + len(found[2].set_aside) == 31


def test_the_shape_that_is_wanted_decides_between_two_forms(tmp_path):
    both = [row(n) | {"messages": talk(f"{n}?", "one", "and?", "two")} for n in range(20)]
    path = as_file(tmp_path, both, ".jsonl")
    assert len(sources.instructions(path, train=99, held_out=5, seed=1)[0]) == 15
    assert len(sources.conversations(path, train=99, held_out=10, seed=1)[0]) == 30


@pytest.mark.parametrize(
    "made",
    [
        lambda n: {"question": f"{n}?", "answer": f"#### {n}"},
        lambda n: {"prompt": f"{n}?", "completion": f"#### {n}"},
        lambda n: {"messages": talk(f"{n}?", f"#### {n}")},
        lambda n: {"conversations": [{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": f"#### {n}"}]},
        lambda n: {"instruction": f"{n}?", "input": "", "output": f"#### {n}"},
        lambda n: {"system": "", "chat": f"USER: {n}?\n\n\nASSISTANT: #### {n} <|endoftext|>"},
    ],
    ids=["problems", "prompt-completion", "messages", "sharegpt", "alpaca", "glaive"],
)
def test_each_form_of_a_question_with_an_answer_trains_each_task(tmp_path, made):
    path = as_file(tmp_path, [made(n) for n in range(20)] + [made(20) | {"note": "x"}], ".jsonl")
    asked, held_out, checked = sources.instructions(path, train=99, held_out=5, seed=1)
    assert sorted([*asked["instruction"], *held_out["instruction"]]) == sorted(f"{n}?" for n in range(21))
    assert checked.unused_columns == ["note"]
    solved, held_out, _ = sources.problems(path, train=99, held_out=5, seed=1)
    assert {row["question"][:-1]: row["answer"] for row in solved} == {
        row["question"][:-1]: f"#### {row['question'][:-1]}" for row in solved
    }
    spoken, held_out, _ = sources.conversations(path, train=99, held_out=5, seed=1)
    assert (len(solved), len(spoken), len(held_out)) == (16, 16, 5)
    assert all(row["completion"][0]["content"] == "#### " + row["prompt"][0]["content"][:-1] for row in spoken)


def test_anthropic_pairs_are_preferences_and_conversations(tmp_path):
    rows = [
        {"chosen": f"\n\nHuman: {n}?\n\nAssistant: yes {n}", "rejected": f"\n\nHuman: {n}?\n\nAssistant: no"}
        for n in range(20)
    ]
    path = as_file(tmp_path, [*rows, rows[0] | {"rejected": rows[0]["chosen"]}], ".jsonl.gz")
    train, held_out, checked = sources.preferences(path, train=99, held_out=5, seed=1)
    assert (len(train), len(held_out), len(checked.set_aside)) == (15, 5, 1)
    assert sources.kind(path) == "preference"
    spoken = sources.conversations(path, train=99, held_out=5, seed=1)[0]
    assert all(row["completion"][0]["content"].startswith("yes ") for row in spoken)


def test_rows_that_do_not_fit_the_shape_are_set_aside_with_a_reason(tmp_path):
    rows = [{"messages": talk(f"{n}?", f"#### {n}")} for n in range(9)]
    rows += [{"messages": talk("a?", "b", "c?", "d")}, {"messages": talk("a?", "no number")}, {"messages": 3}]
    checked = sources.problems(as_file(tmp_path, rows, ".jsonl"), train=9, held_out=3, seed=1)[2]
    assert len(checked.dataset) == 9 and [aside.row for aside in checked.set_aside] == [10, 11, 12]
    assert "4 turns" in checked.set_aside[0].reason and "no number" in checked.set_aside[1].reason
    with pytest.raises(CourseError, match=r"form messages, which cannot be read as preference\. It can be read as"):
        sources.preferences(as_file(tmp_path, rows, ".jsonl"), train=9, held_out=3, seed=1)


# Conversations


def test_each_turn_of_the_assistant_is_learned_once_with_what_came_before(tmp_path):
    rows = []
    for n in range(40):
        turns = talk(f"Question {n}?", f"answer {n} a", "And?", f"answer {n} b", "So?", f"answer {n} c")
        call = [{"role": "assistant", "content": f"call {n}"}, {"role": "tool", "content": "{}"}]
        rows.append({"messages": [{"role": "system", "content": "Be brief."}, turns[0], *call, *turns[1:]]})
    path = as_file(tmp_path, rows, ".jsonl")
    train, held_out, checked = sources.conversations(path, train=999, held_out=20, seed=1)
    assert train.column_names == held_out.column_names == ["prompt", "completion"]
    assert (len(train), len(held_out), len(checked.dataset)) == (140, 20, 40)
    learned = [item["completion"][0]["content"] for side in (train, held_out) for item in side]
    assert sorted(learned) == sorted(
        f"{what}" for n in range(40) for what in (f"call {n}", *(f"answer {n} {x}" for x in "abc"))
    )
    whole = {messages[1]["content"]: messages for messages in checked.dataset["messages"]}
    for item in [*train, *held_out]:
        turns = item["prompt"] + item["completion"]
        assert turns == whole[turns[1]["content"]][: len(turns)] and turns[-1]["role"] == "assistant"
        assert len(item["completion"]) == 1
    asked = [{item["prompt"][1]["content"] for item in side} for side in (train, held_out)]
    assert not asked[0] & asked[1] and len(asked[1]) == 5


@pytest.mark.parametrize("source", ["pocket", "english"])
def test_generated_rows_as_conversations_are_those_of_the_lesson(source):
    train, held_out, checked = sources.conversations(source, train=30, held_out=10, seed=1)
    asked, tested, _ = sources.instructions(source, train=30, held_out=10, seed=1)
    chat = [
        rows.map(instruction.to_prompt_completion, batched=True, remove_columns=rows.column_names)
        for rows in (asked, tested)
    ]
    assert [train.to_dict(), held_out.to_dict()] == [rows.to_dict() for rows in chat]
    assert len(checked.dataset) == 30


# What rows these are


@pytest.mark.parametrize(
    ("one", "wanted"),
    [
        (row(1), "instruction"),
        (pair(1), "preference"),
        ({"messages": talk("a", "b")}, "chat"),
        ({"system": "", "chat": "USER: a\n\n\nASSISTANT: b"}, "function-calling"),
        ({"question": "a", "answer": "#### 1"}, "problems"),
        ({"text": "a"}, "text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_the_kind_of_rows_is_told_from_the_first(tmp_path, one, wanted, ending):
    assert sources.kind(as_file(tmp_path, [one] * 3, ending)) == wanted


def test_the_kind_of_other_things(tmp_path, monkeypatch):
    assert [sources.kind(name) for name in ("pocket", "english")] == ["pocket", "english"]
    monkeypatch.setattr(hub, "look_up", pytest.fail)
    assert [sources.kind(HUB_DATA[lesson]) for lesson in ("lora", "dpo", "cpt")] == [
        "instruction",
        "preference",
        "text",
    ]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    assert sources.kind(str(tmp_path / "texts")) == "text"
    with pytest.raises(CourseError, match="no form that is known"):
        sources.kind(as_file(tmp_path, [{"x": 1}], ".jsonl"))


def test_only_the_first_rows_are_read_to_tell_the_kind(tmp_path, monkeypatch):
    from unsloth_course.lesson.data import files

    path = tmp_path / "rows.jsonl"
    path.write_text((json.dumps(row(1)) + "\n") * 1000)
    read, seen = files._row_or_broken, []
    monkeypatch.setattr(files, "_row_or_broken", lambda *given: seen.append(1) or read(*given))
    assert sources.kind(str(path)) == "instruction" and len(seen) == 200


# Folders of files with rows


def test_a_folder_of_rows_is_read_file_by_file(tmp_path):
    (tmp_path / "data").mkdir()
    as_file(tmp_path / "data", [row(n) for n in range(10)], ".jsonl")
    as_file(tmp_path / "data", [row(n) for n in range(10, 30)], ".parquet")
    as_file(tmp_path, [row(n) for n in range(30, 40)] + [row(99, "")], ".csv")
    (tmp_path / "README.md").write_text("# About")
    (tmp_path / "broken.json").write_text('[{"instruction": "Say 1.", "output": "1"}, {"instr')
    (tmp_path / ".hidden.jsonl").write_text("{}")
    train, held_out, checked = sources.instructions(str(tmp_path), train=99, held_out=5, seed=1)
    assert (len(train), len(held_out), len(checked.dataset)) == (36, 5, 41)
    aside = {f"{os.path.basename(one.file)} {one.row}": one.reason for one in checked.set_aside}
    assert set(aside) == {"README.md 1", "broken.json 2", "rows.csv 11"}
    assert "none of the endings" in aside["README.md 1"] and "JSON is broken" in aside["broken.json 2"]
    assert sources.kind(str(tmp_path)) == "instruction"


def test_a_folder_with_rows_of_text_is_one_of_raw_text(tmp_path):
    as_file(tmp_path, [{"text": words(n)} for n in range(10)], ".jsonl")
    (tmp_path / "a.md").write_text("More.")
    assert sources.kind(str(tmp_path)) == "text"
    assert len(sources.corpus(str(tmp_path), train=99, held_out=2, seed=1)[2].dataset) == 11


# General text


def test_general_text_of_the_pocket_model_is_what_it_was_pretrained_on():
    import random

    from unsloth_course.pocket import text

    train, held_out = sources.general_text("pocket", train=300, held_out=40, seed=1)
    again, other = (sources.general_text("pocket", train=300, held_out=40, seed=seed) for seed in (1, 2))
    assert (len(train), len(held_out)) == (300, 40) and train.column_names == held_out.column_names == ["text"]
    assert train.to_dict() == again[0].to_dict() != other[0].to_dict()
    assert held_out.to_dict() == again[1].to_dict() == other[1].to_dict()
    assert not set(train["text"]) & set(held_out["text"])
    rng = random.Random("general-1")
    assert list(train["text"]) == [text.document(rng) for _ in range(300)]
    assert any("?" in document for document in train["text"])


def test_general_text_of_a_folder_of_the_pocket_models_shape_is_that_of_the_pocket_model():
    from unsloth_course import models

    folder = models.folder("pocket")
    mine, its = (sources.general_text(source, train=3, held_out=2, seed=1) for source in (folder, "pocket"))
    assert [part.to_dict() for part in mine] == [part.to_dict() for part in its]


def test_a_held_out_story_is_never_read_again(monkeypatch):
    from unsloth_course.pocket import text

    _, held_out = sources.general_text("pocket", train=1, held_out=3, seed=1)
    told = iter([held_out["text"][1], "one\n", held_out["text"][0], "two\n"])
    monkeypatch.setattr(text, "document", lambda rng: next(told))
    assert list(sources.general_text("pocket", train=2, held_out=3, seed=1)[0]["text"]) == ["one\n", "two\n"]


def test_general_text_of_the_hub_is_prose(monkeypatch):
    prose = "The river was long and calm, and nobody in the town had ever seen where it began. " * 5
    code = "for (int i = 0; i < 10; i++) { x[i] = y[i] * 2; }\n" * 9
    rows = [row(n, f"{n} {prose}") for n in range(500)] + [row(n, code) for n in range(500, 510)] + [row(510)]
    asked = []

    def fetch(name, columns):
        asked.append(name)
        return rows

    monkeypatch.setattr(hub, "fetch_dataset", fetch)
    train, held_out = sources.general_text(HUB_DATA["cpt"], train=1000, held_out=20, seed=1)
    assert asked == ["yahma/alpaca-cleaned"]
    assert (len(train), len(held_out)) == (500 - dividing.RESERVED, 20)
    assert all(prose in text for text in [*train["text"], *held_out["text"]])
    other = sources.general_text(HUB_DATA["cpt"], train=30, held_out=20, seed=2)
    assert held_out.to_dict() == other[1].to_dict()
    assert len(other[0]) == 30 and not set(other[0]["text"]) & set(held_out["text"])
