"""What a training costs, counted before it runs: products, bytes moved, memory, and from them its time on a device.

A step runs on torch's meta device, where tensors have shapes but no data, and each operation is charged the longer of
two times: for its multiplications, and for reading what it takes and writing what it gives.
"""

import copy
import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vaestudy.models.spectral import SpectralPenalty
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


@dataclass(frozen=True)
class Cost:
    """What a training takes; a multiply-add counts as two operations of floating point.

    Attributes:
        parameters: weights of one model.
        steps: of the training.
        operations: a step.
        work: (flops, bytes of weights, bytes of activations) of each operation of a step, or of so many alike;
            forward and backward, what is recomputed included, and none fused with the next. All is counted as fp32.
        memory: bytes that a step needs at once: weights and what belongs to them, and kept activations.
    """

    parameters: int
    steps: int
    operations: int
    work: tuple[tuple[float, float, float], ...]
    memory: tuple[float, float]

    @property
    def flops(self) -> float:
        """Operations of floating point a step."""
        return sum(flops for flops, *_ in self.work)

    def bytes(self, halved: bool) -> float:
        """Bytes read and written a step; `halved` are activations of two bytes (bf16)."""
        return sum(fixed + grown / (1 + halved) for _, fixed, grown in self.work)

    def memory_bytes(self, halved: bool) -> float:
        """Bytes that a step needs at once."""
        return self.memory[0] + self.memory[1] / (1 + halved)

    def step_seconds(self, rates: Rates, halved: bool) -> float:
        """Seconds of a step on a device at `EFFICIENCY`."""
        reached = (
            (flops / rates.flops, (fixed + grown / (1 + halved)) / rates.bytes) for flops, fixed, grown in self.work
        )
        return sum(map(max, reached)) / EFFICIENCY + self.operations * rates.operation


def cost(model: nn.Module, training: Training, images: int, *, models: int = 1) -> Cost:
    """Count a training of `model` on so many images, or of so many models trained as one program.

    The model may be on any device; it is copied onto the meta device.
    """
    batch, parts = min(training.batch, images), training.micro_batches
    shadow = copy.deepcopy(model).to("meta").train()
    two, four = (_operations(shadow, training, count) for count in (2, 4))
    share, work = batch / parts, []
    for (flops, moved), (more_flops, more) in zip(two, four, strict=True):
        by_image = max(0.0, (more - moved) / 2)
        grown = flops + (more_flops - flops) / 2 * (share - 2)
        work.append((grown, max(0.0, moved - 2 * by_image), share * by_image))
    work = [tuple(models * parts * part for part in operation) for operation in work]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in shadow.parameters())
    passes = _OPTIMIZER + _AVERAGE * (training.ema > 0)
    passes += _UNDO * _changed_copies(training) * (training.grad_skip_factor > 0)
    work.append((0.0, float(models * weights * passes), 0.0))
    tensors = list(shadow.parameters())
    return Cost(
        parameters=sum(tensor.numel() for tensor in tensors),
        steps=-(-training.images // batch),
        operations=parts * len(two) + round(_KERNELS_A_TENSOR * len(tensors)),
        work=tuple(work),
        memory=tuple(models * part for part in step_memory(shadow, training, images)),
    )


def step_memory(model: nn.Module, training: Training, images: int) -> tuple[float, float]:
    """Bytes that a step with so many images needs: of weights and what belongs to them, and of activations, as fp32.

    The model may be on any device.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    # The weights and all that a step changes, gradients, and what undoes the step.
    copies = 1 + _changed_copies(training) * (1 + (training.grad_skip_factor > 0))
    share = min(training.batch, images) / training.micro_batches
    return float(weights * copies), kept_per_image(model) * share


def _changed_copies(training: Training) -> int:
    """What a step changes, in units of the weights: themselves, the optimiser's moments, and their average."""
    return 1 + (1 if training.optimizer == "adagrad" else 2) + (training.ema > 0)


def kept_per_image(model: nn.Module) -> int:
    """Bytes of the tensors that the graph of a forward pass keeps for each image, counted as fp32."""
    small, large = (kept_bytes(model, images) for images in (2, 4))
    return (large - small) // 2


def kept_bytes(model: nn.Module, images: int) -> int:
    """Bytes of the distinct tensors that the graph of one forward pass keeps, parameters left out.

    Workspaces of the kernels come on top; bf16 halves most of it. The model is copied onto the meta device.
    """
    shadow = copy.deepcopy(model).to("meta").train()
    own = {parameter.untyped_storage()._cdata for parameter in shadow.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        terms = shadow(torch.zeros(images, *shadow.shape, device="meta"))
        loss = terms.nll.mean() + terms.kl.sum()
    return sum(storage.nbytes() for storage in storages.values()) if loss.requires_grad else 0


def models_at_once(model: VAE, training: Training, device: torch.device, *, total_correlation: bool = False) -> int:
    """How many models of this size are trained at once within half of the free memory, at least one."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    # The tensors kept for the backward pass, as much again for their gradients, and images of their own.
    images = training.batch * training.samples * (2 * kept_per_image(model) + 8 * math.prod(model.shape))
    pairs = 6 * 4 * training.batch**2 * model.config.latent_dim if total_correlation else 0
    # Weight, gradient, two moments and half-precision copies.
    return max(1, memory.free_bytes(device) // 2 // (weights * 20 + images + pairs))


def _operations(model: nn.Module, training: Training, images: int) -> list[tuple[float, float]]:
    """(flops, bytes) of each operation of a step with so many images."""
    penalty = SpectralPenalty(model).to("meta") if training.objective.spectral else None
    with _Counter() as counter:
        terms = model(torch.zeros(images, *model.shape, device="meta"))
        loss = terms.nll.mean() + terms.kl.mean(1).sum()
        if penalty is not None:
            penalty.started = True
            loss = loss + penalty()
        loss.backward()
    model.zero_grad()
    return counter.found


class _Counter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if func.is_view or not outputs:
            return out
        formula = _FORMULAS.get(func.overloadpacket)
        flops = formula(*args, **(kwargs or {}), out_val=out) if formula else 0
        self.found.append((float(flops), float(sum(t.numel() * t.element_size() for t in (*inputs, *outputs)))))
        return out


def _convolution_backward(grad, x, kernel, _bias, _stride, _padding, _dilation, transposed, *more, **_) -> int:
    """As many as forward for each of the two gradients; torch's own count takes grouped ones for dense."""
    pixels = x if transposed else grad
    return 2 * pixels.numel() * kernel[0].numel() * sum(more[-1][:2])


_FORMULAS = flop_registry | {torch.ops.aten.convolution_backward: _convolution_backward}


def measured(device: torch.device, halved: bool) -> Rates:
    """The rates of the device at hand, from a product of matrices and a copy that take a fraction of a second."""
    side, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    dtype = torch.bfloat16 if halved else dtype
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = _best(lambda: torch.mm(a, b), device)
    source, target = (torch.zeros(1 << 24, device=device) for _ in range(2))
    moved = _best(lambda: target.copy_(source), device)
    small = torch.zeros(1, device=device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    launch = GPU.operation if device.type == "cuda" else _best(lambda: small.add_(1), device)
    return Rates(name, 2 * side**3 / product, 2 * source.nbytes / moved, launch)


def _best(work, device: torch.device, repeats: int = 6) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
