"""The peer of bench_trainer, in a process that never imports vaestudy: images a second of pythae's BaseTrainer.

`peer_pythae.py IMAGES.npy BATCH LATENTS` trains the MLP of the benchmark on the images (n, 1, side, side), float32, for
a few epochs, and prints the rate of each but the first.
"""

import itertools
import sys
import tempfile
import time

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import nn

EPOCHS = 4


def main(path: str, batch: int, latents: int) -> None:
    images = torch.from_numpy(np.load(path))
    pixels = images[0].numel()
    dataset = BaseDataset(images, torch.zeros(len(images)))
    config = VAEConfig(input_dim=tuple(images.shape[1:]), latent_dim=latents, reconstruction_loss="bce")
    model = VAE(config, Encoder(pixels, latents), Decoder(pixels, latents))
    with tempfile.TemporaryDirectory() as folder:
        cuda = torch.cuda.is_available()
        settings = BaseTrainerConfig(folder, batch, num_epochs=EPOCHS, no_cuda=not cuda)
        trainer = BaseTrainer(model, dataset, training_config=settings)
        trainer.prepare_training()
        for epoch in range(1, EPOCHS + 1):
            start = time.perf_counter()
            trainer.train_step(epoch)
            if epoch > 1:
                print(len(images) / (time.perf_counter() - start))


def mlp(*widths: int) -> nn.Sequential:
    layers = [(nn.Linear(before, after), nn.ReLU()) for before, after in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain.from_iterable(layers))[:-1]


class Encoder(BaseEncoder):
    def __init__(self, pixels: int, latents: int):
        super().__init__()
        self.body = mlp(pixels, 512, 512, 2 * latents)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        mean, log_variance = self.body(x.flatten(1)).chunk(2, 1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    def __init__(self, pixels: int, latents: int):
        super().__init__()
        self.body = mlp(latents, 512, 512, 512, pixels)

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=torch.sigmoid(self.body(z)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
