"""Likelihoods p(x|z) of images in [0, 1]: nats per image from the head's raw outputs, at fp32 or wider."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vaestudy.errors import InputError, check_bounds


@dataclass(frozen=True)
class Bernoulli:
    """Independent Bernoulli pixels; the parameters are logits (Kingma & Welling 2014, appendix C.1)."""

    def parameters_per_pixel(self, channels: int) -> int:
        """Channels that the head must answer for images of `channels` channels."""
        return channels

    def log_prob(self, params: Float[Tensor, "n p h w"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """log p(x|z) in nats, summed over an image; grey values in [0, 1] count as probabilities."""
        logits = wide(params)
        losses = F.binary_cross_entropy_with_logits(logits, x.to(logits.dtype), reduction="none")
        return -losses.flatten(1).sum(1)

    def mean(self, params: Float[Tensor, "n p h w"]) -> Float[Tensor, "n c h w"]:
        """E[x|z]: the probability of a one."""
        return torch.sigmoid(wide(params))


@dataclass(frozen=True)
class Gaussian:
    """Independent normal pixels (Kingma & Welling 2014, appendix C.2): means within (0, 1), then log-variances.

    The standard deviation stays above 1/256, what bytes can say: else the density of a constant pixel has no bound.
    """

    def parameters_per_pixel(self, channels: int) -> int:
        """Channels that the head must answer."""
        return 2 * channels

    def log_prob(self, params: Float[Tensor, "n p h w"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """log p(x|z), a density in nats, summed over an image."""
        mean, log_variance = wide(params).chunk(2, dim=1)
        log_variance = torch.logaddexp(log_variance, log_variance.new_full((), -2 * math.log(256)))
        square = (x.to(mean.dtype) - torch.sigmoid(mean)).square()
        total = (square * torch.exp(-log_variance) + log_variance).flatten(1).sum(1)
        return -0.5 * (total + x[0].numel() * math.log(2 * math.pi))

    def mean(self, params: Float[Tensor, "n p h w"]) -> Float[Tensor, "n c h w"]:
        """E[x|z]."""
        return torch.sigmoid(wide(params).chunk(2, dim=1)[0])


@dataclass(frozen=True)
class DiscretizedLogisticMixture:
    """A mixture of logistics on the 2^bits levels of a channel (Salimans et al. 2017, eq. 2 and sec. 2.2).

    In each component red shifts the mean of green, and red and green that of blue. Level k of L = 2^bits owns the
    interval of half-width 1/(L-1) around 2k/(L-1) - 1, the lowest and the highest their tail too, so the levels sum to
    one. Parameters: K mixture logits, K means and K log-scales of each channel, K coefficients of each pair of them.

    Attributes:
        mixtures: K.
        bits: 1 to 16; x must stand on the grid k/(2^bits - 1).
        official_edges: every x above 0.99 (in [-1, 1]) owns the upper tail, as in the public code of NVAE. At 8 bits
            level 254 then takes the mass of 255 as well and the sum exceeds one: for comparison only.
    """

    mixtures: int = 10
    bits: int = 8
    official_edges: bool = False

    def __post_init__(self):
        check_bounds(self, mixtures="[1, inf)", bits="[1, 16]")

    def parameters_per_pixel(self, channels: int) -> int:
        """10 K for three channels, 3 K for one."""
        if channels not in (1, 3):
            raise InputError(f"the logistic mixture takes images of 1 or 3 channels, not {channels}")
        return self.mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)

    def check(self, x: Float[Tensor, "n c h w"]) -> None:
        """Raise InputError where x leaves the grid of 2^bits levels: no level owns it."""
        top = 2**self.bits - 1
        if ((x * top).round() - x * top).abs().max() > 1e-3 or x.min() < 0 or x.max() > 1:
            raise InputError(f"images must hold k/{top} for {self.bits} bits: quantise them or change bits")

    def log_prob(self, params: Float[Tensor, "n p h w"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """log P(x|z) in nats, summed over pixels and channels.

        With a and b the standardised borders of a level, σ(a) - σ(b) = σ(a) σ(-b) (1 - e^(b-a)): exact where the
        difference itself would round to zero, and as fast as it.
        """
        params = wide(params)
        x = x.to(params.dtype).contiguous()
        logits, means, log_scales = self._components(params, x)
        # At the lower end a logistic fits inside one of 256 levels; at the upper end a level still has some mass.
        log_scales = log_scales.clamp(-7, 30)
        inverse, half = torch.exp(-log_scales), 1 / (2**self.bits - 1)
        centred = (2 * x - 1)[:, :, None] - means
        lowest = (x < half / 2)[:, :, None]
        highest = (2 * x - 1 > 0.99 if self.official_edges else x > 1 - half / 2)[:, :, None]
        upper = F.logsigmoid(inverse * (centred + half)).masked_fill(highest, 0)
        lower = F.logsigmoid(-inverse * (centred - half)).masked_fill(lowest, 0)
        width = torch.log(-torch.expm1(-2 * half * inverse)).masked_fill(lowest | highest, 0)
        components = torch.log_softmax(logits, dim=1) + (upper + lower + width).sum(1)
        return torch.logsumexp(components, dim=1).flatten(1).sum(1)

    def mean(self, params: Float[Tensor, "n p h w"]) -> Float[Tensor, "n c h w"]:
        """E[x|z] of the mixture before its tails are folded in, clipped to [0, 1]."""
        logits, means, _ = self._components(wide(params))
        mean = (torch.softmax(logits, dim=1)[:, None] * means).sum(2)
        return (0.5 * mean + 0.5).clamp(0, 1)

    def _components(self, params: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Mixture logits (n, k, h, w), means given the lower channels (of x or else their means) and log-scales."""
        # Planes are walked one by one: a channels_last head is transposed once here, not in each operation.
        parts = params.contiguous().unflatten(1, (-1, self.mixtures))
        sizes = [1, 3, 3, 3] if parts.shape[1] == 10 else [1, 1, 1, 0]
        logits, means, log_scales, coefficients = parts.split(sizes, dim=1)
        planes, shifts = [], iter(torch.tanh(coefficients).unbind(1))  # (R,G), (R,B), (G,B)
        for channel, plane in enumerate(means.unbind(1)):
            for lower in range(channel):
                plane = plane + next(shifts) * (planes[lower] if x is None else 2 * x[:, lower, None] - 1)
            planes.append(plane)
        return logits[:, 0], torch.stack(planes, dim=1), log_scales


Likelihood = Bernoulli | Gaussian | DiscretizedLogisticMixture
LIKELIHOODS = {"bernoulli": Bernoulli, "gaussian": Gaussian, "mixture": DiscretizedLogisticMixture}


def make_likelihood(name: str, *mixture: int) -> Likelihood:
    """One of LIKELIHOODS; what follows the name is for the mixture, in the order of its fields."""
    return LIKELIHOODS[name](*(mixture if name == "mixture" else ()))


def wide(params: Tensor) -> Tensor:
    """At least fp32: the means of bf16 resolve no more than two levels of 8 bits."""
    return params if params.dtype == torch.float64 else params.float()
