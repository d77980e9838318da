"""The DPO dial: its numbers against torch's own derivative, its picture and its widget."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import dials
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.dials import Pair

moved = st.floats(-50, 50)


@given(st.floats(0.01, 2), moved, moved)
def test_its_numbers_are_those_of_torch(beta, chosen, rejected):
    import torch

    policy = torch.tensor([chosen, rejected], dtype=torch.float64, requires_grad=True)
    loss = -torch.nn.functional.logsigmoid(beta * (policy[0] - policy[1]))
    loss.backward()
    pair = Pair(beta, chosen, rejected)
    assert pair.loss == pytest.approx(float(loss), rel=1e-9, abs=1e-12)
    assert [-pair.pull, pair.pull] == pytest.approx(policy.grad.tolist(), rel=1e-9, abs=1e-12)
    assert pair.beta * pair.weight == pytest.approx(abs(policy.grad[0].item()), rel=1e-9, abs=1e-12)
    assert pair.preference == pytest.approx(math.exp(-pair.loss), rel=1e-9)


def test_training_begins_at_ln_2_whatever_beta_is():
    for beta in (0.01, 0.1, 5.0):
        pair = Pair(beta)
        assert (pair.loss, pair.preference, pair.margin) == (pytest.approx(math.log(2)), 0.5, 0.0)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_a_beta_that_is_none_is_a_sentence(beta):
    with pytest.raises(CourseError, match=r"beta is .*above 0"):
        Pair(beta)


@pytest.mark.parametrize("extreme", [1e6, -1e6])
def test_no_number_is_too_large(extreme):
    pair = Pair(1.0, extreme, 0.0)
    assert math.isfinite(pair.loss) and 0 <= pair.preference <= 1


@pytest.mark.parametrize(
    ("chosen", "rejected", "words"),
    [(-3, -8, "less likely than it was"), (-2, 2, "wrong way round"), (0, 0, "nothing has been"), (2, 0, "weaker")],
)
def test_the_comment_says_what_the_setting_means(chosen, rejected, words):
    dial = dials.preference()
    assert words in dial.comment(Pair(0.1, chosen, rejected))


def test_the_picture_has_loss_and_weight_with_a_line_for_each_beta():
    picture = dials.preference().picture()
    assert [axes.get_title("left") for axes in picture.axes] == ["loss (nats)", "weight in the gradient"]
    for axes, at_start in zip(picture.axes, (math.log(2), 0.5), strict=True):
        lines = [line for line in axes.lines if line.get_label().startswith("beta")]
        assert [line.get_label() for line in lines] == [f"beta {beta:g}" for beta in (0.1, 0.5, 5.0)]
        for line in lines:
            xs, ys = line.get_data()
            assert ys[list(xs).index(0.0)] == pytest.approx(at_start)
            assert all(later < earlier for earlier, later in itertools.pairwise(ys))


@pytest.mark.parametrize("beta", [0.002, 0.1, 5.0, 20.0])
def test_the_widget_stands_where_its_table_does(beta):
    slider, _, _, table, _ = dials.preference(beta=beta, chosen=1.0, rejected=-1.0).widget().children
    assert slider.value == beta
    assert f"{Pair(beta, 1.0, -1.0).loss:.4f} (ln 2" in table.value


def test_the_widget_follows_its_sliders():
    box = dials.preference(beta=0.1).widget()
    beta, chosen, rejected, table, picture = box.children
    assert "0.6931 (ln 2" in table.value
    before = bytes(picture.value)
    chosen.value, rejected.value, beta.value = 2.0, -2.0, 0.5
    assert f"{Pair(0.5, 2.0, -2.0).loss:.4f}" in table.value
    assert bytes(picture.value).startswith(b"\x89PNG") and bytes(picture.value) != before


@pytest.mark.parametrize("pair", [Pair(0.1), Pair(5.0, 1.0, -1.0), Pair(0.5, -9.0, 9.0)])
def test_the_picture_of_a_pair_points_it_out_on_the_line_of_its_beta(pair):
    picture = dials.PreferenceDial(pair).at(pair)
    for axes in picture.axes:
        (line,) = [line for line in axes.lines if line.get_label() == f"beta {pair.beta:g}"]
        (mark,) = [other for other in axes.lines if other is not line]
        assert mark.get_xdata()[0] == pair.chosen - pair.rejected
        assert min(line.get_xdata()) <= mark.get_xdata()[0] <= max(line.get_xdata())
