"""Training throughput on the machine's own cores: against pythae's trainer, and against the matrix peak."""

import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from vaestudy import data, trainer
from vaestudy.models import VAE

BATCH, STEPS, SIDE, LATENTS = 128, 60, 64, 10


def rows() -> list[dict]:
    """Images a second of the MLP 4096-512-512-10 and its mirror with a third layer, batch 128, on dSprites."""
    images = data.load("dsprites").thinned((1, 1, 4, 2, 2))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = ours_per_second(images, device)
    peak = matrix_peak(device)
    model = VAE((1, SIDE, SIDE), latent_dim=LATENTS)
    weights = [p.numel() for name, p in model.named_parameters() if p.ndim == 2]
    # A multiply and an add for each weight; forward, and backward to weights and inputs, but not to the image.
    flops = 2 * (3 * sum(weights) - weights[0])
    share = ours * flops / peak
    found = [{"name": "MLP VAE training", "value": ours, "unit": "images/s"} | pythae_row(images, device, ours)]
    found.append(
        {"name": "share of the bf16 matrix peak", "value": ours * flops / 1e9, "unit": "GFLOP/s"}
        | {"peer": "bf16 matrix product, same run", "peer_value": peak / 1e9, "ratio": share}
    )
    return found


def ours_per_second(images, device) -> float:
    model = VAE(images.shape, latent_dim=LATENTS)
    with tempfile.TemporaryDirectory() as folder:
        recipe = trainer.Training(images=3 * STEPS * BATCH, batch=BATCH, log_every=STEPS * BATCH)
        history = trainer.fit(model, images, recipe, Path(folder) / "run", device=device).history
    return STEPS * BATCH / min(history["seconds"][1:] - history["seconds"][:-1])


def pythae_row(images, device, ours: float) -> dict:
    try:
        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE as PeerVAE
        from pythae.models import VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
    except ImportError:
        return {"peer": "pythae is not installed (pip install pythae==0.1.2)", "peer_value": None, "ratio": None}

    source = VAE(images.shape, latent_dim=LATENTS)

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.body = source.encoder

        def forward(self, x):
            mean, log_variance = self.body(x).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.body = source.decoder

        def forward(self, z):
            return ModelOutput(reconstruction=torch.sigmoid(self.body(z)))

    config = VAEConfig(input_dim=tuple(images.shape), latent_dim=LATENTS, reconstruction_loss="bce")
    count = 2 * STEPS * BATCH
    subset = BaseDataset(images.batch(range(count)), torch.zeros(count))
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder, per_device_train_batch_size=BATCH, num_epochs=2, no_cuda=device.type == "cpu"
        )
        peer = BaseTrainer(PeerVAE(config, Encoder(), Decoder()), subset, training_config=settings)
        peer.prepare_training()
        peer.train_step(1)
        start = time.perf_counter()
        peer.train_step(2)
        rate = count / (time.perf_counter() - start)
    return {"peer": "pythae 0.1.2 BaseTrainer, same network and images", "peer_value": rate, "ratio": ours / rate}


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
