"""Small models under the recipes of the gpu profile: what the tests that stand in for a GPU train."""

from dataclasses import replace

import torch

from vaestudy import profiles
from vaestudy.data import ImageSet
from vaestudy.models import NVAE, VAE, NVAEConfig
from vaestudy.training import Objective, Training
from vaestudy.training.steps import ModelStep, StackStep

STEPS = 10
# All three β objectives side by side, with warm-up; they share one architecture.
OBJECTIVES = (
    Objective(beta=4.0, warmup=0.5),
    Objective(kind="capacity", capacity=5.0),
    Objective(kind="total_correlation", beta=4.0, warmup=0.5),
)


def bytes_of_noise(shape=(3, 16, 16), count=24, device="cpu"):
    storage = torch.zeros(count, *shape, dtype=torch.uint8, device=device)
    if torch.device(device).type == "cpu":
        storage.random_(0, 256, generator=torch.Generator().manual_seed(0))
    return ImageSet("noise", shape, storage, checksum="noise")


def recipe(stage: str, **changes) -> Training:
    """The training of a stage in the gpu profile, for ten small steps."""
    own = profiles.sizes(stage, "gpu")["training"]
    return replace(own, **{"images": 8 * STEPS, "batch": 8, "log_every": 16, "precision": "bf16"} | changes)


def hierarchy(**changes) -> NVAE:
    """A small NVAE with the cells, the flows and the recomputation of celeba64."""
    small = {"shape": (3, 16, 16), "channels": 8, "groups": (1, 2), "latents": 4, "mixtures": 2}
    small |= {"encoder_cells": 1, "decoder_cells": 1, "checkpoint": profiles.sizes("nvae", "gpu")["checkpoint"]}
    return NVAE(NVAEConfig.preset("celeba64", **small | changes))


def nvae(device, images=None, **changes):
    """With an annealed penalty beside all that the profile has."""
    own = profiles.sizes("nvae", "gpu")["training"].objective
    pressed = replace(own, spectral_start=10 * own.spectral, warmup=0.5)
    changes = {"compile": False, "objective": pressed} | changes
    images = images or bytes_of_noise(device=device)
    return ModelStep(hierarchy().to(device), images, recipe("nvae", **changes), torch.device(device))


def vae(device, images=None, **changes):
    images = images or bytes_of_noise((1, 16, 16), device=device)
    model = VAE(images.shape, latent_dim=3, width=16).to(device)
    changes = {"compile": False, "ema": 0.9, "grad_skip_factor": 10.0, "flip": True} | changes
    return ModelStep(model, images, recipe("vae", objective=Objective(warmup=0.5), **changes), torch.device(device))


def sweep(device, images=None, **changes):
    images = images or bytes_of_noise((1, 16, 16), device=device)
    changes = {"compile": False, "flip": True} | changes
    trainings = [recipe("beta_vae", seed=seed, objective=own, **changes) for seed, own in enumerate(OBJECTIVES)]
    models = [VAE(images.shape, latent_dim=3, width=16, seed=own.seed).to(device) for own in trainings]
    return StackStep(models, trainings, images, torch.device(device))


MAKERS = {"vae": vae, "sweep": sweep, "nvae": nvae}
