"""What `storyboard` writes: complete, harmless, and nothing that is fetched."""

import json
import re

import nbformat
import pytest

from unsloth_course import studio
from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.studio import clock, deck, executed, recording_copy, screen, script, teleprompter

from . import made

PAGES = ("script.html", "slides.html", "teleprompter.html")
# What loads something, and the attribute that says what.
LOADING = dict.fromkeys(("img", "script", "iframe", "embed", "video", "audio", "source"), "src")
LOADING |= {"link": "href", "object": "data"}


@pytest.fixture(scope="module")
def board():
    return clock.board("lora", made.lesson(), seconds=made.SECONDS)


@pytest.fixture(scope="module")
def run(board):
    cells = [scene.cell for scene in board.scenes if lessons.is_run(scene.cell)]
    return executed.ExecutedCopy(
        "a made machine",
        "2026-11-21",
        {cell.id: cell.source for cell in cells},
        {cell.id: cell.outputs for cell in cells},
        made.SECONDS["cells"],
    )


@pytest.mark.slow
def test_no_page_fetches_anything(written, soup):
    for name in PAGES:
        page = soup(written / name)
        policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
        assert policy.startswith("default-src 'none'") and "http" not in policy
        for tag, attribute in LOADING.items():
            found = [element.get(attribute, "data:") for element in page.find_all(tag)]
            assert all(value.startswith("data:") for value in found), (name, tag)
        styles = " ".join(style.string or "" for style in page.find_all("style"))
        styles += " ".join(element["style"] for element in page.find_all(style=True))
        assert "@import" not in styles and not re.search(r"url\(\s*['\"]?(?!data:)", styles)


def test_every_cell_with_notes_is_in_script_deck_and_teleprompter(written, soup):
    board = made.board_of(written.name)
    texts = [" ".join(soup(written / name).body.get_text(" ").split()) for name in PAGES]
    for scene in board.scenes:
        for part in scene.parts:
            if part.kind == "say":
                assert all(" ".join(part.text.split()) in text for text in texts), scene.cell.id
    assert f"{clock.stamp(board.seconds)}** end" in (written / "script.md").read_text(encoding="utf-8")


def test_the_recording_copy_has_headings_and_code_and_nothing_else_and_the_take_every_cell_that_runs(written):
    original = nbformat.read(lessons.notebook_path(written.name), 4)
    copy = nbformat.read(written / lessons.LESSONS[written.name], 4)
    nbformat.validate(copy)
    code = [cell.source for cell in copy.cells if cell.cell_type == "code"][1:]
    assert code == [cell.source for cell in original.cells if cell.cell_type == "code"]
    assert not any(cell.get("outputs") or "course" in cell.metadata for cell in copy.cells)
    prose = [cell.source for cell in copy.cells if cell.cell_type == "markdown"][1:]
    assert all(text.startswith(("#", "> **Replay**")) for text in prose)
    assert sum(text.startswith(">") for text in prose) == sum(s.replayed for s in made.board_of(written.name).scenes)
    take = json.loads((written / "take.json").read_text(encoding="utf-8"))
    assert set(take["cells"]) == {cell.id for cell in copy.cells[2:] if lessons.is_run(cell)}


def test_chapter_marks_have_the_form_of_video_sites_and_the_checklist_names_every_segment(written):
    lines = (written / "chapters.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 3 and lines[0].startswith("00:00 ")
    assert all(re.fullmatch(r"\d\d:\d\d \S.*", line) for line in lines)
    text = (written / "checklist.md").read_text(encoding="utf-8")
    assert all(f"**{segment}**" in text for segment in clock.SEGMENTS)
    assert lessons.LESSONS[written.name] in text and text.count("- [ ]") > 15


def test_notes_and_outputs_cannot_break_a_page(board, run):
    for page in (script.page(board, run), deck.page(board, run), teleprompter.page(board, run)):
        assert "alert(1)" not in page and "onclick='x()'" not in page
        assert "the &lt;b&gt;bar&lt;/b&gt;" in page and "the <b>bar" not in page
    assert "kept" in deck.page(board, run) and "kept" in teleprompter.page(board, run)


def test_marks_in_a_title_stay_text(board, run):
    notebook = made.lesson()
    notebook.cells[0].source = "# A <i>made</i> *lesson* </title>"
    odd = clock.board("lora", notebook, seconds=made.SECONDS)
    assert "\\<i\\>made" in script.markdown(odd, run)
    assert "</title> " not in script.page(odd, run) and "&lt;/title&gt;" in deck.page(odd, run)


def test_a_replayed_cell_says_so_with_its_full_time(board, run):
    said = "replay: it ran 60 s on a made machine; 10 s of that are in the take"
    assert said in script.markdown(board, run) and said in deck.page(board, run)
    assert said in teleprompter.page(board, run)
    copy = recording_copy.notebook(board, run)
    assert any(cell.source.endswith("the next cell took 60 s on a made machine.") for cell in copy.cells)


def test_a_cell_changed_since_the_run_is_not_replayed(board, run):
    sources = dict(run.sources) | {"quick": "x = 2"}
    older = executed.ExecutedCopy("m", "d", sources, run.outputs, run.seconds)
    assert set(json.loads(recording_copy.take(board, older))["cells"]) == {"long"}


def test_without_a_run_nothing_is_replayed_and_the_copy_says_how_to_get_one(board):
    copy = recording_copy.notebook(board, executed.ExecutedCopy())
    assert "REPLAY = False" in copy.cells[1].source and "--run results" in copy.cells[0].source
    assert not any(cell.source.startswith(">") for cell in copy.cells)


def test_a_gpu_has_no_stored_run_and_the_command_says_so():
    assert not executed.stored("lora", "gpu") and executed.stored("lora", "cpu")
    said = str(studio.Storyboard(made.board_of("lora", "gpu"), ()))
    assert "name a run of the gpu profile with --run" in said


def test_long_cells_are_cut_into_pages():
    cell = nbformat.v4.new_code_cell("\n".join(f"x{i} = {i}" for i in range(50)))
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="word " * 2000)]
    pages = screen.pages(cell, cell.outputs)
    assert "\n".join(page[0].source for page in pages if page[0].source) == cell.source
    assert all(len(shown.source.splitlines()) <= screen.CODE_LINES for page in pages for shown in page)
    texts = [output.data["text/plain"] for page in pages for shown in page for output in shown.outputs]
    assert "".join(texts).replace("\n", "") == "word " * 2000
    assert max(len(text.splitlines()) for text in texts) <= screen.CODE_LINES


def test_long_prose_is_cut_between_its_blocks_and_a_heading_is_never_alone():
    blocks = ["# Head", *[f"Paragraph {i} " + "word " * 60 for i in range(12)]]
    pages = [page[0].source for page in screen.pages(nbformat.v4.new_markdown_cell("\n\n".join(blocks)), ())]
    assert len(pages) > 2 and "\n\n".join(pages).split() == " ".join(blocks).split()
    assert "Paragraph 0" in pages[0]


def test_a_folder_without_a_run_is_one_sentence(tmp_path):
    with pytest.raises(CourseError, match="holds no finished run of the lora lesson"):
        studio.write("lora", tmp_path, run=tmp_path)


CELL = {"cell_type": "code", "id": "a", "metadata": {}, "source": "x", "outputs": [], "execution_count": None}
TIMES = {"execution": {"iopub.execute_input": "yesterday", "shell.execute_reply": "today"}}


@pytest.mark.parametrize("results", ["[]", "3", "{}", '{"device": 3}', '{"device": "a T4", "profile": "gpu"}', "{"])
@pytest.mark.parametrize(
    "cells", [None, 3, [], [CELL], [{}], [CELL | {"metadata": TIMES}], [CELL | {"metadata": {"execution": 3}}]]
)
def test_a_damaged_run_is_one_sentence(tmp_path, results, cells):
    notebook = {} if cells is None else {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    (tmp_path / lessons.LESSONS["lora"]).write_text(json.dumps(notebook), encoding="utf-8")
    (tmp_path / "lora.json").write_text(results, encoding="utf-8")
    with pytest.raises(CourseError, match="holds no finished run of the lora lesson"):
        studio.write("lora", tmp_path / "out", run=tmp_path)


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ('<a href="java\tscript:alert(1)">a</a>', "<a>a</a>"),
        ('<a href=" javascript:alert(1)">a</a>', "<a>a</a>"),
        ('<a href="data:text/html,x">a</a>', "<a>a</a>"),
        ('<a href="https://example.org/a?b#c">a</a>', '<a href="https://example.org/a?b#c">a</a>'),
        ('<a href="#here">a</a>', '<a href="#here">a</a>'),
        ('<a href="docs/colab.md">a</a>', '<a href="docs/colab.md">a</a>'),
        ('<img src="data:image/png;base64,AA"/>', '<img src="data:image/png;base64,AA"/>'),
        ('<img onerror="x()" src="https://example.org/a.png"/>', "<img/>"),
    ],
)
def test_what_could_run_or_be_fetched_is_taken_out(dirty, clean):
    assert screen.harmless(dirty) == clean


def test_outputs_and_times_of_a_run_are_used(tmp_path):
    lesson = lessons.LESSONS["lora"]
    notebook = nbformat.read(lessons.notebook_path("lora"), 4)
    for cell in notebook.cells:
        if lessons.is_run(cell):
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"shown by {cell.id}")]
            begun, ended = "2026-11-20T10:00:00.000000Z", "2026-11-20T10:00:30.500000Z"
            cell.metadata["execution"] = {"iopub.execute_input": begun, "shell.execute_reply": ended}
    (tmp_path / lesson).write_text(nbformat.writes(notebook), encoding="utf-8")
    (tmp_path / "lora.json").write_text('{"device": "a T4", "profile": "gpu"}', encoding="utf-8")
    made_of_it = studio.write("lora", tmp_path / "out", run=tmp_path)
    assert made_of_it.shown == "a T4, 2026-11-20" and made_of_it.board.profile == "gpu"
    with pytest.raises(CourseError, match="a run of the gpu profile; leave --profile cpu out"):
        studio.write("lora", tmp_path / "out", profile="cpu", run=tmp_path)
    scenes = {scene.cell.id: scene for scene in made_of_it.board.scenes}
    assert scenes["lora-34"].measured == 30.5 and scenes["lora-34"].replayed
    take = json.loads((tmp_path / "out" / "lora" / "take.json").read_text(encoding="utf-8"))
    assert (take["device"], take["date"]) == ("a T4", "2026-11-20")
    assert take["cells"]["lora-34"]["outputs"][0]["text"] == "shown by lora-34"
    assert "shown by lora-34" in (tmp_path / "out" / "lora" / "slides.html").read_text(encoding="utf-8")
