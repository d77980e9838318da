"""Stages one after the other: what a file may hold, what the scoreboard says, and going on where one stopped."""

import json
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
from typer.testing import CliRunner

from unsloth_course import cli
from unsloth_course.commands import options
from unsloth_course.commands.finetune import chain
from unsloth_course.core.errors import CourseError

REPOSITORY = Path(__file__).resolve().parents[3]
TWO = """
model = "pocket"
profile = "cpu"
[[stage]]
method = "cpt"
data = "pocket"
target = 10
[[stage]]
name = "answers"
method = "lora"
data = "rows.jsonl"
steps = 3
target = 0.5
"""


@pytest.fixture
def two(tmp_path):
    path = tmp_path / "chain.toml"
    path.write_text(TWO)
    return path


def test_each_stage_builds_on_the_one_before(two, tmp_path):
    (first, second), out = chain.read(two, tmp_path / "out")
    assert (first.name, first.options.model, first.target) == ("1-cpt", "pocket", 10.0)
    assert (second.name, second.options.model) == ("answers", str(out / "1-cpt" / "merged"))
    assert second.options.earlier == ("cpt pocket",) and second.options.steps == 3 and second.options.hand_on
    assert first.options.profile == second.options.profile == "cpu"


def test_full_fine_tuning_hands_on_its_whole_model(two, tmp_path):
    two.write_text(TWO.replace('"cpt"', '"full"'))
    (first, second), out = chain.read(two, tmp_path / "out")
    assert not first.options.hand_on and second.options.model == str(out / "1-full" / "model")


def test_the_file_in_docs_is_a_chain(tmp_path):
    stages, out = chain.read(REPOSITORY / "docs" / "chain.toml")
    assert [stage.options.method for stage in stages] == ["cpt", "lora", "dpo"]
    assert all(stage.target for stage in stages) and out == Path("results/chain")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name = "answers"', 'name = "a/b"', "stage 2: 'a/b' is no name for a folder"),
        ('name = "answers"', 'name = "1-cpt"', "stage 2: '1-cpt' is no name for a folder of its own"),
        ('data = "rows.jsonl"', "", "stage 2 has no data. Write one, such as data"),
        ("target = 10", 'target = "10"', "stage 1: target is '10'; give a number"),
        ("steps = 3", "steps = 0", "stage 2: steps is 0"),
        ("steps = 3", 'out = "x"', "stage 2: 'out' is decided by the chain"),
        ("steps = 3", "stairs = 3", "stage 2: 'stairs' is no option"),
    ],
)
def test_a_fault_is_named_with_its_stage(two, old, new, sentence):
    two.write_text(TWO.replace(old, new))
    with pytest.raises(CourseError, match=sentence):
        chain.read(two)


ROWS = [("cpt", "pocket", ""), ("lora", "rows.jsonl", ""), ("dpo", "pocket", "")]


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (("held_out = 20", "held_out = 100", ""), "stage 2: held_out is not that of stage 1-cpt"),
        (("", "", "held_out = 100"), "stage 3: held_out is not that of stage 2-lora"),
        (("", "max_length = 64", ""), "stage 3: max_length is not that of stage 2-lora"),
        (("held_out = 100", "max_length = 64", "held_out = 200\nmax_length = 64"), "stage 3: held_out .* 1-cpt"),
        (("held_out = 100", "max_length = 64", "max_length = 64"), None),  # 100 is what cpt holds out anyway
        (("max_length = 256", "", ""), None),
        (("held_out = 12", "held_out = 12", "held_out = 12"), None),
    ],
)
def test_scores_that_cannot_be_compared_are_refused_before_the_training(tmp_path, more, name):
    path = tmp_path / "chain.toml"
    stages = [f'[[stage]]\nmethod = "{row[0]}"\ndata = "{row[1]}"\n{own}' for row, own in zip(ROWS, more, strict=True)]
    path.write_text("\n".join(stages))
    if name:
        with pytest.raises(CourseError, match=f"{name}.* Give both stages the same one"):
            chain.read(path)
    else:
        assert len(chain.read(path)[0]) == 3


def results(stage, verdict="trained", before=0.0, after=0.9, earlier=()):
    found = {
        "receipt": {"verdict": verdict},
        "stands": {"metric": "perplexity" if stage.options.method == "cpt" else "right answers"}
        | {"before": before, "after": after},
        "earlier": [{"metric": "", "before": was, "after": now} for was, now in earlier],
        "wall_seconds": 5.0,
        "options": asdict(stage.options) | {"out": str(stage.options.out)},
    }
    stage.options.out.mkdir(parents=True, exist_ok=True)
    (stage.options.out / f"{stage.options.lesson}.json").write_text(json.dumps(found))
    options.write(stage.options, stage.options.out)
    (stage.options.out / "merged").mkdir(exist_ok=True)


@pytest.fixture
def stub(monkeypatch):
    """Stands in for the stages' processes: each writes the results that the test gives it."""
    made, runs = {}, []

    def run(stage, resume):
        runs.append((stage.name, resume))
        results(stage, **made.get(stage.name, {}))

    monkeypatch.setattr(chain, "_run_stage", run)
    made["1-cpt"] = {"before": 1000.0, "after": 10.0}
    made["answers"] = {"after": 0.9, "earlier": [(10.0, 12.0)]}
    return made, runs


def test_the_scoreboard_follows_every_score(two, tmp_path, stub):
    outcome = chain.run(two, tmp_path / "out")
    domain, answers = outcome.rows
    assert domain.scores == {"1-cpt": 10.0, "answers": 12.0} and domain.met and domain.kept
    assert 0.03 < domain.lost < 0.05, "ln(12/10) of ln(1000/10)"
    assert answers.met and answers.lost == 0 and not outcome.complaints
    assert json.loads((tmp_path / "out" / "chain.json").read_text()) == json.loads(outcome.to_json())
    for word in ("1-cpt: perplexity", "1,000.00", "12.00", "90.0 %", ">= 50.0 %", "<= 10.00", "trained"):
        assert word in str(outcome)


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("answers", {"after": 0.4}, "Stage answers reached right answers 40.0 %, and its target is 0.5"),
        ("1-cpt", {"after": 10.2}, "Stage 1-cpt reached perplexity 10.20, and its target is 10"),
        (
            "answers",
            {"earlier": [(10.0, 20.0)]},
            "What stage 1-cpt taught was lost on the way: perplexity 10.00 then, 20",
        ),
        ("answers", {"verdict": "suspicious"}, "Stage answers: the receipt says suspicious"),
    ],
)
def test_what_went_wrong_is_said(two, tmp_path, stub, name, change, complaint):
    stub[0][name] = stub[0][name] | change
    outcome = chain.run(two, tmp_path / "out")
    assert any(complaint in found for found in outcome.complaints), outcome.complaints


def test_a_stage_that_got_another_model_ends_the_chain(two, tmp_path, stub):
    stub[0]["answers"] |= {"earlier": [(15.0, 12.0)]}
    with pytest.raises(CourseError, match=r"began with perplexity 15.00 .* had ended with 10.00: it got another model"):
        chain.run(two, tmp_path / "out")


def test_resumed_it_leaves_out_what_is_done(two, tmp_path, stub):
    out = tmp_path / "out"
    chain.run(two, out)
    outcome = chain.run(two, out, resume=True)
    assert stub[1] == [("1-cpt", False), ("answers", False)] and len(outcome.rows) == 2
    two.write_text(TWO.replace("steps = 3", "steps = 4"))
    chain.run(two, out, resume=True)
    assert stub[1][2:] == [("answers", True)], "the stage that was changed, and that one alone"
    two.write_text(TWO.replace("steps = 3", "steps = 4").replace("target = 10", "target = 10\nrank = 8"))
    (out / "answers" / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    chain.run(two, out, resume=True)
    assert not (out / "answers" / "checkpoints").exists()
    assert stub[1][3:] == [("1-cpt", True), ("answers", False)], "what stands on a stage that was changed is made anew"


def test_a_stage_that_learned_nothing_is_not_done(two, tmp_path, stub):
    stub[0]["1-cpt"] |= {"verdict": "not trained"}
    chain.run(two, tmp_path / "out")
    chain.run(two, tmp_path / "out", resume=True)
    assert stub[1][2:] == [("1-cpt", True), ("answers", False)]


def test_the_options_of_a_stage_are_those_of_its_results(two, tmp_path, stub):
    """A later run that was stopped may have left its finetune.toml beside the results of the one before."""
    (_, second), out = chain.read(two, tmp_path / "out")
    chain.run(two, out)
    assert chain._done(second)
    options.write(replace(second.options, steps=9), second.options.out)
    assert chain._done(second) and not chain._done(replace(second, options=replace(second.options, steps=9)))


@pytest.fixture
def in_forks(monkeypatch):
    """The processes of stages are forks of one that has Unsloth imported."""
    if sys.platform == "linux":
        monkeypatch.setattr(chain, "subprocess", forked)


def test_a_failed_stage_goes_on_with_its_mended_options(tmp_path, in_forks, capfd):
    """With the real command, which once refused what the chain's sentence had advised."""
    path = tmp_path / "chain.toml"
    path.write_text(
        'model = "pocket"\nprofile = "cpu"\nbatch = 4\nheld_out = 12\n'
        '[[stage]]\nmethod = "lora"\ndata = "pocket"\nsteps = 2\n'
    )
    ((stage,), out) = chain.read(path, tmp_path / "out")
    stage.options.out.mkdir(parents=True)
    options.write(replace(stage.options, learning_rate=0.5), stage.options.out)  # all that a failed stage has left
    chain.run(path, out, resume=True)
    assert options.read(stage.options.out / options.CONFIG)["learning_rate"] == 1e-3, "the recipe's"
    assert "the run begins at its first step" in capfd.readouterr().out


def test_a_stage_that_fails_ends_the_chain_with_a_sentence(two, tmp_path):
    two.write_text(TWO.replace('method = "cpt"', 'method = "lora"').replace('data = "pocket"', 'data = "gone.jsonl"'))
    with pytest.raises(CourseError, match=r"Stage 1-lora did not come to its end; .* --resume"):
        chain.run(two, tmp_path / "out", say=lambda line: None)


def test_a_real_chain(tmp_path, in_forks, capfd):
    path = tmp_path / "chain.toml"
    stage = '[[stage]]\nmethod = "{}"\ndata = "pocket"\nheld_out = 12\nsteps = 2\n{}'
    path.write_text(
        'model = "pocket"\nprofile = "cpu"\nbatch = 4\n'
        + stage.format("lora", "")
        + stage.format("dpo", "warm_up = 2\n")
    )
    outcome = chain.run(path, tmp_path / "out")
    first, second = outcome.rows
    assert list(first.scores) == ["1-lora", "2-dpo"] and second.metric == "preference_rate"
    assert (tmp_path / "out" / "2-dpo" / "merged" / "config.json").is_file()
    config = json.loads((tmp_path / "out" / "2-dpo" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str((tmp_path / "out" / "2-dpo" / "start").resolve())
    assert "trained for 2 steps" in capfd.readouterr().out


def test_ctrl_c_waits_for_the_stage_to_save(two, tmp_path, monkeypatch):
    """The stage gets the signal too; the chain lets it come to its end."""
    waited = []

    def wait():
        waited.append(1)
        if len(waited) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return 130

    monkeypatch.setattr(chain.subprocess, "Popen", lambda *_, **__: SimpleNamespace(wait=wait))
    with pytest.raises(KeyboardInterrupt):
        chain.run(two, tmp_path / "out", say=lambda line: None)
    assert len(waited) == 2


def test_sigterm_reaches_the_stage_and_waits_for_it(two, tmp_path, monkeypatch):
    """A scheduler sends it to the chain alone."""
    told = []

    def wait():
        signal.raise_signal(signal.SIGTERM)
        assert told == ["the stage"]
        return 130

    process = SimpleNamespace(wait=wait, terminate=lambda: told.append("the stage"))
    monkeypatch.setattr(chain.subprocess, "Popen", lambda *_, **__: process)
    before = signal.getsignal(signal.SIGTERM)
    done = CliRunner().invoke(cli.app, ["finetune", "--config", str(two), "--out", str(tmp_path / "out")])
    assert done.exit_code == 130 and signal.getsignal(signal.SIGTERM) is before
    assert f"The stages so far are in {tmp_path / 'out'}; the same command with --resume goes on" in done.stderr


def test_a_row_that_never_fell_lost_nothing():
    row = chain.Row("a", "perplexity", 5.0, {"a": 6.0})
    assert row.lost == 0 and replace(row, scores={"a": 6.0, "b": 9.0}).lost == 0
