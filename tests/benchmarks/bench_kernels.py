"""What is written by hand, taken out of each training that a profile runs: what a step costs without it.

Blocks of steps with and without take turns in one process, so that the load of a shared machine cancels. A row is the
median over the rounds of the ratio of the two times (without over with; above 1.1 it earns its place), its quartiles,
and the same ratio of the processor time.
"""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vaestudy.data import ImageSet
from vaestudy.models import NVAE, VAE, NVAEConfig, kernels, spectral
from vaestudy.models.cells import FactorizedReduce
from vaestudy.models.layers import Conv
from vaestudy.training import Objective, Training, memory, objective, steps
from vaestudy.training.config import has_bf16_instructions

CPU = torch.device("cpu")
ROUNDS, WARM_UP, SECONDS = 11, 6, 1.0  # blocks of about so many seconds
LAPTOP = {"optimizer": "adamw", "betas": (0.9, 0.99), "ema": 0.995, "learning_rate": 4e-3}


def nvae(preset: str, batch: int, objective: Objective | None = None, **settings: Any) -> steps.ModelStep:
    """A step of an NVAE as the profiles train it."""
    model = NVAE(NVAEConfig.preset(preset, **settings))
    recipe = Training(images=10**6, batch=batch, **LAPTOP, objective=objective or Objective(warmup=0.3))
    return steps.ModelStep(model, noise(model.shape, batch, model.config.bits), recipe, CPU)


def noise(shape: tuple[int, int, int], batch: int, bits: int) -> ImageSet:
    levels = np.random.default_rng(0).integers(0, 2**bits, (4 * batch, *shape))
    return ImageSet.from_array((levels * 255 // (2**bits - 1)).astype(np.uint8)).quantized(bits)


def mlp() -> steps.ModelStep:
    """Stage 1: 64x64 pixels, the `mlp` network."""
    recipe = Training(images=10**6, batch=128)
    return steps.ModelStep(VAE((1, 64, 64), network="mlp"), noise((1, 64, 64), 128, 1), recipe, CPU)


def sweep(side: int) -> steps.StackStep:
    """40 models of 10 latents, of which 6 are β-TCVAEs."""
    kinds = ["beta"] * 28 + ["capacity"] * 6 + ["total_correlation"] * 6
    models = [VAE((1, side, side), latent_dim=10, width=128, seed=k % 3) for k in range(len(kinds))]
    recipes = [
        Training(images=10**6, batch=128, seed=k % 3, objective=Objective(kind=kind, beta=4.0))
        for k, kind in enumerate(kinds)
    ]
    return steps.StackStep(models, recipes, noise((1, side, side), 128, 1), CPU)


TRAININGS: dict[str, Callable[[], Any]] = {
    "laptop32, batch 8": lambda: nvae("laptop32", 8),
    "laptop32_cells, batch 8": lambda: nvae("laptop32_cells", 8),
    "laptop32_cells, batch 32": lambda: nvae("laptop32_cells", 32),
    "hierarchy32, batch 32": lambda: nvae("hierarchy32", 32),
    "ablation: smoke at 32x32, batch 8": lambda: nvae("smoke", 8, Objective(warmup=0.3, spectral=0.01)),
    "MLP 64x64, batch 128": mlp,
    "sweep 16x16, 40 models": lambda: sweep(16),
    "sweep 32x32, 40 models": lambda: sweep(32),
    "NVAE 32 channels, batch 16": lambda: nvae_wide(),
    "NVAE 32 channels, batch 16, norm_act": lambda: nvae_wide(checkpoint="norm_act"),
}


def nvae_wide(**settings: Any) -> steps.ModelStep:
    model = NVAE(NVAEConfig(groups=(2, 4), **settings))
    return steps.ModelStep(model, noise(model.shape, 16, 8), Training(images=10**6, batch=16, optimizer="adamax"), CPU)


@contextlib.contextmanager
def swapped(owner: Any, name: str, plain: Any) -> Iterator[None]:
    usual = getattr(owner, name)
    setattr(owner, name, plain)
    try:
        yield
    finally:
        setattr(owner, name, usual)


def four_convolutions(self: FactorizedReduce, x: torch.Tensor) -> torch.Tensor:
    x = F.silu(x)
    shifted = (x, x[:, :, 1:, 1:], x[:, :, :, 1:], x[:, :, 1:])
    parts = [F.conv2d(p, c.kernel(), c.bias, stride=2) for c, p in zip(self.convs, shifted, strict=True)]
    return torch.cat(parts, dim=1)


def kernels_one_by_one(convs: list[Conv]) -> torch.Tensor:
    return torch.stack([conv.kernel().flatten(1) for conv in convs])


def correlation_by_autograd(mean, log_std, sample, dataset_size):
    weights = objective._log_weights(mean.shape[-2], dataset_size, mean.device)
    s = (sample[..., :, None, :] - mean[..., None, :, :]) * torch.exp(-log_std)[..., None, :, :]
    log_q = -0.5 * s.square() - log_std[..., None, :, :]
    joint = torch.logsumexp(log_q.sum(-1) + weights, -1)
    marginals = torch.logsumexp(log_q + weights[..., None], -2).sum(-1)
    return (joint - marginals).mean(-1)


def has(kind: type[nn.Module]) -> Callable[[Any], bool]:
    return lambda step: hasattr(step, "model") and any(isinstance(m, kind) for m in step.model.modules())


def without(name: str) -> Callable[[], contextlib.AbstractContextManager]:
    return lambda: swapped(kernels, "ENABLED", kernels.ENABLED - {name})


def depthwise(step: Any) -> bool:
    return has(Conv)(step) and any(isinstance(m, Conv) and m.groups > 1 for m in step.model.modules())


def normed(step: Any) -> bool:
    return has(Conv)(step) and any(isinstance(m, Conv) and m.log_norm is not None for m in step.model.modules())


KERNELS = {
    "depthwise": (without("depthwise"), depthwise),
    "weight_norm": (without("weight_norm"), normed),
    "full_precision_conv": (without("full_precision_conv"), has(Conv)),
    "norm_act_conv": (
        without("norm_act_conv"),
        lambda s: has(Conv)(s) and s.model.config.checkpoint == "norm_act",
    ),
    "one 2x2 convolution": (
        lambda: swapped(FactorizedReduce, "forward", four_convolutions),
        has(FactorizedReduce),
    ),
    "stacked_kernels": (
        lambda: swapped(spectral, "stacked_kernels", kernels_one_by_one),
        lambda s: getattr(s, "penalty", None) is not None,
    ),
    "total_correlation": (
        lambda: swapped(steps, "total_correlation", correlation_by_autograd),
        lambda s: len(getattr(s, "penalised", ())) > 0,
    ),
}


def rows() -> list[dict]:
    """Each kernel in each training that it is part of."""
    memory.keep_freed()
    found = []
    for training, make in TRAININGS.items():
        step = make()
        for name, (plain, applies) in KERNELS.items():
            if applies(step):
                found.append(compared(step, plain, f"{training}: without {name}"))
                print(found[-1], flush=True)
    return found


def compared(step: Any, plain: Callable[[], contextlib.AbstractContextManager], name: str) -> dict:
    """Milliseconds of a step without and with, and their ratio."""
    for context in (contextlib.nullcontext, plain):
        with context():
            taken = timed(step, WARM_UP)[0] / WARM_UP
    count = max(2, min(10, round(SECONDS / taken)))
    walls, processor, each = [], [], []
    for number in range(ROUNDS):
        spent = {}
        for own in ((0, 1), (1, 0))[number % 2]:
            with (contextlib.nullcontext, plain)[own]():
                spent[own] = timed(step, count)
        walls.append(spent[1][0] / spent[0][0])
        processor.append(spent[1][1] / spent[0][1])
        each.append([spent[own][0] / count * 1e3 for own in (1, 0)])
    low, _, high = statistics.quantiles(walls, n=4)
    value, peer = (min(times) for times in zip(*each, strict=True))
    about = {"unit": "ms", "value": value, "peer": "with it", "peer_value": peer}
    cpu = statistics.median(processor)
    return {"name": name, **about, "ratio": statistics.median(walls), "quartiles": [low, high], "processor": cpu}


def timed(step: Any, count: int) -> tuple[float, float]:
    start = time.perf_counter(), time.process_time()
    for number in range(count):
        step(number, 0.5)
    return time.perf_counter() - start[0], time.process_time() - start[1]


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print("threads", sys.argv[1], "bf16", has_bf16_instructions(), flush=True)
    rows()
