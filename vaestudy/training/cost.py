"""What a training costs, counted before it runs: products, bytes moved, memory, and from them its time on a device.

A step runs on torch's meta device, where tensors have shapes but no data, and each operation is charged the longer of
two times: for its multiplications, and for reading what it takes and writing what it gives.
"""

import copy
import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vaestudy.models.layers import SpectralPenalty
from vaestudy.models.vae import VAE
from vaestudy.training import memory
from vaestudy.training.config import Training

# Of what a device was measured to do at its best. Convolutions of few channels and small products seldom reach half of
# a large product's rate, and kernels that only move data about two thirds of a copy's; gaps between them take the rest.
EFFICIENCY = 0.3
# Passes over all weights a step: the optimiser's, the average's, and those of undoing a step, for each copy it saves.
_OPTIMIZER, _AVERAGE, _UNDO = 8, 3, 9
_KERNELS_A_TENSOR = 0.5  # multi-tensor kernels take some 30 tensors each, and a step about a dozen of them


class Rates(NamedTuple):
    """What a device does in a second at its best, and the seconds that an operation takes however small it is."""

    name: str
    flops: float
    bytes: float
    operation: float


# Measured on an H200: a bf16 product of large matrices, a copy, and an operation of a CUDA graph.
GPU = Rates("H100-class GPU", 790e12, 4.3e12, 2e-6)
GPU_MEMORY = 80e9  # bytes of an H100


class Cost(NamedTuple):
    """What a training takes: weights of one model, steps, and of each step its operations, work and memory, as fp32.

    `work` is flops (two for a multiply-add), bytes of weights and bytes of activations (columns) of each operation,
    forward and backward, what is recomputed included, and none fused with the next. `memory` is bytes at once: of
    weights and what belongs to them, and of kept activations.
    """

    parameters: int
    steps: int
    operations: int
    work: Float[np.ndarray, "operations 3"]
    memory: tuple[float, float]

    @property
    def flops(self) -> float:
        """Operations of floating point a step."""
        return float(self.work[:, 0].sum())

    def bytes(self, halved: bool) -> float:
        """Bytes read and written a step; `halved` are activations of two bytes (bf16)."""
        return float(self._moved(halved).sum())

    def memory_bytes(self, halved: bool) -> float:
        """Bytes that a step needs at once."""
        return self.memory[0] + self.memory[1] / (1 + halved)

    def step_seconds(self, rates: Rates, halved: bool) -> float:
        """Seconds of a step on a device at `EFFICIENCY`."""
        reached = np.maximum(self.work[:, 0] / rates.flops, self._moved(halved) / rates.bytes)
        return float(reached.sum()) / EFFICIENCY + self.operations * rates.operation

    def _moved(self, halved: bool) -> Float[np.ndarray, " operations"]:
        return self.work[:, 1] + self.work[:, 2] / (1 + halved)


def cost(model: nn.Module, training: Training, images: int, *, models: int = 1) -> Cost:
    """Count a training of `model`, on any device, with so many images, or of so many models as one program."""
    batch, parts = min(training.batch, images), training.micro_batches
    shadow, share = copy.deepcopy(model).to("meta").train(), batch / parts
    two, four = (_operations(shadow, training, count) for count in (2, 4))
    flops, moved = ((four - two) / 2).clip(0).T  # for each image more
    per_part = [two[:, 0] + flops * (share - 2), (two[:, 1] - 2 * moved).clip(0), moved * share]
    tensors = list(shadow.parameters())
    weights = models * sum(tensor.nbytes for tensor in tensors)
    passes = _OPTIMIZER + _AVERAGE * (training.ema > 0) + _UNDO * _changed(training) * (training.grad_skip_factor > 0)
    return Cost(
        parameters=sum(tensor.numel() for tensor in tensors),
        steps=-(-training.images // batch),
        operations=parts * len(two) + round(_KERNELS_A_TENSOR * len(tensors)),
        work=np.vstack([models * parts * np.stack(per_part, 1), [0.0, weights * passes, 0.0]]),
        memory=tuple(models * part for part in step_memory(shadow, training, images)),
    )


def step_memory(model: nn.Module, training: Training, images: int) -> tuple[float, float]:
    """Bytes that a step with so many images needs: of weights and what belongs to them, and of activations, as fp32."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    # The weights' gradients, all that a step changes, and what undoes the step.
    copies = 1 + _changed(training) * (1 + (training.grad_skip_factor > 0))
    share = min(training.batch, images) / training.micro_batches
    return float(weights * copies), kept_per_image(model) * share


def _changed(training: Training) -> int:
    """What a step changes, in units of the weights: themselves, the optimiser's moments, and their average."""
    return 1 + (1 if training.optimizer == "adagrad" else 2) + (training.ema > 0)


def kept_per_image(model: nn.Module) -> int:
    """Bytes of the distinct tensors that the graph of a forward pass keeps for each image, counted as fp32.

    Workspaces of the kernels come on top; bf16 halves most of it.
    """
    shadow = copy.deepcopy(model).to("meta").train()
    return (_kept(shadow, 4) - _kept(shadow, 2)) // 2  # what all images share falls out of the difference


def _kept(model: nn.Module, images: int) -> int:
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.zeros(images, *model.shape, device="meta"))
    return sum(storage.nbytes() for storage in storages.values())


def models_at_once(model: VAE, training: Training, device: torch.device, *, total_correlation: bool = False) -> int:
    """How many models of this size are trained at once within half of the free memory, at least one."""
    fixed, kept = step_memory(model, training, training.batch)
    pairs = 6 * 4 * training.batch**2 * model.config.latent_dim if total_correlation else 0
    # The tensors kept for the backward pass, and as much again for their gradients.
    return max(1, int(memory.free_bytes(device) / 2 / (fixed + 2 * training.samples * kept + pairs)))


def _operations(model: nn.Module, training: Training, images: int) -> Float[np.ndarray, "operations 2"]:
    """Flops and bytes of each operation of a step with so many images."""
    penalty = SpectralPenalty(model, first=1).to("meta") if training.objective.spectral else None
    with _Counter() as counter:
        terms = model(torch.zeros(images, *model.shape, device="meta"))
        loss = terms.nll.mean() + terms.kl.mean(1).sum()
        loss = loss if penalty is None else loss + penalty()
        loss.backward()
    model.zero_grad()
    return np.array(counter.found, dtype=float)


class _Counter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view and any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            formula = _FORMULAS.get(func.overloadpacket)
            flops = formula(*args, **(kwargs or {}), out_val=out) if formula else 0
            leaves = tree_leaves((args, kwargs or {}, out))
            self.found.append((flops, sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))))
        return out


def _convolution_backward(grad, x, kernel, _bias, _stride, _padding, _dilation, transposed, *more, **_) -> int:
    """As many as forward for each of the two gradients; torch's own count takes grouped ones for dense."""
    pixels = x if transposed else grad
    return 2 * pixels.numel() * kernel[0].numel() * sum(more[-1][:2])


_FORMULAS = flop_registry | {torch.ops.aten.convolution_backward: _convolution_backward}


@functools.cache
def measured(device: torch.device, halved: bool) -> Rates:
    """The rates of the device at hand, from a product of matrices, a copy and a small operation."""
    on_gpu = device.type == "cuda"
    side, dtype = 8192 if on_gpu else 1024, torch.bfloat16 if halved or on_gpu else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source, target = (torch.zeros(1 << 24, device=device) for _ in range(2))
    small = torch.zeros(1, device=device)
    works = [lambda: torch.mm(a, b), lambda: target.copy_(source), lambda: small.add_(1)]
    product, moved, launch = least_seconds(works, device)
    return Rates(str(device), 2 * side**3 / product, 2 * source.nbytes / moved, GPU.operation if on_gpu else launch)


def least_seconds(works: Sequence[Callable], device: torch.device, rounds: int = 20) -> list[float]:
    """The least that each takes, in turns over about a second: what else the machine does at the moment is left out."""
    times = np.empty((rounds, len(works)))
    for place in np.ndindex(times.shape):
        start = time.perf_counter()
        works[place[1]]()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times[place] = time.perf_counter() - start
    return times.min(axis=0).tolist()
