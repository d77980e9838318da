"""The five notebooks, each with this package inside, so that uploading the one file to Colab is enough."""

import base64
import copy
import hashlib
import io
import tarfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from unsloth_course.core import lessons
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY
from unsloth_course.core.writing import write_text

INSTALL = "install"
"""The tag of the cell that the package travels in."""
LEFT_OUT = ("__pycache__", "pocket/base/model.safetensors", "pocket/base/tokenizer", "recorded/cell_")
LEFT_OUT += ("unsloth_course/studio/", "unsloth_course/commands/", "unsloth_course/cli/", "unsloth_course/__main__")
"""What no lesson on Colab needs: the bundled model, the commands, and what makes the videos."""
KINDS = (".py", ".json", ".md", ".typed")
UNPACK = '''\
# @title Run this cell first: it brings the course {{"display-mode": "form"}}
import base64, hashlib, importlib.util, io, pathlib, sys, tarfile

SHA256 = "{sha256}"
PACKED = """
{packed}
"""

if "google.colab" in sys.modules:
    packed = base64.b64decode(PACKED)
    if hashlib.sha256(packed).hexdigest() != SHA256:
        raise ValueError("This notebook was damaged on its way: upload it anew.")
    folder = pathlib.Path("unsloth-course-" + SHA256[:8]).resolve()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    from unsloth_course import colab

    colab.install()
    print("This file brings no weights: the bundled model is absent, and the")
    print("gpu profile downloads its model from the Hub (Runtime > Change")
    print("runtime type > T4 GPU).")
elif importlib.util.find_spec("unsloth_course") is None:
    print("This file is for Colab. Locally, use the course's repository.")
'''


def write(out: Path, root: Path = REPOSITORY) -> dict[Path, int]:
    """Writes the lessons for upload into the folder `out`; returns their bytes. Raises CourseError when it cannot."""
    out = out.expanduser().resolve()
    if out == lessons.NOTEBOOKS.resolve():
        raise CourseError(f"--out {out} is the notebooks folder itself; name another one.")
    archive = packed(root)
    sizes = {}
    for lesson in lessons.written_lessons():
        path = out / lessons.LESSONS[lesson]
        text = nbformat.writes(standalone(nbformat.read(lessons.notebook_path(lesson), as_version=4), archive))
        sizes[path] = len(text.encode()) + 1
        write_text(path, text + "\n")
    return sizes


def packed(root: Path = REPOSITORY) -> bytes:
    """The package as a .tar.xz, without weights; the same bytes for the same files. requirements.txt lies inside it."""
    files = {"unsloth_course/requirements.txt": root / "requirements.txt"}
    for path in (root / "unsloth_course").rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_file() and path.suffix in KINDS and not any(part in name for part in LEFT_OUT):
            files[name] = path
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:xz", preset=9) as archive:
        for name, path in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                archive.addfile(member, file)
    return held.getvalue()


def standalone(notebook: NotebookNode, archive: bytes) -> NotebookNode:
    """A copy of a lesson, without outputs and speaker notes, whose install cell unpacks `archive`, set up for a T4.

    Raises CourseError unless exactly one cell has the tag "install".
    """
    notebook = copy.deepcopy(notebook)
    tagged = [cell for cell in notebook.cells if lessons.has_tag(cell, INSTALL)]
    if len(tagged) != 1:
        raise CourseError(f"The notebook has {len(tagged)} cells tagged '{INSTALL}'; it needs exactly one.")
    for cell in notebook.cells:
        cell.metadata.get("course", {}).pop("notes", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    text = base64.encodebytes(archive).decode().strip()
    tagged[0].source = UNPACK.format(sha256=hashlib.sha256(archive).hexdigest(), packed=text).strip()
    tagged[0].metadata["tags"] = [INSTALL]
    tagged[0].metadata["cellView"] = "form"
    tagged[0].metadata["jupyter"] = {"source_hidden": True}
    notebook.metadata["accelerator"] = "GPU"
    notebook.metadata["colab"] = {"gpuType": "T4", "provenance": []}
    return notebook
