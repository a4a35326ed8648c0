"""Models: tensors in, tensors out. Each one answers `x -> Terms` in nats per image."""
# ruff: noqa: F401 - what is imported here is what the package offers

from vaestudy.models.base import Model, Posterior, Terms
from vaestudy.models.likelihoods import Bernoulli, DiscretizedLogisticMixture, Gaussian
from vaestudy.models.nvae import NVAE
from vaestudy.models.nvae_config import NVAEConfig
from vaestudy.models.vae import VAE, VAEConfig
