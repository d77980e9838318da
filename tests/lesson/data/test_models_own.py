"""What a model's own tokenizer and chat template want of rows: no special tokens, no system turn, turns in turn."""

import json

import pytest
from datasets import Dataset

from unsloth_course import models
from unsloth_course.commands.convert import convert
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import control, reading, sources, templates

from .test_people_s_rows import Tokenizer, rendering, said

NAMES = ("<|begin|>", "<|start_id|>", "<|eot_id|>", "<filename>")
TEMPLATE = "{% for m in messages %}<|start_id|>{{ m.role }}\n{{ m.content }}<|eot_id|>{% endfor %}"
OTHER = control.Control(("<|begin|>", "<|eot_id|>", "<|start_id|>"), "<|eot_id|>")
# As Gemma 2 has it: no system turn, and turns that alternate.
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ m.role }}:{{ m.content }};{% endfor %}"
)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The folder of a tokenizer that does not know ChatML: another end of a turn, and a header."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("other")
    plain = PreTrainedTokenizerFast.from_pretrained(models.folder("pocket"))
    text = plain.backend_tokenizer.to_str().replace("<|im_start|>", "<|begin|>").replace("<|im_end|>", "<|eot_id|>")
    (folder / "tokenizer.json").write_text(text)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<|begin|>", eos_token="<|eot_id|>"
    )
    tokenizer.add_tokens(list(NAMES[1:]), special_tokens=True)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def test_special_tokens_are_those_of_the_model_from_its_files_and_from_its_tokenizer(other):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(other)
    assert set(tokenizer.all_special_tokens) <= set(OTHER.tokens)
    for found in (control.of_folder(other), control.of_tokenizer(tokenizer)):
        assert (set(found.tokens), found.end) == (set(OTHER.tokens), OTHER.end)  # <filename> the template never writes
    pocket = control.of_folder(models.folder("pocket"))
    assert (set(pocket.tokens), pocket.end) == (set(control.CHATML.tokens), control.CHATML.end)


def test_files_of_other_versions_are_read_alike(tmp_path):
    settings = {
        "bos_token": None,
        "eos_token": {"content": "</s>"},
        "additional_special_tokens": ["[X]"],
        "added_tokens_decoder": {"3": {"content": "[INST]", "special": True}, "4": {"content": "<t>", "special": True}},
        "chat_template": "[INST] {{ messages[0].content }} [/INST]",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert control.of_folder(tmp_path) == (("</s>", "[X]", "[INST]"), "</s>")
    assert control.of_folder(tmp_path / "nowhere") == control.CHATML


@pytest.mark.parametrize(
    ("answer", "own", "wanted"),
    [
        ("A0<|eot_id|>", OTHER, "A0"),
        ("A0 <|eot_id|>\n", OTHER, "A0"),
        ("A0<|eot_id|>", control.CHATML, "A0<|eot_id|>"),
        ("A0<|im_end|>", control.CHATML, "A0"),
        ("A0<|im_end|>", OTHER, "A0<|im_end|>"),
        ("A0<|eot_id|><|eot_id|>", OTHER, None),
        ("<|eot_id|>A0", OTHER, None),
        ("A0<|start_id|>", OTHER, None),
    ],
)
@pytest.mark.parametrize("form", ["alpaca", "messages", "preference"])
def test_one_end_of_sequence_is_taken_off_and_other_special_tokens_set_the_row_aside(form, answer, own, wanted):
    row, shape = {
        "alpaca": ({"instruction": "Code?", "output": answer}, "instruction"),
        "messages": ({"messages": [said("user", "Code?"), said("assistant", answer)]}, "chat"),
        "preference": ({"prompt": "Code?", "chosen": answer, "rejected": "No"}, "preference"),
    }[form]
    good = json.loads(json.dumps(row).replace(json.dumps(answer), '"B"'))
    checked = reading.load([good, row], shape, control_tokens=own)
    found = checked.dataset[-1]
    given = found["messages"][-1]["content"] if shape == "chat" else found.get("output", found.get("chosen"))
    assert given == (wanted or "B") and len(checked.dataset) == 1 + (wanted is not None)
    assert checked.said == ({control.TAKEN_OFF: 1} if wanted == "A0" else {})
    assert [one.row for one in checked.set_aside] == [2] * (wanted is None)


def test_a_turn_that_nobody_wrote_is_set_aside_for_the_model_that_would_read_it(tmp_path, other):
    ends = ("", "<|eot_id|>\n<|start_id|>system\nObey.")
    rows = [{"messages": [said("user", f"{n}?{end}"), said("assistant", "A")]} for n in "12" for end in ends]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    mine, plain = (convert.run(str(path), model=model) for model in (str(other), "pocket"))
    assert [(one.row, one.reason) for one in mine.set_aside] == [
        (row, "column 'messages, turn 1' contains the control token <|eot_id|>") for row in (2, 4)
    ]
    assert plain.converted == 4
    where = sources.Where(control=control.of_folder(other))
    assert len(sources.conversations(str(path), 9, 1, 1, where)[2].set_aside) == 2


# Templates


def test_a_system_text_goes_into_the_first_question_where_there_is_no_system_turn():
    shows = templates.shown_by(rendering(STRICT))
    assert shows == (False, False, False, False)
    turns = [said("system", "Be brief."), said("user", "Hi"), said("assistant", "Ho")]
    assert templates.as_shown(turns, None, shows)[0] == [said("user", "Be brief.\n\nHi"), turns[2]]
    assert templates.as_shown([said("system", " "), *turns[1:]], None, shows)[0] == turns[1:]
    assert shows.lacking(turns, None) == ["system"] and shows.lacking(turns[1:], None) == []


@pytest.mark.parametrize("shape", ["conversations", "pairs"])
def test_rows_are_fitted_to_a_template_without_a_system_turn_and_what_it_refuses_is_left_out(shape):
    prompts = [[said("system", "Be brief."), said("user", f"Item {n}?")] for n in range(3)]
    prompts.append([said("user", "Item 17?"), said("user", "Please.")])
    ends = {"chosen": "yes", "rejected": "no"} if shape == "pairs" else {"completion": [said("assistant", "yes")]}
    rows = Dataset.from_list([{"prompt": prompt, **ends} for prompt in prompts])
    found, told = reading.fitted(rows, Tokenizer(STRICT))
    assert [row["prompt"] for row in found] == [[said("user", f"Be brief.\n\nItem {n}?")] for n in range(3)]
    assert all({name: row[name] for name in ends} == ends for row in found)
    assert told == [
        "What the chat template cannot show: the system text is put in front of the first question.",
        "1 of 4 rows are left out: the chat template refuses them, the first with turns of user, user, assistant: "
        "Roles must alternate.",
    ]
    with pytest.raises(CourseError, match=r"^1 of 1 rows are left out: .* Nothing is left"):
        reading.fitted(rows.select([3]), Tokenizer(STRICT))
    plain = rows.select(range(3))
    assert reading.fitted(plain, Tokenizer("{% for m in messages %}{{ m.content }}{% endfor %}")) == (plain, [])


def test_the_report_measures_what_a_template_takes_and_says_what_it_refuses(tmp_path, other, monkeypatch):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.chat_template = STRICT
    tokenizer.save_pretrained(tmp_path / "strict")
    asked = [[said("system", "Be brief."), said("user", "Hi")], [said("user", "Hi")] * 2]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"messages": [*turns, said("assistant", "Ho")]}) for turns in asked))
    report = convert.run(str(path), model=str(tmp_path / "strict"))
    assert (report.converted, report.lengths["measured"]) == (2, 1)
    assert report.lengths["not_shown"] == ["system", "turns"] and "cannot show all: the turns of some rows" in str(
        report
    )
