"""What the converter is given, the scores of the merges, and the Modelfile."""

import json
import re
from pathlib import Path

import pytest
from families import FAMILIES, as_family

from unsloth_course import models
from unsloth_course.commands.export import files
from unsloth_course.core.errors import CourseError

POCKET = Path(models.folder("pocket"))


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(POCKET))


def test_earlier_merges_have_higher_scores():
    scores = files.merge_scores({"model": {"vocab": {"a": 0, "ab": 1, "abc": 2}, "merges": [["a", "b"], "ab c"]}})
    assert scores == {1: 0.0, 2: -1.0}


def test_a_staged_model_has_the_settings_that_the_converter_knows(tmp_path, tokenizer):
    tokenizer.save_pretrained(str(tmp_path / "model"))  # as transformers 5 leaves it after a training
    (tmp_path / "model" / "weights.bin").write_bytes(b"not safe")
    settings = json.loads((files.stage(tmp_path / "model", tmp_path / "staged") / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["add_bos_token"] is False
    assert not (tmp_path / "staged" / "weights.bin").exists()


def test_the_modelfile_writes_the_chat_form_of_the_tokenizer(tokenizer):
    lines = files.modelfile(tokenizer, "model.q4_k_m.gguf")
    assert lines.startswith("FROM ./model.q4_k_m.gguf\n")
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n' in lines
    assert '{{ else if eq .Role "tool" }}<|im_start|>tool\n{{ .Content }}<|im_end|>\n' in lines
    assert lines.count("{{ end }}") == 2 and "SYSTEM" not in lines
    assert '{{ end }}{{ end }}<|im_start|>assistant\n"""' in lines


def test_the_default_system_prompt_of_a_template_stays(tokenizer, monkeypatch):
    default = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe kind<|im_end|>\\n' }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", default + tokenizer.chat_template)
    assert files.chat_parts(tokenizer)[1] == "<|im_start|>system\nBe kind<|im_end|>\n"
    expected = '{{ if ne (index .Messages 0).Role "system" }}<|im_start|>system\nBe kind<|im_end|>\n{{ end }}'
    assert expected in files.modelfile(tokenizer, "m.gguf")


def test_the_system_prompt_of_the_training_is_in_the_modelfile(tokenizer):
    lines = files.modelfile(tokenizer, "m.gguf", system="Be kind.\nBe brief.", roles={"system", "user", "assistant"})
    assert '\nSYSTEM """Be kind.\nBe brief."""\nPARAMETER stop' in lines
    with pytest.raises(CourseError, match="which a Modelfile cannot say"):
        files.modelfile(tokenizer, "m.gguf", system='Say """')


def test_a_template_without_tools_makes_a_modelfile_only_for_a_training_without_them(tokenizer, monkeypatch):
    picky = "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", picky + tokenizer.chat_template)
    assert '"tool"' not in files.modelfile(tokenizer, "m.gguf", roles={"user", "assistant"})
    with pytest.raises(CourseError, match="turns of the role tool"):
        files.modelfile(tokenizer, "m.gguf", roles={"user", "assistant", "tool"})


def as_ollama(modelfile, messages):
    """A conversation as the TEMPLATE of a Modelfile writes it: of Go's language what our Modelfiles use."""
    text = modelfile.split('TEMPLATE """')[1].split('"""')[0]
    head, _, rest = text.partition("{{ range $i, $_ := .Messages }}")
    cases, end = rest.rsplit("{{ end }}{{ end }}", 1)
    written = re.findall(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}(.*?)(?=\{\{ else if eq|\Z)', cases, re.DOTALL)
    begin = head.removeprefix('{{ if ne (index .Messages 0).Role "system" }}').removesuffix("{{ end }}")
    made = "" if messages[0]["role"] == "system" else begin
    for number, turn in enumerate(messages):
        before_it = r"\1" if number else ""
        case = re.sub(r"\{\{ if \$i \}\}(.*?)\{\{ end \}\}", before_it, dict(written)[turn["role"]])
        made += case.replace("{{ .Content }}", turn["content"])
    return made + end


@pytest.mark.parametrize("family", FAMILIES)
def test_the_beginning_of_sequence_stands_once(tokenizer, family):
    """Ollama puts it before the text where the file says so, as llama.cpp does."""
    made = as_family(tokenizer, family)
    text = files.modelfile(made, "m.gguf")
    own = made.bos_token if made("")["input_ids"] else ""
    assert bool(own) == (family != "Qwen")
    turns = [{"role": role, "content": f"Say {role}."} for role in ("user", "assistant", "user")]
    for messages in (turns, turns[:1], [{"role": "system", "content": "Be kind."}, *turns]):
        if messages[0]["role"] == "system" and '"system"' not in text:
            with pytest.raises(CourseError, match="turns of the role system"):
                files.modelfile(made, "m.gguf", roles={"system", "user"})
            continue
        wanted = made.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert own + as_ollama(text, messages) == wanted


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ loop.index }}{{ m['content'] }}{% endfor %}",  # numbers its turns
        "{% for m in messages %}{% if loop.last %}{{ m['content'] }}{% endif %}{% endfor %}",  # only the last turn
        "{{ raise_exception('no system prompt') }}",
        "{% for m in messages %}{{ '{{' + m['content'] }}{% endfor %}",  # Ollama would take it for a command
    ],
)
def test_a_template_that_a_modelfile_cannot_say_is_refused(tokenizer, monkeypatch, template):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(CourseError, match="no Modelfile"):
        files.modelfile(tokenizer, "m.gguf")
