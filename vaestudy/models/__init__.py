"""Models: tensors in, tensors out. Each one answers `x -> Terms` in nats per image."""

from vaestudy.models.base import Model, Posterior, Terms
from vaestudy.models.likelihoods import Bernoulli, DiscretizedLogisticMixture, Gaussian
from vaestudy.models.nvae import NVAE
from vaestudy.models.nvae_config import NVAEConfig
from vaestudy.models.vae import VAE, VAEConfig

__all__ = [
    "NVAE", "VAE", "Bernoulli", "DiscretizedLogisticMixture", "Gaussian", "Model", "NVAEConfig", "Posterior", "Terms",
    "VAEConfig",
]  # fmt: skip
