"""The GRPO lesson itself, in a process of its own, where its gate is closed.

That the unchanged lesson trains on the bundled model is what nbmake runs; that it says so where it cannot learn,
lesson/colab/test_rehearsal.py.
"""

from lesson_runs import Finished, with_knobs


def test_where_there_is_nothing_to_learn_from_the_lesson_ends_and_says_what_to_change(tmp_path):
    run = Finished("grpo", tmp_path, with_knobs("grpo", {"WARM_UP": 2, "HELD_OUT": 16}))
    ((cell, error),) = run.errors
    assert cell.id == "grpo-24" and error.evalue.startswith("The gate is closed. ")
    assert run.status == 1 and error.evalue in run.complained and "trained for 28 steps" not in run.outputs
