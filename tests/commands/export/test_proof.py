"""The comparison that a round trip ends with, and its sentences; no model is needed."""

import copy
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from unsloth_course.commands.export import llama, proof
from unsloth_course.core.errors import CourseError


def reading(count: int = 60) -> dict:
    return {
        "prompts": [f"<user>{n}<end>" for n in range(count)],
        "prompt_tokens": [[5, n, 6] for n in range(count)],
        "stop": {"id": 2, "text": "<end>"},
        "wanted": [[n, n + 1, 2] for n in range(count)],
        "next": [[n, n + 1, 2] for n in range(count)],
        "answers": [
            {"tokens": [n, n + 1], "text": str(n), "stopped": True, "leads": [5.0, 4.0, 6.0]} for n in range(count)
        ],
        "dtype": "float32",
    }


ROWS = [{"messages": [{"role": "user", "content": "?"}], "answer": str(n)} for n in range(60)]


def changed(change) -> dict:
    made = copy.deepcopy(reading())
    change(made)
    return made


def require(kind: str, ours: dict, theirs: dict, metric: str = proof.EXACT) -> None:
    proof.require_same(f"model.{kind}.gguf", kind, ours, theirs, ROWS, metric)


def test_the_same_reading_has_no_difference():
    assert proof.first_difference(reading(), reading()) == ""
    assert proof.same_answers(reading(), reading()) == 50
    assert proof.drift(reading(), reading()) == 0
    assert proof.score(reading(), ROWS, proof.EXACT) == proof.score(reading(), ROWS, proof.NEXT_TOKEN) == 1.0
    for kind in ("merged", "f16", "q8_0", "q5_k_m", "q4_k_m"):
        require(kind, reading(), reading())


def test_a_beginning_that_llama_cpp_adds_itself_is_compared_by_its_token():
    ours = reading() | {"prompts": [f"<s>{text}" for text in reading()["prompts"]], "bos": "<s>"}
    assert proof.first_difference(ours, reading()) == ""
    twice = reading() | {"prompt_tokens": [[5, *ids] for ids in reading()["prompt_tokens"]]}
    assert "prompt 1 is split otherwise: token 2, 0 became 5" in proof.first_difference(ours, twice)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r["prompts"].__setitem__(1, "<user>1</s>"), "prompt 2 differs at character 9, 'end>' became '/s>'"),
        (lambda r: r["prompt_tokens"][2].insert(0, 1), "prompt 3 is split otherwise: token 1, 5 became 1"),
        (lambda r: r["prompt_tokens"][2].pop(), "token 3, 6 became the end"),
        (lambda r: r["stop"].update(id=0, text="<x>"), "stop token is another one: '<end>' (2) became '<x>' (0)"),
        (lambda r: r["answers"][7]["tokens"].__setitem__(1, 99), "prompt 8 differs at token 2: 8 became 99"),
        (lambda r: r["answers"][7].update(stopped=False), "prompt 8 no longer stops by itself"),
    ],
)
def test_the_first_difference_is_named(change, sentence):
    assert sentence in proof.first_difference(reading(), changed(change))
    with pytest.raises(CourseError, match=r"The round trip of model\.f16\.gguf failed: "):
        require("f16", reading(), changed(change))


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_a_small_quant_may_answer_otherwise_within_three_points_of_score(wrong):
    def worse(made):
        for row in made["answers"][:wrong]:
            row.update(text="?", tokens=[row["tokens"][0]])

    found = changed(worse)
    if wrong < 2:  # 1 of 60 is 1.7 points, 2 are 3.3
        require("q4_k_m", reading(), found)
    else:
        with pytest.raises(
            CourseError, match=r"it scores 96\.7 % .*exact answers.* 100\.0 %; 3 points .* prompt 1 differs at token 2"
        ):
            require("q4_k_m", reading(), found)


@pytest.mark.parametrize(("wrong", "holds"), [(5, True), (6, False)])  # of 180 tokens
def test_where_answers_are_long_the_next_tokens_are_scored(wrong, holds):
    def worse(made):
        for row in made["next"][:wrong]:
            row[0] = 999

    found = changed(worse)
    assert proof.score(found, ROWS, proof.NEXT_TOKEN) == pytest.approx(1 - wrong / 180)
    if holds:
        require("q4_k_m", reading(), found, proof.NEXT_TOKEN)
    else:
        with pytest.raises(CourseError, match=r"it scores 96\.7 % .*next-token accuracy"):
            require("q4_k_m", reading(), found, proof.NEXT_TOKEN)


def test_the_score_is_exact_match_only_where_that_can_show_a_difference():
    assert proof.metric_for(ROWS, reading()) == proof.EXACT
    long = [*ROWS[:-1], ROWS[-1] | {"answer": "two\nlines"}]
    assert proof.metric_for(long, reading()) == proof.NEXT_TOKEN
    text = [*ROWS[:-1], {"prompt": "Once", "answer": " upon"}]
    assert proof.metric_for(text, reading()) == proof.NEXT_TOKEN

    def right(count):
        def silent(made):
            for row in made["answers"][count:]:
                row["text"] = "?"

        return changed(silent)

    assert proof.metric_for(ROWS, right(1)) == proof.NEXT_TOKEN  # 1.7 %: a broken file would be within 3 points of it
    assert proof.metric_for(ROWS, right(2)) == proof.EXACT


def test_a_small_quant_must_have_template_and_stop_token_too():
    with pytest.raises(CourseError, match="stop token"):
        require("q4_k_m", reading(), changed(lambda r: r["stop"].update(id=7)))


def test_an_answer_that_does_not_stop_is_not_exact():
    found = changed(lambda r: r["answers"][0].update(stopped=False))
    assert proof.score(found, ROWS, proof.EXACT) == pytest.approx(59 / 60)


def test_where_llama_cpp_stops_at_a_token_of_its_own_the_answers_are_compared_up_to_there():
    def made(tokens):
        return proof._answer(llama.Completion(tokens, "x", True, [5.0, 4.0]), stop=2)

    ours = changed(lambda r: r["answers"][0].update(tokens=[9, 0, 7, 7], stopped=False))
    theirs = changed(lambda r: r["answers"].__setitem__(0, made([9, 0])))
    assert proof.first_difference(ours, theirs) == "" and proof.same_answers(ours, theirs) == 50
    assert proof.score(theirs, ROWS, proof.EXACT) == proof.score(ours, ROWS, proof.EXACT) == pytest.approx(59 / 60)
    assert made([9, 2])["tokens"] == [9]
    theirs["answers"][0]["tokens"] = [9, 1]
    assert "prompt 1 differs at token 2: 0 became 1" in proof.first_difference(ours, theirs)


@pytest.mark.parametrize(
    ("kind", "lead", "dtype", "holds"),
    [
        ("merged", 0.05, "float32", True),
        ("merged", 0.2, "float32", False),
        ("f16", 0.2, "float32", False),
        ("q8_0", 0.2, "float32", True),
        ("q8_0", 0.4, "float32", False),
        ("merged", 0.2, "bfloat16", True),
        ("merged", 0.4, "bfloat16", False),
    ],
)
def test_a_tie_that_rounding_decides_is_shown_but_no_failure(kind, lead, dtype, holds):
    ours = changed(lambda r: (r["answers"][3].update(leads=[9.0, lead, 9.0]), r.update(dtype=dtype)))
    theirs = changed(lambda r: r["answers"][3].update(tokens=[3, 77], text="?", leads=[9.0, 0.1]))
    assert "prompt 4 differs at token 2" in proof.first_difference(ours, theirs)
    assert proof.same_answers(ours, theirs) == 49
    if holds:
        require(kind, ours, theirs)
    else:
        with pytest.raises(CourseError, match="prompt 4 differs at token 2"):
            require(kind, ours, theirs)


@pytest.mark.parametrize(
    ("kind", "drift", "holds"),
    [("merged", 0.01, True), ("merged", 0.03, False), ("f16", 0.03, False), ("q8_0", 0.05, True), ("q8_0", 0.2, False)],
)
def test_the_same_tokens_from_other_weights_are_found_by_their_leads(kind, drift, holds):
    def other(made):
        for row in made["answers"]:
            row["leads"] = [lead + drift for lead in row["leads"]]
        made["answers"][1]["leads"][0] += 0.01

    assert proof.first_difference(reading(), changed(other)) == ""
    assert proof.drift(reading(), changed(other)) == pytest.approx(drift, abs=0.001)
    if holds:
        require(kind, reading(), changed(other))
    else:
        with pytest.raises(CourseError, match=r"Token 1 of the answer to prompt 2 differs most: 5\.000 became"):
            require(kind, reading(), changed(other))
    in_16_bit = changed(lambda r: r.update(dtype="bfloat16"))
    require(kind, in_16_bit, changed(other))  # there the steps of the numbers are larger than that


def test_more_layers_drift_further():
    assert proof.limit_for("f16", reading()).drift == 0.02
    deep = reading() | {"layers": 36}
    assert proof.limit_for("f16", deep) == (0.1, pytest.approx(0.06))
    assert proof.limit_for("q4_k_m", deep) is None
    # Rounding moves the answers of a real model, so of a merged one the weights are compared.
    assert proof.limit_for("merged", deep) == proof.BY_WEIGHTS != proof.limit_for("merged", reading())
    assert proof.limit_for("f16", deep | {"dtype": "float16"}) == proof.IN_16_BIT


def test_of_answers_without_a_token_nothing_drifts():
    empty = changed(lambda r: [row.update(tokens=[]) for row in r["answers"]])
    assert proof.drift(empty, empty) is None
    require("merged", empty, empty)


def test_the_server_is_asked_directly_though_a_proxy_is_set(monkeypatch, tmp_path):
    """On the loopback address; through a company's proxy it would not be found."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/props" else 404)
            self.end_headers()
            self.wfile.write(b'{"eos_token": "<end>"}')

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'data: {"content": "sch\xc3\xb6"}\n\ndata: {"content": "n"}\n\ndata: [DONE]\n\n')

        def log_message(self, *_):
            pass

    class Ended:
        def poll(self):
            return None

        def terminate(self):
            pass

        def wait(self, timeout=None):
            return 0

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(llama, "folder", lambda: tmp_path)
        monkeypatch.setattr(llama.Llama, "_wait", lambda self: None)
        monkeypatch.setattr(llama.subprocess, "Popen", lambda *_, **__: Ended())
        monkeypatch.setattr(llama, "free_port", lambda: server.server_port)
        (tmp_path / "model.gguf").touch()
        with llama.Llama(tmp_path / "model.gguf") as loaded:
            assert loaded.stop_text() == "<end>" and list(loaded.stream("Wie?")) == ["schö", "n"]
            with pytest.raises(CourseError, match="refused /apply-template"):
                loaded._ask("/apply-template")
        server.shutdown()
    with pytest.raises(CourseError, match="stopped while it ran"), llama.Llama(tmp_path / "model.gguf") as gone:
        gone.stop_text()
