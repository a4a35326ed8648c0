"""Diagonal normal distributions over latents, and how a network's raw outputs become their mean and scale."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vaestudy.models.likelihoods import wide


class Normal(NamedTuple):
    """Independent normals; every method answers for each variable on its own, in nats."""

    mean: Float[Tensor, "*shape"]
    std: Float[Tensor, "*shape"]

    def sample(self, temperature: float = 1.0) -> Float[Tensor, "*shape"]:
        """A reparameterised draw; the temperature multiplies the standard deviation."""
        # Unlike randn_like, this is dense in compiled code as well, where other layouts are filled one by one.
        noise = torch.randn(self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + temperature * self.std * noise

    def log_prob(self, z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """log N(z; mean, std²)."""
        return -0.5 * ((z - self.mean) / self.std).square() - self.std.log() - 0.5 * math.log(2 * math.pi)

    def kl(self, prior: "Normal") -> Float[Tensor, "*shape"]:
        """KL(self || prior) in closed form (NVAE, eq. 2, before its residual form is put in)."""
        shift, ratio = (self.mean - prior.mean) / prior.std, self.std / prior.std
        return 0.5 * (shift.square() + ratio.square() - 1) - ratio.log()


def normal(raw: Float[Tensor, "n z2 h w"]) -> Normal:
    """The normal that a head's output (means, then scales, along the channels) stands for, in fp32 or wider.

    Both halves are confined smoothly to (-5, 5), nearly unchanged around 0, so that no single KL can run away;
    std = exp(.) + 0.01.
    """
    # In planes whatever the network's layout, so that the halves are dense.
    mean, scale = (5 * torch.tanh(wide(raw).contiguous() / 5)).chunk(2, dim=1)
    return Normal(mean, torch.exp(scale) + 0.01)


def residual_normal(prior_raw: Float[Tensor, "n z2 h w"], raw: Float[Tensor, "n z2 h w"]) -> Normal:
    """The posterior relative to its prior (NVAE, sec. 3.2): a raw output of zero is the prior itself.

    Means add and scales multiply: the raw outputs are added before the clamp, which keeps the posterior within the
    same bounds as the prior.
    """
    return normal(wide(prior_raw) + wide(raw))
