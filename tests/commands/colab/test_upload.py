"""Notebooks for upload: the package inside, how it is unpacked, and what damages are noticed."""

import base64
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from unsloth_course import cli
from unsloth_course.commands.colab import upload
from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return upload.write(tmp_path_factory.mktemp("upload"))


def install_cell(path):
    (cell,) = [cell for cell in nbformat.read(path, as_version=4).cells if lessons.has_tag(cell, "install")]
    return cell


def test_all_five_are_written_and_small(written):
    assert {path.name for path in written} == set(lessons.LESSONS.values())
    for name, size in written.items():
        with open(name, "rb") as file:
            assert len(file.read()) == size < 1_500_000


def test_each_is_a_valid_notebook_for_a_t4_without_outputs(written):
    for name in written:
        notebook = nbformat.read(name, as_version=4)
        nbformat.validate(notebook)
        assert notebook.metadata.accelerator == "GPU" and notebook.metadata.colab.gpuType == "T4"
        assert not any(cell.get("outputs") or "notes" in cell.metadata.get("course", {}) for cell in notebook.cells)


def test_all_other_cells_are_those_of_the_lesson(written):
    for name in written:
        mine = nbformat.read(name, as_version=4).cells
        lesson = nbformat.read(lessons.NOTEBOOKS / Path(name).name, as_version=4).cells
        differ = [a.id for a, b in zip(mine, lesson, strict=True) if a.source != b.source]
        assert len(differ) == 1


def test_weights_stay_out_and_all_modules_are_in():
    with tarfile.open(fileobj=io.BytesIO(upload.packed())) as packed:
        inside = packed.getnames()
    assert not [name for name in inside if name.endswith((".safetensors", ".pyc")) or "tokenizer.json" in name]
    package = REPOSITORY / "unsloth_course"
    modules = {f"unsloth_course/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    no_lesson = re.compile("unsloth_course/(studio/|commands/|cli/|__main__)")
    assert {name for name in modules if not no_lesson.match(name)} == {name for name in inside if name.endswith(".py")}
    assert {"unsloth_course/requirements.txt", "unsloth_course/recorded/needs.json"} <= set(inside)
    assert [name for name in inside if "recorded/runs/" in name]


def execute(source, folder, colab=True, before=""):
    """Runs a cell in a Python of its own, which sees no course; with an empty stand-in for Colab's package."""
    stand_in = f"import sys, types\nif {colab}:\n    sys.modules['google.colab'] = types.ModuleType('google.colab')\n"
    no_site = "sys.path[:] = [p for p in sys.path if p and 'site-packages' not in p]\n"
    no_site += "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
    how = {"cwd": folder, "capture_output": True, "text": True, "check": False}
    return subprocess.run([sys.executable, "-I", "-"], input=stand_in + no_site + before + source, **how)


SITE = next(path for path in sys.path if path.endswith("site-packages"))


def bootstrap(source):
    """The cell up to the installation, which needs a real session."""
    return source.replace("    colab.install()", "    print('at', colab.__file__)")


def test_the_cell_unpacks_and_imports_the_package_twice(written, tmp_path):
    source = bootstrap(install_cell(next(iter(written))).source)
    for _ in range(2):
        done = execute(source, tmp_path, before=f"sys.path.append({str(SITE)!r})\n")
        assert done.returncode == 0, done.stderr
        assert f"at {tmp_path}" in done.stdout and "no weights" in done.stdout
    (folder,) = tmp_path.iterdir()
    assert (folder / "unsloth_course" / "lesson" / "profile.py").is_file()


def test_twice_in_one_session_puts_one_folder_on_the_path(written, tmp_path):
    source = bootstrap(install_cell(next(iter(written))).source)
    count = "\nprint(sum('unsloth-course-' in path for path in sys.path))"
    done = execute(source + "\n" + source + count, tmp_path, before=f"sys.path.append({str(SITE)!r})\n")
    assert done.stdout.strip().endswith("\n1"), done.stdout + done.stderr


def test_in_a_local_kernel_it_unpacks_nothing_and_says_where_the_course_is(written, tmp_path):
    done = execute(install_cell(next(iter(written))).source, tmp_path, colab=False)
    assert done.returncode == 0 and "This file is for Colab" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_archive_is_refused_and_nothing_is_written(written, tmp_path):
    source = install_cell(next(iter(written))).source
    line = source.splitlines()[40]
    done = execute(source.replace(line, line[::-1]), tmp_path)
    assert done.returncode and "damaged on its way" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../escaped", "ABSOLUTE/escaped", "unsloth_course/../../escaped"])
def test_no_path_leaves_the_folder(tmp_path, name):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:xz") as packed:
        packed.addfile(tarfile.TarInfo(name.replace("ABSOLUTE", str(tmp_path))))
    lesson = nbformat.read(lessons.notebook_path("lora"), as_version=4)
    inside = tmp_path / "inside"
    inside.mkdir()
    notebook = upload.standalone(lesson, held.getvalue())
    (cell,) = [cell for cell in notebook.cells if lessons.has_tag(cell, "install")]
    done = execute(cell.source, inside)
    assert done.returncode and ("OutsideDestination" in done.stderr or "No module named" in done.stderr), done.stderr
    assert {path.name.partition("-")[0] for path in inside.iterdir()} <= {"unsloth"}
    assert list(tmp_path.iterdir()) == [inside]


def test_the_code_is_hidden_behind_a_form_and_is_base64(written):
    cell = install_cell(next(iter(written)))
    assert cell.metadata.cellView == "form" and "skip-execution" not in cell.metadata.tags
    packed = re.search(r'PACKED = """\n(.+?)\n"""', cell.source, re.DOTALL)[1]
    assert base64.b64decode(packed) == upload.packed(), "the same files give the same bytes"
    assert max(map(len, cell.source.splitlines())) <= 100


def test_a_notebook_without_its_install_cell_is_refused():
    with pytest.raises(CourseError, match="0 cells tagged"):
        upload.standalone(nbformat.v4.new_notebook(), b"")


def test_the_notebooks_folder_itself_is_refused():
    with pytest.raises(CourseError, match="the notebooks folder itself"):
        upload.write(lessons.NOTEBOOKS)


def test_a_file_in_the_way_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match="cannot be written"):
        upload.write(tmp_path / "file")


def test_the_command_writes_and_reports(tmp_path):
    done = CliRunner().invoke(cli.app, ["colab", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("file  ") == 5 and "no weights" in done.stdout


def test_the_command_wants_to_know_what_to_do():
    done = CliRunner().invoke(cli.app, ["colab"])
    assert isinstance(done.exception, CourseError)
