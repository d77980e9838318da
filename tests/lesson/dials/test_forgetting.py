"""The record of replay shares: what the continued-pretraining lesson says of it."""

from unsloth_course import dials

LESSON = 0.4


def mean(numbers):
    return sum(numbers) / len(numbers)


def test_the_record_of_replay_says_what_the_lesson_says():
    sweep = dials.replay().sweep
    assert sweep.values[0] == 0 and sweep.values[-1] == 0.5 and LESSON in sweep.values
    assert sweep.seeds == [3407, 1, 2] and len(sweep.trials) == 3 * len(sweep.values)
    general = {value: sweep.scores("general text", value) for value in sweep.values}
    known = sweep.before["general text"]
    # Without replay general text is forgotten; at the lesson's share it rises by at most 15 %, for every seed.
    assert min(general[0]) > 3 * known
    assert max(general[LESSON]) <= 1.15 * known
    # More replay never forgets more, and the first few percent do most.
    means = [mean(general[value]) for value in sweep.values]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[1] > means[1] - means[-1]
    # The domain is learned with every share.
    assert all(max(sweep.scores("held-out domain text", value)) < 10 for value in sweep.values)
    assert sweep.before["held-out domain text"] > 1000


def test_the_dial_is_drawn_in_both_ways():
    dial = dials.replay(LESSON)
    assert dial.picture()._repr_png_() and "Dashed" not in dial.picture().caption
    assert dial.widget().children[0].value == LESSON
    assert "replay share" in dial.picture().axes[-1].get_xlabel()
    assert "3 seeds" in dial.about()
