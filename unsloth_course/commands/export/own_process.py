"""What needs Unsloth, each in a fresh process: `python -m unsloth_course.commands.export.own_process TASK ARGUMENTS`.

So nothing is left over from the model that trained, and it can be told where llama.cpp is before Unsloth is imported.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsloth_course.commands.export import held_out, llama, onnx, proof
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import REPOSITORY
from unsloth_course.lesson import models

MENDABLE = 3  # exit status of a process that ends with a sentence for the learner
SHORTEST_LIMIT = 24  # tokens that an answer may get, however short the known ones are


def run(task: str, **arguments: Any) -> Any:
    """Runs a task of this file in a fresh process and returns what it returned.

    Raises CourseError with its sentence, or with its last lines when it ended otherwise.
    """
    environment = dict(os.environ)
    if task == "convert":
        place = str(llama.folder())
        # Unsloth looks for the programs in the first and for the converter in the second, and asks no network.
        environment |= {"UNSLOTH_LLAMA_CPP_PATH": place, "UNSLOTH_LLAMA_CPP_SCRIPTS_DIR": place}
        environment |= {"UNSLOTH_LLAMA_CPP_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as place:
        told, answer = Path(place, "task.json"), Path(place, "answer.json")
        told.write_text(json.dumps(arguments, default=str), encoding="utf-8")
        command = [sys.executable, "-m", __name__, task, str(told), str(answer)]
        environment["UNSLOTH_COMPILE_LOCATION"] = str(Path(place, "compiled"))
        paths = [str(REPOSITORY), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", env=environment, cwd=place
        )
        if done.returncode == 0:
            return json.loads(answer.read_text(encoding="utf-8"))
    last = "\n".join(done.stderr.strip().splitlines()[-(1 if done.returncode == MENDABLE else 12) :])
    if done.returncode == MENDABLE:
        raise CourseError(last)
    raise CourseError(f"The process that was to {task} the model ended with status {done.returncode}:\n{last}")


def load(source: str | Path, four_bit: bool = False) -> tuple[Any, Any]:
    """The model and tokenizer in a folder that holds an adapter or a whole model, ready to answer.

    On a CPU in 32 bit. four_bit: the base of an adapter in 4 bit, as QLoRA trains it (Dettmers et al. 2023, arXiv
    2305.14314). Raises CourseError as `models.load_adapter` and `hub.fetch_model` do.
    """
    from unsloth_course.lesson import profile

    # Nothing but a model is needed; whether it may be downloaded follows from its name, of an adapter its base's.
    machine = profile.detect(model=base_of(source), data=profile.POCKET)
    from unsloth import FastLanguageModel

    if Path(source, "adapter_config.json").is_file() and not four_bit:
        return models.load_adapter(source, dtype=machine.torch_dtype)
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=models.folder(base_of(source)),
        max_seq_length=2048,
        dtype=machine.torch_dtype,
        load_in_4bit=four_bit,
    )
    if four_bit:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(source))
    FastLanguageModel.for_inference(model)
    return model, tokenizer


def base_of(source: str | Path) -> str:
    """The name of the model whose weights are loaded: the base of an adapter, else the source."""
    try:
        settings = json.loads(Path(source, "adapter_config.json").read_text(encoding="utf-8"))
        base = settings["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        base = None
    return base if isinstance(base, str) and base else str(source)


@dataclass
class Weights:
    """A model that Unsloth loaded, as `reading` asks it: one prompt at a time, so that no padding has a part in it."""

    model: Any
    tokenizer: Any

    @property
    def longest(self) -> int:
        return self.model.config.max_position_embeddings

    def next(self, prompt: list[int], wanted: list[int]) -> list[int]:
        """The likeliest token at each place of a known answer, in one pass (teacher forcing)."""
        import torch

        row = torch.tensor([[*prompt, *wanted[:-1]]], device=self.model.device)
        logits = self.model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, len(prompt) - 1 :]
        return logits.argmax(-1).tolist()

    def write(self, prompt: list[int], most: int) -> tuple[list[int], list[float]]:
        """A greedy answer: its tokens, the stop token too, and by how much each one's logit is above the next one's."""
        import torch

        row = torch.tensor([prompt], device=self.model.device)
        made = self.model.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=most,
            do_sample=False,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = [step[0].float().topk(2).values.tolist() for step in made.logits]
        return made.sequences[0].tolist()[len(prompt) :], [first - second for first, second in best]


def reading(model: Any, rows: Sequence[Mapping[str, Any]], dtype: str) -> dict[str, Any]:
    """What a model makes of held-out rows (`held_out.Row`); the round trip compares such readings.

    model: a `Weights` or an `onnx.OnnxModel`. dtype: in which it computes.

    prompts, prompt_tokens: each prompt in the model's chat form (raw text as it is), and its token ids. bos, stop: the
    tokens that begin a sequence and end an answer. left_out: numbers of the rows whose prompt and answer are longer
    than the model can read; they are in nothing else. wanted: the first 64 tokens of each row's own answer, with the
    stop token behind it. next: the likeliest token at each place of that, given what stands before it. answers: what
    the model writes greedily, to all prompts where answers are short, else to the first 50. most: the longest that an
    answer may get (tokens).

    Raises CourseError when no row is short enough.
    """
    tokenizer = model.tokenizer
    asked = [_prompt(tokenizer, row) for row in rows]
    wanted = [_wanted(tokenizer, row) for row in rows]
    most = min(proof.LONGEST_ANSWER, max(SHORTEST_LIMIT, *map(len, wanted)))
    room = min(model.longest, llama.SLOT_TOKENS) - most - 1
    kept = [number for number, (_, ids) in enumerate(asked) if len(ids) <= room]
    if not kept:
        raise CourseError(
            f"None of the {len(rows)} held-out prompts fits into this model: each has more than {room} tokens. Give "
            "shorter ones with --data."
        )
    ids, wanted = [asked[number][1] for number in kept], [wanted[number] for number in kept]
    writing = len(kept) if held_out.short([rows[number] for number in kept]) else min(len(kept), proof.SAME_ON)
    return {
        "prompts": [asked[number][0] for number in kept],
        "prompt_tokens": ids,
        "bos": tokenizer.bos_token or "",
        "stop": {"id": tokenizer.eos_token_id, "text": tokenizer.eos_token},
        "left_out": sorted({*range(len(rows))} - {*kept}),
        "wanted": wanted,
        "next": [model.next(prompt, answer) for prompt, answer in zip(ids, wanted, strict=True)],
        "answers": [_answer(tokenizer, *model.write(prompt, most)) for prompt in ids[:writing]],
        "most": most,
        "dtype": dtype,
    }


def _answer(tokenizer: Any, tokens: list[int], leads: list[float]) -> dict[str, Any]:
    end = tokens.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in tokens else len(tokens)
    text = tokenizer.decode(tokens[:end], skip_special_tokens=False)
    return {"tokens": tokens[:end], "text": text, "stopped": end < len(tokens), "leads": leads}


def _prompt(tokenizer: Any, row: Mapping[str, Any]) -> tuple[str, list[int]]:
    """The text and the token ids of a row's prompt; in raw text control tokens are characters, as in its training."""
    if "prompt" in row:
        plain = tokenizer(row["prompt"], add_special_tokens=False, split_special_tokens=True)
        return row["prompt"], plain["input_ids"]
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True)
    except (TemplateError, ValueError) as error:
        raise CourseError(f"The chat template of this model refuses a held-out conversation: {error}.") from None
    return text, tokenizer(text, add_special_tokens=False)["input_ids"]


def _wanted(tokenizer: Any, row: Mapping[str, Any]) -> list[int]:
    ids = tokenizer(row["answer"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return (ids if "prompt" in row else [*ids, tokenizer.eos_token_id])[: proof.LONGEST_ANSWER]


def ask(source: str, rows: Sequence[Mapping[str, Any]], four_bit: bool = False) -> dict[str, Any]:
    """Task: load what is in the folder `source` and read the rows."""
    return _read(*load(source, four_bit), rows)


def _read(model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    import torch

    with models.answering(model), torch.no_grad():
        found = reading(Weights(model, tokenizer), rows, str(model.dtype).removeprefix("torch."))
    return found | {"layers": model.config.num_hidden_layers}


def merge(source: str, target: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Task: read the rows with an adapter on its base, then write the two as one 16-bit model."""
    model, tokenizer = load(source)
    if getattr(model, "is_loaded_in_4bit", False):
        raise CourseError(
            f"The base of {source} is stored in 4 bit, and an adapter can only be merged into 16-bit weights. Name the "
            "16-bit base in adapter_config.json (base_model_name_or_path), then run this again."
        )
    found = _read(model, tokenizer, rows)
    # An adapter put on its base by PEFT has the base's way to save, which would write the base without the adapter.
    from unsloth.save import patch_saving_functions

    patch_saving_functions(model)
    model.save_pretrained_merged(target, tokenizer, save_method="merged_16bit")
    _check_sums(model, Path(target))
    return found


def _check_sums(model: Any, target: Path) -> None:
    """Raises CourseError where a weight in `target` is not the base's plus the adapter's change, but for rounding.

    The change is PEFT's own B A (Hu et al. 2021, section 4.1), the sum Unsloth's.
    """
    import torch
    from safetensors.torch import load_file

    written = {name: tensor for file in target.glob("*.safetensors") for name, tensor in load_file(file).items()}
    for name, layer in model.named_modules():
        if not hasattr(layer, "get_delta_weight") or any(getattr(layer, "use_dora", {}).values()):
            continue
        key = name.removeprefix("base_model.model.") + ".weight"
        changes = [layer.get_delta_weight(adapter) for adapter in layer.active_adapters]
        wanted = sum((change.float() for change in changes), layer.get_base_layer().weight.float()).cpu()
        found = written.get(key, torch.empty(0))
        step = torch.finfo(found.dtype).eps
        if found.shape != wanted.shape or ((found.float() - wanted).abs() > step * wanted.abs() + 1e-6).any():
            raise CourseError(
                f"The merged model is another one: {key} is not the base's plus the adapter's. Export it again."
            )


def convert(source: str, target: str, quants: Sequence[str]) -> dict[str, str]:
    """Task: make GGUF files `target`.QUANT.gguf of a whole model with Unsloth's own converter and quantiser.

    All quants are made from the f16 file, which is removed unless it was asked for.
    """
    from unsloth_course.lesson import profile

    profile.detect()
    import unsloth  # noqa: F401
    from unsloth_zoo import llama_cpp

    from unsloth_course.commands.export import files

    made = {quant: f"{target}.{quant}.gguf" for quant in quants}
    program, _ = llama_cpp.check_llama_cpp(os.environ["UNSLOTH_LLAMA_CPP_PATH"])
    with tempfile.TemporaryDirectory(dir=Path(target).parent, prefix="converting-") as place:
        staged = files.stage(source, Path(place) / "model")
        converter, text_models, vision_models = llama_cpp._download_convert_hf_to_gguf()
        first, _ = llama_cpp.convert_to_gguf(
            model_name=str(Path(place) / "whole"),
            input_folder=str(staged),
            model_dtype="f16",
            quantization_type="f16",
            converter_location=converter,
            supported_text_archs=text_models,
            supported_vision_archs=vision_models,
        )
        files.set_merge_order(first[0], staged / "tokenizer.json")
        for quant in set(quants) - {"f16"}:
            part = Path(place) / f"{quant}.gguf"
            llama_cpp.quantize_gguf(first[0], str(part), quant, quantizer_location=program, print_output=False)
            part.replace(made[quant])
        if "f16" in quants:
            Path(first[0]).replace(made["f16"])
    return made


TASKS = {"ask": ask, "merge": merge, "convert": convert, "write_onnx": onnx.write}
TASKS["ask_onnx"] = lambda source, rows: reading(onnx.OnnxModel(source), rows, "float32")


def main(arguments: Sequence[str]) -> int:
    task, told, answer = arguments
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = TASKS[task](**json.loads(Path(told).read_text(encoding="utf-8")))
    except CourseError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return MENDABLE
    Path(answer).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
