"""Memory and cores: what is free, what was used, and what is said where there is too little."""

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from joblib import cpu_count

from vaestudy.errors import InputError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the names in malloc.h begin with M_
CGROUP = Path("/sys/fs/cgroup")  # of the control group that a container is (version 2)
usable_cores = cpu_count  # those that this process is bound to, in a container within its share of them


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had on the device, in a container within its limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil  # here, since it wants modules of its system

    free, stat = psutil.virtual_memory().available, CGROUP / "memory.stat"
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no control group, or no limit: "max"
        return free
    # What is used counts files that the kernel may drop at any moment, such as the data just read.
    counts = dict(line.split() for line in stat.read_text().splitlines()) if stat.exists() else {}
    return min(free, max(0, limit - used + int(counts.get("inactive_file", 0))))


def peak(device: torch.device) -> int:
    """Bytes at the highest: of this process, with all that it has loaded, or of its tensors on a CUDA device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows keeps no such count
        return 0
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@cache
def keep_freed() -> None:
    """Ask glibc to keep what is freed instead of giving it back to the kernel.

    Without it a step takes 1.22 of the time for the sweep of the laptop and 1.68 for that of the night (AMD EPYC,
    family 26, two threads).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_TRIM_THRESHOLD, -1)
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(_MMAP_THRESHOLD, 1 << 25)  # the most before glibc 2.35


@contextmanager
def explain_oom(what: str) -> Iterator[None]:
    """Says in one line what did not fit where memory runs out, on a CPU or a CUDA device."""
    try:
        yield
    except RuntimeError as error:
        if is_oom(error):
            raise InputError(f"too little memory for {what}") from error
        raise


def is_oom(error: Exception) -> bool:
    """Whether memory has run out, on a CPU or a CUDA device."""
    words = ("not enough memory", "can't allocate memory")  # of torch's allocator, on Windows and elsewhere
    return isinstance(error, torch.OutOfMemoryError) or any(part in str(error) for part in words)
