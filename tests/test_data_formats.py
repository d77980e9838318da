"""The page on data formats: every row that it shows does what it says, in the course's own loaders."""

import json
import re

import pytest

from unsloth_course import data, models
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY

PAGE = (REPOSITORY / "docs" / "data_formats.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:<!-- (\w+): ([a-z ]+) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
FOUND = [(match[1], match[2], match[4]) for match in BLOCK.finditer(PAGE)]


def in_blocks(batch):
    """What the text shape becomes: blocks of 12 of the pocket model's tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.folder("pocket"))
    return data.corpus.blocks(batch["text"], tokenizer, 12).dataset.to_dict()


LOADERS = {
    "text": (data.corpus.load, in_blocks),
    "instruction": (data.instruction.load, data.instruction.to_prompt_completion),
    "preference": (data.preference.load, data.preference.to_chat),
    "problems": (data.problems.load, data.problems.to_grpo),
}


def shown(says):
    return [pytest.param(shape, text, id=f"{shape}-{n}") for n, (shape, said, text) in enumerate(FOUND) if said == says]


def loaded(shape, text, tmp_path):
    """A row of the page, from a file as a learner has it."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([json.loads(text)]), encoding="utf-8")
    load, _ = LOADERS[shape]
    return load(path)


def test_every_fenced_row_says_what_it_is_and_each_shape_shows_all_there_is():
    assert all(shape in LOADERS for shape, _, _ in FOUND)
    for shape in LOADERS:
        assert {"ready", "becomes", "set aside"} <= {said for found, said, _ in FOUND if found == shape}
    assert {said for _, said, _ in FOUND} <= {"ready", "becomes", "set aside", "refused"}


@pytest.mark.parametrize(("shape", "text"), shown("ready"))
def test_a_row_that_is_ready_loads(shape, text, tmp_path):
    checked = loaded(shape, text, tmp_path)
    assert len(checked.dataset) == 1 and checked.set_aside == []


@pytest.mark.parametrize(("shape", "text"), shown("becomes"))
def test_the_first_row_of_each_shape_becomes_what_is_shown(shape, text, tmp_path):
    first = next(row for found, said, row in FOUND if (found, said) == (shape, "ready"))
    dataset = loaded(shape, first, tmp_path).dataset
    _, convert = LOADERS[shape]
    converted = dataset.map(convert, batched=True, remove_columns=dataset.column_names)
    assert converted[0] == json.loads(text)


def test_the_forms_of_a_preference_become_the_same(tmp_path):
    forms = [text for shape, said, text in FOUND if (shape, said) == ("preference", "ready")]
    rows = [loaded("preference", text, tmp_path).dataset[0] for text in forms]
    assert len(rows) == 6 and all(row == rows[0] for row in rows[1:5])
    assert rows[5] == rows[0] | {"prompt": [{"role": "user", "content": "Add the two numbers.\n\n40 and 48"}]}


@pytest.mark.parametrize(("shape", "text"), shown("set aside"))
def test_a_row_that_is_set_aside_is_named(shape, text, tmp_path):
    ready = next(row for found, said, row in FOUND if (found, said) == (shape, "ready"))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(json.loads(row)) for row in (ready, text)), encoding="utf-8")
    load, _ = LOADERS[shape]
    checked = load(path)
    assert len(checked.dataset) == 1
    (aside,) = checked.set_aside
    assert aside.row == 2 and aside.reason


@pytest.mark.parametrize(("shape", "text"), shown("refused"))
def test_a_row_that_is_refused_stops_with_a_sentence(shape, text, tmp_path):
    with pytest.raises(CourseError, match=r"rows\.json.*(missing|in no form that is known)"):
        loaded(shape, text, tmp_path)
