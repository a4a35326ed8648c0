"""The sweep: 64 β-VAEs as one program against the same models one after another, in model-images a second."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from vaestudy import data
from vaestudy.training import run as runs
from vaestudy.training import sweep, trainer

GRID = sweep.Grid(betas=(0.25, 0.5, 1, 2, 4, 8, 16, 32), latent_dims=(4, 10), seeds=(0, 1, 2, 3))
ENCODED = 20_000


def rows() -> list[dict]:
    """dSprites through MLPs: 16x16 pixels, width 128, batch 128 on a CPU; 64x64, width 512, batch 256 on CUDA."""
    cuda = torch.cuda.is_available()
    steps, batch, width = (1000, 256, 512) if cuda else (50, 128, 128)
    images = data.load("dsprites", image_size=64 if cuda else 16)
    recipe = trainer.Training(images=4 * steps * batch, batch=batch, log_every=steps * batch, compile=cuda)
    with tempfile.TemporaryDirectory() as folder:
        found = sweep.fit(images, GRID, recipe, folder, network="mlp", width=width)
        member, alone = GRID.members[-1], replace(recipe, compile=False)
        model = member.model(images.shape, network="mlp", width=width)
        peer = trainer.fit(model, images, member.training(alone), Path(folder) / "alone")
        trained = compared(training_rate(found[0]), training_rate(peer))
        together = rate_of(lambda: sweep.codes(found, images, range(ENCODED)))
        one_by_one = rate_of(lambda: [run.codes(images, range(ENCODED)) for run in found])
    name = f"{len(found)} MLPs of width {width}, {images.shape[1]}x{images.shape[2]}"
    about = {"unit": "model-images/s", "peer": "one after another, eager"}
    return [
        {"name": f"training {name}, batch {batch}", **about, **trained},
        {"name": f"encoding by {name}", **about, **compared(together, one_by_one)},
    ]


def training_rate(run: runs.Run) -> float:
    """Images a second over the fastest stretch of the log; its first one also warms up caches and kernels."""
    history = run.history
    return float(max(history["images_seen"][0] / (history["seconds"][1:] - history["seconds"][:-1])))


def rate_of(encode: Callable[[], list]) -> float:
    encode()
    start = time.perf_counter()
    encode()
    return len(GRID.members) * ENCODED / (time.perf_counter() - start)


def compared(value: float, peer: float) -> dict:
    return {"value": value, "peer_value": peer, "ratio": value / peer}
