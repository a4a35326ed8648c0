"""The evidence lower bound in named parts, and the ways in which the study presses on its KL term.

Every function takes any leading shape, so that the sweep can hand in one row for each of its models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vaestudy.errors import InputError
from vaestudy.models.terms import Posterior, Terms

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
        floor: the warm-up starts at this share of beta and this fraction of the training (NVAE: 1e-4).
        balance: while the warm-up lasts, groups that carry little for their size are charged less (NVAE, sec. 3.4).
        spectral: λ on the spectral norms of the convolutions and the scales of batch norm (NVAE, sec. 3.2).
        spectral_start: λ at the start, from which it falls to `spectral` along with the warm-up; 0 keeps it constant.
    """

    kind: str = "beta"
    beta: float = 1.0
    warmup: float = 0.0
    capacity: float = 25.0
    gamma: float = 1000.0
    ramp: float = 0.8
    floor: float = 0.0
    balance: bool = False
    spectral: float = 0.0
    spectral_start: float = 0.0

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
        if self.warmup == 0:
            return 1.0
        return max(self.floor, min(1.0, (progress - self.floor) / self.warmup))

    def penalty(self, progress: float) -> float:
        """λ in force: from `spectral_start` to `spectral`, log-linearly in the share of beta (NVAE, sec. 4)."""
        if not self.spectral_start:
            return self.spectral
        share = self.weight(progress)
        return math.exp((1 - share) * math.log(self.spectral_start) + share * math.log(self.spectral))


def balance_sizes(group_shapes: Sequence[tuple[int, int, int]]) -> Float[Tensor, " groups"]:
    """α: how much of the KL each group is meant to carry, the area of its maps over the number of groups with it."""
    areas = [height * width for _, height, width in group_shapes]
    sizes = torch.tensor([area / areas.count(area) for area in areas])
    return sizes / sizes.min()


def balance(kl: Float[Tensor, "groups n"], sizes: Float[Tensor, " groups"]) -> Float[Tensor, " groups"]:
    """γ: weights of mean 1 that charge a group in proportion to its KL for its size, without gradient (NVAE, sec. 3.4).

    A group that carries little is charged little, so that it may come into use.
    """
    share = (kl.detach().abs().mean(1) + 0.01) / sizes.to(kl.device)
    return share / share.mean()


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


def bound(
    terms: Terms,
    objective: Objective,
    progress: float,
    dataset_size: int,
    sizes: Float[Tensor, " groups"] | None = None,
) -> Parts:
    """The cost of a batch when a fraction `progress` of the training is done.

    `sizes` (see `balance_sizes`) are needed to balance the groups, which ends with the warm-up.

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
        weight = objective.weight(progress)
        balanced = objective.balance and sizes is not None and weight < 1
        cost = weight * objective.beta * ((balance(terms.kl, sizes) * kl).sum() if balanced else total)
    return Parts(nll + cost, nll, kl)


class Pressure:
    """The objectives of many models side by side: `bound` for one row a model, with the same numbers.

    What changes in the course of a training lies in tensors that `set` fills, so that a captured step can read them.

    Args:
        objectives: one for each model; warm-up, γ and ramp are the same in all of them.
        latent_dims: numbers of latents of the models; posteriors have room for the largest.
        dataset_size: images in the training set.
        device: of the models.
    """

    def __init__(
        self, objectives: Sequence[Objective], latent_dims: Sequence[int], dataset_size: int, device: torch.device
    ):
        self.schedule, self.dataset_size = objectives[0], dataset_size
        self.capacities, betas, capacity, correlation = (
            torch.tensor(values, dtype=torch.float64, device=device)
            for values in zip(
                *((o.capacity, o.beta, o.kind == "capacity", o.kind == "total_correlation") for o in objectives),
                strict=True,
            )
        )
        self.betas = torch.where(correlation > 0, 1, betas) * (1 - capacity)
        self.gamma = (capacity * self.schedule.gamma).float()
        self.rows = correlation.nonzero()[:, 0]
        self.excess = (betas[self.rows] - 1).float()
        latents = torch.tensor(latent_dims, device=device)
        self.mask = (torch.arange(max(latent_dims), device=device) < latents[self.rows, None]).float()
        self.slope, self.target = torch.zeros_like(self.gamma), torch.zeros_like(self.gamma)
        self.share = torch.zeros((), device=device)
        self.set(0.0)

    def set(self, progress: float) -> None:
        """Put in force what holds when this fraction of the training is done."""
        share = self.schedule.weight(progress)
        self.share.fill_(share)
        self.slope.copy_(self.betas * share)
        self.target.copy_(self.capacities * min(1.0, progress / self.schedule.ramp))

    def cost(self, kl: Float[Tensor, " models"], posterior: Posterior) -> Float[Tensor, " models"]:
        """What each model pays for its KL, nats per image; every field of the posterior is (models, n, d)."""
        cost = self.slope * kl + self.gamma * (kl - self.target).abs()
        if not len(self.rows):
            return cost
        chosen = (part[self.rows] for part in posterior)
        correlation = decompose_kl(*chosen, self.dataset_size, self.mask).total_correlation
        return cost.index_add(0, self.rows, self.share * self.excess * correlation)
