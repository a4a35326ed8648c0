"""The sweep: 64 β-VAEs as a program for each latent size, against one after another, in model-images a second."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from vaestudy import data
from vaestudy.training import Grid, Run, Training, fit, fit_many, sweep

GRID = Grid(betas=(0.25, 0.5, 1, 2, 4, 8, 16, 32), latent_dims=(4, 10), seeds=(0, 1, 2, 3))
ENCODED = 20_000


def rows() -> list[dict]:
    """dSprites through MLPs: 16x16 pixels, width 128, batch 128 on a CPU; 64x64, width 512, batch 256 on CUDA."""
    cuda = torch.cuda.is_available()
    steps, batch, width = (1000, 256, 512) if cuda else (50, 128, 128)
    images = data.load("dsprites", image_size=64 if cuda else 16)
    recipe = Training(images=4 * steps * batch, batch=batch, log_every=steps * batch, compile=cuda)
    with tempfile.TemporaryDirectory() as folder:
        jobs = GRID.jobs(images, recipe, folder, network="mlp", width=width)
        found = fit_many(jobs)
        alone = GRID.jobs(images, replace(recipe, compile=False), Path(folder) / "alone", network="mlp", width=width)
        peer = fit(*alone[-1])
        trained = compared(training_rate(found[-1]), training_rate(peer))
        together = rate_of(len(found), lambda: sweep.codes(found, images, range(ENCODED)))
        one_by_one = rate_of(len(found), lambda: [run.codes(images, range(ENCODED)) for run in found])
    name = f"{len(found)} MLPs of width {width}, {images.shape[1]}x{images.shape[2]}"
    about = {"unit": "model-images/s", "peer": "one after another, eager"}
    return [
        {"name": f"training {name}, batch {batch}", **about, **trained},
        {"name": f"encoding by {name}", **about, **compared(together, one_by_one)},
    ]


def training_rate(run: Run) -> float:
    """Images a second over the fastest stretch of the log; its first one also warms up caches and kernels.

    A member's seconds are its share of those of all models that are trained with it.
    """
    history = run.history
    return float(history["images_seen"].iloc[0] / history["seconds"].diff().min())


def rate_of(count: int, encode: Callable[[], list]) -> float:
    encode()
    start = time.perf_counter()
    encode()
    return count * ENCODED / (time.perf_counter() - start)


def compared(value: float, peer: float) -> dict:
    return {"value": value, "peer_value": peer, "ratio": value / peer}
