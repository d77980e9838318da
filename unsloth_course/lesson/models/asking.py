"""Asking a model: in the form of its chat template, many at once, or piece by piece."""

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from unsloth_course.core.errors import CourseError

ANSWERS_AT_ONCE = 64
MOST_ON_A_GPU = 256  # a token takes there little longer for more rows
# Looked up, not imported: on a CPU, Unsloth works without this part, which would patch what it trains with.
DECODING = "unsloth.models._decode_graphs"


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


def chat_ids(tokenizer: Any, turns: Sequence[Mapping[str, str]], **settings: Any) -> list[int]:
    """The token ids of a conversation, as `in_chat_form` writes it with these settings. Raises CourseError as that."""
    return in_chat_form(tokenizer, turns, return_dict=True, **settings)["input_ids"]


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

    Greedily, unless `drawn` holds other arguments of `generate`. Works in batches of `at_once` prompts; if that is not
    given, of 64, on a GPU of up to 256. Padding is on the left. Control tokens other than the end are left visible in
    the text. To a list `ended` is added, for each text, whether it stopped by itself, and to a list `tokens` its token
    ids, the end too. With `num_return_sequences`, the texts of a prompt follow one another.
    """
    import torch

    made: list[str] = []
    if not prompts:
        return made
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    try:
        with answering(model), torch.no_grad():
            many = at_once or ANSWERS_AT_ONCE
            if at_once is None and model.device.type == "cuda":
                lengths = map(len, tokenizer(list(prompts), add_special_tokens=False)["input_ids"])
                many = _at_once(model, max(lengths) + max_new_tokens)
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


def _at_once(model: Any, longest: int) -> int:
    """Prompts to be answered together on a GPU, whose rows grow to `longest` tokens: as many as half of the free memory
    holds the keys and values of, within bounds."""
    import torch

    from unsloth_course.lesson.memory.shape import Shape

    try:
        shape = Shape.of(model)
    except CourseError:  # not a Llama-style model, whose keys and values could be counted
        return ANSWERS_AT_ONCE
    row = 2 * 2 * shape.layers * shape.kv * longest  # keys and values, of 2 bytes
    return max(ANSWERS_AT_ONCE, min(MOST_ON_A_GPU, torch.cuda.mem_get_info()[0] // 2 // row))


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
