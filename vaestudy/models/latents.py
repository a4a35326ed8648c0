"""Diagonal normal distributions over latents, how a network's raw outputs become one, and flows behind it."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaestudy.models.layers import Conv
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

    Both halves are confined smoothly to (-5, 5), so that no single KL can run away; std = exp(.) + 0.01.
    """
    # In planes whatever the network's layout, so that the halves are dense.
    mean, scale = (5 * torch.tanh(wide(raw).contiguous() / 5)).chunk(2, dim=1)
    return Normal(mean, torch.exp(scale) + 0.01)


def residual_normal(prior_raw: Float[Tensor, "n z2 h w"], raw: Float[Tensor, "n z2 h w"]) -> Normal:
    """The posterior relative to its prior (NVAE, sec. 3.2): a raw output of zero is the prior itself.

    Means add and scales multiply, before the clamp, which keeps both distributions within the same bounds.
    """
    return normal(wide(prior_raw) + wide(raw))


def causal_conv(
    inputs: int, outputs: int, size: int, *, mirrored: bool, strict: bool = False, groups: int = 1, bias: bool = False
) -> Conv:
    """A convolution that looks back in raster order: at rows above the centre of its kernel and pixels left of it.

    At the centre the channels stand in as many blocks as the narrower side has channels, and a block sees those
    before it, itself as well unless `strict`. `mirrored` turns the raster around, not the order of the channels.
    """
    centre, blocks = size**2 // 2, min(inputs, outputs)
    mask = torch.zeros(outputs, inputs // groups, size**2)
    mask[:, :, : centre + 1] = 1
    if groups == 1:  # a depthwise kernel sees its own channel alone
        of_output, of_input = (torch.arange(width) * blocks // width for width in (outputs, inputs))
        mask[:, :, centre] = (of_input + strict <= of_output[:, None]).float()
    mask = (mask.flip(2) if mirrored else mask).unflatten(2, (size, size))
    return Conv(inputs, outputs, size, groups=groups, bias=bias, mask=mask)


class Shift(nn.Module):
    """z - m(z), where m of a variable sees only earlier ones: log|det| = 0 (after Kingma et al. 2016)."""

    def __init__(self, channels: int, *, mirrored: bool = False):
        super().__init__()
        width = 6 * channels
        self.expand = causal_conv(channels, width, 3, mirrored=mirrored, strict=True)
        self.depthwise = causal_conv(width, width, 5, mirrored=mirrored, groups=width)
        self.project = causal_conv(width, channels, 1, mirrored=mirrored, bias=True)
        with torch.no_grad():
            self.project.log_norm += math.log(0.1)  # starts near the identity

    def forward(self, z: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        hidden = F.elu(self.depthwise(F.elu(self.expand(z))))
        return z - self.project(hidden).to(z.dtype)


class Flow(nn.Sequential):
    """Pairs of shifts, the second of each in the opposite raster order; keeps volume, so log q is unchanged."""

    def __init__(self, channels: int, pairs: int):
        super().__init__(*(Shift(channels, mirrored=bool(step % 2)) for step in range(2 * pairs)))
