"""The lessons: their names, their notebooks, and what a notebook says of itself."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import NOTEBOOKS

if TYPE_CHECKING:
    from nbformat import NotebookNode

LESSONS = {  # in learning order, which is not that of the file names
    "lora": "colab2_lora_finetuning_smollm2.ipynb",
    "full": "colab1_full_finetuning_smollm2.ipynb",
    "cpt": "colab5_continued_pretraining.ipynb",
    "dpo": "colab3_dpo_reinforcement_learning.ipynb",
    "grpo": "colab4_grpo_reasoning_model.ipynb",
}
NAMES = {
    "lora": "LoRA",
    "full": "full fine-tuning",
    "cpt": "continued pretraining",
    "dpo": "DPO",
    "grpo": "GRPO",
}
VERDICTS = ("trained", "suspicious", "not trained")
HEADING = re.compile(r"^(#{1,6}) +(.+?)[ #]*$", re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def written_lessons() -> list[str]:
    """Names of the lessons whose notebook exists, in learning order; raises CourseError when there is none."""
    found = [lesson for lesson, name in LESSONS.items() if (NOTEBOOKS / name).is_file()]
    if not found:
        raise CourseError(f"There is no lesson in {NOTEBOOKS}; run this from a checkout of the course.")
    return found


def notebook_path(lesson: str) -> Path:
    """The lesson's notebook in `notebooks/`; raises CourseError for an unknown name or an unwritten lesson."""
    if lesson not in LESSONS:
        raise CourseError(f"There is no lesson named {lesson!r}; the lessons are {', '.join(LESSONS)}, or all of them.")
    path = NOTEBOOKS / LESSONS[lesson]
    if not path.is_file():
        raise CourseError(f"The {lesson} lesson is not written yet: {path.name} is not in the notebooks folder.")
    return path


def read_notebook(path: Path) -> "NotebookNode":
    """A notebook from a file; CourseError where it is none."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, TypeError, AttributeError, nbformat.ValidationError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise CourseError(f"{path.name} cannot be read as a notebook ({reason}); fetch it again.") from None
    return notebook


def has_tag(cell: "NotebookNode", tag: str) -> bool:
    """Whether the cell carries the tag in its metadata."""
    return tag in cell.metadata.get("tags", [])


def cell_headings(cell: "NotebookNode") -> list[tuple[int, str]]:
    """Level and text of a Markdown cell's headings."""
    if cell.cell_type != "markdown":
        return []
    return [(len(marks), text) for marks, text in HEADING.findall(FENCE.sub("", cell.source))]


def headings(notebook: "NotebookNode") -> list[str]:
    """For every cell, the nearest Markdown heading at or above it, without the hashes; "" before the first."""
    current, found = "", []
    for cell in notebook.cells:
        if titles := cell_headings(cell):
            current = titles[-1][1]
        found.append(current)
    return found


def is_run(cell: "NotebookNode") -> bool:
    """Whether a run executes the cell: code that no tag skips."""
    return cell.cell_type == "code" and bool(cell.source.strip()) and not has_tag(cell, "skip-execution")
