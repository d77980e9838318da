"""Lines that this stack prints and that worry people: what each means, whether it matters, what to do.

Fine-tuning prints many lines that look like failures and are none, and a few that look like nothing and spoil a run.
`explain` knows a line from its text, and `watch` gathers them during a run: the harmless ones are kept off the screen
and counted, the others stay and get a word of advice, and what is not known goes through untouched.
"""

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Known:
    """A line that is known. name: a few words for it; pattern: what its text holds; benign: whether it may be ignored.

    meaning: what happened. advice: what to do, "" for nothing.
    """

    name: str
    pattern: re.Pattern[str]
    benign: bool
    meaning: str
    advice: str = ""

    def __str__(self) -> str:
        verdict = "harmless" if self.benign else "look into it"
        return f"{self.name} ({verdict}): {' '.join(filter(None, (self.meaning, self.advice)))}"


def _known(name: str, pattern: str, benign: bool, meaning: str, advice: str = "") -> Known:
    return Known(name, re.compile(pattern, re.IGNORECASE), benign, meaning, advice)


# The first that matches is taken, so those that matter come first.
KNOWN = (
    _known(
        "no gradient",
        r"None of the inputs have requires_grad=True",
        False,
        "Gradient checkpointing met a model of which nothing is trained, so nothing is learned.",
        "Call FastLanguageModel.get_peft_model before the training, or pass full_finetuning=True.",
    ),
    _known(
        "weights missing",
        r"newly initialized|You should probably TRAIN this model",
        False,
        "The files lack some weights of the model, and these begin as random numbers.",
        "Fetch the model again, or take the repository of the whole model.",
    ),
    _known(
        "adapter skipped",
        r"Already have LoRA adapters! We shall skip this step",
        False,
        "get_peft_model was called a second time and did nothing: rank and target modules of this call have no effect.",
        "Load the base again, and call it once.",
    ),
    _known(
        "no adapter",
        r"Full finetuning is enabled, so \.?get_peft_model has no effect",
        False,
        "The model was loaded for full fine-tuning, so it got no adapter and all of its weights are trained.",
        "If an adapter was wanted, load it without full_finetuning=True, in a fresh kernel.",
    ),
    _known(
        "Unsloth imported late",
        r"Unsloth should be imported before",
        False,
        "What is imported before Unsloth is not sped up, and takes more memory.",
        "Restart the kernel and import unsloth first.",
    ),
    _known(
        "embeddings come apart",
        r"tied layer is part of the adapter.{0,5}but `?ensure_weight_tying`? is not set",
        False,
        "Input embeddings and output head are one table in this model, and would be trained as two.",
        "Pass ensure_weight_tying=True to get_peft_model.",
    ),
    _known(
        "prompt and completion do not meet",
        r"tokenized prompt is not a prefix of|Mismatch between tokenized prompt and the start of tokenized",
        False,
        "Prompt and answer become other tokens together than apart, so a part of the prompt is trained or lost.",
        "Look at some rows with unsloth_course.lesson.xray, and end the prompt where the chat template ends it.",
    ),
    _known(
        "no template for masking",
        r"Could not (find a matching|auto-detect (the )?chat) template",
        False,
        "It is not known where an answer begins in this chat template, so questions would be trained along with it.",
        "Name instruction_part and response_part yourself, or use prompt and completion columns.",
    ),
    _known(
        "adapter does not fit",
        r"Found missing adapter keys while loading|some weights .{0,40}were not used when initializing",
        False,
        "Some weights of the file found no place in the model, or some places got none.",
        "Load the base that the adapter names first: unsloth_course.lesson.models.load_adapter does.",
    ),
    _known(
        "no merging on a CPU",
        r"merging LoRA into a 4-bit model is not supported on CPU",
        False,
        "Unsloth merges no adapter into weights in 4 bits on a CPU.",
        "Save the adapter alone and export it: `python -m unsloth_course export` merges it into the full weights.",
    ),
    _known(
        "first updates skipped",
        r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step\(\)`",
        True,
        "In float16 the gradient scaler tries a scale, finds it too large and leaves the first few updates out.",
        "A run of only three steps may then train nothing: the receipt counts the updates that were made.",
    ),
    _known(
        "exit code 1",
        r"\bexit(ed)?[ -]?(with )?(code|status)\s*:? 1\b",
        False,
        "The process ended with an error code. On Windows this also happens after a training that went well.",
        "Judge by what was saved: commands.finetune.saved.adapter reads it and says whether it was trained.",
    ),
    _known(
        "redirects",
        r"Redirects are currently not supported in (Windows or )?MacOs",
        True,
        "torch.distributed cannot write each process' output to a file of its own here. One GPU needs none of it.",
    ),
    _known(
        "Xformers = None",
        r"Xformers = None|xformers is installed but cannot load",
        True,
        "The attention is computed by PyTorch's own kernels. The results are the same.",
    ),
    _known(
        "no packing",
        r"packing=True ignored|packing = True` is not supported here|Hugging Face's packing is currently buggy"
        r"|needs FlashAttention to keep packed examples apart|Auto sample packing failed"
        r"|cannot enforce .{0,40}max_length|padding-free (batching )?((is being turned )?off|disabled)"
        r"|Padded batches \+ per-block compile chosen",
        True,
        "Rows are padded to one length and not put end to end: slower where lengths differ much, and no less exact.",
    ),
    _known(
        "packing",
        r"Packing enabled - training is|Padding-free (auto-)?enabled",
        True,
        "Rows are put end to end without padding, and no row sees another one.",
    ),
    _known(
        "packing without flash attention",
        r"(using packing|Padding-free training is enabled), but the attention implementation is not set to",
        False,
        "Rows are put end to end, and this kind of attention may let one row see the row before it.",
        "Switch it off: packing=False and padding_free=False.",
    ),
    _known(
        "cache switched off",
        r"use_cache=True`? is incompatible with gradient checkpointing|Caching is incompatible with gradient check",
        True,
        "Training computes layers anew and has no use for the cache of generation, which is switched off for it.",
    ),
    _known(
        "tokenizer forked",
        r"current process just got forked, after parallelism has already been used",
        True,
        "The tokenizer works with one thread in the processes that load the rows.",
        "TOKENIZERS_PARALLELISM=false silences it.",
    ),
    _known(
        "training on the CPU",
        r"no GPU found, training on CPU|Unsloth \(CPU\): \w+ on \d+ CPU threads",
        True,
        "Unsloth found no GPU and takes its CPU backend.",
        "If there is a GPU, `python -m unsloth_course doctor` says what is in the way.",
    ),
    _known(
        "plain optimizer",
        r"Unsloth \(CPU\): optim = .{1,40} needs a GPU",
        True,
        "8-bit and paged optimizers are for GPUs, and AdamW in full numbers takes their place.",
    ),
    _known(
        "bitsandbytes without GPU",
        r"bitsandbytes was compiled without GPU support|Could not find the bitsandbytes CUDA binary",
        True,
        "There are no 8-bit optimizers here; 4-bit weights work on a CPU too.",
    ),
    _known(
        "layers not patched",
        r"Not an error, but Unsloth cannot patch",
        True,
        "These layers have a bias or no adapter, so they run in PyTorch's own code: slower, and no less exact.",
    ),
    _known(
        "slower adapter",
        r"is supported for fast patching\. You are using (dropout|bias)",
        True,
        "With dropout or a bias the adapter's own products are not fused: slower, and no less exact.",
    ),
    _known(
        "no bfloat16",
        r"Device does not support bfloat16\. Will change to float16",
        True,
        "This GPU has float16 arithmetic only, which is what the training then uses.",
    ),
    _known(
        "special tokens aligned",
        r"tokenizer has new PAD/BOS/EOS tokens",
        True,
        "The model's settings now name the same end and padding tokens as its tokenizer.",
    ),
    _known(
        "padding token",
        r"Setting `pad_token_id` to `eos_token_id`",
        True,
        "Shorter prompts of a batch are filled with the end token, and the mask hides it.",
    ),
    _known(
        "label names",
        r"No label_names provided for model class",
        True,
        "The trainer cannot read the labels' names through the adapter and takes the usual one.",
    ),
    _known(
        "generation flags",
        r"generation flags are not valid and may be ignored",
        True,
        "The model comes with sampling settings, and a greedy answer does not use them.",
    ),
    _known(
        "long rows",
        r"Token indices sequence length is longer than the specified maximum",
        True,
        "A row has more tokens than the model was made for. It was counted; training cuts it at max_length.",
    ),
    _known(
        "order of checkpoints",
        r"mtime may not be reliable on this filesystem, falling back to numerical ordering",
        True,
        "Checkpoints are told apart by the number in their name and not by their time. That number is their step.",
    ),
    _known(
        "pinned memory",
        r"'?pin_memory'? argument is set as true but no accelerator is found",
        True,
        "Pinned memory speeds up the way to a GPU, and there is none.",
    ),
    _known(
        "no NVML",
        r"Can't initialize NVML",
        True,
        "torch asked for NVIDIA's driver and found none.",
        "If there is a GPU, `python -m unsloth_course doctor` says what is in the way.",
    ),
    _known(
        "threads of each process",
        r"Setting OMP_NUM_THREADS environment variable for each process",
        True,
        "torchrun gives each process one thread, so that they do not take the cores from one another.",
        "On a CPU with cores to spare, set OMP_NUM_THREADS to the cores of each process.",
    ),
    _known(
        "process group left open",
        r"destroy_process_group\(\) was not called",
        True,
        "A process of a distributed run ended without taking leave. What it saved is complete.",
    ),
    _known(
        "no expandable segments",
        r"expandable_segments not supported on this platform",
        True,
        "This system's driver cannot grow memory blocks in place, so a little more memory is lost to gaps.",
    ),
    _known(
        "no Triton",
        r"A matching Triton is not available",
        True,
        "Some kernels are not compiled for this system, and PyTorch's own take their place.",
    ),
    _known(
        "no symbolic links",
        r"cache-system uses symlinks by default",
        True,
        "Windows allows no links here, so a second version of a model takes its full size on the disk again.",
        "Windows' developer mode allows them.",
    ),
    _known(
        "plain download",
        r"Xet Storage is enabled for this repo, but the 'hf_xet' package is not installed",
        True,
        "The download is a plain one: slower, and the same files.",
    ),
    _known(
        "no login",
        r"sending unauthenticated requests to the HF Hub",
        True,
        "The Hub answers without a login, only fewer times an hour.",
    ),
    _known(
        "deprecated",
        r"DeprecationWarning|FutureWarning|is deprecated! Use",
        True,
        "A library calls another one in a way that a later version will no longer take.",
        "The tested versions in requirements.txt still do.",
    ),
)


def explain(text: str) -> Known | None:
    """What is known about a line, or about an error's text, from any library of the stack; None if nothing is."""
    return next((known for known in KNOWN if known.pattern.search(text)), None)


@dataclass
class Seen:
    """The known lines of a run, each with how many times it came, in the order of their first coming."""

    counts: dict[Known, int] = field(default_factory=dict)

    def add(self, text: str) -> Known | None:
        """Counts a line if it is known, and returns what it is."""
        known = explain(text)
        if known is not None:
            self.counts[known] = self.counts.get(known, 0) + 1
        return known

    def to_list(self) -> list[dict[str, Any]]:
        """For a results file: name, count, benign, meaning, advice of each."""
        return [
            {"name": k.name, "count": n, "benign": k.benign, "meaning": k.meaning, "advice": k.advice}
            for k, n in self.counts.items()
        ]

    def __str__(self) -> str:
        """One line for each, those that matter first; "" if there were none."""
        ordered = sorted(self.counts.items(), key=lambda item: item[0].benign)
        return "\n".join(f"{count} x {known}" for known, count in ordered)


@contextmanager
def watch() -> Iterator[Seen]:
    """Gathers the known lines that libraries log or warn about inside the block; `str` of what it gives explains them.

    Benign ones are kept off the screen and counted. Known ones that matter appear as their library shows them, and are
    counted. All others go through untouched. What a library prints is not seen: `Seen.add` takes such a line.
    """
    seen, switch = Seen(), _Switch()
    undo = [_watch_logging(seen, switch), _watch_warnings(seen, switch)]
    try:
        yield seen
    finally:
        switch.on = False
        for restore in undo:
            restore()


@dataclass
class _Switch:
    """Off after the block: a library that has meanwhile kept our function for its own still finds a plain one."""

    on: bool = True


def _kept_off(seen: Seen, text: str) -> bool:
    known = seen.add(text)
    return known is not None and known.benign


def _watch_logging(seen: Seen, switch: _Switch) -> Callable[[], None]:
    """Sees every record before any handler does, also those of libraries that are imported inside the block."""
    before = logging.Logger.callHandlers

    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        if switch.on and record.levelno >= logging.WARNING and _kept_off(seen, _text(record)):
            return
        before(logger, record)

    logging.Logger.callHandlers = call_handlers

    def restore() -> None:
        if logging.Logger.callHandlers is call_handlers:
            logging.Logger.callHandlers = before

    return restore


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a library's own mistake in its format string, which logging reports by itself
        return str(record.msg)


def _watch_warnings(seen: Seen, switch: _Switch) -> Callable[[], None]:
    before = warnings.showwarning

    def show(message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None):
        if switch.on and _kept_off(seen, f"{category.__name__}: {message}"):
            return
        before(message, category, filename, lineno, file, line)

    warnings.showwarning = show

    def restore() -> None:
        if warnings.showwarning is show:
            warnings.showwarning = before

    return restore
