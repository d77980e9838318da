"""The report on a data set: each of its counts is that of the rows that were planted, no more and no fewer."""

import random

import pytest

from unsloth_course.commands.convert import convert, report

from .test_command import written

SECRETS = [
    "sk-" + "aB3" * 10,
    "sk-ant-api03-" + "xY9-" * 8,
    "hf_" + "Ab" * 17,
    "AKIA" + "Q7" * 8,
    "ghp_" + "k2" * 18,
    "github_pat_" + "m4" * 20,
    "xoxb-" + "12345-" * 4,
    "glpat-" + "c3" * 10,
    "sk_live_" + "d4" * 12,
    "AIza" + "Sy_-" * 9,
    "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT",
    "-----BEGIN RSA PRIVATE KEY-----",
    "My password is: hunter2hunter2",
    'API_KEY = "abcd1234efgh"',
    "PASSWD: 99bottles99",
]
NO_SECRETS = [
    "the task-force of the risk-averse took the half_life of AKIAN and xoxo-xoxo",
    "Forgot your password? A secret: tell nobody. The api_key is kept elsewhere.",
    "-----BEGIN CERTIFICATE-----",
]


def rows_of(count, seed=0):
    """Instruction rows whose questions have no words in common, so that none is near another."""
    rng = random.Random(seed)
    return [
        {"instruction": " ".join(f"w{seed}x{n}y{k}" for k in range(10)), "input": "", "output": f"a{rng.random()}"}
        for n in range(count)
    ]


def reported(folder, rows, **options):
    return convert.run(str(written(folder, rows)), **options).as_dict()


def test_nothing_is_found_where_nothing_is_planted(tmp_path):
    held_out = str(written(tmp_path, rows_of(300, seed=1), "held.jsonl"))
    found = reported(tmp_path, rows_of(900), held_out=held_out, max_length=10**6)
    assert (found["rows"], found["converted"], found["set_aside"]) == (900, 900, [])
    assert (found["duplicates"], found["same_question"], found["empty"], found["identical_answers"]) == (0, 0, 0, 0)
    assert found["secrets"] == {"rows": 0, "examples": []} and found["lengths"]["cut"] == 0
    assert found["held_out"] == {"same": 0, "examples": []}


def test_repeated_rows_and_questions(tmp_path):
    rows = rows_of(800)
    planted = [rows[3], rows[3], rows[70]]  # to the letter
    spelt = [{**rows[n], "instruction": rows[n]["instruction"].upper() + " \n", "output": "x"} for n in (5, 6, 5, 9)]
    rows += planted + spelt
    random.Random(1).shuffle(rows)
    found = reported(tmp_path, rows)
    assert (found["duplicates"], found["same_question"]) == (3 + 1, 3 + 4)  # of 5, both spellings are one row twice


def test_rows_across_the_split(tmp_path):
    tested, rows = rows_of(400, seed=1), rows_of(1500)
    rows[10]["instruction"] = tested[0]["instruction"]
    rows[20]["instruction"] = f" {tested[1]['instruction'].upper()}\n"
    rows[30]["instruction"] = tested[2]["instruction"] + " or not"
    report = convert.run(str(written(tmp_path, rows)), held_out=str(written(tmp_path, tested, "held.jsonl")))
    wanted = [(11, 1), (21, 2)]
    found = report.as_dict()["held_out"]
    assert found["same"] == 2 and [(one["row"], one["held_out_row"]) for one in found["examples"]] == wanted
    assert "asked in the held-out file too: 2 rows (rows 11, 21)" in str(report)


def test_the_held_out_file_may_be_in_another_form(tmp_path):
    rows = rows_of(50)
    told = [
        {"conversations": 3},
        {"conversations": [{"from": "human", "value": rows[7]["instruction"]}, {"from": "gpt", "value": "b"}]},
    ]
    found = reported(tmp_path, rows, held_out=str(written(tmp_path, told, "held.jsonl")))["held_out"]
    assert found["same"] == 1 and found["examples"][0] | {"file": ""} == {"file": "", "row": 8, "held_out_row": 2}


def test_empty_answers_and_answers_that_are_the_same(tmp_path):
    rows = [{"system": "", "question": f"{n}?", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(300)]
    rows[5]["chosen"], rows[6]["rejected"], rows[7]["question"] = "", " \n", ""
    rows[8]["rejected"], rows[9]["rejected"] = " a8 ", "a9"
    found = reported(tmp_path, rows)
    assert (found["empty"], found["identical_answers"], found["converted"]) == (3, 2, 295)
    assert [row["row"] for row in found["set_aside"]] == [6, 7, 8, 9, 10]
    nested = [
        {"chosen": f"\n\nHuman: {n}\n\nAssistant: a", "rejected": f"\n\nHuman: {n}\n\nAssistant:"} for n in range(2)
    ]
    nested += [{"chosen": "\n\nHuman: c\n\nAssistant: a", "rejected": "\n\nHuman: c\n\nAssistant: b"}]
    assert reported(tmp_path, nested)["empty"] == 2


@pytest.mark.parametrize("column", ["instruction", "output"])
def test_every_secret_is_found_and_nothing_else_and_none_is_shown(tmp_path, column):
    rows, rng = rows_of(500), random.Random(2)
    places = dict(zip(rng.sample(range(500), len(SECRETS)), SECRETS, strict=True))
    for place, text in places.items():
        rows[place][column] = f"Here,\n{text} you are"
    for place, text in zip([n for n in range(500) if n not in places], NO_SECRETS, strict=False):
        rows[place][column] = text
    whole = convert.run(str(written(tmp_path, rows)))
    found = whole.as_dict()
    assert found["secrets"]["rows"] == len(SECRETS) and found["converted"] == 500
    assert {one["row"] for one in found["secrets"]["examples"]} == {place + 1 for place in places}
    printed = whole.to_json() + str(whole)
    assert not [text for text in SECRETS if text.split(": ")[-1].split('"')[-1][-12:] in printed and "KEY" not in text]


def test_rows_that_would_be_cut(tmp_path):
    from tokenizers import Tokenizer

    from unsloth_course import models

    rows = rows_of(300)
    for place in (4, 90, 170):
        rows[place]["output"] = "word " * (200 + place)
    found = reported(tmp_path, rows, max_length=300)["lengths"]
    assert (found["measured"], found["cut"], [one["row"] for one in found["cut_rows"]]) == (300, 3, [171, 91, 5])
    tokenizer = Tokenizer.from_file(f"{models.folder('pocket')}/tokenizer.json")
    assert found["longest"] == found["cut_rows"][0]["tokens"] > len(tokenizer.encode(rows[170]["output"]).ids)


def test_of_many_rows_a_random_sample_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "SAMPLE", 100)
    rows = rows_of(2000)
    for row in rows[::4]:
        row["output"] = "word " * 200
    found = reported(tmp_path, rows, max_length=150)["lengths"]
    assert found["measured"] == 100 and 10 <= found["cut"] <= 42  # a quarter of them
    assert max(one["row"] for one in found["cut_rows"]) > 1000
    assert reported(tmp_path, rows, max_length=150)["lengths"] == found, "two reports on one file are the same"
