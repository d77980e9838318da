"""Lessons that end before their end, in processes of their own: where the Hub is down, and where the gate is closed.

nbmake runs the unchanged lessons on the bundled model; that they say so where they cannot learn is shown by
browser/test_lessons.py (LoRA) and lesson/colab/test_rehearsal.py.
"""

import re

from hub_server import HubServer
from lesson_runs import Finished, with_knobs

from unsloth_course.lesson.profile import HUB_MODEL


def test_a_hub_that_is_down_ends_the_lesson_with_a_sentence(tmp_path):
    with HubServer() as server:
        environment = server.environment(tmp_path / "cache")
        server.down()
        run = Finished("lora", tmp_path, with_knobs("lora", {}, MODEL=HUB_MODEL), environment)
    assert run.status == 1
    sentence = re.sub(r"\s+", " ", run.complained)
    assert f"{HUB_MODEL} cannot be downloaded: the Hub at {server.endpoint} cannot be reached" in sentence
    assert "--model smollm2" in sentence
    assert "Traceback" not in run.complained
    assert not (run.out / "lora.json").exists()
    ((cell, output),) = run.errors
    assert "from_pretrained" in cell.source and output.ename == "CourseError"
    assert not any("Traceback" in line for line in output.traceback)


def test_where_there_is_nothing_to_learn_from_the_lesson_ends_and_says_what_to_change(tmp_path):
    run = Finished("grpo", tmp_path, with_knobs("grpo", {"WARM_UP": 2, "HELD_OUT": 16}))
    ((cell, error),) = run.errors
    assert cell.id == "grpo-24" and error.evalue.startswith("The gate is closed. ")
    assert run.status == 1 and error.evalue in run.complained
    assert not any("trained for 28 steps" in output.get("text", "") for _, output in run.outputs)
