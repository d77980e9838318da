"""Talking to a model: history, sampling, a file of prompts that is answered in order and gone on with."""

import json

import pytest
from typer.testing import CliRunner

from unsloth_course import cli
from unsloth_course.commands import chat
from unsloth_course.core.errors import CourseError


class Echo:
    """A model that answers what it was asked; `fail_after` batches it is stopped."""

    def __init__(self, fail_after: int = 10**6):
        self.batches, self.fail_after, self.seen = [], fail_after, []

    def stream(self, messages, sampling):
        self.seen.append(list(messages))
        yield from ("re: ", messages[-1]["content"])

    def answer_all(self, chats, sampling):
        if len(self.batches) == self.fail_after:
            raise KeyboardInterrupt
        self.batches.append(len(chats))
        return [f"re: {messages[-1]['content']}" for messages in chats]

    def close(self):
        pass


def prompts(tmp_path, count: int = 10):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"question {n}"}) + "\n" for n in range(count)))
    return file


def test_a_conversation_keeps_its_history_but_for_an_answer_that_was_broken_off():
    model = Echo()
    talk = chat.Conversation(model, system="Be brief")
    assert "".join(talk.say("one")) == "re: one"
    assert "".join(talk.say('{"sky": "blue"}', role="tool")) == 're: {"sky": "blue"}'
    next(talk.say("broken off"))
    list(talk.say("two"))
    asked = [("system", "Be brief"), ("user", "one"), ("assistant", "re: one"), ("tool", '{"sky": "blue"}')]
    asked += [("assistant", 're: {"sky": "blue"}'), ("user", "two")]
    assert [(turn["role"], turn["content"]) for turn in model.seen[-1]] == asked


def test_answers_are_in_order_and_batched(tmp_path):
    model, out = Echo(), tmp_path / "new" / "out.jsonl"
    assert chat.answer_file(model, chat.read_prompts(prompts(tmp_path)), out, batch=4) == 10
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["answer"] for row in rows] == [f"re: question {n}" for n in range(10)]
    assert model.batches == [4, 4, 2]


def test_a_stopped_run_goes_on_where_it_was_even_in_the_middle_of_a_line(tmp_path):
    chats, out = chat.read_prompts(prompts(tmp_path)), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        chat.answer_file(Echo(fail_after=1), chats, out, batch=4)
    with out.open("a") as file:
        file.write('{"messages": [{"role"')
    model, said = Echo(), []
    assert chat.answer_file(model, chats, out, batch=4, say=said.append) == 6
    assert said[0].startswith("4 of 10 prompts are answered")
    whole = tmp_path / "whole.jsonl"
    chat.answer_file(Echo(), chats, whole, batch=4)
    assert out.read_bytes() == whole.read_bytes()
    assert chat.answer_file(Echo(fail_after=0), chats, out) == 0


def test_answers_to_other_prompts_are_not_gone_on_with(tmp_path):
    chats, out = chat.read_prompts(prompts(tmp_path)), tmp_path / "out.jsonl"
    chat.answer_file(Echo(), chats, out)
    with pytest.raises(CourseError, match="line 1 does not answer that prompt"):
        chat.answer_file(Echo(), chat.read_prompts(prompts(tmp_path), system="Be brief"), out)
    with pytest.raises(CourseError, match="line 6 does not answer"):
        chat.answer_file(Echo(), chats[:5], out)


@pytest.mark.parametrize(
    "content", ["my notes", '{"prompt": "a"}\n{"prompt": "b"}', '{"messages": [{"role": "user"}]}']
)
def test_a_file_of_something_else_stays_as_it_is(tmp_path, content):
    out = tmp_path / "notes.txt"
    out.write_text(content)
    with pytest.raises(CourseError, match=r"does not say whose answers .* Choose another --out"):
        chat.answer_file(Echo(), chat.read_prompts(prompts(tmp_path)), out)
    assert out.read_text() == content and list(tmp_path.glob("*.about.json")) == []


def test_a_tail_behind_all_answers_is_not_cut_off(tmp_path):
    chats, out = chat.read_prompts(prompts(tmp_path)), tmp_path / "out.jsonl"
    chat.answer_file(Echo(), chats, out)
    with out.open("a") as file:
        file.write("mine")
    assert chat.answer_file(Echo(), chats, out) == 0 and out.read_text().endswith("mine")


def test_a_line_may_be_cut_off_anywhere(tmp_path):
    chats, out = chat.read_prompts(prompts(tmp_path, 2)), tmp_path / "out.jsonl"
    chat.answer_file(Echo(), chats, out)
    whole = out.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        out.write_bytes(whole[:end])
        assert chat.answer_file(Echo(), chats, out) == 1 and out.read_bytes() == whole


def test_the_prompts_are_not_answered_into_their_own_file(monkeypatch, tmp_path):
    monkeypatch.setattr(chat, "open_model", lambda source: pytest.fail("nothing is loaded for this"))
    file = prompts(tmp_path)
    before, link = file.read_bytes(), tmp_path / "link.jsonl"
    link.symlink_to(file)
    for out in (file, link):
        done = CliRunner().invoke(cli.app, ["chat", "m", "--prompts", str(file), "--out", str(out)])
        assert isinstance(done.exception, CourseError) and "the file of the prompts" in str(done.exception)
    assert file.read_bytes() == before


def test_another_model_or_sampling_does_not_go_on(tmp_path):
    chats, out = chat.read_prompts(prompts(tmp_path)), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        chat.answer_file(Echo(fail_after=1), chats, out, batch=4, source="one")
    with pytest.raises(CourseError, match=r"given with model one, and now it is model two\. Choose another --out"):
        chat.answer_file(Echo(), chats, out, source="two")
    with pytest.raises(CourseError, match="given with max_new_tokens 256, and now it is max_new_tokens 12"):
        chat.answer_file(Echo(), chats, out, chat.Sampling(max_new_tokens=12), source="one")
    assert chat.answer_file(Echo(), chats, out, source="one") == 6
    (tmp_path / "out.jsonl.about.json").write_text("[")
    with pytest.raises(CourseError, match=r"about.json .* is damaged"):
        chat.answer_file(Echo(), chats, out, source="one")


def test_the_command_answers_a_file_and_notes_which_model_did(monkeypatch, tmp_path):
    monkeypatch.setattr(chat, "open_model", lambda source: Echo())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    out = tmp_path / "out.jsonl"
    arguments = ["--prompts", str(prompts(tmp_path)), "--out", str(out)]
    done = CliRunner().invoke(cli.app, ["chat", "own", *arguments])
    assert done.exit_code == 0 and "10 answered now, 10 in all" in done.output
    assert len(out.read_text().splitlines()) == 10
    assert json.loads((tmp_path / "out.jsonl.about.json").read_text())["model"] == str((tmp_path / "own").resolve())
    assert CliRunner().invoke(cli.app, ["chat", str(tmp_path / "own"), *arguments]).exit_code == 0
    done = CliRunner().invoke(cli.app, ["chat", "other", *arguments])
    assert isinstance(done.exception, CourseError) and "now it is model other" in str(done.exception)


def test_half_a_character_is_a_sentence(monkeypatch, tmp_path):
    half = json.dumps("\ud83d")
    file = tmp_path / "p.jsonl"
    for row in (f'{{"prompt": {half}}}', f'{{"messages": [{{"role": "user", "content": {half}}}]}}'):
        file.write_text('{"prompt": "x"}\n' + row)
        with pytest.raises(CourseError, match="line 2 contains half of a surrogate pair"):
            chat.read_prompts(file)
    monkeypatch.setattr(chat, "open_model", lambda source: Echo())
    done = CliRunner().invoke(cli.app, ["chat", "m"], input=b"caf\xe9\n")
    assert isinstance(done.exception, CourseError) and "no UTF-8 text" in str(done.exception)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{", "line 2 is not JSON"),
        ('{"question": "x"}', "neither"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', "neither"),
        ("[1]", "neither"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "line 2 asks nothing"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path, line, word):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "x"}\n' + line + "\n")
    with pytest.raises(CourseError, match=word):
        chat.read_prompts(file)


def test_messages_keep_their_own_system_prompt_and_the_turns_of_a_tool(tmp_path):
    file = tmp_path / "p.jsonl"
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant", "tool")]
    file.write_text(json.dumps({"messages": turns}) + '\n{"prompt": "y"}\n')
    first, second = chat.read_prompts(file, system="given")
    assert first == turns and second[0]["content"] == "given"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}, "Ho"),
        ({"messages": [{"role": "user", "content": "Hi"}], "answer": "Ho"}, "Ho"),
        ({"prompt": "Hi", "completion": "Ho"}, "Ho"),
        ({"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Ho"}]}, "Ho"),
        ({"prompt": "Hi"}, None),
        ({"prompt": "Hi", "answer": 3}, None),
    ],
)
def test_an_answer_that_a_row_holds_is_not_shown_and_kept_as_expected(tmp_path, row, expected):
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    [asked] = chat.read_prompts(tmp_path / "p.jsonl")
    assert asked == [{"role": "user", "content": "Hi"}]
    chat.answer_file(Echo(), [asked], tmp_path / "out.jsonl")
    answered = json.loads((tmp_path / "out.jsonl").read_text())
    assert answered["messages"] == asked and answered["answer"] and answered.get("expected") == expected


@pytest.mark.parametrize(
    "words", ["--temperature -1", "--top-p 0", "--top-k -1", "--max-new-tokens 0", f"--seed {2**32}", "--batch 0"]
)
def test_sampling_options_are_checked(words):
    done = CliRunner().invoke(cli.app, ["chat", "m", *words.split()])
    assert done.exit_code == 2 and "Input should be" in done.output


def test_what_is_no_model_is_a_sentence(tmp_path):
    with pytest.raises(CourseError, match="holds neither an adapter nor a model"):
        chat.open_model(tmp_path)


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_the_folder_of_a_run_is_enough(tmp_path, monkeypatch, kind):
    (tmp_path / kind).mkdir()
    (tmp_path / kind / f"{kind}_config.json".removeprefix("model_")).touch()
    monkeypatch.setattr(chat, "Weights", lambda source: source)
    assert chat.open_model(tmp_path) == chat.open_model(tmp_path / kind) == tmp_path / kind


def test_the_command_talks(monkeypatch):
    model = Echo()
    monkeypatch.setattr(chat, "open_model", lambda source: model)
    done = CliRunner().invoke(cli.app, ["chat", "m", "--system", "Be brief"], input="one\n/new\ntwo\n\nnever\n")
    assert done.exit_code == 0
    assert done.output == "re: one\nre: two\n"
    assert [turn["content"] for turn in model.seen[1]] == ["Be brief", "two"]


@pytest.fixture(scope="module")
def pocket(load):
    """The bundled model as `chat` opens it; `load` has Unsloth come first, and marks the tests as its own."""
    return chat.open_model("pocket")


def test_the_pieces_of_an_answer_make_up_what_a_batch_answers(pocket):
    chats = [[{"role": "user", "content": f"What is {n} plus 1?"}] for n in (3, 41)]
    short = chat.Sampling(max_new_tokens=8)
    assert ["".join(pocket.stream(messages, short)) for messages in chats] == pocket.answer_all(chats, short)


def test_drawn_answers_follow_the_seed(pocket):
    asked = [{"role": "user", "content": "Tell me a story"}]
    warm = [chat.Sampling(temperature=2.0, max_new_tokens=12, seed=seed) for seed in (1, 1, 2)]
    first, again, other = ("".join(pocket.stream(asked, sampling)) for sampling in warm)
    assert first == again != other
