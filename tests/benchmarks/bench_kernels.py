"""What is written by hand for speed, taken out of each training that a profile runs: what a step costs without it.

Two processes, one with and one without, take turns in blocks of steps, so that the load of a shared machine cancels.
`ratio` is the median over the rounds of time without over time with, beside its quartiles and the same ratio of
processor time. What stays below 1.1 in every training has not earned its place.
"""

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from vaestudy.data import ImageSet
from vaestudy.models import NVAE, VAE, NVAEConfig, layers, stack
from vaestudy.training import Objective, Training, memory, objective, steps
from vaestudy.training.objective import KINDS

CPU = torch.device("cpu")
ROUNDS, WARM_UP, SECONDS = 11, 6, 1.0  # blocks of about so many seconds
WARMED = Objective(warmup=0.3)


def noise(shape: tuple[int, int, int], batch: int, bits: int) -> ImageSet:
    levels = np.random.default_rng(0).integers(0, 2**bits, (4 * batch, *shape))
    return ImageSet.from_array((levels * 255 // (2**bits - 1)).astype(np.uint8)).quantized(bits)


def nvae(config: NVAEConfig, batch: int, objective: Objective = WARMED) -> steps.ModelStep:
    """A step of an NVAE as the laptop and the night train it."""
    recipe = Training(images=10**6, batch=batch, optimizer="adamw", ema=0.995, objective=objective)
    return steps.ModelStep(NVAE(config), noise(config.shape, batch, config.bits), recipe, CPU)


def ablation() -> steps.ModelStep:
    return nvae(NVAEConfig.preset("smoke", shape=(3, 32, 32)), 8, Objective(warmup=0.3, spectral=0.01))


def mlp() -> steps.ModelStep:
    recipe = Training(images=10**6, batch=128)
    return steps.ModelStep(VAE((1, 64, 64), network="mlp"), noise((1, 64, 64), 128, 1), recipe, CPU)


def sweep(kinds: dict[str, int], width: int, compile: bool = False) -> steps.StackStep:
    """So many models of each objective on images of side 32, of 10 latents each."""
    kinds = [kind for kind, count in kinds.items() for _ in range(count)]
    models = [VAE((1, 32, 32), latent_dim=10, width=width, seed=k // 2) for k in range(len(kinds))]
    recipes = [
        Training(images=10**6, batch=128, seed=k // 2, compile=compile, objective=Objective(kind=kind, beta=4.0))
        for k, kind in enumerate(kinds)
    ]
    return steps.StackStep(models, recipes, noise((1, 32, 32), 128, 1), CPU)


NVAES: dict[str, Callable[[], Any]] = {
    "laptop32_cells, batch 32": lambda: nvae(NVAEConfig.preset("laptop32_cells"), 32),
    "ablation, batch 8": ablation,
    "NVAE of 32 channels, batch 16": lambda: nvae(NVAEConfig(groups=(2, 4)), 16),
}
OBJECTIVES: dict[str, Callable[[], Any]] = {
    "objectives of the night, 30 models": lambda: sweep(dict.fromkeys(KINDS, 10), 64),
}
SWEEPS = OBJECTIVES | {
    "sweep of the laptop, 100 models": lambda: sweep({"beta": 100}, 64, compile=True),
    "sweep of the night, 14 models": lambda: sweep({"beta": 14}, 128),
}
PLAIN_NVAES = {
    "laptop32, batch 8": lambda: nvae(NVAEConfig.preset("laptop32"), 8),
    "hierarchy32, batch 32": lambda: nvae(NVAEConfig.preset("hierarchy32"), 32),
}
TRAININGS = NVAES | PLAIN_NVAES | SWEEPS | {"MLP 64x64, batch 128": mlp}


def by_autograd(mean: Tensor, log_std: Tensor, sample: Tensor, dataset_size: int) -> Tensor:
    weights = objective._log_weights(mean.shape[-2], dataset_size, mean.device)
    s = (sample[..., :, None, :] - mean[..., None, :, :]) * torch.exp(-log_std)[..., None, :, :]
    log_q = -0.5 * s.square() - log_std[..., None, :, :]
    joint = torch.logsumexp(log_q.sum(-1) + weights, -1)
    return (joint - torch.logsumexp(log_q + weights[..., None], -2).sum(-1)).mean(-1)


def by_torch(conv: torch.nn.Module, x: Tensor) -> bool:
    """In place of `gradients_by_hand`, and no mock, which would keep every x that it was asked about."""
    return False


# What puts plain torch, or nothing, in the place of each, and the trainings that it is a part of.
KERNELS: dict[str, tuple[Callable[[], AbstractContextManager], dict[str, Callable[[], Any]]]] = {
    "depthwise gradients": (lambda: mock.patch.object(layers, "gradients_by_hand", by_torch), NVAES),
    "total correlation": (lambda: mock.patch.object(objective, "total_correlation", by_autograd), OBJECTIVES),
    "transposed weights": (lambda: mock.patch.object(stack, "transposed_names", return_value=set()), SWEEPS),
    "kept memory": (lambda: mock.patch.object(memory, "keep_freed"), TRAININGS),
}


def rows() -> list[dict]:
    """Each kernel in each training that it is part of."""
    return [compared(name, training) for name, (_, trainings) in KERNELS.items() for training in trainings]


def compared(name: str, training: str) -> dict:
    """Milliseconds of a step without and with, and their ratio."""
    command = [sys.executable, __file__, training]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    pair = [subprocess.Popen(command + own, env=environment, **pipes) for own in ([], [name])]
    taken = max(_said(process)[0] for process in pair)
    count, found = max(2, min(10, round(SECONDS / taken))), []
    for number in range(ROUNDS):
        spent = {}
        for place in (0, 1) if number % 2 else (1, 0):
            print(count, file=pair[place].stdin, flush=True)
            spent[place] = _said(pair[place])
        found.append((*spent[0], *spent[1]))
    for process in pair:
        process.communicate()
    walls = [without / with_ for with_, _, without, _ in found]
    low, middle, high = statistics.quantiles(walls, n=4)
    best = [1e3 * min(column) for column in zip(*found, strict=True)]
    about = {"unit": "ms", "value": best[2], "peer": "with it", "peer_value": best[0], "ratio": middle}
    spread = {"quartiles": [low, high], "processor": statistics.median(b / a for _, a, _, b in found)}
    return {"name": f"{training}, without {name}", **about, **spread}


def _said(process: subprocess.Popen) -> tuple[float, float]:
    """Seconds of a step, of the clock and of the processor."""
    return tuple(float(word) for word in process.stdout.readline().split())


def take_turns(training: str, name: str = "") -> None:
    """One of the two processes: a line of output for each block of steps that a line of input asks for."""
    with KERNELS[name][0]() if name else nullcontext():
        memory.keep_freed()
        step = TRAININGS[training]()
        for line in itertools.chain([str(WARM_UP)], sys.stdin):
            start = time.perf_counter(), time.process_time()
            for number in range(int(line)):
                step(number, 0.5)
            ends = time.perf_counter(), time.process_time()
            print(*((end - began) / int(line) for began, end in zip(start, ends, strict=True)), flush=True)


if __name__ == "__main__":
    take_turns(*sys.argv[1:])
