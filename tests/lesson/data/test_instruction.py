"""The instruction shape: what comes out of it, and what the trainer is given. Its faults: `test_reading`."""

import json
import random
import statistics

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import instruction
from unsloth_course.lesson.data.rows import CONTROL_TOKENS

from .test_files import written

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROW = {"instruction": "Add.", "input": "2 3", "output": "5"}


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    raw = Tokenizer(models.BPE({letter: number for number, letter in enumerate(special + letters)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(special)
    # Like many real ones it begins every text with a special token, unless it is told not to.
    raw.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>", chat_template=CHATML
    )


@pytest.mark.parametrize("input", [{}, {"input": None}, {"input": float("nan")}, {"input": ""}])
def test_three_text_columns_come_out(input):
    checked = instruction.load([{"instruction": "Hi", "output": "Ho", "text": "Hi Ho", **input}])
    assert checked.dataset.to_list() == [{"instruction": "Hi", "input": "", "output": "Ho"}]
    assert {name: feature.dtype for name, feature in checked.dataset.features.items()} == dict.fromkeys(ROW, "string")
    assert checked.set_aside == [] and checked.unused_columns == ["text"]


texts = st.text(st.characters(exclude_categories=["Cs"])).filter(
    # Hypothesis tries the constants of the code under test, the control tokens among them.
    lambda text: text.strip() and not any(token in text for token in CONTROL_TOKENS)
)
texts = texts | st.sampled_from(
    ["日本語 – naïve", "a\r\nb\rc", "\x00\x07\x1b[31m", "<script>", "{{ 1 }} {% if %}", "\ufeff"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=texts, input=texts | st.just(""), answer=texts)
def test_any_text_comes_through_unchanged(tmp_path, tokenizer, asked, input, answer):
    row = {"instruction": asked, "input": input, "output": answer}
    path = written(tmp_path, "a.jsonl", json.dumps(row, ensure_ascii=False))
    dataset = instruction.load(path).dataset
    assert dataset.to_list() == [row]
    user = asked + ("\n\n" + input if input else "")
    [messages] = instruction.to_messages(dataset[:])["messages"]
    assert messages == [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 2 and tokenizer.decode(ids) == text


def test_the_question():
    assert instruction.question("Add.", "2 3") == "Add.\n\n2 3"
    assert instruction.question("Hi") == instruction.question("Hi", None) == instruction.question("Hi", " \n") == "Hi"


def test_prompt_and_completion_through_map():
    dataset = instruction.load([ROW, {"instruction": "Hi", "output": "Ho"}]).dataset
    mapped = dataset.map(instruction.to_prompt_completion, batched=True, remove_columns=dataset.column_names)
    assert mapped.to_list() == [
        {
            "prompt": [{"role": "user", "content": "Add.\n\n2 3"}],
            "completion": [{"role": "assistant", "content": "5"}],
        },
        {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Ho"}]},
    ]


def test_a_data_set_of_another_shape_is_refused(tokenizer):
    other = Dataset.from_list([{"question": "Hi", "output": "Ho"}])
    for use in (
        lambda: other.map(instruction.to_prompt_completion, batched=True),
        lambda: instruction.lengths(other, tokenizer, 10),
    ):
        with pytest.raises(CourseError, match="no column 'instruction'; it has 'question', 'output'"):
            use()


def test_a_row_in_its_chat_form(tokenizer):
    text = "<|im_start|>user\nAdd.\n\n2 3<|im_end|>\n<|im_start|>assistant\n5<|im_end|>\n"
    assert instruction.in_chat_form(instruction.load([ROW, ROW]).dataset, tokenizer) == [text] * 2


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, r"no chat template.*Instruct"),
        ("{{ raise_exception('system turn first') }}", "chat template of this model refuses turns of user, assistant"),
        ("{% if %}", "refuses"),
    ],
)
def test_a_template_that_is_not_there_or_refuses(tokenizer, monkeypatch, template, words):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(CourseError, match=words):
        instruction.lengths(instruction.load([ROW]).dataset, tokenizer, 8)


def test_lengths_in_tokens(tokenizer):
    answers = ["5" * count for count in (1, 2, 3, 10)]
    dataset = instruction.load([{"instruction": "Hi", "output": answer} for answer in answers]).dataset
    # In this tokenizer a byte is a token: <|im_start|> "user\n" "Hi" <|im_end|> "\n", then the same for the answer.
    around = (1 + 5 + 2 + 1 + 1) + (1 + 10 + 1 + 1)
    found = instruction.lengths(dataset, tokenizer, max_length=around + 3)
    assert (found.rows, found.shortest, found.median, found.longest) == (4, around + 1, around + 2.5, around + 10)
    assert found.share_over == 0.25
    assert str(found) == "4 rows: 24 to 33 tokens, median 25.5; 25.0% are longer than 26 and would be cut"


@given(counts=st.lists(st.integers(1, 900), min_size=1, max_size=200), rows=st.integers(1, 64))
def test_rows_together_are_not_longer_than_the_longest_of_each(counts, rows):
    lengths = instruction.Lengths.of(counts, 512)
    cut = [min(count, 512) for count in counts]
    assert rows * sum(cut) / len(cut) - 1 <= lengths.together(rows) <= rows * max(cut)


def test_the_largest_batch_of_a_training_is_about_as_long_as_said():
    """Sizes of the lessons' own data at the true size: short answers, and some stories among them."""
    draw = random.Random(0)
    counts = [draw.choice((30, 40, 50)) if draw.random() < 0.85 else draw.randint(200, 300) for _ in range(960)]
    said = instruction.Lengths.of(counts, 512).together(8)
    largest = [max(sum(draw.sample(counts, 8)) for _ in range(120)) for _ in range(20)]
    assert statistics.median(largest) == pytest.approx(said, rel=0.1)


def test_lengths_of_nothing(tokenizer):
    with pytest.raises(CourseError, match="empty"):
        instruction.lengths(instruction.load([ROW]).dataset.select([]), tokenizer, 8)
