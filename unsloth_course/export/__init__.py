"""Taking a model elsewhere: merged 16-bit weights, GGUF files, an Ollama Modelfile, and the round trip as proof.

`export` does it all; the files are in `files`, the proof in `proof`, real llama.cpp in `llama`, and what needs Unsloth
runs in `own_process`. Taught at the end of lesson colab2 (LoRA).
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unsloth_course import models
from unsloth_course.errors import CourseError
from unsloth_course.export import files, llama, own_process, proof

__all__ = ["QUANTS", "TARGETS", "Export", "Format", "export", "files", "held_out", "llama", "own_process", "proof"]

TARGETS = ("merged", "gguf", "ollama")
QUANTS = ("f16", "q8_0", "q5_k_m", "q4_k_m")
HELD_OUT = 200  # questions of the score
LONGEST_ANSWER = 24  # tokens


@dataclass(frozen=True)
class Format:
    """One file or folder of an export. bytes: of its weights. score: exact answers of `questions`, from 0 to 1.
    same: of `compared` prompts, those with every answer token as in the model that was exported. difference: the first
    one in the answers, "" if there is none; in merged, f16 and q8_0 it can only be a tie that rounding decided."""

    name: str
    path: str
    bytes: int
    score: float
    questions: int
    same: int
    compared: int
    difference: str = ""


@dataclass(frozen=True)
class Export:
    """What was written, each format proven; the first row is the model that was exported."""

    source: str
    formats: list[Format]
    written: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        lines = [f"{'format':<10} {'size':>11}  {'score':>7}  same answers"]
        for made in self.formats:
            size = f"{made.bytes / 1e6:,.1f} MB"
            lines.append(f"{made.name:<10} {size:>11}  {100 * made.score:>5.1f} %  {made.same} of {made.compared}")
        lines += [f"{made.name}: {made.difference}" for made in self.formats if made.difference]
        questions = self.formats[0].questions
        lines.append(f"score: exact answers to {questions} held-out questions; every format made its round trip")
        return "\n".join([*lines, *(f"file  {path}" for path in self.written)])


def export(
    source: str | Path,
    to: str,
    *,
    quants: Sequence[str] = ("q4_k_m",),
    out: str | Path | None = None,
    data: str | None = None,
    say: Callable[[str], None] = print,
) -> Export:
    """Writes an adapter or a whole model in another form, and proves that it is the same.

    Args:
        source: folder with an adapter or a whole model.
        to: "merged" (16-bit weights; of an adapter), "gguf", or "ollama" (GGUF and a Modelfile).
        quants: of the GGUF files: f16, q8_0, q5_k_m, q4_k_m.
        out: folder for the result; without it `export` beside the source.
        data: held-out questions: "pocket", a file or a Hub name; without it what the training run noted.
        say: takes a line on what is being done.

    Every form is loaded again in a fresh process: merged weights by Unsloth, GGUF by real llama.cpp. Prompt, token ids
    and stop token must be the same everywhere; so must all answers to 50 held-out prompts (merged, f16, q8_0), or the
    score on 200 be within 3 points (q5_k_m, q4_k_m). Raises CourseError that names the first difference; what failed
    is then not left in `out`.
    """
    source = Path(source).expanduser().resolve()
    adapter = _kind(source) == "adapter"
    _check(source, to, quants, adapter)
    out = Path(out).expanduser().resolve() if out else source.parent / "export"
    rows = held_out(source, data)
    if to != "merged":
        llama.folder()  # said before the long work
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix="unproven-") as place:
            return _Exporting(source, adapter, out, Path(place), rows, say).make(to, quants)
    except OSError as error:
        raise CourseError(f"The export could not be written to {out} ({error}). Choose another --out.") from None


def _kind(source: Path) -> str:
    if (source / "adapter_config.json").is_file():
        return "adapter"
    if (source / "config.json").is_file() and any(source.glob("*.safetensors")):
        return "model"
    raise CourseError(
        f"{source} holds no adapter and no model: adapter_config.json or config.json with weights is needed."
    )


def _check(source: Path, to: str, quants: Sequence[str], adapter: bool) -> None:
    if to not in TARGETS:
        raise CourseError(f"There is no export to {to!r}; there are {', '.join(TARGETS)}.")
    if unknown := [quant for quant in quants if quant not in QUANTS]:
        raise CourseError(f"There is no quant {unknown[0]!r} here; there are {', '.join(QUANTS)}, or all.")
    if to == "merged" and not adapter:
        raise CourseError(f"{source} is a whole model already; only an adapter can be merged. Use --to gguf.")


def held_out(source: Path, data: str | None = None) -> list[dict[str, str]]:
    """The questions and expected answers that the round trip asks: at most 200 held-out rows.

    data: "pocket", a file or a Hub name; without it what `finetune` or a lesson noted beside `source`. Raises
    CourseError when nothing is noted there, and as `data.sources.instructions` does.
    """
    noted = _noted(source)
    name = data or noted.get("data")
    if not name:
        raise CourseError(
            f"No results file beside {source} says on what it was trained, so there are no held-out questions for the "
            "round trip. Name its data with --data: pocket, a file or a name on the Hub."
        )
    from unsloth_course.data import instruction, sources

    with contextlib.redirect_stdout(None):
        _, rows, _ = sources.instructions(name, HELD_OUT, HELD_OUT, noted.get("seed", 3407))
    asked = [instruction.question(row["instruction"], row["input"]) for row in rows]
    return [{"question": text, "answer": row["output"]} for text, row in zip(asked, rows, strict=True)]


def _noted(source: Path) -> dict[str, Any]:
    """The options that `finetune` wrote into its results file in the folder above."""
    for file in sorted(source.parent.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            options = json.loads(file.read_text(encoding="utf-8")).get("options")
            if isinstance(options, dict) and isinstance(options.get("data"), str):
                return options
    return {}


@dataclass
class _Exporting:
    """An export under way. place: folder for what is not proven yet."""

    source: Path
    adapter: bool
    out: Path
    place: Path
    rows: list[dict[str, str]]
    say: Callable[[str], None]

    @property
    def questions(self) -> list[str]:
        return [row["question"] for row in self.rows]

    def format(self, name: str, path: Path, reference: dict, found: dict) -> Format:
        compared = min(proof.SAME_ON, len(self.rows))
        expected = [row["answer"] for row in self.rows]
        same = proof.same_answers(reference, found)
        size = models.disk_bytes(path)
        score, difference = proof.score(found, expected), proof.first_difference(reference, found)
        return Format(name, str(path), size, score, len(expected), same, compared, difference)

    def require(self, name: str, kind: str, reference: dict, found: dict) -> None:
        proof.require_same(name, kind, reference, found, [row["answer"] for row in self.rows])

    def make(self, to: str, quants: Sequence[str]) -> Export:
        whole, formats, reference = self.whole()
        if to == "merged":
            target = _put(whole, self.out / "merged")
            return Export(str(self.source), [formats[0], _moved(formats[1], target)], [str(target)])
        name = "model"
        self.say(f"making {', '.join(quants)} with Unsloth's converter and llama.cpp")
        made = own_process.run("convert", source=str(whole), target=str(self.place / name), quants=list(quants))
        written = []
        for quant in quants:
            self.say(f"asking {quant} in llama.cpp")
            file = Path(made[quant])
            with llama.Llama(file) as loaded:
                found = proof.read_gguf(loaded, self.questions, reference, LONGEST_ANSWER)
            self.require(file.name, quant, reference, found)
            target = self.out / file.name
            formats.append(_moved(self.format(quant, file, reference, found), target))
            written.append(file.replace(target))
        if to == "ollama":
            written.append(self.modelfile(whole, written[0].name))
        # Of an adapter the merged weights were only a way to the GGUF file.
        listed = [made for made in formats if not Path(made.path).is_relative_to(self.place)]
        return Export(str(self.source), listed, [str(path) for path in written])

    def whole(self) -> tuple[Path, list[Format], dict]:
        """The folder of the whole model, its rows of the table, and the reading that it must be the same as."""
        if not self.adapter:
            self.say("asking the model")
            reading = own_process.run(
                "ask", source=str(self.source), questions=self.questions, max_new_tokens=LONGEST_ANSWER
            )
            return self.source, [self.format("model", self.source, reading, reading)], reading
        merged = self.place / "merged"
        self.say("asking the adapter on its base, and merging the two")
        asked = {"source": str(self.source), "questions": self.questions, "max_new_tokens": LONGEST_ANSWER}
        before = own_process.run("merge", **asked, target=str(merged))
        self.say("asking the merged model in a fresh process")
        after = own_process.run("ask", **(asked | {"source": str(merged)}))
        self.require("the merged model", "merged", before, after)
        rows = [self.format("adapter", self.source, before, before), self.format("merged", merged, before, after)]
        return merged, rows, before

    def modelfile(self, whole: Path, gguf: str) -> Path:
        from transformers import AutoTokenizer

        target = self.out / "Modelfile"
        target.write_text(files.modelfile(AutoTokenizer.from_pretrained(str(whole)), gguf), encoding="utf-8")
        return target


def _put(folder: Path, target: Path) -> Path:
    """Moves a proven folder to its place; what an earlier export left there goes."""
    import shutil

    if target.exists():
        shutil.rmtree(target)
    return folder.replace(target)


def _moved(made: Format, target: Path) -> Format:
    return Format(**(asdict(made) | {"path": str(target)}))
