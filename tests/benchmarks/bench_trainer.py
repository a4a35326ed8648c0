"""Training throughput on the machine's own cores: against pythae's trainer, and against the matrix peak."""

import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vaestudy import data
from vaestudy.models import VAE
from vaestudy.training import Training, fit

BATCH, STEPS, ROUNDS, SIDE, LATENTS = 128, 60, 3, 64, 10


def rows() -> list[dict]:
    """Images a second of the MLP 4096-512-512-10 and its mirror with a third layer, batch 128, on dSprites."""
    images = data.load("dsprites").subsample(46_080)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours, peer = [], []
    for _ in range(ROUNDS):  # in turn, so that a busy moment of the machine falls on both
        ours.append(images_per_second(images, device))
        peer += pythae_per_second(images)
    peak = matrix_peak(device)
    model = VAE((1, SIDE, SIDE), latent_dim=LATENTS)
    weights = [p.numel() for name, p in model.named_parameters() if p.ndim == 2]
    # A multiply and an add for each weight; forward, and backward to weights and inputs, but not to the image.
    flops = 2 * (3 * sum(weights) - weights[0])
    rate, found = statistics.median(ours), []
    rates = {"MLP VAE training": rate, "MLP VAE training, compiled": images_per_second(images, device, compile=True)}
    for name, value in rates.items():
        found.append({"name": name, "value": value, "unit": "images/s", **against(peer, value)})
    found.append(
        {"name": "share of the bf16 matrix peak", "value": rate * flops / 1e9, "unit": "GFLOP/s"}
        | {"peer": "bf16 matrix product, same run", "peer_value": peak / 1e9, "ratio": rate * flops / peak}
    )
    return found


def against(peer: list[float], value: float) -> dict:
    """The peer's part of a row."""
    if not peer:
        return {"peer": "pythae is not installed (pip install pythae==0.1.2)", "peer_value": None, "ratio": None}
    usual = statistics.median(peer)
    name = f"pythae 0.1.2 BaseTrainer, same network and images ({min(peer):,.0f} to {max(peer):,.0f})"
    return {"peer": name, "peer_value": usual, "ratio": value / usual}


def images_per_second(images, device: torch.device, **settings) -> float:
    """The median over some stretches of one training."""
    model = VAE(images.shape, latent_dim=LATENTS)
    with tempfile.TemporaryDirectory() as folder:
        recipe = Training(images=8 * STEPS * BATCH, batch=BATCH, log_every=STEPS * BATCH, **settings)
        history = fit(model, images, recipe, Path(folder) / "run", device=device).history
    return STEPS * BATCH / float(np.median(np.diff(history["seconds"])))


def pythae_per_second(images) -> list[float]:
    """Its rate in each epoch, in a process of its own: our settings of the allocator and of denormals would help it."""
    if importlib.util.find_spec("pythae") is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/images.npy"
        np.save(path, images.batch(range(STEPS * BATCH)).numpy())
        script = [sys.executable, str(Path(__file__).with_name("peer_pythae.py")), path, str(BATCH), str(LATENTS)]
        done = subprocess.run(script, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def matrix_peak(device: torch.device, side: int = 2048) -> float:
    """FLOP/s of a bf16 matrix product, the best of several."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        nn.functional.linear(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
