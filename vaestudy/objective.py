"""The evidence lower bound in named parts, and the ways in which the study presses on its KL term.

Every function takes any leading shape, so that the sweep can hand in one row for each of its models.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vaestudy.errors import InputError
from vaestudy.models.terms import Terms

KINDS = ("beta", "capacity", "total_correlation")


class Parts(NamedTuple):
    """What one batch costs: `loss` is minimised, the others are means over the batch in nats per image."""

    loss: Float[Tensor, "*models"]
    nll: Float[Tensor, "*models"]
    kl: Float[Tensor, "*models groups"]


@dataclass(frozen=True)
class Objective:
    """How the parts of the bound are weighed against each other.

    Attributes:
        kind: beta: nll + β KL (Higgins et al., 2017, eq. 4). capacity: nll + γ |KL - C|, C rising linearly to
            `capacity` nats (Burgess et al., 2018, eq. 8). total_correlation: β on the total correlation alone
            (β-TCVAE, Chen et al., 2018, eq. 4 with α = γ = 1).
        beta: the pressure on the latent channel, 0 or more; 1 is the plain VAE.
        warmup: fraction of the training over which the KL weight rises linearly from 0 to beta.
        capacity: C at the end, nats; for capacity.
        gamma: γ; for capacity.
        ramp: fraction of the training over which C rises; for capacity.
    """

    kind: str = "beta"
    beta: float = 1.0
    warmup: float = 0.0
    capacity: float = 25.0
    gamma: float = 1000.0
    ramp: float = 0.8

    def __post_init__(self):
        for name in ("beta", "warmup", "capacity", "gamma", "ramp"):
            # 4 and 4.0 are one objective, and one run.
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.kind not in KINDS:
            raise InputError(f"objective must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise InputError(f"beta must be 0 or more, not {self.beta}")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup is a fraction of the training, 0 to 1, not {self.warmup}")

    def weight(self, progress: float) -> float:
        """Share of beta that is in force when this fraction of the training is done."""
        return 1.0 if self.warmup == 0 else min(1.0, progress / self.warmup)


def beta_norm(beta: float, latent_dim: int, dims: int) -> float:
    """β_norm = β·M/N, which compares pressure across M latents and N input values (Higgins et al., 2017, sec. A.6)."""
    return beta * latent_dim / dims


def capacity_cost(kl: Float[Tensor, "*models"], objective: Objective, progress: float) -> Float[Tensor, "*models"]:
    """γ |KL - C| with C = capacity · min(1, progress / ramp), nats (Burgess et al., 2018, eq. 8)."""
    target = objective.capacity * min(1.0, progress / objective.ramp)
    return objective.gamma * (kl - target).abs()


class Decomposition(NamedTuple):
    """The KL term in three parts that sum to the Monte-Carlo KL, nats (Chen et al., 2018, eq. 2)."""

    mutual_information: Float[Tensor, "*models"]
    total_correlation: Float[Tensor, "*models"]
    dimension_wise_kl: Float[Tensor, "*models"]


def decompose_kl(
    mean: Float[Tensor, "*models n d"],
    log_std: Float[Tensor, "*models n d"],
    sample: Float[Tensor, "*models n d"],
    dataset_size: int,
    mask: Float[Tensor, "*models d"] | None = None,
) -> Decomposition:
    """Index-code mutual information, total correlation and dimension-wise KL, with stratified weights.

    Chen et al. (2018), App. C.2: of a batch of B images out of N the image that made the sample weighs 1/N, and
    each other one (N - 1) / (N (B - 1)), so that every row sums to one and B = N is exact. `mask` silences latents.
    """
    n = mean.shape[-2]
    scaled = (sample[..., :, None, :] - mean[..., None, :, :]) * torch.exp(-log_std)[..., None, :, :]
    log_q = -0.5 * (scaled.square() + math.log(2 * math.pi)) - log_std[..., None, :, :]
    log_p = -0.5 * (sample.square() + math.log(2 * math.pi))
    if mask is not None:
        log_q, log_p = log_q * mask[..., None, None, :], log_p * mask[..., None, :]
    others = math.log((dataset_size - 1) / (dataset_size * (n - 1)))
    log_weight = torch.full((n, n), others, device=mean.device)
    log_weight.fill_diagonal_(-math.log(dataset_size))
    own = torch.diagonal(log_q.sum(-1), dim1=-2, dim2=-1)
    joint = torch.logsumexp(log_q.sum(-1) + log_weight, dim=-1)
    marginals = torch.logsumexp(log_q + log_weight[:, :, None], dim=-2)
    product = marginals.sum(-1)  # a silenced latent adds log(sum of weights) = 0
    return Decomposition((own - joint).mean(-1), (joint - product).mean(-1), (product - log_p.sum(-1)).mean(-1))


def bound(terms: Terms, objective: Objective, progress: float, dataset_size: int) -> Parts:
    """The cost of a batch when a fraction `progress` of the training is done.

    Raises:
        InputError: if the objective looks inside the posterior of a model that does not show it.
    """
    nll, kl = terms.nll.mean(), terms.kl.mean(1)
    total = kl.sum()
    if objective.kind == "capacity":
        cost = capacity_cost(total, objective, progress)
    elif objective.kind == "total_correlation":
        if terms.posterior is None:
            raise InputError("the total_correlation objective needs a model with one group of flat latents")
        excess = decompose_kl(*terms.posterior, dataset_size).total_correlation
        cost = objective.weight(progress) * (total + (objective.beta - 1) * excess)
    else:
        cost = objective.weight(progress) * objective.beta * total
    return Parts(nll + cost, nll, kl)
