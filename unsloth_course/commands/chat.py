"""Talking to what was trained: an adapter, a whole model or a GGUF file; one conversation, or a file of prompts.

`open_model` gives a model; `Conversation` keeps the history; `answer_file` answers a JSONL file in batches.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unsloth_course.commands.export import held_out
from unsloth_course.core.errors import CourseError
from unsloth_course.core.model_files import in_run
from unsloth_course.core.writing import write_text
from unsloth_course.lesson import models, smollm2
from unsloth_course.lesson.data.chat import ANSWER_COLUMNS
from unsloth_course.lesson.data.turns import turn, words
from unsloth_course.lesson.profile import SMOLLM2

Message = Mapping[str, str]


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. temperature 0 always takes the likeliest one; the others then have no effect.

    top_p: the smallest set of tokens with this probability in all (Holtzman et al. 2020); top_k: at most so many, 0 for
    all; max_new_tokens: of one answer.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 256
    seed: int = 3407


class Weights:
    """An adapter or a whole model in a folder, run by Unsloth.

    `stream` gives the next answer of a conversation, piece by piece, `answer_all` those of several, side by side.
    """

    def __init__(self, source: str | Path):
        from unsloth_course.commands.export import own_process

        if own_process.base_of(source) == SMOLLM2:
            smollm2.fetch(lambda line: print(line, file=sys.stderr, flush=True))
        # What is printed while a model loads must not stand between the answers.
        with contextlib.redirect_stdout(None):
            self._model, self._tokenizer = own_process.load(source)

    def close(self) -> None:
        self._model = None

    def _prompt(self, messages: Sequence[Message]) -> str:
        return models.in_chat_form(self._tokenizer, list(messages), tokenize=False, add_generation_prompt=True)

    def _drawn(self, sampling: Sampling) -> dict[str, Any]:
        from transformers import set_seed

        set_seed(sampling.seed)
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        return {"do_sample": True} | drawn if sampling.temperature else {}

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
        prompt, longest = self._prompt(messages), sampling.max_new_tokens
        drawn = self._drawn(sampling)
        yield from models.stream_after(self._model, self._tokenizer, prompt, longest, timeout=600, **drawn)

    def answer_all(self, chats: Sequence[Sequence[Message]], sampling: Sampling) -> list[str]:
        prompts, longest = list(map(self._prompt, chats)), sampling.max_new_tokens
        drawn = self._drawn(sampling)
        return models.complete(self._model, self._tokenizer, prompts, longest, at_once=len(prompts), **drawn)


class Gguf:
    """A GGUF file, run by llama.cpp in a process of its own; asked as `Weights` is."""

    def __init__(self, file: str | Path):
        from unsloth_course.commands.export import llama

        self._llama = llama.Llama(file)

    def close(self) -> None:
        self._llama.close()

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
        # top_k 1 with temperature 0 is greedy; the samplers that llama.cpp has besides these are switched off.
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "min_p": 0.0, "seed": sampling.seed}
        drawn["top_k"] = sampling.top_k if sampling.temperature > 0 else 1
        prompt = self._llama.prompt(messages)
        yield from self._llama.stream(prompt, n_predict=sampling.max_new_tokens, **drawn)

    def answer_all(self, chats: Sequence[Sequence[Message]], sampling: Sampling) -> list[str]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max(1, len(chats))) as pool:
            return list(pool.map(lambda messages: "".join(self.stream(messages, sampling)), chats))


Model = Weights | Gguf


def open_model(source: str | Path) -> Model:
    """What is at `source`, ready to answer: a .gguf file, a folder of an adapter, a model or a run, or a model's name.

    Raises CourseError when it is none of them or damaged, and for a GGUF file when llama.cpp is not built.
    """
    path = in_run(Path(source).expanduser())
    if path.suffix.lower() == ".gguf":
        return Gguf(path)
    if path.is_dir() and not any((path / name).is_file() for name in ("adapter_config.json", "config.json")):
        raise CourseError(
            f"{path} holds neither an adapter nor a model. Give a folder that finetune wrote, or a .gguf file."
        )
    return Weights(path if path.exists() else str(source))


@dataclass
class Conversation:
    """A model with the history of what was said. system: the system prompt; "" for the model's own."""

    model: Model
    sampling: Sampling = field(default_factory=Sampling)
    system: str = ""
    history: list[Message] = field(default_factory=list)

    def say(self, text: str, role: str = "user") -> Iterator[str]:
        """The answer to a message, piece by piece. Both join the history once the answer has come to its end.

        role: "tool" for what a function returned that the model called.
        """
        start = [{"role": "system", "content": self.system}] if self.system else []
        asked = {"role": role, "content": text}
        pieces = []
        for piece in self.model.stream([*start, *self.history, asked], self.sampling):
            pieces.append(piece)
            yield piece
        self.history += [asked, {"role": "assistant", "content": "".join(pieces)}]


class Asked(list):
    """The turns of a conversation up to the answer, and the answer that its row holds, or None."""

    expected: str | None = None


def read_prompts(file: str | Path, system: str = "") -> list[Asked]:
    """The conversations in a JSONL file: each line an object with `prompt` (a text, or turns) or `messages`.

    An answer that a row holds, as its last turn or under one of `ANSWER_COLUMNS`, is not shown to the model: it is what
    is `expected`. Raises CourseError that names file and line when a line is not one.
    """
    start = [{"role": "system", "content": system}] if system else []
    chats = [_messages(row, where, start) for row, where in held_out.json_lines(file, "prompts")]
    if not chats:
        raise CourseError(f'{file} holds no prompt. Write one object a line, such as {{"prompt": "..."}}.')
    return chats


def _messages(row: Mapping[str, Any], where: str, start: list[Message]) -> Asked:
    prompt = row.get("prompt")
    turns = [turn("user", prompt)] if isinstance(prompt, str) else held_out.turns({"messages": prompt, **row})
    if not turns:
        raise CourseError(f'{where} has neither "prompt" (a text) nor "messages" (a list of role and content).')
    expected = next((row[name] for name in ANSWER_COLUMNS if row.get(name)), None)
    if isinstance(expected, list):
        expected = words(held_out.turns({"messages": expected})[-1:])
    if turns[-1]["role"] == "assistant":
        expected = turns.pop()["content"]
    if not turns or turns[-1]["role"] not in ("user", "tool"):
        raise CourseError(f"{where} asks nothing: a turn of the user before the answer is missing.")
    asked = Asked(turns if turns[0]["role"] == "system" else [*start, *turns])
    asked.expected = expected if isinstance(expected, str) else None
    return asked


def _answered(out: Path, about: Path, chats: Sequence[Sequence[Message]], told: Mapping[str, Any]) -> int:
    """How many prompts an earlier run answered; behind these, what it left of a line is taken out of the file.

    Raises CourseError, and leaves the file as it is, when it holds anything but answers of such a run.
    """
    if not out.exists():
        return 0
    try:
        before = json.loads(about.read_text(encoding="utf-8"))
        differ = [name for name in told if before[name] != told[name]]
        done = [line for line in out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(
            f"{out} exists, and {about.name} beside it does not say whose answers it holds "
            f"({getattr(error, 'strerror', None) or 'it is damaged'}). Choose another --out."
        ) from None
    if differ:
        was, now = (", ".join(f"{name} {run[name]}" for name in differ) for run in (before, told))
        raise CourseError(
            f"The answers in {out} were given with {was}, and now it is {now}. Choose another --out, or ask as before."
        )
    for number, line in enumerate(done):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if number < len(chats) and json.loads(line)["messages"] == list(map(dict, chats[number])):
                continue
        raise CourseError(f"{out}, line {number + 1} does not answer that prompt of this file. Choose another --out.")
    if len(done) < len(chats):
        write_text(out, b"".join(done).decode())
    return len(done)


def answer_file(
    model: Model,
    chats: Sequence[Sequence[Message]],
    out: str | Path,
    sampling: Sampling | None = None,
    batch: int = 16,
    say: Callable[[str], None] = lambda line: None,
    source: str = "",
) -> int:
    """Answers conversations into a JSONL file, in their order; returns how many were answered now.

    Each line holds `messages` and `answer`, and `expected` where that is known. A file with the first answers is gone
    on with: a stopped run loses at most one batch. source: the name of the model. It is noted with the sampling in
    `<out>.about.json`; answers of another model or sampling are not gone on with: that raises CourseError.
    """
    out = Path(out)
    sampling = sampling or Sampling()
    about, told = out.with_name(out.name + ".about.json"), {"model": source, **asdict(sampling)}
    done = _answered(out, about, chats, told)
    if done:
        say(f"{done} of {len(chats)} prompts are answered in {out}; going on from there")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if not done:
            about.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        with out.open("a", encoding="utf-8", newline="\n") as file:
            for start in range(done, len(chats), batch):
                rows = chats[start : start + batch]
                for messages, answer in zip(rows, model.answer_all(rows, sampling), strict=True):
                    expected = getattr(messages, "expected", None)
                    row = {"messages": list(map(dict, messages)), "answer": answer}
                    file.write(json.dumps(row if expected is None else row | {"expected": expected}) + "\n")
                file.flush()
                os.fsync(file.fileno())
                say(f"{start + len(rows)} of {len(chats)} prompts answered")
    except OSError as error:
        raise CourseError(f"The answers could not be written to {out} ({error}); run this again.") from None
    return len(chats) - done
