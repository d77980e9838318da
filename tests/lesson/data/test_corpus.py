"""The text shape: what is read from a folder and what is set aside by name, and blocks that lose nothing."""

import json
import os

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.data import corpus, documents

from .test_files import written


def texts(source, **arguments):
    return list(corpus.load(source, **arguments).dataset["text"])


def names(checked, folder):
    """File and reason of all that was set aside, the file as it is called in the folder."""
    return {os.path.relpath(aside.file, folder).replace(os.sep, "/"): aside.reason for aside in checked.set_aside}


def rows(*items):
    return "\n".join(json.dumps(item) for item in items)


# In memory


def test_a_list_of_texts():
    checked = corpus.load(["one", "two"], name="my notes")
    assert checked.dataset.to_dict() == {"text": ["one", "two"], "file": ["my notes", "my notes"]}
    assert checked.set_aside == [] and checked.unused_columns == []


@pytest.mark.parametrize(
    ("row", "unused"),
    [
        ({"text": "a"}, []),
        ({"whole_func_string": "a", "func_name": "f"}, ["func_name"]),
        ({"code": "b", "original_string": "a", "docstring": "d"}, ["code", "docstring"]),
        ({"code": "a", "docstring": "d"}, ["docstring"]),
        ({"whole_func_string": "b", "text": "a"}, ["whole_func_string"]),
    ],
)
@pytest.mark.parametrize("make", [lambda row: [row], lambda row: Dataset.from_list([row])], ids=["list", "dataset"])
def test_where_the_text_is(make, row, unused):
    checked = corpus.load(make(row))
    assert list(checked.dataset["text"]) == ["a"] and checked.unused_columns == unused


@given(st.lists(st.text(max_size=60) | st.text("ab\n", max_size=60), max_size=20).map("".join), st.integers(1, 40))
def test_passages_lose_nothing_and_none_but_the_last_is_short(text, characters):
    pieces = corpus.passages(text, characters)
    assert "".join(pieces) == text and all(pieces)
    assert all(characters <= len(piece) for piece in pieces[:-1])
    assert all(len(piece) < 3 * characters for piece in pieces)


def test_passages_end_with_a_line_where_lines_are_short():
    text = "".join(f"line {number}\n" for number in range(100))
    assert all(piece.endswith("\n") for piece in corpus.passages(text, 50))
    assert corpus.passages("short") == ["short"] and corpus.passages("") == []


def test_the_costliest_words_save_most_tokens(tokenizer):
    texts = ["The anemometer and the barometer.", "An anemometer, the cat, a9b anemometers_x"]
    words = corpus.costly_words(texts, tokenizer, 3)
    saved = {word: len(tokenizer(word)["input_ids"]) - 1 for word in ("anemometer", "barometer", "anemometers")}
    assert words[0] == "anemometer" and set(words) == set(saved)
    assert 2 * saved["anemometer"] > saved["anemometers"] >= saved["barometer"]
    assert "The" not in corpus.costly_words(texts, tokenizer, 99)  # three letters
    assert corpus.costly_words([], tokenizer, 3) == corpus.costly_words(["a b 12"], tokenizer, 3) == []


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ([], "the list is empty"),
        (["", " "], "nothing is left to train on"),
        (7, "The data is of type int"),
    ],
)
def test_bad_data_in_memory_is_a_sentence(source, sentence):
    with pytest.raises(CourseError, match=sentence):
        corpus.load(source)


# One file


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "A.TXT"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_document_is_one_text(tmp_path, name, encoding):
    mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
    path = written(tmp_path, name, f"{mark}Zürich\r\n\n😀\n".encode(encoding))
    checked = corpus.load(path)
    assert checked.dataset.to_dict() == {"text": ["Zürich\r\n\n😀\n"], "file": [str(path)]}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", b"caf\xe9", r"a\.txt: byte 3 \(from 0\) is not UTF-8. Save the file as UTF-8"),
        ("a.txt", b"\xff\xfea\0\x00\xd8b\0", r"a\.txt: byte 4 \(from 0\) is not UTF-16. Save the file as UTF-8"),
        ("a.txt", b"\xff\xfea\0b", r"a\.txt: byte 4 \(from 0\) is not UTF-16"),
        ("a.txt", b"ab\0cd", r"a\.txt: byte 2 \(from 0\) is zero, so it is binary"),
        ("a.txt", "né".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("a.txt", "n".encode("utf-32"), "the character zero"),
        ("a.txt", b"", "is empty: it has no rows"),
        ("a.txt", b"\xef\xbb\xbf \n", "is empty: it has no rows"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_sentence(tmp_path, name, content, sentence):
    with pytest.raises(CourseError, match=sentence):
        corpus.load(written(tmp_path, name, content))


@pytest.mark.parametrize("name", ["none.txt", "none.jsonl", "none/none.md", "a\0b.txt"])
def test_a_file_that_is_not_there_is_a_sentence(tmp_path, name):
    with pytest.raises(CourseError, match="There is no file"):
        corpus.load(tmp_path / name)


def test_a_file_above_the_limit_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_FILE_BYTES", 2**20)
    assert len(texts(written(tmp_path, "a.txt", b"x" * 2**20))[0]) == 2**20
    with pytest.raises(CourseError, match=r"it has more than 1 MiB, which is the limit. Cut it"):
        corpus.load(written(tmp_path, "a.txt", b"x" * 2**21))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(CourseError, match="not a plain file"):
        corpus.load(tmp_path / "a.txt")
    os.mkfifo(tmp_path / "b.jsonl")
    written(tmp_path, "c.txt", "c")
    checked = corpus.load(tmp_path)
    assert list(checked.dataset["text"]) == ["c"] and set(names(checked, tmp_path)) == {"a.txt", "b.jsonl"}


# Folders


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus" / "sub" / "deeper").mkdir(parents=True)
    return tmp_path / "corpus"


def test_a_folder_is_read_with_all_below_it_in_the_order_of_names(folder):
    written(folder, "z.txt", "z")
    written(folder / "sub" / "deeper", "a.md", "deep")
    written(folder / "sub", "b.jsonl", rows({"text": "row 1"}, {"text": "row 2"}))
    written(folder, "a.PY", "a = 1\n")
    checked = corpus.load(folder)
    assert list(checked.dataset["text"]) == ["a = 1\n", "row 1", "row 2", "deep", "z"]
    shown = [os.path.relpath(file, folder).replace(os.sep, "/") for file in checked.dataset["file"]]
    assert shown == ["a.PY", "sub/b.jsonl", "sub/b.jsonl", "sub/deeper/a.md", "z.txt"]
    assert checked.set_aside == []
    assert corpus.load(str(folder)).dataset.to_dict() == checked.dataset.to_dict()


def test_what_is_hidden_is_left_out(folder):
    written(folder, "a.txt", "a")
    written(folder, ".secret.txt", "hidden")
    (folder / ".git").mkdir()
    written(folder / ".git", "b.txt", "hidden")
    checked = corpus.load(folder)
    assert list(checked.dataset["text"]) == ["a"] and checked.set_aside == []


def test_what_cannot_be_used_is_set_aside_by_name(folder, monkeypatch):
    monkeypatch.setattr(documents, "MAX_FILE_BYTES", 100)
    for name, content in {
        "good.txt": "good",
        "picture.png": b"\x89PNG",
        "binary.txt": b"a\0b",
        "latin.txt": b"caf\xe9",
        "empty.md": " \n",
        "large.txt": b"x" * 101,
        "broken.jsonl": '{"text": "good row"}\n{"text": ',
        "other.jsonl": rows({"label": 1}),
    }.items():
        written(folder, name, content)
    checked = corpus.load(folder)
    assert list(checked.dataset["text"]) == ["good row", "good"]
    reasons = names(checked, folder)
    assert list(reasons) == sorted(reasons)
    assert reasons.pop("picture.png").startswith("it has none of the endings .txt, .md, .py, .jsonl")
    assert reasons.pop("binary.txt").startswith("byte 1 (from 0) is zero, so it is binary")
    assert reasons.pop("latin.txt") == "byte 3 (from 0) is not UTF-8. Save the file as UTF-8."
    assert reasons.pop("empty.md").startswith("it is empty")
    assert reasons.pop("large.txt").startswith("it has more than 0 MiB, which is the limit")
    assert reasons.pop("broken.jsonl").startswith("line 2, column 10: the JSON is broken")
    assert reasons.pop("other.jsonl").startswith("column 'text': this column is missing")
    assert reasons == {}


def test_links_are_not_followed(folder, tmp_path):
    written(tmp_path, "outside.txt", "outside")
    (tmp_path / "elsewhere").mkdir()
    written(tmp_path / "elsewhere", "b.txt", "outside")
    written(folder, "a.txt", "inside")
    try:
        (folder / "out.txt").symlink_to(tmp_path / "outside.txt")
        (folder / "away").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (folder / "loop").symlink_to(folder, target_is_directory=True)
        (folder / "again.txt").symlink_to(folder / "a.txt")
        (folder / "nowhere.txt").symlink_to(folder / "none.txt")
    except OSError:
        pytest.skip("this system makes no links")
    checked = corpus.load(folder)
    assert list(checked.dataset["text"]) == ["inside"]
    links = ("again.txt", "away", "loop", "nowhere.txt", "out.txt")
    assert names(checked, folder) == dict.fromkeys(links, "it is a link, and links are not followed")
    (tmp_path / "link").symlink_to(folder)  # the folder that was asked for may be a link
    assert list(corpus.load(tmp_path / "link").dataset["text"]) == ["inside"]


def test_a_folder_without_text_says_what_was_found(folder):
    written(folder, ".c.txt", "hidden")
    with pytest.raises(CourseError, match=r"corpus has no files to read; hidden.*Put \.txt, \.md, \.py, \.jsonl"):
        corpus.load(folder)
    written(folder, "a.png", b"\0")
    written(folder, "b.bin", b"\0")
    written(folder / "sub", "d.jsonl", rows({"text": ""}))
    with pytest.raises(CourseError, match=r"a\.png: nothing is left .* aside: 3, most often \(2\) because it has none"):
        corpus.load(folder)


@pytest.mark.skipif(os.name == "nt", reason="a file name is text there")
def test_a_name_that_is_no_text_can_be_printed(folder):
    written(folder, os.fsdecode(b"a\xff.txt"), "a")
    written(folder, os.fsdecode(b"b\xff.png"), "b")
    checked = corpus.load(folder)
    assert "\\udcff" in checked.dataset["file"][0]
    str(checked).encode()


# Blocks


def stream(items, tokenizer):
    """All tokens as they should stand one after another, one text at a time."""
    joined = []
    for number, text in enumerate(items):
        joined += [tokenizer.convert_tokens_to_ids("<|endoftext|>")] * (number > 0)
        joined += tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return joined


@given(
    items=st.lists(st.text(max_size=20) | st.sampled_from(["<|endoftext|>", "a<|im_end|>\n", "def f():"]), max_size=9),
    length=st.integers(2, 12),
)
def test_blocks_lose_nothing(tokenizer, items, length):
    expected = stream(items, tokenizer)
    if len(expected) < length:
        with pytest.raises(CourseError, match=f"have {len(expected):,} tokens, and one block takes {length}"):
            corpus.blocks(items, tokenizer, length)
        return
    made = corpus.blocks(items, tokenizer, length)
    assert made.dataset.column_names == ["input_ids"] and {len(row) for row in made.dataset["input_ids"]} == {length}
    used = [token for row in made.dataset["input_ids"] for token in row]
    assert made.tokens == len(expected) and made.left_over == len(expected) - len(used) < length
    assert used + expected[len(used) :] == expected


def test_batches_do_not_show_in_the_blocks(tokenizer, monkeypatch):
    items = [f"text number {n}" for n in range(25)]
    whole = corpus.blocks(items, tokenizer, 7)
    monkeypatch.setattr(corpus, "TEXTS_AT_ONCE", 4)
    assert corpus.blocks(items, tokenizer, 7).dataset.to_dict() == whole.dataset.to_dict()
    assert str(whole) == f"{len(whole.dataset)} blocks of 7 tokens; {whole.left_over} of {whole.tokens} left over"


def test_written_out_control_tokens_end_nothing(tokenizer):
    made = corpus.blocks(["ab<|endoftext|>cd<|im_end|>", "<|im_start|>x"], tokenizer, 2)
    used = [token for row in made.dataset["input_ids"] for token in row]
    special = set(tokenizer.all_special_ids)
    assert [token for token in used if token in special] == [tokenizer.convert_tokens_to_ids("<|endoftext|>")]


def test_the_token_between_documents(tokenizer):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    assert tokenizer.convert_ids_to_tokens(corpus.end_token(tokenizer)) == "<|endoftext|>" != tokenizer.eos_token
    words = Tokenizer(WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    other = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")
    assert corpus.end_token(other) == 1
    with pytest.raises(CourseError, match=r"neither <\|endoftext\|> nor an eos_token"):
        corpus.end_token(PreTrainedTokenizerFast(tokenizer_object=words))


@pytest.mark.parametrize(
    ("items", "length", "sentence"),
    [
        ("one text", 4, "Give a list of texts"),
        (["one text"], 1, "Take at least 2"),
        (["one text"], 4096, "one block takes 4,096"),
        ([], 4, "have 0 tokens"),
    ],
)
def test_blocks_that_cannot_be_made_are_a_sentence(tokenizer, items, length, sentence):
    with pytest.raises(CourseError, match=sentence):
        corpus.blocks(items, tokenizer, length)


# General text mixed in


def numbered(count, start=0, length=3):
    return Dataset.from_dict({"input_ids": [[n] * length for n in range(start, start + count)]})


@settings(max_examples=40)
@given(domain=st.integers(1, 40), share=st.floats(0, 0.9), seed=st.integers(0, 9))
def test_a_mix_holds_all_of_the_domain_and_the_share_asked_for(domain, share, seed):
    made = corpus.mix(numbered(domain), numbered(400, 1000), share, seed)
    found = [row[0] for row in made["input_ids"]]
    general = [n for n in found if n >= 1000]
    assert sorted(n for n in found if n < 1000) == list(range(domain))
    assert len(set(general)) == len(general)
    assert abs(len(general) - share * len(found)) <= 1


def test_a_mix_is_shuffled_by_its_seed():
    mixes = [corpus.mix(numbered(50), numbered(50, 1000), 0.3, seed).to_dict() for seed in (1, 1, 2)]
    assert mixes[0] == mixes[1] != mixes[2]
    assert mixes[0]["input_ids"] != sorted(mixes[0]["input_ids"])
    assert corpus.mix(numbered(50), numbered(0), 0, 1).to_dict() != numbered(50).to_dict()


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_a_share_out_of_range_is_a_sentence(share):
    with pytest.raises(CourseError, match="Take 0 or more, and less than 1"):
        corpus.mix(numbered(5), numbered(5), share, 1)


def test_too_little_general_text_is_a_sentence():
    assert len(corpus.mix(numbered(6), numbered(6), 0.5, 1)) == 12
    with pytest.raises(CourseError, match=r"A share of 0.5 takes 7 blocks .* beside 7 of the domain.* there are 6"):
        corpus.mix(numbered(7), numbered(6), 0.5, 1)


def test_blocks_of_two_lengths_do_not_mix():
    with pytest.raises(CourseError, match="Blocks of the domain have 3 tokens, those of general text 4"):
        corpus.mix(numbered(5), numbered(5, length=4), 0.5, 1)
