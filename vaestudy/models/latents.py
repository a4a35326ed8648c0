"""Diagonal normal distributions over latents, how a network's raw outputs become one, and flows behind it."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaestudy.models.layers import Conv
from vaestudy.models.likelihoods import wide

_EXPANSION = 6  # of the channels within a flow


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


def causal_mask(
    inputs: int, outputs: int, size: int, *, groups: int, strict: bool, mirrored: bool
) -> Float[Tensor, "o i k k"]:
    """Ones where a kernel of odd `size` may look in raster order, rows above the centre and pixels left of it.

    At the centre the channels stand in as many blocks as the narrower side has channels, and a block sees those
    before it, itself as well unless `strict`. `mirrored` turns the raster around, not the order of the channels.
    """
    centre = size // 2
    mask = torch.zeros(outputs, inputs // groups, size, size)
    mask[:, :, :centre] = 1
    mask[:, :, centre, :centre] = 1
    blocks = min(inputs, outputs)
    if groups == 1:
        of_output, of_input = (torch.arange(width) * blocks // width for width in (outputs, inputs))
        earlier = of_input[None, :] < of_output[:, None] if strict else of_input[None, :] <= of_output[:, None]
        mask[:, :, centre, centre] = earlier.float()
    elif not strict:
        mask[:, :, centre, centre] = 1
    return mask.flip(2, 3) if mirrored else mask


class Shift(nn.Module):
    """z - m(z), where m of a variable sees only earlier ones: the Jacobian is unit triangular, log|det| = 0.

    A volume-preserving autoregressive flow (after Kingma et al. 2016, inverse flows).
    """

    def __init__(self, channels: int, *, mirrored: bool = False):
        super().__init__()
        width = _EXPANSION * channels

        def masked(inputs: int, outputs: int, size: int, *, strict: bool, groups: int = 1, bias: bool = False):
            mask = causal_mask(inputs, outputs, size, groups=groups, strict=strict, mirrored=mirrored)
            return Conv(inputs, outputs, size, groups=groups, bias=bias, mask=mask)

        self.expand = masked(channels, width, 3, strict=True)
        self.depthwise = masked(width, width, 5, strict=False, groups=width)
        self.project = masked(width, channels, 1, strict=False, bias=True)
        with torch.no_grad():
            self.project.log_norm += math.log(0.1)  # starts near the identity

    def forward(self, z: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        hidden = F.elu(self.depthwise(F.elu(self.expand(z))))
        return z - self.project(hidden).to(z.dtype)


class Flow(nn.Sequential):
    """Pairs of shifts, the second of each in the opposite raster order; keeps volume, so log q is unchanged."""

    def __init__(self, channels: int, pairs: int):
        super().__init__(*(Shift(channels, mirrored=bool(step % 2)) for step in range(2 * pairs)))
