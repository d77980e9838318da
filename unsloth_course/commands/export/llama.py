"""A GGUF file in the real llama.cpp: its server in a process of its own, asked over the loopback address."""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from unsloth_course.core.errors import CourseError
from unsloth_course.setup import llama_cpp

LOADING_SECONDS = 300
SLOTS = 8  # prompts that the server works on side by side
SLOT_TOKENS = 2048
AHEAD = 8  # tokens that `follow` asks for at a time


def folder() -> Path:
    """The folder of the built llama.cpp. Raises CourseError when `./setup_venv.sh --gguf` was not run to its end."""
    place = llama_cpp.home()
    if missing := llama_cpp.missing(place):
        raise CourseError(
            f"llama.cpp is not built: {place} lacks {', '.join(missing)}. Run ./setup_venv.sh --gguf once "
            "(about 7 minutes), then this again."
        )
    return place


def free_port() -> int:
    """A port of the loopback address that nobody listens at now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Completion(NamedTuple):
    """What llama.cpp wrote; the token that it stopped at is the last of the ids, and not in the text.

    stopped: whether by itself. leads: by how much the logit of each token was above the next one's.
    """

    tokens: list[int]
    text: str
    stopped: bool
    leads: list[float]


class Llama(contextlib.AbstractContextManager):
    """A GGUF file, loaded by llama.cpp's server: `with Llama("model.gguf") as llama: llama.complete([1, 2, 3])`.

    more: further options of llama-server. Raises CourseError when the file cannot be loaded.
    """

    def __init__(self, file: str | Path, more: Sequence[str] = ()):
        self.file = Path(file)
        if not self.file.is_file():
            raise CourseError(f"There is no file {self.file}.")
        program = llama_cpp.program(folder(), "llama-server")
        port = free_port()
        # Not by way of a proxy, whatever the environment names. A connection that rests may be closed by the server in
        # the moment in which the next question goes out, so each has its own.
        fresh = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600, trust_env=False, limits=fresh)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        # Without the variables that would change what llama-server does.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_ARG_")}
        command = [str(program), "--model", str(self.file), "--host", "127.0.0.1", "--port", str(port), "--offline"]
        command += ["--parallel", str(SLOTS), "--ctx-size", str(SLOTS * SLOT_TOKENS), "--no-ui", "--no-warmup"]
        command += ["--cache-ram", "0", "--threads", str(max(1, (os.cpu_count() or 2) // 2)), *more]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, env=environment
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._client.close()
        self._log.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + LOADING_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise CourseError(f"llama.cpp could not load {self.file}: {self._last_words()}")
            with contextlib.suppress(httpx.HTTPError):
                if self._client.get("/health", timeout=5).is_success:
                    return
            time.sleep(0.05)
        raise CourseError(f"llama.cpp did not load {self.file} in {LOADING_SECONDS} s.")

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        told = [line for line in lines if "error" in line.lower()]
        return (told or lines or ["it ended without a word"])[0].strip()

    @contextlib.contextmanager
    def _open(self, path: str, body: Mapping[str, Any] | None = None) -> Iterator[httpx.Response]:
        try:
            with self._client.stream("POST" if body else "GET", path, json=body) as answer:
                if answer.is_error:
                    told = answer.read().decode("utf-8", "replace")
                    raise CourseError(f"llama.cpp refused {path} for {self.file.name}: {told[:300]}")
                yield answer
        except httpx.HTTPError as error:
            raise CourseError(f"llama.cpp stopped while it ran {self.file.name} ({error}).") from None

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        with self._open(path, body) as answer:
            return json.loads(answer.read())

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation in the chat form that the file carries, up to where the next answer begins."""
        return self._ask("/apply-template", {"messages": list(messages)})["prompt"]

    def tokens(self, text: str, special: bool = True, control: bool = True) -> list[int]:
        """Token ids of a text as llama.cpp splits it. special: with what it puts before a prompt by itself, if that is
        so. control: control tokens that are written out in the text are read as such, not as characters."""
        body = {"content": text, "add_special": special, "parse_special": control}
        return self._ask("/tokenize", body)["tokens"]

    def stop_text(self) -> str:
        """The text of the token that ends an answer, as the file names it."""
        return self._ask("/props")["eos_token"]

    def complete(self, prompt: Sequence[int], max_new_tokens: int = 24, again: bool = False) -> Completion:
        """What the file writes after the token ids of a prompt, greedily.

        again: the prompt goes on from one that was asked before; the numbers may then differ in the last digits.
        """
        body = {"prompt": list(prompt), "n_predict": max_new_tokens, "temperature": 0, "top_k": 1, "seed": 1}
        found = self._ask("/completion", body | {"return_tokens": True, "cache_prompt": again, "n_probs": 2})
        likeliest = [token["top_logprobs"] for token in found.get("completion_probabilities", ())]
        leads = [first["logprob"] - second["logprob"] for first, second in likeliest]
        return Completion(found["tokens"], found["content"], found["stop_type"] == "eos", leads)

    def follow(self, prompt: Sequence[int], wanted: Sequence[int]) -> list[int]:
        """The likeliest next token at each place of an answer, whatever was likeliest before it (teacher forcing).

        The server gives no logits of a prompt. So it writes on from where the answer is known, and as long as it writes
        the answer's own tokens each of them is the likeliest one there; behind the first other one it is asked anew.
        """
        found: list[int] = []
        while len(found) < len(wanted):
            at = len(found)
            made = self.complete([*prompt, *wanted[:at]], min(AHEAD, len(wanted) - at), again=True).tokens
            if not made:
                raise CourseError(f"llama.cpp wrote nothing after {at} tokens of an answer, with {self.file.name}.")
            both = enumerate(zip(made, wanted[at:], strict=False))
            other = next((place for place, (mine, known) in both if mine != known), len(made) - 1)
            found += made[: other + 1]
        return found

    def stream(self, prompt: str, **options: Any) -> Iterator[str]:
        """What the file writes after a prompt, piece by piece; options as `/completion` of llama-server takes them."""
        with self._open("/completion", {"prompt": prompt, "stream": True, **options}) as lines:
            for line in lines.iter_lines():
                name, _, rest = line.partition(":")
                if name == "error":
                    raise CourseError(f"llama.cpp stopped while it answered: {rest.strip()[:300]}")
                if name == "data" and rest.strip() != "[DONE]":
                    yield json.loads(rest).get("content", "")
