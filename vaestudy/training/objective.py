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
from torch.autograd.function import once_differentiable

from vaestudy.errors import InputError
from vaestudy.models.base import Posterior, Terms

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
        top_first: while the warm-up lasts, how many times dearer the last group starts than it ends, so that the top
            groups are used before those of high resolution take over; 0 leaves all groups alike.
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
    top_first: float = 0.0
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

    def group_weights(self, progress: float, groups: int) -> Float[Tensor, " groups"]:
        """Share of beta that each group is charged: with `top_first` from 0 to 1 at the top, down to 1 at the end."""
        share = self.weight(progress)
        if not self.top_first:
            return torch.full((groups,), share)
        depth = torch.linspace(0, 1, groups)
        return share ** (1 - depth) * self.top_first ** (depth * (1 - share))

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
    log_weight = _log_weights(n, dataset_size, mean.device)
    own = torch.diagonal(log_q.sum(-1), dim1=-2, dim2=-1)
    joint = torch.logsumexp(log_q.sum(-1) + log_weight, dim=-1)
    marginals = torch.logsumexp(log_q + log_weight[:, :, None], dim=-2)
    product = marginals.sum(-1)  # a silenced latent adds log(sum of weights) = 0
    return Decomposition((own - joint).mean(-1), (joint - product).mean(-1), (product - log_p.sum(-1)).mean(-1))


def total_correlation(
    mean: Float[Tensor, "*models n d"],
    log_std: Float[Tensor, "*models n d"],
    sample: Float[Tensor, "*models n d"],
    dataset_size: int,
    mask: Float[Tensor, "*models d"] | None = None,
) -> Float[Tensor, "*models"]:
    """The second part of `decompose_kl`, nats, with a gradient written by hand (the same numbers)."""
    if mask is not None:
        mean, log_std, sample = (part * mask[..., None, :] for part in (mean, log_std, sample))
    return _TotalCorrelation.apply(mean, log_std, sample, dataset_size)


class _TotalCorrelation(torch.autograd.Function):
    """log q(z) - Σ log q(z_j) over every pair of images in the batch, its gradient computed beside it.

    With s the distance of sample i from image j in standard deviations, log q_ij = -s²/2 - log std_j. Its derivative
    is the weight of j in the joint density less that in the marginal one. Measured on 9 models of 10 latents and
    batches of 128: 9 ms, by autograd 32 ms.
    """

    @staticmethod
    def forward(ctx, mean: Tensor, log_std: Tensor, sample: Tensor, dataset_size: int) -> Tensor:
        mean, log_std, sample = (part.mT.contiguous() for part in (mean, log_std, sample))
        log_weight = _log_weights(mean.shape[-1], dataset_size, mean.device)
        inverse = torch.exp(-log_std)
        s = (sample[..., :, None] - mean[..., None, :]).mul_(inverse[..., None, :])
        log_q = torch.addcmul(-log_std[..., None, :], s, s, value=-0.5)
        product = log_q.sum(-3).add_(log_weight)
        joint = torch.log_softmax(product, -1)
        log_q += log_weight
        marginals = torch.log_softmax(log_q, -1)
        own = lambda table: torch.diagonal(table, dim1=-2, dim2=-1)  # noqa: E731
        value = own(product) - own(joint) - (own(log_q) - own(marginals)).sum(-2)
        if any(ctx.needs_input_grad):
            slope = marginals.exp_().neg_().add_(joint.exp_()[..., None, :, :])
            by_s = slope * s
            to_mean = by_s.sum(-2) * inverse
            to_sample = -(by_s @ inverse[..., None])[..., 0]
            to_log_std = by_s.mul_(s).sum(-2) - slope.sum(-2)
            ctx.save_for_backward(to_mean, to_log_std, to_sample)
        return value.mean(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor):
        scale = (grad_output / ctx.saved_tensors[0].shape[-1])[..., None, None]
        return *((scale * part).mT for part in ctx.saved_tensors), None


def _log_weights(n: int, dataset_size: int, device: torch.device) -> Float[Tensor, "n n"]:
    """log of the stratified weights: row i belongs to the sample of image i."""
    weights = torch.full((n, n), math.log((dataset_size - 1) / (dataset_size * (n - 1))), device=device)
    return weights.fill_diagonal_(-math.log(dataset_size))


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
        excess = total_correlation(*terms.posterior, dataset_size)
        cost = objective.weight(progress) * (total + (objective.beta - 1) * excess)
    else:
        weights = objective.group_weights(progress, len(kl)).to(kl.device)
        if objective.balance and sizes is not None and objective.weight(progress) < 1:
            weights = weights * balance(terms.kl, sizes)
        cost = objective.beta * (weights * kl).sum()
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
        column = lambda values: torch.tensor([float(value) for value in values], device=device)  # noqa: E731
        correlation = column(o.kind == "total_correlation" for o in objectives)
        betas = column(o.beta for o in objectives)
        self.betas = torch.where(correlation > 0, 1, betas) * column(o.kind != "capacity" for o in objectives)
        self.gamma = self.schedule.gamma * column(o.kind == "capacity" for o in objectives)
        self.capacities = column(o.capacity for o in objectives)
        self.rows = correlation.nonzero()[:, 0]
        self.excess = betas[self.rows] - 1
        latents = torch.tensor(latent_dims, device=device)
        self.mask = (torch.arange(max(latent_dims), device=device) < latents[self.rows, None]).float()
        self.slope, self.target = torch.zeros_like(self.gamma), torch.zeros_like(self.gamma)
        self.share = torch.zeros((), device=device)
        self.set(0.0)

    def set(self, progress: float) -> None:
        """Put in force what holds when this fraction of the training is done."""
        self.share.fill_(self.schedule.weight(progress))
        self.slope.copy_(self.betas * self.share)
        self.target.copy_(self.capacities * min(1.0, progress / self.schedule.ramp))

    def cost(self, kl: Float[Tensor, " models"], posterior: Posterior) -> Float[Tensor, " models"]:
        """What each model pays for its KL, nats per image; every field of the posterior is (models, n, d)."""
        cost = self.slope * kl + self.gamma * (kl - self.target).abs()
        if not len(self.rows):
            return cost
        chosen = (part[self.rows] for part in posterior)
        correlation = total_correlation(*chosen, self.dataset_size, self.mask)
        return cost.index_add(0, self.rows, self.share * self.excess * correlation)
