"""Models: tensors in, tensors out. Each one answers `x -> Terms` in nats per image."""

from vaestudy.models.terms import Posterior, Terms
from vaestudy.models.vae import VAE, VAEConfig

__all__ = ["VAE", "Posterior", "Terms", "VAEConfig"]
