"""Recorded sweeps: the record that is shipped, the checks on reading one, and the dial over it."""

import math
from statistics import fmean

import pytest

from unsloth_course import dials
from unsloth_course.core.places import REPOSITORY
from unsloth_course.lesson.dials import Sweep, SweepDial, Trial, sweeps

ATTACK = "<script>alert('x')</script>"


def trial(value, seed=1, share=0.5):
    loss = [(5 * step, 2.0 / step) for step in range(1, 21)]
    return Trial(value, seed, loss, {"questions": share, "skills": 1 - share}, 12.0)


@pytest.fixture
def sweep():
    return Sweep(
        name="try",
        knob="learning rate",
        metric="share",
        before={"questions": 0.0, "skills": 1.0},
        device="2 CPU cores",
        model="pocket",
        versions={"unsloth": "1.2.3"},
        settings={"steps": 100},
        trials=[trial(value, seed, value / 2 + seed / 100) for seed in (1, 2) for value in (1.0, 0.1, 0.01)],
    )


def test_a_sweep_comes_back_as_it_was_written(sweep, tmp_path):
    assert sweep.write(tmp_path) == tmp_path / "try.json"
    assert sweeps.read("try", tmp_path) == sweep


def test_values_seeds_and_scores(sweep):
    assert sweep.values == [0.01, 0.1, 1.0] and sweep.seeds == [1, 2]
    assert [one.seed for one in sweep.at(0.1)] == [1, 2]
    assert sweep.scores("questions", 1.0) == [0.51, 0.52]


def test_the_last_loss_is_the_mean_of_the_end():
    assert trial(1.0).last_loss == pytest.approx(sum(2 / step for step in range(16, 21)) / 5)


def test_a_loss_that_became_infinite_is_kept_as_such(sweep, tmp_path):
    broken = Trial(9.0, 1, [(5, 2.0), (10, math.inf)], {"questions": math.nan, "skills": 0.0}, 1.0)
    sweep.trials.append(broken)
    sweep.write(tmp_path)
    found = sweeps.read("try", tmp_path).at(9.0)[0]
    assert found.loss[0] == (5, 2.0) and math.isnan(found.loss[1][1]) and math.isnan(found.scores["questions"])
    dial = SweepDial(sweeps.read("try", tmp_path))
    assert "not a number" in dial.table(9.0)
    assert dial.picture()._repr_png_() and dial.curve(9.0)._repr_png_()


def test_the_picture_has_a_line_of_means_for_each_score_and_for_the_loss(sweep):
    picture = SweepDial(sweep, log=True, mark=0.1).picture()
    above, below = picture.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in above.get_lines()}
    assert lines["questions"] == pytest.approx([0.02, 0.065, 0.515])
    assert lines["skills"] == pytest.approx([0.98, 0.935, 0.485])
    assert above.get_xscale() == below.get_xscale() == "log"
    assert "questions: best at 1 (51.5%)" in picture.caption
    text = " ".join(str(found.get_text()) for found in picture.texts)
    assert "0.1" in text and "2 seeds, unsloth 1.2.3" in text


def test_a_perplexity_is_better_when_lower_and_no_percentage(sweep):
    surprised = Sweep(**{**vars(sweep), "metric": "perplexity"})
    dial = SweepDial(surprised)
    assert "questions: best at 0.01 (0.02)" in dial.picture().caption
    assert "lower is better" in dial.picture().axes[0].get_title(loc="left")
    assert ">0.51 (0.51 to 0.52)</td>" in dial.table(1.0) or ">0.52 (0.51 to 0.52)</td>" in dial.table(1.0)
    assert "%" not in dial.table(1.0)


def test_the_table_gives_mean_and_range_over_the_seeds(sweep):
    found = SweepDial(sweep).table(1.0)
    assert ">51.5 % (51.0 % to 52.0 %)</td>" in found and ">100.0 %</td>" in found


def test_the_table_escapes_what_the_file_says(sweep):
    attacked = Sweep(
        **{
            **vars(sweep),
            "before": {ATTACK: 0.0},
            "device": ATTACK,
            "trials": [Trial(1.0, 1, [(1, 1.0)], {ATTACK: 1.0}, 1.0)],
        }
    )
    found = SweepDial(attacked).table(1.0)
    assert "<script" not in found and found.count("&lt;script&gt;") == 2


def test_turning_the_widget_changes_curve_and_table(sweep):
    slider, table, curve = SweepDial(sweep, mark=0.1).widget().children
    assert slider.value == 0.1 and [label for label, _ in slider.options] == ["0.01", "0.1", "1"]
    assert bytes(curve.value).startswith(b"\x89PNG")
    was, said = bytes(curve.value), table.value
    slider.value = 1.0
    assert bytes(curve.value) != was and table.value != said and "51.5 %" in table.value


def test_a_mark_that_was_not_recorded_starts_the_widget_in_the_middle(sweep):
    assert SweepDial(sweep, mark=0.5).widget().children[0].value == 0.1


def test_the_record_of_learning_rates_says_what_the_lesson_says():
    sweep = dials.learning_rate().sweep
    assert len(sweep.values) == 7 and sweep.seeds == [3407, 1, 2] and len(sweep.trials) == 21
    assert sweep.before["held-out questions"] <= 0.05 and sweep.before["untouched skills"] >= 0.95
    lesson = 1e-4
    assert lesson in sweep.values
    assert min(sweep.scores("held-out questions", lesson)) >= 0.9
    assert min(sweep.scores("untouched skills", lesson)) >= 0.95
    # Right of the best there is a rate that still answers, and has forgotten.
    assert min(sweep.scores("held-out questions", 1e-3)) > 0.8 and max(sweep.scores("untouched skills", 1e-3)) < 0.7
    # The loss is worst at both ends.
    ends = [sum(one.last_loss for one in sweep.at(value)) for value in sweep.values]
    assert min(ends[0], ends[-1]) > max(ends[2], ends[3])


def test_the_record_of_replay_says_what_the_lesson_says():
    sweep, lesson = dials.replay().sweep, 0.4
    assert sweep.values[0] == 0 and sweep.values[-1] == 0.5 and lesson in sweep.values
    assert sweep.seeds == [3407, 1, 2] and len(sweep.trials) == 3 * len(sweep.values)
    general = {value: sweep.scores("general text", value) for value in sweep.values}
    known = sweep.before["general text"]
    # Without replay general text is forgotten; at the lesson's share it rises by at most 15 %, for every seed.
    assert min(general[0]) > 3 * known
    assert max(general[lesson]) <= 1.15 * known
    # More replay never forgets more, and the first few percent do most.
    means = [fmean(general[value]) for value in sweep.values]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[1] > means[1] - means[-1]
    # The domain is learned with every share.
    assert all(max(sweep.scores("held-out domain text", value)) < 10 for value in sweep.values)
    assert sweep.before["held-out domain text"] > 1000


@pytest.mark.parametrize(("dial", "mark"), [(dials.learning_rate, 1e-4), (dials.replay, 0.4)])
def test_the_dials_of_the_lessons_stand_at_their_own_value(dial, mark):
    made = dial(mark)
    assert made.widget().children[0].value == mark
    assert made.picture().axes[-1].get_xlabel() == made.sweep.knob
    assert "unsloth" in made.about() and "3 seeds" in made.about()


def test_the_records_are_shipped_with_the_package():
    import tomllib

    patterns = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    recorded = sweeps.RECORDED.parent
    shipped = (path for pattern in patterns["unsloth_course"] for path in recorded.parent.glob(pattern))
    assert sorted(recorded.rglob("*.json")) == sorted(path for path in shipped if path.suffix == ".json")
    for path in sweeps.RECORDED.glob("*.json"):
        assert sweeps.read(path.stem).name == path.stem
