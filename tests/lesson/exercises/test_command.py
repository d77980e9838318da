"""The command `exercises`: bars, lines, JSON, and sentences for what is not there."""

import json

from lesson.exercises.sources import solution
from unsloth_course import exercises


def test_bars(command):
    exercises.check("lora.1", solution("lora.1"))
    status, out, err = command("exercises")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.strip().split("  ")[0] for line in lines[:6]] == [*exercises.LESSONS.values(), "all"]
    assert lines[0].endswith("[#..]  1 of 3") and lines[5].endswith("1 of 15 solved")


def test_one_lesson(command):
    exercises.check("dpo.1", lambda *_: 0)
    status, out, _ = command("exercises", "dpo")
    assert status == 0
    assert "dpo.1   The loss of one pair: tried 1 time" in out and "0 of 3" in out and "lora" not in out


def test_json(command, file):
    exercises.check("dpo.1", solution("dpo.1"))
    status, out, _ = command("exercises", "--json")
    found = json.loads(out)
    assert status == 0 and (found["solved"], found["total"], found["file"]) == (1, 15, str(file))
    status, out, _ = command("exercises", "dpo", "--json")
    assert status == 0 and json.loads(out)["total"] == 3


def test_an_unknown_lesson(command):
    assert command("exercises", "qlora") == (
        1,
        "",
        "There is no lesson named 'qlora'; the lessons with exercises are lora, full, cpt, dpo, grpo.\n",
    )


def test_a_damaged_file_is_said_and_is_no_failure(command, file):
    file.write_text("{")
    status, out, err = command("exercises")
    assert (status, err) == (0, "") and "was damaged; it is now called progress-damaged.json" in out
