"""Volume-preserving autoregressive flows for the posterior of NVAE (after Kingma et al. 2016, inverse flows)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaestudy.models.layers import Conv

_EXPANSION = 6


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
    """z - m(z), where m of a variable sees only earlier ones: the Jacobian is unit triangular, log|det| = 0."""

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
