"""The pictures: what stands on their axes, and the sentences for what cannot be drawn."""

import itertools
import math

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from unsloth_course import dials, plots
from unsloth_course.core.errors import CourseError
from unsloth_course.core.history import moving_average
from unsloth_course.lesson.dials import Sweep, SweepDial, Trial, sweeps
from unsloth_course.lesson.evaluation import Measure, Score
from unsloth_course.lesson.recordings import Recording, Run
from unsloth_course.lesson.scoreboard import picture

MIB = 2**20
COLOURS = {"base": plots.GREY, "lora": plots.GREEN, "dpo": plots.BLUE}


def history(values, **more):
    return [{"loss": value, "step": step, **more} for step, value in enumerate(values, start=1)]


def lines(figure, panel=0):
    """Lines of one panel by the start of their legend text."""
    return {line.get_label(): line for line in figure.axes[panel].lines}


def words(figure):
    """Every text of the picture that is its own, as one string."""
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def widths(figure):
    return [bar.get_width() for bar in figure.axes[0].patches]


def test_loss_draws_every_step_and_a_smoothed_line_that_says_how():
    figure = plots.loss(history([3.0, 2.5, 2.0, 1.5, 1.0, 0.9]))
    drawn = lines(figure)
    assert list(drawn["training loss"].get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert list(drawn["training loss"].get_ydata()) == [3.0, 2.5, 2.0, 1.5, 1.0, 0.9]
    smoothed = drawn["smoothed (moving average, span 3)"].get_ydata()
    assert smoothed[0] == 3.0
    assert smoothed[1] == pytest.approx((0.5 * 3.0 + 2.5) / 1.5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(1, 20))
def test_a_moving_average_stays_within_what_it_averages(values, span):
    averages = moving_average(values, span)
    assert len(averages) == len(values)
    assert all(min(values) - 1e-6 <= average <= max(values) + 1e-6 for average in averages)


def test_evaluation_points_come_from_the_log():
    rows = [*history([2.0, 1.0]), {"eval_loss": 1.5, "step": 2}, {"train_runtime": 9.0, "step": 2}]
    name = "evaluation loss (unseen data)"
    assert list(lines(plots.loss(rows))[name].get_ydata()) == [1.5]
    assert name in lines(plots.loss([{"eval_loss": 1.5, "step": 2}]))


def test_a_reference_line_stands_at_its_value_with_its_label():
    line = lines(plots.loss(history([0.69, 0.6]), reference=(math.log(2), "ln 2")))["ln 2"]
    assert set(line.get_ydata()) == {math.log(2)}


def test_losses_that_are_no_number_are_marked_and_said_in_words():
    figure = plots.loss(history([1.0, 0.9, float("nan"), float("inf"), 0.8, 0.7, 0.6]))
    drawn = lines(figure)
    assert list(drawn["not a finite number: 2 steps, first at 3"].get_xdata()) == [3, 4]
    assert list(drawn["training loss"].get_xdata()) == [1, 2, 5, 6, 7]
    assert "not a finite number in 2 steps, first at step 3: lower the learning rate" in figure.caption


def test_an_evaluation_that_is_no_number_is_not_drawn():
    rows = [*history([2.0, 1.0]), {"eval_loss": float("nan"), "step": 2}]
    assert list(lines(plots.loss(rows))) == ["training loss"]
    with pytest.raises(CourseError, match="none with loss"):
        plots.loss(rows[2:])


def test_one_step_gives_a_point_and_no_smoothed_line():
    figure = plots.loss(history([1.25]))
    assert list(lines(figure)) == ["training loss"]
    low, high = figure.axes[0].get_xlim()
    assert (low, high) == (0, 2)


def test_rows_without_a_step_are_counted_and_text_numbers_are_read():
    figure = plots.loss([{"loss": "2.5"}, {"loss": None}, {"grad_norm": 1.0}, {"loss": 2.0}])
    assert list(lines(figure)["training loss"].get_xdata()) == [1, 2]
    assert list(lines(figure)["training loss"].get_ydata()) == [2.5, 2.0]


logged = st.none() | st.floats(width=16) | st.integers(-5, 5) | st.text(max_size=3) | st.lists(st.none(), max_size=2)
rows_of_a_log = st.dictionaries(st.sampled_from(["loss", "eval_loss", "step", "reward"]), logged)


@given(st.lists(rows_of_a_log, max_size=12))
@settings(max_examples=60)
def test_no_log_history_breaks_the_picture(rows):
    try:
        assert plots.loss(rows).caption
    except CourseError as error:
        assert "loss" in str(error)


def test_traces_draws_one_panel_per_metric_and_names_what_the_log_lacks():
    rows = [{"step": step, "reward": step / 10, "rewards/margins": 1.0} for step in range(1, 9)]
    figure = plots.traces(rows, ["reward", "kl", "rewards/margins"], title="GRPO")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["reward", "rewards/margins"]
    assert list(lines(figure)["reward"].get_ydata()) == [step / 10 for step in range(1, 9)]
    assert "Not in this log: kl." in words(figure)
    assert "Not in this log: kl." in figure.caption
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()


def test_traces_marks_broken_values_in_words():
    rows = [{"step": 1, "reward": 0.1}, {"step": 2, "reward": float("nan")}, {"step": 3, "reward": 0.2}]
    figure = plots.traces(rows, ["reward"])
    assert list(lines(figure)["reward"].get_xdata()) == [1, 3]
    assert "reward: not a finite number in 1 step, first at step 2." in words(figure)


def test_memory_stacks_the_parts_and_writes_the_difference():
    figure = plots.memory(
        {"weights": 60 * MIB, "activations": 40 * MIB}, {"weights": 60 * MIB, "activations": 50 * MIB}
    )
    assert widths(figure) == [60, 40, 60, 50]
    assert [bar.get_x() for bar in figure.axes[0].patches] == [0, 60, 0, 60]
    assert figure.axes[0].get_xlabel() == "MiB"
    text = words(figure)
    assert "weights 60.0 MiB" in text
    assert "110.0 MiB (10% more)" in text
    assert figure.caption == "Memory: predicted 100.0 MiB, measured 110.0 MiB (10% more)."


def test_memory_takes_measured_parts_in_the_same_colours_and_turns_to_gib():
    parts = {"weights": 1024 * MIB, "optimizer": 2048 * MIB}
    figure = plots.memory(parts, {"weights": 1024 * MIB, "optimizer": 1536 * MIB})
    bars = figure.axes[0].patches
    assert widths(figure) == [1, 2, 1, 1.5]
    assert bars[0].get_facecolor() == bars[2].get_facecolor() != bars[1].get_facecolor()
    assert figure.axes[0].get_xlabel() == "GiB"
    assert "(17% less)" in words(figure)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["weights 1.00 GiB", "optimizer 2.00 GiB"]


def score(before=0.01, after=0.93, interval=(0.89, 0.96), metric="exact_match", n=200, measures=()):
    return Score(metric, n, before, after, interval, measures=measures)


def test_before_after_draws_both_and_says_the_interval():
    figure = plots.before_after(score())
    assert widths(figure) == [0.01, 0.93]
    text = words(figure)
    assert "1.0%" in text and "93.0%" in text
    assert "exact match on 200 unseen examples (higher is better)" in text
    assert "After minus before: +92.0 points, 95% interval +89.0 to +96.0: better" in text


def test_perplexities_that_lie_far_apart_are_drawn_on_a_logarithmic_axis():
    far = plots.before_after(score(5500.0, 2.5, (-6000.0, -5000.0), "perplexity"))
    assert far.axes[0].get_xscale() == "log" and far.axes[0].get_xlim()[0] == 1
    assert "5,500.00 before, 2.50 after" in far.caption
    for before, after in ((31.2, 7.4), (0.9, 30.0)):
        near = plots.before_after(score(before, after, (-30.0, 30.0), "perplexity"))
        assert near.axes[0].get_xscale() == "linear"
    endless = plots.before_after(score(1e300, 2.0, (-1e300, -1e299), "perplexity"))
    assert endless._repr_png_()


MEASURES = (  # the one that judges is not the metric of the score
    Measure("answer_perplexity", 6.5, 5.5, (-1.2, -0.8), 150, judges=True, likelier=140),
    Measure("stops", 0.2, 1.0, (0.7, 0.9), 80),
    Measure("length", 102.0, 31.0, (-80.0, -60.0), 80),
)


def test_before_after_draws_the_measure_that_judges_and_says_the_others():
    figure = plots.before_after(score(n=80, measures=MEASURES))
    assert widths(figure) == [6.5, 5.5]
    assert "answer perplexity, n = 150 (lower is better)" in words(figure)
    assert "140 of 150 became likelier" in words(figure)
    names = [tick.get_text() for tick in figure.axes[1].get_yticklabels()]
    assert names == ["exact match, n = 80", "stops, n = 80", "length, n = 80"]
    assert (
        "Beside it: exact match 1.0% → 93.0% (n = 80); stops 20.0% → 100.0% (n = 80); length 102.00" in figure.caption
    )


@pytest.mark.parametrize(
    ("metric", "interval", "verdict"),
    [
        ("perplexity", (-9.0, -2.0), "better"),
        ("perplexity", (1.0, 2.0), "worse"),
        ("perplexity", (-1.0, 2.0), "no change shown"),
        ("exact_match", (-0.2, -0.1), "worse"),
        ("exact_match", (-0.1, 0.1), "no change shown"),
        ("exact_match", (0.0, 0.0), "no change shown"),
    ],
)
def test_the_verdict_follows_the_interval_and_the_metric(metric, interval, verdict):
    assert plots.before_after(score(31.2, 7.4, interval, metric)).caption.endswith(f": {verdict}.")


def test_by_skill_has_two_bars_per_skill_and_leaves_out_what_was_not_measured():
    figure = plots.by_skill({"add": 0.1, "first_letter": 0.5, "sort": 0.3}, {"add": 0.9, "first_letter": 0.4})
    assert widths(figure) == [0.1, 0.5, 0.3, 0.9, 0.4]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["add", "first letter", "sort"]
    assert figure.caption == "2 skills measured before and after; lower after in: first_letter."


def test_curve_draws_the_lines_the_mark_and_the_names():
    figure = plots.curve(
        [0, 1, 2],
        {"score": [0, 0.9, 0.5], "retention": [1, 0.9, 0.5]},
        xlabel="scale",
        ylabel="share",
        mark=1,
    )
    drawn = lines(figure)
    assert list(drawn["score"].get_ydata()) == [0, 0.9, 0.5]
    assert any(set(line.get_xdata()) == {1} for line in drawn.values())
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("scale", "share")
    assert {"score", "retention", "1"} <= {text.get_text() for text in axes.texts}


def test_names_of_lines_that_end_together_are_pushed_apart():
    figure = plots.curve([0, 1], {name: [0, 1] for name in "abc"}, xlabel="x", ylabel="y")
    places = sorted(text.xy[1] for text in figure.axes[0].texts)
    assert places[1] - places[0] > 0.05 and places[2] - places[1] > 0.05


def recording(lesson="lora", device="2 CPU cores", **changes):
    key = "reward" if lesson == "grpo" else "loss"
    runs = tuple(Run(seed, {key: [(s, 4.0 / s + seed / 10) for s in range(1, 9)]}, {}, 1, 1.0) for seed in (0, 1, 2))
    return Recording(lesson, "cpu", device, "pocket", "pocket", steps=8, runs=runs, **changes)


def test_the_recorded_band_is_drawn_behind_the_curve_and_said_in_words():
    kept = recording()
    figure = plots.loss(history([4.0 / step + 0.1 for step in range(1, 9)]), band=kept)
    (shade,) = figure.axes[0].collections
    assert "three recorded runs on 2 CPU cores" in shade.get_label().replace("\n", " ")
    low, high = shade.get_paths()[0].vertices[:, 1].min(), shade.get_paths()[0].vertices[:, 1].max()
    assert (low, high) == pytest.approx((max(0.0, min(kept.band().low)), max(kept.band().high)))
    assert all(line.get_zorder() > shade.get_zorder() for line in figure.axes[0].lines)
    assert "8 of 8 points of the smoothed loss lie inside the band of three recorded runs" in figure.caption


@pytest.mark.parametrize("why", ["There is no recorded run.", ""])
def test_without_anything_to_compare_no_band_is_drawn_and_the_caption_says_why(why):
    figure = plots.loss(history([1.0, 0.5]), band=recording(why=why))
    assert not figure.axes[0].collections
    assert figure.caption.endswith(why or "the learning rate follows another schedule.")


def test_traces_shade_the_panel_of_the_reward_alone():
    rows = [{"reward": 4.0 / step, "reward_std": 0.1, "step": step} for step in range(1, 9)]
    figure = plots.traces(
        rows, ["reward_std", "reward"], band=recording("grpo", device="one $card_$ of " + 20 * "long ")
    )
    assert [len(axes.collections) for axes in figure.axes] == [0, 1]
    assert "Shaded: band of three recorded runs on one $card_$" in words(figure).replace("\n", " ")
    assert "points of the smoothed reward lie inside" in figure.caption
    assert figure._repr_png_()
    assert not any(axes.collections for axes in plots.traces(rows, ["reward_std", "reward"], band=recording()).axes)


def every_picture():
    return [
        plots.loss(history([1.0, 0.5, 0.4, 0.3, 0.2]), reference=(0.7, "ln 2")),
        plots.loss(history([1.0] * 8), band=recording()),
        plots.traces(history([1.0, 0.5]), ["loss", "kl"], title="GRPO"),
        plots.memory({"weights": MIB}, {"weights": 2 * MIB}),
        plots.before_after(score()),
        plots.before_after(score(measures=MEASURES)),
        plots.by_skill({"add": 0.1}, {"add": 0.9}),
        plots.curve([0, 1], {"score": [0, 1]}, xlabel="x", ylabel="y", mark=1.0),
        picture.side_by_side(panels(), colours=COLOURS, notes=["† dpo: no battery."]),
        a_sweep(mark=2),
        sweeps.picked({1.0: [[(1, 2.0), (2, 1.0)]], 2.0: [[(1, 3.0), (2, 2.5)]]}, 1.0, label="rate 1"),
        plots.layers({"0.q_proj": 0.01, "0.k_proj": 0.02, "1.q_proj": 0.03}),
        plots.spectrum({"full": [3.0, 1.0], "none": [0.0, 0.0]}, rank=1),
    ]


def crowded_pictures():
    """Pictures at their fullest: long names, many values, lines that end together, thin parts."""
    apart = [step / 10 - 5 for step in range(101)]
    close = {f"beta {beta:g}": [max(0.0, -beta * x) for x in apart] for beta in (0.1, 0.5, 5)}
    names, letters = ("held-out questions", "untouched skills"), "abcdefghijkl"
    parts = {"weights": 14 * MIB, "gradients": MIB, "optimizer": 2 * MIB, "activations": 340 * MIB}
    shown = (dials.learning_rate(1e-4), dials.replay(0.4), dials.preference(), dials.advantages())
    return [
        plots.loss(history([7.0 / step for step in range(1, 41)]), band=recording(device="NVIDIA H200, 140 GiB")),
        plots.memory(parts, parts | {"activations": 333 * MIB}),
        plots.curves(apart, {"loss (nats)": close, "weight in the gradient": close}, xlabel="nats", top=3.0),
        plots.curve([0, 1], {name: [0, 1] for name in names}, xlabel="x", ylabel="y", mark=1.0),
        plots.layers({f"{layer}.{name}_proj": 0.04 for layer in range(4) for name in [*"qkvo", "gate", "up", "down"]}),
        plots.by_skill(dict.fromkeys(letters, 0.0), dict.fromkeys(letters, 1.0)),
        *(dial.picture() for dial in shown),
        dials.learning_rate().curve(1e-3),
    ]


def boxes(figure, monkeypatch):
    """The place of every text that is drawn, with the text."""
    found = {}

    def noted(text, renderer, draw=Text.draw):
        if text.get_visible() and text.get_text().strip():
            found[id(text)] = Text.get_window_extent(text, renderer), text.get_text()
        draw(text, renderer)

    with monkeypatch.context() as patched:
        patched.setattr(Text, "draw", noted)
        assert figure._repr_png_().startswith(b"\x89PNG")
    return list(found.values())


@pytest.mark.parametrize("pictures", [every_picture, crowded_pictures])
def test_a_notebook_shows_each_picture_once_and_no_text_is_clipped_or_lies_on_another(pictures, monkeypatch):
    for figure in pictures():
        found = boxes(figure, monkeypatch)
        assert figure.caption
        assert getattr(figure.canvas, "manager", None) is None  # pyplot does not hold it, so it is not shown again
        width, height = figure.canvas.get_width_height()
        for box, text in found:
            assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -1, f"{text!r} is clipped: {figure.caption}"
        for (one, first), (other, second) in itertools.combinations(found, 2):
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            down = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert across < 1 or down < 0, f"{first!r} lies on {second!r}: {figure.caption}"


def test_a_colour_blind_person_tells_the_colours_apart():
    """Distances in CIELAB, after the simulation of Machado, Oliveira and Fernandes (2009) at full severity."""
    seen = [  # red, green, blue of the light that a protanope, a deuteranope and a tritanope see
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    colours = np.array([to_rgb(colour) for colour in (plots.GREY, *plots.COLOURS)])
    light = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    for matrix in (np.eye(3), *map(np.array, seen)):
        x, y, z = np.cbrt(np.clip(light @ matrix.T, 0.009, 1) @ xyz.T / [0.9505, 1.0, 1.089]).T
        lab = np.stack([116 * y, 500 * (x - y), 200 * (y - z)], axis=1)
        assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(lab, 2)) > 12


def test_lines_without_markers_differ_in_their_dashes():
    figure = plots.curves([0, 1], {"loss": {"a": [0, 1], "b": [1, 0]}}, xlabel="x")
    assert len({str(line._dash_pattern) for line in lines(figure).values()}) == 2
    curve = plots.curve([0, 1], {"a": [0, 1], "b": [1, 0]}, xlabel="x", ylabel="y")
    for figure in (curve, plots.spectrum({"a": [3.0, 1.0], "b": [1.0, 1.0]}, rank=1)):
        assert (lines(figure)["a"].get_marker(), lines(figure)["b"].get_marker()) == ("o", "s")


def test_the_reader_s_style_changes_nothing_and_stays():
    with matplotlib.rc_context(
        {"axes.facecolor": "black", "text.color": "white", "font.size": 6, "axes.spines.left": False}
    ):
        for figure in every_picture():
            assert matplotlib.colors.to_hex(figure.get_facecolor()) == "#ffffff"
            assert figure.axes[0].spines["left"].get_visible()
            assert all(matplotlib.colors.to_hex(axes.get_facecolor()) == "#ffffff" for axes in figure.axes)
            figure.draw_without_rendering()  # ticks are made when first drawn
            shown = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
            assert min(text.get_fontsize() for text in shown) >= 13
            assert matplotlib.colors.to_hex(figure.axes[0].title.get_color()) == "#000000"
            assert matplotlib.colors.to_hex(figure.axes[0].get_xticklabels()[0].get_color()) == "#000000"
        assert matplotlib.rcParams["font.size"] == 6


def a_sweep(values=(1, 2, 4), log=False, mark=None, metric="share"):
    scores = dict(zip((1, 2, 4), [[0.1, 0.3], [0.9, 0.9], [math.nan, 0.5]], strict=True))
    losses = dict(zip((1, 2, 4), [[2.0, 1.0], [0.1, 0.1], [math.inf, 3.0]], strict=True))
    trials = [
        Trial(value, seed, [(1, losses[value][seed])] * 5, {"questions": scores[value][seed]}, 1.0)
        for value in values
        for seed in (0, 1)
    ]
    about = {"before": {"questions": 0.0}, "device": "2 CPU cores", "model": "pocket", "versions": {}}
    return SweepDial(Sweep("try", "rate", metric, **about, trials=trials), log, mark).picture()


def test_a_sweep_draws_each_seed_and_the_means_of_the_finite_ones():
    figure = a_sweep(log=True)
    above, below = figure.axes
    assert list(lines(figure)["questions"].get_ydata()) == pytest.approx([0.2, 0.9, 0.5])
    dots = [len(line.get_ydata()) for line in above.get_lines() if line.get_label() != "questions"]
    assert dots == [2, 2, 2]
    assert list(below.get_lines()[-1].get_ydata()) == pytest.approx([1.5, 0.1, 3.0])
    assert [tick.get_text() for tick in below.get_xticklabels()] == ["1", "2", "4"]


def test_a_sweep_without_a_finite_number_says_so():
    trial = Trial(1, 0, [(1, math.nan)], {"a": math.nan}, 1.0)
    sweep = Sweep("try", "rate", "share", {"a": 0.0}, "2 CPU cores", "pocket", {}, trials=[trial])
    assert SweepDial(sweep).picture().caption == "a: never a finite number."


def test_the_picked_value_is_strong_and_on_top_of_the_others():
    curves = {1.0: [[(1, 2.0), (2, 1.0)]] * 2, 2.0: [[(1, 3.0), (2, math.inf)]]}
    (axes,) = sweeps.picked(curves, 1.0, label="rate 1").axes
    faint, *strong = axes.get_lines()
    assert faint.get_color() == plots.FAINT and list(faint.get_ydata()) == [3.0]
    assert [line.get_color() for line in strong] == [plots.BLUE] * 2


def test_layers_are_a_table_of_percentages():
    figure = plots.layers({"embed_tokens": 0.5, "0.q_proj": 0.016, "0.k_proj": 0.02, "1.q_proj": 0.04})
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["1.6", "2.0", "4.0", "nan"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["q", "k"]
    assert figure.caption == "Moved most: q_proj of layer 1 (4.0 %). Moved least: q_proj of layer 0 (1.6 %)."


def test_many_layers_are_colours_without_numbers():
    figure = plots.layers({f"{layer}.q_proj": layer / 100 for layer in range(30)})
    assert not figure.axes[0].texts and figure.get_figheight() < 9
    assert plots.layers({"0.q_proj": 0.0})._repr_png_()  # a run that did not move


def test_a_spectrum_counts_the_directions_up_to_a_share():
    figure = plots.spectrum({"steep": [10.0, 1.0, 1.0], "flat": [1.0] * 10, "none": [0.0]}, rank=2)
    assert figure.caption == (
        "steep: 1 direction for 90%, 99% in 2. flat: 9 directions for 90%, 20% in 2. none: no change."
    )
    drawn = lines(figure)
    assert list(drawn["flat"].get_ydata()) == pytest.approx([n / 10 for n in range(1, 11)])
    assert list(drawn["none: no change"].get_ydata()) == []


def test_curves_has_a_panel_for_each_quantity_and_cuts_at_the_top():
    panels = {"loss": {"a": [9.0, 1.0, 0.0], "b": [2.0, 1.0, 0.5]}, "weight": {"a": [1.0, 0.5, 0.0]}}
    figure = plots.curves([-1, 0, 1], panels, xlabel="nats", mark=(0, "the start"), top=3.0)
    assert [axes.get_title("left") for axes in figure.axes] == ["loss", "weight"]
    assert list(lines(figure)["a"].get_ydata()) == [9.0, 1.0, 0.0]
    assert figure.axes[0].get_ylim()[1] == 3.0 and figure.axes[1].get_ylim()[1] < 1.2
    assert figure.axes[-1].get_xlabel() == "nats" and "Dashed: the start." in words(figure)
    assert "loss, a: 9 to 0." in figure.caption and "weight, a: 1 to 0." in figure.caption


def test_a_curve_may_stand_evenly():
    (axes,) = plots.curve([0, 1, 256], {"a": [0, 0.5, 1]}, xlabel="rank", ylabel="y", evenly=True, mark=256).axes
    assert list(axes.get_lines()[0].get_xdata()) == [0, 1, 2]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1", "256"]
    assert list(axes.get_lines()[1].get_xdata()) == [2, 2]


def panels():
    shares = {"base": (0.0, (0.0, 0.03)), "lora": (0.95, (0.9, 0.98)), "dpo": None}
    return [
        picture.Panel("answers", "share", shares, aims=("lora",)),
        picture.Panel("perplexity", "log", {"base": (120.0, (100.0, 150.0)), "lora": (1.5, None), "dpo": None}),
        picture.Panel(
            "memory", "amount", {"base": None, "lora": (2048.0, None), "dpo": None}, labelled="{:.0f} B".format
        ),
    ]


def test_the_scoreboard_draws_a_panel_per_score_with_intervals_and_numbers():
    figure = picture.side_by_side(panels(), colours=COLOURS, notes=["† dpo: no battery."])
    shares, surprise, memory = figure.axes[:3]
    assert [tick.get_text() for tick in shares.get_yticklabels()] == ["base", "lora", "dpo"]
    ends = [bar.get_segments()[0] for container in shares.containers for bar in container[2]]
    assert [segment[:, 0].tolist() for segment in ends] == [[0.0, 0.03], pytest.approx([0.9, 0.98])]
    assert [container[0].get_marker() for container in shares.containers] == ["o", "D"]  # what lora trained for
    assert surprise.get_xscale() == "log" and "lower is better" in surprise.get_title(loc="left")
    assert [bar.get_width() for bar in memory.patches] == [2048.0]
    text = words(figure)
    assert all(number in text for number in ("95%", "120", "1.5", "2048 B", "not measured", "† dpo: no battery."))
    assert figure.caption == (
        "answers: base 0%, lora 95%. perplexity: base 120, lora 1.5. memory: lora 2048 B. † dpo: no battery."
    )


def test_a_panel_in_which_nothing_was_measured_is_drawn():
    figure = picture.side_by_side(
        [picture.Panel("answers", kind, {"base": None}) for kind in ("share", "log", "amount")], colours=COLOURS
    )
    assert figure._repr_png_() and figure.caption.startswith("answers: not measured.")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: plots.loss([]), "history is empty"),
        (lambda: plots.loss(object()), r"wants trainer\.state\.log_history, and got object"),
        (lambda: plots.loss([{"train_runtime": 1.0, "step": 3}]), "none with loss; it holds step, train_runtime"),
        (lambda: plots.traces(history([1.0]), ["kl", "reward"]), "none with kl, reward; it holds loss, step"),
        (lambda: picture.side_by_side([], colours={}), "no run to draw"),
        (lambda: picture.side_by_side([picture.Panel("answers", "share", {})], colours={}), "no run to draw"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(draw, words):
    with pytest.raises(CourseError, match=words):
        draw()
