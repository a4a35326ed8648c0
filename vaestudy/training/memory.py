"""Memory: what a training step needs, predicted without running one, what is free, and what was used."""

import copy
import ctypes
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaestudy.errors import InputError
from vaestudy.training.config import Training

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the names in malloc.h begin with M_
# The optimiser's moments of each weight.
_MOMENTS = {"adam": 2, "adamw": 2, "adamax": 2, "adagrad": 1}
CGROUP = Path("/sys/fs/cgroup")  # of the control group that a container is (version 2)


class Memory(NamedTuple):
    """Bytes that do not depend on the batch, and bytes for each image of a shard."""

    fixed: int
    per_image: int

    def step(self, images: int) -> int:
        """Bytes of a step with so many images at once."""
        return self.fixed + images * self.per_image

    def largest(self, free: int) -> int:
        """How many images at once fit into `free` bytes."""
        return max(0, (free - self.fixed) // self.per_image)


def needed(model: nn.Module, training: Training) -> Memory:
    """What the weights, the optimiser and the tensors kept for the backward pass take, all counted as fp32.

    The model is copied onto torch's meta device, where tensors have shapes but no storage, and the tensors that its
    graph keeps for two batches of different size are counted. Workspaces of the kernels come on top; bf16 halves
    most of what is kept.
    """
    shadow = copy.deepcopy(model).to("meta").train()
    weights = sum(parameter.numel() * parameter.element_size() for parameter in shadow.parameters())
    state = changed_copies(training)
    copies = state + 1 + (state if training.grad_skip_factor else 0)  # gradients, and what undoes a step
    small, large = (kept_bytes(shadow, images) for images in (2, 4))
    return Memory(weights * copies, (large - small) // 2)


def changed_copies(training: Training) -> int:
    """What a step changes, in units of the weights: themselves, the optimiser's moments, and their average."""
    return 1 + _MOMENTS[training.optimizer] + (training.ema > 0)


def kept_bytes(model: nn.Module, images: int) -> int:
    """Bytes of the distinct tensors that the graph of one forward pass keeps, parameters left out.

    Args:
        model: on torch's meta device.
        images: in the batch.
    """
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        terms = model(torch.zeros(images, *model.shape, device="meta"))
        loss = terms.nll.mean() + terms.kl.sum()
    kept = sum(storage.nbytes() for storage in storages.values())
    return kept if loss.requires_grad else 0


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had on the device, in a container within its limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = Path("/proc/meminfo")
    if not known.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    lines = dict(line.split(":") for line in known.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (_cgroup(name) for name in ("memory.max", "memory.current"))
    if limit is None or used is None:
        return free
    # What is used counts files that the kernel may drop at any moment, such as the data just read.
    kept = (CGROUP / "memory.stat").read_text().split() if (CGROUP / "memory.stat").exists() else []
    cached = int(kept[kept.index("inactive_file") + 1]) if "inactive_file" in kept else 0
    return min(free, max(0, limit - used + cached))


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, in a container within its share of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = _cgroup("cpu.max"), _cgroup("cpu.max", 1)
    return cores if quota is None or not period else max(1, min(cores, round(quota / period)))


def _cgroup(name: str, word: int = 0) -> int | None:
    """A number of the control group; None where there is none."""
    try:
        text = (CGROUP / name).read_text().split()[word]
    except (OSError, IndexError):
        return None
    return int(text) if text.isdigit() else None


def peak(device: torch.device) -> int:
    """Bytes at the highest: of this process, with all that it has loaded, or of its tensors on a CUDA device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@cache
def keep_freed() -> None:
    """Ask glibc to keep what is freed instead of giving it back to the kernel.

    Tensors come and go with each operation. Measured on two cores of an AMD EPYC of family 26, one thread: without it
    a step takes 1.83 of the time for 40 models of the sweep at 32x32, 1.10 for laptop32_cells at batch 32.
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
        words = ("not enough memory", "can't allocate memory")  # of torch's allocator, on Windows and elsewhere
        if isinstance(error, torch.OutOfMemoryError) or any(part in str(error) for part in words):
            raise InputError(f"too little memory for {what}") from error
        raise
