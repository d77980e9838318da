"""All runs side by side: what is shown, what is said against a row, and what bad files do to it."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesson.data.test_files import json_values
from unsloth_course import plots, scoreboard
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.profile import HUB_DATA
from unsloth_course.lesson.scoreboard import LESSONS, SCORES


def score(value, low, high, n=100, questions="c0ffee"):
    return {"value": value, "interval": [low, high], "n": n, "questions": questions}


BATTERY = {
    "answers": score(0.95, 0.9, 0.98),
    "retention": score(0.9, 0.85, 0.94),
    "preference": score(0.25, 0.2, 0.3),
    "format": score(0.5, 0.4, 0.6),
    "accuracy": score(0.6, 0.5, 0.7),
    "perplexity_domain": score(123.4, 110.0, 140.0),
    "perplexity_general": score(1.56, 1.5, 1.6),
}


def run_of(lesson, **changes):
    """A results file as a lesson writes it; a dotted name changes a value inside."""
    found = {
        "lesson": lesson,
        "profile": "cpu",
        "device": "2 CPU cores, 24 GiB",
        "model": "pocket",
        "data": "pocket",
        "versions": {"trl": "1.15.0", "torch": "2.13.0"},
        "parameters": {"total": 3_721_472, "trainable": 311_296},
        "battery": copy.deepcopy(BATTERY),
        "file_bytes": 1_253_376,
    }
    if lesson != "base":
        found |= {
            "seed": 3407,
            "training": {"peak_memory_bytes": 60_000_000, "seconds": 14.2},
            "evaluation": {"metric": "exact_match", "n": 200, "before": 0.0, "after": 0.955, "interval": [0.92, 0.98]},
            "receipt": {"verdict": "trained", "findings": []},
        }
    for path, value in changes.items():
        inside = found
        *parents, last = path.split("__")
        for parent in parents:
            inside = inside[parent]
        inside[last] = value
    return found


@pytest.fixture
def board(tmp_path):
    """Writes results files and reads the folder: `board(run_of("lora"), ...)`."""

    def read(*runs, **texts):
        for found in runs:
            (tmp_path / f"{found['lesson']}.json").write_text(json.dumps(found))
        for lesson, text in texts.items():
            (tmp_path / f"{lesson}.json").write_text(text)
        return scoreboard.read(tmp_path)

    return read


def notes(found, lesson):
    return next(row for row in found.rows if row.lesson == lesson).notes


def test_rows_stand_in_one_order_and_lessons_not_run_are_named(board):
    found = board(*map(run_of, ("cpt", "lora", "base")))
    assert [row.lesson for row in found.rows] == ["base", "lora", "cpt"]
    assert found.missing == ["full", "dpo", "grpo"]
    assert "Not run yet: full, dpo, grpo." in str(found)
    assert str(found).count("not run yet") == 3
    assert all(row.comparable and row.notes == () for row in found.rows)


def test_the_json_has_the_keys_that_the_issue_names(board):
    found = json.loads(board(run_of("base"), run_of("lora")).to_json())
    base, lora = found["rows"]
    assert {"lesson", "scores", "peak_memory_bytes", "seconds", "trainable", "file_bytes"} <= lora.keys()
    assert (lora["lesson"], lora["peak_memory_bytes"], lora["seconds"]) == ("lora", 60_000_000, 14.2)
    assert (lora["trainable"], lora["file_bytes"], lora["verdict"]) == (311_296, 1_253_376, "trained")
    assert lora["scores"]["answers"] == BATTERY["answers"]
    assert lora["scores"]["target"]["after"] == 0.955 and lora["scores"]["target"]["interval"] == [0.92, 0.98]
    assert set(base["scores"]) == set(SCORES)
    assert (base["seconds"], base["peak_memory_bytes"], base["verdict"]) == (0.0, 0, None)


def test_the_table_shows_values_with_intervals_and_marks_the_aim(board):
    text = str(board(run_of("base"), run_of("lora"), run_of("dpo")))
    base, lora, dpo = (
        next(line for line in text.splitlines() if line.startswith(name)) for name in ("base", "lora", "dpo")
    )
    assert base.split()[:4] == ["base", "95.0", "90.0", "25.0"]
    assert lora.split()[:4] == ["lora", "95.0*", "90.0", "25.0"]
    assert dpo.split()[:4] == ["dpo", "95.0", "90.0", "25.0*"]
    assert "90–98" in text and "1.50–1.60" in text and "110–140" in text
    assert "exact match 0.0 → 95.5 %" in text and "change +92.0 to +98.0" in text
    assert "57.2 MiB" in text and "14 s" in text and "311,296" in text and "1.2 MiB" in text


def test_the_lesson_on_perplexity_shows_it_as_a_number(board):
    evaluation = {"metric": "perplexity", "n": 50, "before": 12.25, "after": 1.5, "interval": [-11.0, -10.5]}
    text = str(board(run_of("cpt", evaluation=evaluation)))
    assert "perplexity 12.2 → 1.50" in text and "change -11.00 to -10.50" in text and "1.50 %" not in text


def test_the_table_fits_a_terminal_of_80_characters(board):
    found = board(*map(run_of, LESSONS))
    lines = [line for table in found.tables() for line in scoreboard.board._text(*table).splitlines()]
    assert max(map(len, lines)) <= 80


def test_a_row_made_before_the_battery_existed_is_shown_and_says_so(board):
    old = run_of("lora")
    del old["battery"], old["file_bytes"]
    found = board(run_of("base"), old)
    assert notes(found, "lora") == ("its results file holds no battery, so its scores are not known. Run it again.",)
    lora = next(line for line in str(found).splitlines() if line.startswith("lora†"))
    assert lora.split() == ["lora†", *7 * ["–"]]
    assert found.picture().caption


def test_a_score_that_was_not_measured_says_why(board):
    reason = "not measured: the Hub cannot be reached."
    missing = {"value": None, "interval": None, "n": 0, "questions": None, "reason": reason}
    found = board(run_of("lora", battery__format=missing, battery__accuracy=missing))
    assert notes(found, "lora") == (f"format, accuracy: {reason}",)
    assert json.loads(found.to_json())["rows"][0]["scores"]["format"]["reason"] == reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "HuggingFaceTB/SmolLM2-135M-Instruct"}, "not comparable: its model is HuggingFaceTB/SmolLM2"),
        ({"data": "mine.json"}, "not comparable: it learned from mine.json, most others from the lesson's own data."),
        ({"profile": "gpu"}, "not comparable: its profile is gpu, that of most rows is cpu."),
        ({"battery__format": score(0.5, 0.4, 0.6, questions="0ther")}, "not comparable in format: it was asked other"),
        ({"device": "8 CPU cores, 16 GiB"}, "memory and seconds are those of another machine, 8 CPU cores, 16 GiB;"),
        ({"versions__trl": "1.14.0"}, "it ran with trl 1.14.0; most rows with trl 1.15.0."),
        ({"receipt__verdict": "suspicious"}, 'the verdict on its run is "suspicious".'),
        ({"receipt__verdict": "not trained"}, 'the verdict on its run is "not trained".'),
    ],
)
def test_what_speaks_against_a_run_is_said(board, change, words):
    found = board(run_of("base"), run_of("full"), run_of("lora", **change))
    (note,) = notes(found, "lora")
    assert note.startswith(words)
    assert f"† lora: {note}" in str(found) and "lora†" in str(found)
    assert notes(found, "full") == notes(found, "base") == ()
    comparable = not note.startswith("not comparable")
    assert [row["comparable"] for row in json.loads(found.to_json())["rows"]] == [True, True, comparable]


def test_each_lesson_has_its_own_set_on_the_hub_and_they_go_together(board):
    hub = {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "profile": "gpu"}
    runs = [run_of(name, **hub, data="yahma/alpaca-cleaned") for name in ("base", "full", "lora")]
    runs.append(run_of("grpo", **hub, data=HUB_DATA["grpo"]))
    assert all(row.notes == () for row in board(*runs).rows)


BAD = {
    "not valid JSON": "{",
    "the whole is wrong: expected `object`, got `array`": "[]",
    "it holds the results of 'dpo'": json.dumps(run_of("dpo")),
    "missing required field": "{}",
    "receipt.verdict is wrong: invalid enum value 'excellent'": {"receipt__verdict": "excellent"},
    "it is not valid JSON": {"training__seconds": float("nan")},
    "training.peak_memory_bytes is wrong: expected `int` >= 0": {"training__peak_memory_bytes": -1},
    "battery[...].value is wrong: expected `float | null`, got `str`": {"battery__answers": score("0.5", 0, 1)},
    "battery[...].value is wrong: number out of range": {"battery__answers": score(10**400, 0, 1)},
    "battery[...].value is wrong: expected `float` < 1e+305": {"battery__answers": score(1e306, 0, 1)},
    "battery[...] is wrong: the interval begins after its end": {"battery__answers": score(0.5, 0.6, 0.4)},
    "battery[...] is wrong: the value has no interval": {"battery__answers": {"value": 0.5, "interval": None, "n": 3}},
    "answers is 95, and a share is at most 1": {"battery__answers": score(95.0, 0, 1)},
    "evaluation.interval is wrong: ": {"evaluation__interval": [1]},
}


@pytest.mark.parametrize(("reason", "text"), BAD.items(), ids=BAD)
def test_a_damaged_or_foreign_file_is_left_out_in_a_sentence(board, reason, text):
    found = board(run_of("full"), lora=text if isinstance(text, str) else json.dumps(run_of("lora", **text)))
    assert [row.lesson for row in found.rows] == ["full"]
    (sentence,) = found.left_out
    assert sentence.startswith("lora.json is left out: ") and reason.strip() in sentence
    assert sentence in str(found) and "\n" not in sentence
    assert "lora" not in found.missing


def test_bytes_that_are_no_text_json_without_end_and_what_is_no_file_are_left_out(board, tmp_path):
    (tmp_path / "full.json").write_bytes(b"\xff\xfe\x00{")
    (tmp_path / "dpo.json").mkdir()
    found = board(lora="[" * 100_000)
    assert found.rows == [] and len(found.left_out) == 3
    assert any(text.startswith("dpo.json is left out: it cannot be read (") for text in found.left_out)


def test_scores_that_are_null_after_a_broken_run_are_shown_as_unknown(board):
    broken = {"metric": "exact_match", "n": 5, "before": 0.0, "after": None, "interval": [None, None]}
    found = board(run_of("lora", evaluation=broken, receipt__verdict="not trained"))
    assert "exact match 0.0 → – %" in str(found)


PLACES = "battery battery__answers battery__format__value versions receipt evaluation device seed"


@given(st.sampled_from(PLACES.split()), json_values)
def test_whatever_stands_in_a_file_it_is_a_row_or_a_sentence(tmp_path_factory, place, value):
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    (folder / "lora.json").write_text(json.dumps(run_of("lora", **{place: value})))
    found = scoreboard.read(folder)
    assert len(found.rows) + len(found.left_out) == 1
    assert str(found) and found._repr_html_() and json.loads(found.to_json(), parse_constant=pytest.fail)


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(CourseError, match=r"There is no results folder .*nowhere\. Run a lesson first"):
        scoreboard.read(tmp_path / "nowhere")


def test_text_from_files_is_escaped_in_html(board):
    evil = '<script>alert("x")</script>'
    found = board(run_of("base"), run_of("full"), run_of("lora", device=evil, data=evil, versions={evil: evil}))
    for text in (found._repr_html_(), scoreboard.page(found)):
        assert "<script" not in text and "&lt;script&gt;" in text


def test_the_html_table_has_every_row_and_a_page_fetches_nothing(board):
    found = board(run_of("base"), run_of("lora"))
    text = found._repr_html_()
    assert "95.0*<br><small>90–98</small>" in text and text.count("not run yet") == 4
    page = scoreboard.page(found)
    assert text in page and "default-src 'none'" in page
    assert 'src="data:image/png;base64,' in page and "http" not in page.replace("http-equiv", "")


def test_the_picture_says_every_value_in_its_caption(board):
    picture = board(run_of("base"), run_of("lora"), run_of("cpt", receipt__verdict="suspicious")).picture()
    assert "answers: base 95%, lora 95%, cpt† 95%." in picture.caption
    assert "perplexity, domain: base 123, lora 123, cpt† 123." in picture.caption
    assert "trained parameters: base not measured" not in picture.caption
    assert 'cpt: the verdict on its run is "suspicious".' in picture.caption
    assert picture._repr_png_().startswith(b"\x89PNG")


def test_three_files_are_written(board, tmp_path):
    found = board(run_of("lora"))
    paths = scoreboard.write(found, tmp_path)
    assert [path.name for path in paths] == ["scoreboard.json", "scoreboard.html", "scoreboard.png"]
    assert json.loads(paths[0].read_text()) == json.loads(found.to_json())
    assert paths[1].read_text() == scoreboard.page(found) and paths[2].read_bytes().startswith(b"\x89PNG")
    assert scoreboard.read(tmp_path).left_out == []  # its own files are no results


def test_a_picture_that_cannot_be_written_is_a_sentence(board, tmp_path):
    found = board(run_of("lora"))
    (tmp_path / "scoreboard.png").mkdir()
    with pytest.raises(CourseError, match=r"scoreboard\.png cannot be written"):
        scoreboard.write(found, tmp_path)


def test_what_would_steer_a_terminal_is_not_shown(board):
    assert "its model is [bold]�[31mmine" in str(board(run_of("base"), run_of("lora", model="[bold]\x1b[31mmine")))


def test_a_perplexity_beyond_all_measure_is_drawn_and_written(board):
    found = board(run_of("base"), run_of("cpt", battery__perplexity_domain=score(1e304, 1e303, 1e304)))
    assert "1e+304*" in str(found)
    assert found.picture()._repr_png_() and "cpt 1e+304" in found.picture().caption


def test_a_dollar_in_a_file_is_no_formula(board):
    assert board(run_of("base"), run_of("full"), run_of("lora", data="$\\frac$.json")).picture()._repr_png_()


def test_a_lesson_keeps_its_colour_whoever_else_has_run(board):
    def colour(picture):
        return picture.axes[0].containers[0][0].get_color()

    assert colour(board(run_of("lora")).picture()) == plots.RUN_COLOURS[LESSONS.index("lora")]


def test_a_damaged_base_is_measured_by_any_lesson(board):
    (sentence,) = board(base="{").left_out
    assert sentence == "base.json is left out: it is not valid JSON. Any lesson measures the base again."
