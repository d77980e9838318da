"""Writes what a lesson will have done to the real model, from its recorded run, into the notebook's second cell.

    python upkeep/first.py            # prints the five
    python upkeep/first.py --write    # puts them into the notebooks

The figures are those of the README's table, the answers are among the recording's samples.
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from table import judge_of, on_a_whole_gpu, recorded, scored  # noqa: E402 -- found only now

from unsloth_course.core.lessons import LESSONS, notebook_path  # noqa: E402
from unsloth_course.core.writing import cut  # noqa: E402
from unsloth_course.lesson.recordings import show  # noqa: E402

KINDS = ("newly right", "still wrong", "")
LONGEST = 140  # characters of a text in a cell of the table


def result(lesson: str) -> str:
    """The cell, as Markdown: the measure that judges, a sample that became right and one that did not."""
    judge = judge_of([run for run in on_a_whole_gpu(recorded()) if run["lesson"] == lesson])
    recording = show(lesson, "gpu").recording
    kinds = dict.fromkeys(sample.get("kind", "") for sample in recording.samples)
    shown = [next(one for one in recording.samples if one.get("kind", "") == kind) for kind in kinds if kind in KINDS]
    measured = scored(judge) + (" (lower is better)" if "perplexity" in judge.name else "")
    gpu = recording.device.split(",")[0]
    lines = [
        f"**Where this leads.** SmolLM2-135M-Instruct, recorded on an {gpu}, on rows that it",
        f"did not learn from: {measured}. Two of these rows:",
        "",
        "| asked | before | after | |",
        "|---|---|---|---|",
    ]
    for sample in shown if len(shown) > 1 else recording.samples[-2:]:
        counted = f"{sample['kind']}, {sample['count']} of {sample['of']}" if sample.get("kind") else ""
        texts = (_cell(cut(sample[name], LONGEST, " …")) for name in ("prompt", "before", "after"))
        lines.append(f"| {' | '.join([*texts, counted])} |")
    return "\n".join([*lines, "", "The cells below print what your own run does."])


def _cell(text: str) -> str:
    """Text in a Markdown table, in which neither Markdown nor HTML nor a formula sees a mark."""
    marked = re.sub(r"[*_`\[\]<>|$~\\#&]", lambda found: f"&#{ord(found[0])};", text.strip())
    return re.sub(r"\s*\n\s*", "<br>", marked)


def put(notebook: NotebookNode, lesson: str) -> NotebookNode:
    """The notebook with the cell, made anew where it is there already."""
    id = f"{lesson}-result"
    notebook.cells = [cell for cell in notebook.cells if cell.id != id]
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(result(lesson), id=id))
    return notebook


def main() -> None:
    """Prints the cells, or writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put them into the notebooks")
    write = parser.parse_args().write
    for lesson in LESSONS:
        if write:
            path = notebook_path(lesson)
            nbformat.write(put(nbformat.read(path, as_version=4), lesson), path)
        else:
            print(f"{lesson}\n\n{result(lesson)}\n")


if __name__ == "__main__":
    main()
