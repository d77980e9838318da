"""What needs Unsloth, each in a fresh process: `python -m unsloth_course.export.own_process TASK ARGUMENTS`.

A fresh process is the proof that nothing is left over from the model that trained, and it can be told where llama.cpp
is before Unsloth is imported. The answer is a JSON file; an error that the learner can mend is a line on stderr.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unsloth_course import models
from unsloth_course.errors import CourseError

MENDABLE = 3  # exit status of a process that ends with a sentence for the learner


def run(task: str, **arguments: Any) -> Any:
    """Runs a task of this file in a fresh process and returns what it returned.

    Raises CourseError with its sentence, or with its last lines when it ended otherwise.
    """
    from unsloth_course.export import llama

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
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *_paths(environment)])
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", env=environment, cwd=place
        )
        if done.returncode == 0:
            return json.loads(answer.read_text(encoding="utf-8"))
    last = "\n".join(done.stderr.strip().splitlines()[-(1 if done.returncode == MENDABLE else 12) :])
    if done.returncode == MENDABLE:
        raise CourseError(last)
    raise CourseError(f"The process that was to {task} the model ended with status {done.returncode}:\n{last}")


def _paths(environment: dict[str, str]) -> list[str]:
    return [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []


def load(source: str | Path) -> tuple[Any, Any]:
    """The model and tokenizer in a folder that holds an adapter or a whole model, ready to answer.

    On a CPU in 32 bit, where the numbers are the same on every processor.
    """
    from unsloth_course import profile

    machine = profile.detect()
    from unsloth import FastLanguageModel

    if Path(source, "adapter_config.json").is_file():
        return models.load_adapter(source, dtype=machine.torch_dtype)
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=models.folder(str(source)), max_seq_length=2048, dtype=machine.torch_dtype, load_in_4bit=False
    )
    FastLanguageModel.for_inference(model)
    return model, tokenizer


def answers(model: Any, tokenizer: Any, questions: Sequence[str], max_new_tokens: int) -> dict[str, Any]:
    """Prompt texts, their token ids, the stop token, and what the model answers greedily.

    One prompt at a time, so that no padding can have a part in it. leads: of each token of an answer, the stop token
    too, by how much its logit is above the next one's.
    """
    import torch

    prompts = [models.chat_prompt(tokenizer, question) for question in questions]
    ids = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    written = []
    with models.answering(model), torch.no_grad():
        for row in ids:
            made = model.generate(
                input_ids=torch.tensor([row], device=model.device),
                attention_mask=torch.ones((1, len(row)), dtype=torch.long, device=model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                output_logits=True,
                return_dict_in_generate=True,
            )
            whole = made.sequences[0].tolist()[len(row) :]
            end = whole.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in whole else len(whole)
            text = tokenizer.decode(whole[:end], skip_special_tokens=False)
            best = [step[0].float().topk(2).values.tolist() for step in made.logits]
            leads = [first - second for first, second in best]
            written.append({"tokens": whole[:end], "text": text, "stopped": end < len(whole), "leads": leads})
    stop = {"id": tokenizer.eos_token_id, "text": tokenizer.eos_token}
    return {"prompts": prompts, "prompt_tokens": ids, "stop": stop, "answers": written}


def ask(source: str, questions: Sequence[str], max_new_tokens: int) -> dict[str, Any]:
    """Task: load what is in the folder `source` and answer."""
    return answers(*load(source), questions, max_new_tokens)


def merge(source: str, target: str, questions: Sequence[str], max_new_tokens: int) -> dict[str, Any]:
    """Task: answer with an adapter on its base, then write the two as one 16-bit model."""
    model, tokenizer = load(source)
    found = answers(model, tokenizer, questions, max_new_tokens)
    # An adapter put on its base by PEFT has the base's way to save, which would write the base without the adapter.
    from unsloth.save import patch_saving_functions

    patch_saving_functions(model)
    model.save_pretrained_merged(target, tokenizer, save_method="merged_16bit")
    return found


def convert(source: str, target: str, quants: Sequence[str]) -> dict[str, str]:
    """Task: make GGUF files `target`.QUANT.gguf of a whole model with Unsloth's own converter and quantiser.

    All quants are made from the f16 file, which is removed unless it was asked for.
    """
    from unsloth_course import profile

    profile.detect()
    import unsloth  # noqa: F401
    from unsloth_zoo import llama_cpp

    from unsloth_course.export import files

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
        for quant in quants:
            part = Path(place) / f"{quant}.gguf"
            if quant == "f16":
                continue
            llama_cpp.quantize_gguf(first[0], str(part), quant, quantizer_location=program, print_output=False)
            part.replace(made[quant])
        if "f16" in quants:
            Path(first[0]).replace(made["f16"])
    return made


TASKS = {"ask": ask, "merge": merge, "convert": convert}


def main(arguments: Sequence[str]) -> int:
    """The program in the fresh process."""
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
