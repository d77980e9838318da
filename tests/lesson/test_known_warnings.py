"""What is known about the lines of this stack, and the watch that gathers them during a run."""

import contextlib
import importlib.util
import io
import logging
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import known_warnings
from unsloth_course.lesson.known_warnings import KNOWN, explain, gathered

# Each as it is printed, by the tested versions or by those that the seed documents had.
LINES = {
    "redirects": "W0206 10:01:12 torch/distributed: NOTE: Redirects are currently not supported in Windows or MacOs.",
    "exit code 1": "subprocess.CalledProcessError: Command 'python train.py' returned non-zero exit status 1.",
    "Xformers = None": "\\        /    Bfloat16 = TRUE. FA [Xformers = None. FA2 = False]",
    "no packing": "Unsloth: packing=True ignored (vision dataset).",
    "packing": "🦥 Unsloth: Padding-free auto-enabled, enabling faster training.",
    "packing without flash attention": "You are using packing, but the attention implementation is not set to a "
    "supported Flash Attention variant.",
    "cache switched off": "`use_cache=True` is incompatible with gradient checkpointing. Setting `use_cache=False`.",
    "tokenizer forked": "huggingface/tokenizers: The current process just got forked, after parallelism has already "
    "been used. Disabling parallelism to avoid deadlocks...",
    "first updates skipped": "UserWarning: Detected call of `lr_scheduler.step()` before `optimizer.step()`. In "
    "PyTorch 1.1.0 and later, you should call them in the opposite order",
    "no template for masking": "Unsloth: Could not auto-detect chat template structure - pass instruction_part",
    "training on the CPU": "Unsloth 2026.10.9: no GPU found, training on CPU (x86_64, 2 threads, bfloat16 = True).",
    "plain optimizer": "Unsloth (CPU): optim = 'adamw_8bit' needs a GPU, using 'adamw_torch_fused'.",
    "no merging on a CPU": "Unsloth (CPU): merging LoRA into a 4-bit model is not supported on CPU yet. Load with",
    "embeddings come apart": "Model has `tie_word_embeddings=True` and a tied layer is part of the adapter, but "
    "`ensure_weight_tying` is not set to True. This can lead to complications",
    "Unsloth imported late": "WARNING: Unsloth should be imported before [transformers, peft] to ensure all",
    "order of checkpoints": "mtime may not be reliable on this filesystem, falling back to numerical ordering",
    "adapter skipped": "Unsloth: Already have LoRA adapters! We shall skip this step.",
    "no adapter": "Unsloth: Full finetuning is enabled, so .get_peft_model has no effect",
    "layers not patched": "Not an error, but Unsloth cannot patch MLP layers with our manual autograd engine since",
    "slower adapter": "Unsloth: Dropout = 0 is supported for fast patching. You are using dropout = 0.1.\nUnsloth will",
    "no bfloat16": "Device does not support bfloat16. Will change to float16.",
    "no gradient": "None of the inputs have requires_grad=True. Gradients will be None",
    "prompt and completion do not meet": "The tokenized prompt is not a prefix of the tokenized prompt+completion",
    "weights missing": "- MISSING: those params were newly initialized because missing from the checkpoint.",
    "special tokens aligned": "The tokenizer has new PAD/BOS/EOS tokens that differ from the model config and",
    "generation flags": "The following generation flags are not valid and may be ignored: ['temperature'].",
    "long rows": "Token indices sequence length is longer than the specified maximum sequence length for this model",
    "pinned memory": "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory",
    "no NVML": "Can't initialize NVML",
    "threads of each process": "Setting OMP_NUM_THREADS environment variable for each process to be 1 in default",
    "no symbolic links": "`huggingface_hub` cache-system uses symlinks by default to efficiently store duplicated",
    "plain download": "Xet Storage is enabled for this repo, but the 'hf_xet' package is not installed. Falling back",
    "no login": "You are sending unauthenticated requests to the HF Hub. Please set a HF_TOKEN",
    "deprecated": "`torch_dtype` is deprecated! Use `dtype` instead!",
}
WORRYING = {
    *("no gradient", "weights missing", "adapter skipped", "no adapter", "Unsloth imported late", "exit code 1"),
    *("embeddings come apart", "prompt and completion do not meet", "no template for masking", "adapter does not fit"),
    *("packing without flash attention", "no merging on a CPU"),
}
# Where the tested versions have the words of a pattern. A version that no longer has them makes its line history.
SOURCES = {
    "transformers/utils/generic.py": "`use_cache=True` is incompatible with gradient checkpointing",
    "transformers/modeling_layers.py": "Caching is incompatible with gradient checkpointing in",
    "transformers/trainer_utils.py": "The tokenizer has new PAD/BOS/EOS tokens",
    "transformers/tokenization_utils_base.py": "Token indices sequence length is longer than the specified maximum",
    "transformers/generation/configuration_utils.py": "generation flags are not valid and may be ignored",
    "transformers/configuration_utils.py": "`torch_dtype` is deprecated! Use `dtype` instead!",
    "torch/optim/lr_scheduler.py": "Detected call of `lr_scheduler.step()` before `optimizer.step()`",
    "torch/utils/checkpoint.py": "None of the inputs have requires_grad=True",
    "torch/utils/data/dataloader.py": "'pin_memory' argument is set as true but no accelerator is found",
    "torch/cuda/__init__.py": "Can't initialize NVML",
    "torch/distributed/run.py": "Setting OMP_NUM_THREADS environment variable for each process",
    "torch/distributed/elastic/multiprocessing/redirects.py": "Redirects are currently not supported in MacOs",
    "peft/tuners/tuners_utils.py": "a tied layer is part of the adapter, but `ensure_weight_tying` is not set",
    "trl/trainer/sft_trainer.py": "The tokenized prompt is not a prefix of",
    "unsloth/_gpu_init.py": "Unsloth should be imported before",
    "unsloth/_cpu_init.py": "no GPU found, training on CPU",
    "unsloth/trainer.py": "Unsloth: packing=True ignored",
    "unsloth/models/llama.py": "Not an error, but Unsloth cannot patch",
    "unsloth_zoo/cpu/loader.py": "merging LoRA into a 4-bit model is not supported on CPU",
    "unsloth_zoo/cpu/trainer.py": "needs FlashAttention to keep packed examples apart",
    "unsloth_zoo/dataset_utils.py": "Could not auto-detect chat template structure",
    "huggingface_hub/file_download.py": "cache-system uses symlinks by default",
}


@pytest.mark.parametrize(("name", "line"), LINES.items())
def test_a_line_is_known_by_its_text(name, line):
    known = explain(line)
    assert known is not None and known.name == name
    assert known.benign == (name not in WORRYING)
    assert known.meaning in str(known) and known.meaning.endswith(".")


@pytest.mark.parametrize(
    "line",
    [
        "loss 1.234 at step 7",
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "The model was deprecated by nobody",
        "exit code 10",
        "Packing the dataset",
        "",
    ],
)
def test_what_is_not_known_is_not_explained_away(line):
    assert explain(line) is None


@given(st.text(max_size=200))
def test_any_text_is_known_or_not(text):
    known = explain(text)
    assert known is None or known in KNOWN


def test_what_is_worrying_says_what_to_do():
    assert {known.name for known in KNOWN if not known.benign} == WORRYING
    assert all(known.advice for known in KNOWN if not known.benign)
    assert len({known.name for known in KNOWN}) == len(KNOWN)


@pytest.mark.parametrize(("file", "words"), SOURCES.items())
def test_the_tested_versions_still_say_so(file, words):
    package, _, path = file.partition("/")
    folder = importlib.util.find_spec(package).submodule_search_locations[0]
    text = Path(folder, path).read_text(encoding="utf-8")
    joined = re.sub(r'"\s*\n\s*f?"', "", text)  # long messages are written as several literals, one a line
    assert words in joined
    assert explain(words) is not None


@pytest.fixture
def shown():
    """What a library's own logger, with a handler of its own, has shown."""
    stream, logger = io.StringIO(), logging.getLogger("somelibrary.trainer")
    handler = logging.StreamHandler(stream)
    logging.getLogger("somelibrary").addHandler(handler)
    logging.getLogger("somelibrary").propagate = False
    yield logger, stream
    logging.getLogger("somelibrary").removeHandler(handler)


def test_known_lines_of_loggers_are_counted_and_only_the_harmless_are_kept_off(shown):
    logger, stream = shown
    with gathered() as seen:
        for _ in range(3):
            logger.warning(LINES["cache switched off"])
        logger.warning("%s adapters skipped", "Already have LoRA adapters! We shall skip this step: no")
        logger.warning("something new")
        logger.info(LINES["redirects"])
    assert {known.name: count for known, count in seen.counts.items()} == {
        "cache switched off": 3,
        "adapter skipped": 1,
    }
    assert "something new" in stream.getvalue() and "Already have LoRA" in stream.getvalue()
    assert "use_cache" not in stream.getvalue()
    assert [known.name for known in seen.counts if not known.benign] == ["adapter skipped"]
    first, second = str(seen).splitlines()
    assert first.startswith("1 x adapter skipped (look into it)") and second.startswith("3 x cache switched off (harm")
    assert seen.to_list()[0] | {"name": "cache switched off", "count": 3, "benign": True} == seen.to_list()[0]


def test_a_logger_that_is_made_inside_is_seen_too(caplog):
    with gathered() as seen:
        logging.getLogger("brandnew.library").warning(LINES["no NVML"])
        logging.getLogger("brandnew.library").warning("brand new")
    assert len(seen.counts) == 1
    assert caplog.messages == ["brand new"]


@pytest.fixture
def warned():
    """What warnings a program has shown, by a showwarning of its own."""
    found: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest, **more: found.append(str(message))
        yield found


def test_known_warnings_are_counted_and_others_go_through(warned):
    with gathered() as seen:
        warnings.warn(LINES["pinned memory"], stacklevel=1)
        warnings.warn("quite new", stacklevel=1)
        warnings.warn("gone in the next version", FutureWarning, stacklevel=1)
        warnings.warn(LINES["embeddings come apart"], stacklevel=1)
    warnings.warn(LINES["pinned memory"], stacklevel=1)
    assert warned == ["quite new", LINES["embeddings come apart"], LINES["pinned memory"]]
    assert [known.name for known in seen.counts] == ["pinned memory", "deprecated", "embeddings come apart"]


def test_everything_is_put_back_also_after_an_error(shown):
    logger, stream = shown
    before = (logging.Logger.callHandlers, warnings.showwarning)
    with pytest.raises(ZeroDivisionError), gathered():
        raise ZeroDivisionError
    assert (logging.Logger.callHandlers, warnings.showwarning) == before
    logger.warning(LINES["redirects"])
    assert "Redirects" in stream.getvalue()


def test_a_library_that_kept_our_function_finds_a_plain_one(warned):
    with gathered() as seen:
        ours = warnings.showwarning
        warnings.showwarning = lambda *rest, **more: ours(*rest, **more)
    warnings.warn(LINES["no NVML"], stacklevel=1)
    assert seen.counts == {} and warned == [LINES["no NVML"]]


def test_one_watch_inside_another(shown):
    logger, stream = shown
    with gathered() as outer, gathered() as inner:
        logger.warning(LINES["redirects"])
        logger.warning("new")
    assert len(inner.counts) == 1 and outer.counts == {} and stream.getvalue() == "new\n"


def test_a_record_that_cannot_be_formatted_does_not_stop_the_watch(shown):
    logger, _ = shown
    with gathered() as seen, contextlib.suppress(TypeError):  # pytest raises what logging would report
        logger.warning("%d of Already have LoRA adapters! We shall skip this step", "no number")
    assert [known.name for known in seen.counts] == ["adapter skipped"]


def test_a_printed_line_can_be_added():
    seen = known_warnings.Seen()
    assert seen.add(LINES["Xformers = None"]).benign and seen.add("new") is None
    assert str(known_warnings.Seen()) == "" and str(seen).startswith("1 x Xformers = None (harmless)")
