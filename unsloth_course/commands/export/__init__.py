"""Taking a model elsewhere: merged 16-bit weights, GGUF files, an Ollama Modelfile, ONNX, and the round trip as proof.

Taught at the end of lesson colab2 (LoRA); docs/export.md says what is compared.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from unsloth_course.commands.export import files, held_out, llama, onnx, own_process, proof
from unsloth_course.commands.options import QUANTS
from unsloth_course.core import writing
from unsloth_course.core.errors import CourseError
from unsloth_course.core.model_files import in_run
from unsloth_course.lesson import models, smollm2
from unsloth_course.lesson.profile import SMOLLM2

TARGETS = ("merged", "gguf", "ollama", "onnx")

AS_TRAINED = "adapter, 4-bit base"

HEADERS = ("format", "size", "score", "same answers", "drift")


@dataclass(frozen=True)
class Format:
    """One file or folder of an export.

    bytes: of its weights. score: from 0 to 1, on `questions` held-out prompts, by `metric` (`proof.score`). same: of
    `compared` prompts, those with every answer token as in the model that was exported. difference: the first one in
    the answers, "" if there is none; in merged, f16 and q8_0 it can only be a tie that rounding decided. drift: how far
    its tokens' leads are from that model's (logits, `proof.drift`).
    """

    name: str
    path: str
    bytes: int
    score: float
    questions: int
    same: int
    compared: int
    difference: str = ""
    metric: str = proof.EXACT
    drift: float | None = None

    def cells(self) -> tuple[str, ...]:
        """Its row of the table, in the order of `HEADERS`."""
        drift = "" if self.drift is None else f"{self.drift:.4f}"
        same = f"{self.same} of {self.compared}"
        return self.name, f"{self.bytes / 1e6:,.1f} MB", f"{100 * self.score:.1f} %", same, drift


@dataclass(frozen=True)
class Export:
    """What was written, each format proven; the first row is the model that was exported."""

    source: str
    formats: list[Format]
    written: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        first, formats = self.formats[0], self.formats
        lines = [writing.in_columns([HEADERS, *(made.cells() for made in formats)])]
        lines += [f"{made.name}: {made.difference}" for made in formats if made.difference]
        lines += self.notes
        lines.append(
            f"score: {proof.METRICS[first.metric]}, {first.questions} held-out prompts; drift: how far the tokens' "
            "leads over the next ones are from those of the first row (logits, mean); every format made its round trip"
        )
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

    source: folder with an adapter or a whole model, or that of the run that made it. to: "merged" (16-bit weights; of
    an adapter), "gguf", "ollama" (GGUF and a Modelfile), or "onnx" (32 bit). quants: of the GGUF files. out: without it
    `export` beside the source. data: held-out prompts (see `held_out.read`).

    Every form is loaded again in a fresh process: merged weights by Unsloth, GGUF by real llama.cpp. Raises CourseError
    that names the first difference; what failed is not left in `out`.
    """
    source = in_run(Path(source).expanduser().resolve())
    out = Path(out).expanduser().resolve() if out else source.parent / "export"
    return _exported(source, {to: out}, quants, out, data, say)[0]


def after_training(
    folder: str | Path,
    merge: bool,
    quants: Sequence[str],
    say: Callable[[str], None] = print,
) -> list[Export]:
    """Exports what a training run left in its folder, as `finetune --merge --gguf` asks for it, and proves it.

    merge: write `merged` there. quants: write these GGUF files into `gguf` there. Returns an `Export` for each of the
    two that was asked for, made with one reading of the adapter. Raises as `export` does; a merged model that was
    proven is kept when a GGUF file then fails.
    """
    folder = Path(folder).expanduser().resolve()
    places = ({"merged": folder} if merge else {}) | ({"gguf": folder / "gguf"} if quants else {})
    return _exported(in_run(folder), places, quants, folder, None, say)


def _exported(
    source: Path,
    places: Mapping[str, Path],
    quants: Sequence[str],
    out: Path,
    data: str | None,
    say: Callable[[str], None],
) -> list[Export]:
    """An `Export` for each form, written into its place; what is not proven lies in `out` on the way."""
    for to in places:
        _check(source, to, quants)
    rows = held_out.read(source, data)
    for to in places:
        require_tools(to)
    if own_process.base_of(source) == SMOLLM2:
        smollm2.fetch(say)
    made: list[Export] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix="unproven-", ignore_cleanup_errors=True) as place:
            work = _Exporting(source, _kind(source) == "adapter", Path(place), rows, say)
            for to, folder in places.items():
                if to == "merged":
                    made.append(work.merged(folder))
                elif to == "onnx":
                    made.append(work.onnx(folder))
                else:
                    made.append(work.gguf(quants, folder, with_modelfile=to == "ollama"))
    except OSError as error:
        raise CourseError(f"The export could not be written to {out} ({error}). Choose another --out.") from None
    return made


def _kind(source: Path) -> str:
    if (source / "adapter_config.json").is_file():
        return "adapter"
    if (source / "config.json").is_file() and any(source.glob("*.safetensors")):
        return "model"
    raise CourseError(
        f"{source} holds no adapter and no model: adapter_config.json or config.json with weights is needed."
    )


def _check(source: Path, to: str, quants: Sequence[str]) -> None:
    kind = _kind(source)
    if to not in TARGETS:
        raise CourseError(f"There is no export to {to!r}; there are {', '.join(TARGETS)}.")
    if unknown := [quant for quant in quants if quant not in QUANTS]:
        raise CourseError(f"There is no quant {unknown[0]!r} here; there are {', '.join(QUANTS)}, or all.")
    if to == "merged" and kind == "model":
        raise CourseError(f"{source} is a whole model already; only an adapter can be merged. Use --to gguf.")


def require_tools(to: str) -> None:
    """Raises CourseError when what writes and reads a form is not installed; for before the long work."""
    if to in ("gguf", "ollama"):
        llama.folder()
    if to == "onnx":
        onnx.require()


@dataclass
class _Exporting:
    """An export under way. place: folder for what is not proven yet. rows: held-out, those that fit into the model."""

    source: Path
    adapter: bool
    place: Path
    rows: list[held_out.Row]
    say: Callable[[str], None]
    notes: list[str] = field(default_factory=list)

    def format(self, name: str, path: Path, found: dict) -> Format:
        return Format(
            name,
            str(path),
            sum(file.stat().st_size for file in path.glob("*.onnx*")) or models.disk_bytes(path),
            score=proof.score(found, self.rows, self.metric),
            questions=len(self.rows),
            same=proof.same_answers(self.reference, found),
            compared=min(proof.SAME_ON, len(self.rows)),
            difference=proof.first_difference(self.reference, found),
            metric=self.metric,
            drift=proof.drift(self.reference, found),
        )

    def require(self, name: str, kind: str, found: dict, source: dict | None = None) -> None:
        """Raises CourseError unless `found` is the same model as the whole one, or as `source`."""
        proof.require_same(name, kind, source or self.proven, found, self.rows, self.metric)

    @cached_property
    def reference(self) -> dict[str, Any]:
        """The reading of the source. Of an adapter, `place` holds the merged weights from then on."""
        if self.adapter:
            self.say("asking the adapter on its base, and merging the two")
            target = str(self.place / "merged")
            reading = own_process.run("merge", source=str(self.source), rows=self.rows, target=target)
        else:
            self.say("asking the model")
            reading = own_process.run("ask", source=str(self.source), rows=self.rows)
        if left_out := reading["left_out"]:
            self.notes.append(
                f"{len(left_out)} of {len(self.rows)} held-out prompts are longer than this model can read, and were "
                "left out."
            )
            self.rows = [row for number, row in enumerate(self.rows) if number not in set(left_out)]
        return reading

    @cached_property
    def metric(self) -> str:
        return proof.metric_for(self.rows, self.reference)

    @cached_property
    def whole(self) -> Path:
        return self.place / "merged" if self.adapter and self.reference else self.source

    @cached_property
    def begun(self) -> list[Format]:
        """The rows of the table that every export begins with: the source, and how it was trained if that differs."""
        rows = [self.format("adapter" if self.adapter else "model", self.source, self.reference)]
        if self.adapter and held_out.options(self.source).get("method") == "qlora":
            self.say("asking the adapter on its base in 4 bit, as it was trained")
            found = own_process.run("ask", source=str(self.source), rows=self.rows, four_bit=True)
            rows.append(self.format(AS_TRAINED, self.source, found))
            self.notes.append(
                "Its base was in 4 bit when it was trained (QLoRA), and every export holds it in 16 bit: the row "
                f"“{AS_TRAINED}” is the model as it was trained."
            )
        return rows

    @cached_property
    def proven(self) -> dict[str, Any]:
        """The reading of the whole model, which all that is made of it must be the same as; a merge is proven first."""
        if not self.adapter:
            return self.reference
        whole = self.whole
        self.say("asking the merged model in a fresh process")
        found = own_process.run("ask", source=str(whole), rows=self.rows)
        self.require("the merged model", "merged", found, self.reference)
        if (moved := proof.drift(self.reference, found) or 0.0) > proof.SAME["merged"].drift:
            self.notes.append(
                f"Merging rounds base and adapter together to 16 bit, which moved the leads by {moved:.2f} logits: of "
                "an adapter that changed little, a part is lost. Each weight was checked to be the rounded sum."
            )
        return found

    def merged(self, out: Path) -> Export:
        made = self.format("merged", self.whole, self.proven)
        self.whole = _put(self.whole, out / "merged")
        made = replace(made, path=str(self.whole))
        return Export(str(self.source), [*self.begun, made], [str(self.whole)], self.notes)

    def gguf(self, quants: Sequence[str], out: Path, with_modelfile: bool) -> Export:
        whole, formats, told = self.whole, list(self.begun), ""
        if with_modelfile:
            from transformers import AutoTokenizer

            system, roles = held_out.system_prompt(self.rows), held_out.roles(self.rows)
            told = files.modelfile(AutoTokenizer.from_pretrained(whole), f"model.{quants[0]}.gguf", system, roles)
        proven = self.proven
        self.say(f"making {', '.join(quants)} with Unsloth's converter and llama.cpp")
        made = own_process.run("convert", source=str(whole), target=str(self.place / "model"), quants=list(quants))
        for quant in quants:
            self.say(f"asking {quant} in llama.cpp")
            file = Path(made[quant])
            with llama.Llama(file) as loaded:
                found = proof.read_gguf(loaded, self.rows, proven, self.metric)
            self.require(file.name, quant, found)
            formats.append(replace(self.format(quant, file, found), path=str(out / file.name)))
        out.mkdir(parents=True, exist_ok=True)
        written = [Path(made[quant]).replace(out / Path(made[quant]).name) for quant in quants]
        if told:
            written.append(out / "Modelfile")
            written[-1].write_text(told, encoding="utf-8")
        return Export(str(self.source), formats, [str(path) for path in written], self.notes)

    def onnx(self, out: Path) -> Export:
        whole, formats = self.whole, list(self.begun)
        self.proven  # noqa: B018 - as for GGUF, before the work
        self.say("writing ONNX with transformers' exporter")
        folder = self.place / "onnx"
        own_process.run("write_onnx", source=str(whole), target=str(folder))
        self.say("asking the ONNX model in ONNX Runtime")
        found = own_process.run("ask_onnx", source=str(folder), rows=self.rows)
        self.require("the ONNX model", "onnx", found)
        made = replace(self.format("onnx", folder, found), path=str(out / "onnx"))
        target = _put(folder, out / "onnx")
        return Export(str(self.source), [*formats, made], [str(target)], self.notes)


def _put(folder: Path, target: Path) -> Path:
    if target.exists():
        shutil.rmtree(target)
    return folder.replace(target)
