"""Data sets on the Hub: what `data` and the sources make of them, over real HTTP against the Hub of `hub_server.py`."""

import json
import sys

import pyarrow
import pytest
from pyarrow import parquet

from unsloth_course import cli
from unsloth_course.commands.convert import convert
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import sources, tables

NAME = "somebody/rows"
ALPACA = [{"instruction": f"Say {n}.", "input": "", "output": str(n)} for n in range(40)]


@pytest.fixture
def server(hub_here, tmp_path):
    """A running Hub with a data set."""
    (tmp_path / "repository").mkdir()
    hub_here.add_dataset(NAME, tmp_path / "repository")
    return hub_here


@pytest.fixture
def repository(server, tmp_path):
    """Writes a file of rows into the data set on the Hub."""

    def write(rows, name="train.jsonl"):
        path = tmp_path / "repository" / name
        path.parent.mkdir(exist_ok=True)
        if name.endswith(".parquet"):
            parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=200)
        elif name.endswith(".json"):
            path.write_text(json.dumps(rows), encoding="utf-8")
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    return write


def fetched(server):
    return sum(request.sent for request in server.requests if "/resolve/" in request.path)


@pytest.mark.parametrize("name", ["train.jsonl", "rows.json", "data/train-00000-of-00001.parquet"])
def test_a_set_is_told_checked_and_converted(repository, tmp_path, name):
    repository([*ALPACA, ALPACA[0] | {"output": " "}], name)
    report = convert.run(NAME, to="chat", out=tmp_path / "out.jsonl")
    assert (report.format, report.rows, report.converted) == ("alpaca", 41, 40)
    assert [(row.file, row.row, row.reason) for row in report.set_aside] == [(NAME, 41, "column 'output' is empty")]
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["messages"] == [{"role": "user", "content": "Say 0."}, {"role": "assistant", "content": "0"}]


def test_the_command_prints_the_report_alone(repository, tmp_path, monkeypatch, capsys):
    repository(ALPACA)
    monkeypatch.setattr(sys, "argv", ["unsloth-course", "data", NAME, "--json"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert json.loads(capsys.readouterr().out)["converted"] == 40


def test_each_source_reads_a_set_in_another_form(repository):
    repository(
        [
            {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"#### {n}"}]}
            for n in range(40)
        ]
    )
    for read in (sources.instructions, sources.problems, sources.conversations):
        train, held_out, checked = read(NAME, train=99, held_out=10, seed=1)
        assert (len(train), len(held_out), len(checked.dataset)) == (30, 10, 40)
    with pytest.raises(CourseError, match="cannot be read as preference"):
        sources.preferences(NAME, train=9, held_out=5, seed=1)


def test_what_is_in_the_cache_is_not_asked_for_again(repository, server):
    repository(ALPACA)
    sources.instructions(NAME, train=9, held_out=9, seed=1)
    before = fetched(server)
    assert sources.kind(NAME) == "instruction" and fetched(server) == before
    server.down()
    assert sources.kind(NAME) == "instruction"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda server: server.gate(NAME), "gated"),
        (lambda server: server.down(), "cannot be reached"),
        (lambda server: server.down(503), "out of order"),
        (lambda server: server.repositories.clear(), "no dataset named"),
    ],
    ids=["gated", "down", "503", "unknown"],
)
def test_a_hub_that_gives_nothing_is_one_sentence(repository, server, monkeypatch, fault, words):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    repository(ALPACA)
    fault(server)
    for ask in (sources.kind, lambda name: list(tables.stream(name)), convert.run):
        with pytest.raises(CourseError, match=words):
            ask(NAME)


def test_a_set_in_no_known_form_is_one_sentence(repository):
    repository([{"x": 1}])
    for ask in (sources.kind, convert.run):
        with pytest.raises(CourseError, match="no form that is known here; they have the columns 'x'"):
            ask(NAME)


def test_a_broken_file_of_a_set_is_one_sentence(repository, tmp_path):
    (tmp_path / "repository" / "train.parquet").write_bytes(b"PAR1 no")
    for ask in (sources.kind, convert.run):
        with pytest.raises(CourseError, match="cannot be read as a table"):
            ask(NAME)
