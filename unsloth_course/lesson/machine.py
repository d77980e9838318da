"""What machine this is; freed memory that is kept, and libraries that are quiet: what comes before the profile."""

import ctypes
import logging
import os
import platform
import shutil
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """The facts that the profile is decided from, gathered once by `facts`."""

    cuda_name: str | None
    cuda_bytes: int
    bfloat16: bool
    cores: int
    memory_bytes: int
    apple_silicon: bool
    nvidia_driver: bool = False
    capability: tuple[int, int] = (0, 0)


def facts() -> Machine:
    """The facts of this machine. Imports torch."""
    import psutil
    import torch

    cuda = torch.cuda.is_available()
    capability = torch.cuda.get_device_capability() if cuda else (0, 0)
    # The share of the GPU's memory that this process may use; all of it in a torch too old to be asked.
    fraction = getattr(torch.cuda, "get_per_process_memory_fraction", lambda: 1.0)
    return Machine(
        cuda_name=torch.cuda.get_device_name() if cuda else None,
        cuda_bytes=int(torch.cuda.get_device_properties(0).total_memory * fraction()) if cuda else 0,
        # torch emulates bfloat16 on older cards and then says it is supported; the hardware has it from 8.0 on.
        bfloat16=capability >= (8, 0),
        cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        apple_silicon=platform.system() == "Darwin" and platform.machine() == "arm64",
        nvidia_driver=shutil.which("nvidia-smi") is not None,
        capability=capability,
    )


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed for the next tensor; returns whether it does. Elsewhere nothing happens.

    By default it hands every large block back to the kernel, and a training step on a CPU frees hundreds: each comes
    back as new pages, zeroed one by one. Measured on 2 cores, 60 steps of the DPO lesson's warm-up: 10.5 s and 400,000
    page faults without, 7.8 s and 32,000 with, and the same peak of memory. From mallopt(3).
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    trim_threshold, mmap_threshold = -1, -3
    # An older glibc takes no more than 32 MiB for the second.
    kept = any(mallopt(mmap_threshold, size) for size in (1 << 30, 1 << 25))
    return bool(mallopt(trim_threshold, (1 << 31) - 1)) and kept


def quiet() -> None:
    """Silences libraries that warn at import of what this course does not use, and the profiler that measures memory.

    torch's profiler writes to stderr whenever it starts and stops, and when a tensor is freed that is older than it,
    in the midst of a training. Both levels are read when torch is loaded.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name in ("torch.utils._pytree", "bitsandbytes.backends.cpu.ops", "torchao"):
        logging.getLogger(name).setLevel(logging.ERROR)
