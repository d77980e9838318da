"""The files of an export: what the converter is given, what is set right in a GGUF file, and the Ollama Modelfile."""

import contextlib
import json
import re
import shutil
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from unsloth_course.commands.export import llama
from unsloth_course.core.errors import CourseError

MODEL_FILES = ("*.json", "*.jinja", "*.safetensors", "*.txt", "*.model")
_WITH_LLAMA = "Use the GGUF file with llama.cpp, which runs the template itself."
_UNSAYABLE = (
    "The chat template of this tokenizer does not write its turns one after the other in one form, so no Modelfile can "
    f"be made from it. {_WITH_LLAMA}"
)


def stage(source: str | Path, target: Path) -> Path:
    """A copy of a whole model for the converter, with its tokenizer in the words that the converter knows.

    transformers 5 writes a tokenizer's settings in a form of its own after every training. Returns `target`.
    """
    target.mkdir(parents=True)
    for pattern in MODEL_FILES:
        for file in Path(source).glob(pattern):
            shutil.copyfile(file, target / file.name)
    if _is_llama_style(target / "tokenizer.json"):
        from transformers import AutoTokenizer

        from unsloth_course.pocket import tokenizer

        found = AutoTokenizer.from_pretrained(str(target))
        if found("")["input_ids"] == []:  # it puts nothing before a text
            tokenizer.save(found, target)
    return target


def _is_llama_style(tokenizer: Path) -> bool:
    """Whether a tokenizer.json holds byte-pair encoding with the bytes as tokens, as the bundled model's does."""
    if not tokenizer.is_file():
        return False
    model = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]
    return model["type"] == "BPE" and bool(model.get("byte_fallback"))


def merge_scores(tokenizer: Mapping[str, Any]) -> dict[int, float]:
    """Token id and score of each token that a merge makes: minus the merge's rank. Of a tokenizer.json's content.

    llama.cpp joins the pair with the highest score first, so that earlier merges go first, as in byte-pair encoding.
    """
    model = tokenizer["model"]
    scores: dict[int, float] = {}
    for rank, pair in enumerate(model["merges"]):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        scores.setdefault(model["vocab"][left + right], -float(rank))
    return scores


def set_merge_order(file: str | Path, tokenizer: Path) -> int:
    """Writes `merge_scores` into a GGUF file whose converter gave every token one score; returns how many were set.

    A file that keeps its merges (as of SmolLM2) stays as it is: 0.
    """
    if not _is_llama_style(tokenizer):
        return 0
    place = str(llama.folder() / "gguf-py")
    sys.path.insert(0, place)
    try:
        from gguf import GGUFReader
    finally:
        sys.path.remove(place)
    reader = GGUFReader(str(file), "r+")
    scores = reader.get_field("tokenizer.ggml.scores")
    if scores is None or len({float(scores.parts[part][0]) for part in scores.data[3:]}) > 2:
        return 0
    wanted = merge_scores(json.loads(tokenizer.read_text(encoding="utf-8")))
    for token, score in wanted.items():
        scores.parts[scores.data[token]][0] = score
    reader.data.flush()
    return len(wanted)


def modelfile(tokenizer: Any, gguf: str, system: str = "", roles: Collection[str] = ()) -> str:
    """The text of an Ollama Modelfile for a GGUF file: the chat form of this tokenizer, its stop token, greedy answers.

    system: the system prompt that it was trained with, if it was always the same. roles: those that speak in its
    conversations. What stands before and after each role is read off the tokenizer's template. Raises CourseError when
    it does not always write the same there: then a Modelfile would ask otherwise than the training did.
    """
    turns, default, end = chat_parts(tokenizer)
    if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]:
        turns, default = _begun_once(turns, default, tokenizer.bos_token)
    if silent := sorted({*roles} - {*turns}):
        raise CourseError(
            f"The chat template of this tokenizer does not write turns of the role {silent[0]} in one form, and the "
            f"training had some, so no Modelfile can be made from it. {_WITH_LLAMA}"
        )
    if '"""' in system:
        raise CourseError(f'The system prompt holds """, which a Modelfile cannot say. {_WITH_LLAMA}')
    cases = "".join(
        f'{{{{ {"else if" if number else "if"} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}'
        for number, (role, (before, after)) in enumerate(turns.items())
    )
    first = f'{{{{ if ne (index .Messages 0).Role "system" }}}}{default}{{{{ end }}}}' if default else ""
    template = f"{first}{{{{ range $i, $_ := .Messages }}}}{cases}{{{{ end }}}}{{{{ end }}}}{end}"
    return (
        f"FROM ./{gguf}\n"
        f'TEMPLATE """{template}"""\n'
        + (f'SYSTEM """{system}"""\n' if system else "")
        + f"PARAMETER stop {json.dumps(tokenizer.eos_token)}\n"
        "PARAMETER temperature 0\n"
    )


def _begun_once(turns: dict[str, tuple[str, str]], default: str, bos: str) -> tuple[dict[str, tuple[str, str]], str]:
    """The parts without the beginning of sequence, which Ollama puts before a conversation by itself, as llama.cpp."""
    begun = dict(turns)
    if "system" in turns:
        begun["system"] = turns["system"][0].removeprefix(bos), turns["system"][1]
    before, after = turns["user"]
    if not default and before.startswith(bos):  # Llama 2 writes one before each question
        begun["user"] = f"{{{{ if $i }}}}{bos}{{{{ end }}}}{before.removeprefix(bos)}", after
    return begun, default.removeprefix(bos)


def chat_parts(tokenizer: Any) -> tuple[dict[str, tuple[str, str]], str, str]:
    """A chat template taken apart: before and after a turn by role, the text before a conversation without a system
    prompt, and what begins an answer.

    Turns of a tool, and the system prompt, are among them where they have one form. Raises CourseError as `modelfile`.
    """
    for first in (("system",), ()):
        # A template is a program, and may refuse a conversation in any way.
        with contextlib.suppress(Exception):
            parts, default, end = _parts(tokenizer, first)
            pieces = [*(piece for pair in parts.values() for piece in pair), default, end]
            if not any(re.search(r'\{\{|\}\}|"""|7391', piece) for piece in pieces):
                return parts, default, end
    raise CourseError(_UNSAYABLE)


def _parts(tokenizer: Any, first: tuple[str, ...]) -> tuple[dict[str, tuple[str, str]], str, str]:
    """`chat_parts` of conversations that may begin with these roles. Raises ValueError where they do not fit."""
    marks = {role: f"{role[:3].upper()}-7391" for role in ("system", "user", "assistant", "tool")}

    def render(*roles: str, prompt: bool = False) -> str:
        chat = [{"role": role, "content": marks[role]} for role in roles]
        return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)

    def part(role: str, *before: str) -> tuple[str, str]:
        left, mark, right = render(*before, role).removeprefix(render(*before) if before else "").partition(marks[role])
        if not mark:
            raise ValueError(role)
        return left, right

    def together(parts: Mapping[str, tuple[str, str]], *roles: str) -> str:
        made = "".join(f"{parts[role][0]}{marks[role]}{parts[role][1]}" for role in roles)
        return made if roles[0] == "system" else default + made

    end = render(*first, "user", prompt=True).removeprefix(render(*first, "user"))
    parts = {"system": part("system")} if first else {}
    parts["user"] = part("user", *first, "user", "assistant")  # a later one: what begins a conversation is not its own
    parts["assistant"] = part("assistant", *first, "user")
    default = render("user").removesuffix("".join((parts["user"][0], marks["user"], parts["user"][1])))
    whole = (*first, "user", "assistant")
    asked = [(*first, "user"), ("user", "assistant", "user"), (*whole, "user")]
    if render(*whole) != together(parts, *whole) or any(
        together(parts, *roles) + end != render(*roles, prompt=True) for roles in asked
    ):
        raise ValueError(first)
    with contextlib.suppress(Exception):
        more = parts | {"tool": part("tool", "user", "assistant")}
        called = ("user", "assistant", "tool", "assistant", "user", "assistant", "tool")
        if render(*called, prompt=True) == together(more, *called) + end:
            parts = more
    return parts, default, end
