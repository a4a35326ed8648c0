"""The evidence lower bound as a loss, and the ways in which the study presses on its KL term.

Losses take any leading shape: none for one model, one row a model where many are trained side by side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from vaestudy.errors import InputError, check_bounds, check_choices

KINDS = ("beta", "capacity", "total_correlation")
OfModels = Float[Tensor, "*models"]
OfGroups = Float[Tensor, "*models groups"]
OfLatents = Float[Tensor, "*models n d"]


@dataclass(frozen=True)
class Objective:
    """How the parts of the bound are weighed against each other.

    Attributes:
        kind: beta: nll + β KL (Higgins et al., 2017, eq. 4). capacity: nll + γ |KL - C|, C rising linearly to
            `capacity` nats (Burgess et al., 2018, eq. 8). total_correlation: β on the total correlation alone
            (β-TCVAE, Chen et al., 2018, eq. 4 with α = γ = 1).
        beta: 0 or more; 1 is the plain VAE.
        warmup: fraction of the training over which the KL weight rises linearly from 0 to beta.
        capacity: C at the end, nats.
        gamma: γ, beside C.
        capacity_ramp: fraction of the training over which C rises.
        min_kl_weight: the warm-up starts at this share of beta (NVAE: 1e-4).
        balance: while the warm-up lasts, groups that carry little for their size are charged less (NVAE, app. A).
        group_kl_anneal: how many times dearer the last group is at the start of the warm-up than at its end, so that
            the top groups come into use first; 0 leaves all groups alike.
        spectral: λ on the spectral norms of the convolutions and the scales of batch norm (NVAE, sec. 3.2).
        spectral_start: λ at the start, from which it falls to `spectral` along with the warm-up; 0 keeps it constant.

    Raises:
        InputError: an unknown kind, or a number out of its range.
    """

    kind: str = "beta"
    beta: float = 1.0
    warmup: float = 0.0
    capacity: float = 25.0
    gamma: float = 1000.0
    capacity_ramp: float = 0.8
    min_kl_weight: float = 0.0
    balance: bool = False
    group_kl_anneal: float = 0.0
    spectral: float = 0.0
    spectral_start: float = 0.0

    def __post_init__(self):
        for name in ("beta", "warmup", "capacity", "gamma", "capacity_ramp"):
            # 4 and 4.0 are one objective, and one run.
            object.__setattr__(self, name, float(getattr(self, name)))
        check_choices(self, kind=KINDS)
        check_bounds(self, beta="[0, inf)", warmup="[0, 1]", capacity="[0, inf)", gamma="[0, inf)", spectral="[0, inf)")
        check_bounds(self, capacity_ramp="(0, 1]", spectral_start="[0, inf)")
        if self.spectral_start and not self.spectral:
            raise InputError("spectral_start falls to spectral, so both must be above 0, or spectral_start 0")

    def kl_weight(self, progress: float) -> float:
        """Share of beta that is in force when this fraction of the training is done."""
        if self.warmup == 0:
            return 1.0
        return max(self.min_kl_weight, min(1.0, (progress - self.min_kl_weight) / self.warmup))

    def group_weights(self, progress: float, groups: int) -> list[float]:
        """Share of beta that each group is charged, top first: with `group_kl_anneal` the top rises from 0 to 1 and
        the last falls from `group_kl_anneal` to 1."""
        share = self.kl_weight(progress)
        if not self.group_kl_anneal:
            return [share] * groups
        depths = [group / max(groups - 1, 1) for group in range(groups)]
        return [share ** (1 - depth) * self.group_kl_anneal ** (depth * (1 - share)) for depth in depths]

    def spectral_weight(self, progress: float) -> float:
        """λ in force: from `spectral_start` to `spectral`, log-linearly in the share of beta (NVAE, app. A)."""
        if not self.spectral_start:
            return self.spectral
        share = self.kl_weight(progress)
        return math.exp((1 - share) * math.log(self.spectral_start) + share * math.log(self.spectral))


class Coefficients(NamedTuple):
    """What is charged at one moment."""

    kl: OfGroups
    gamma: OfModels
    capacity: OfModels
    total_correlation: OfModels


class LossTerms(NamedTuple):
    """What one batch costs: `loss` is minimised, the others are means over the batch in nats per image."""

    loss: OfModels
    nll: OfModels
    kl: OfGroups


def coefficients(objectives: Sequence[Objective], progress: float, groups: int = 1) -> Coefficients:
    """The coefficients of several models, one row each, when this fraction of the training is done (on the CPU)."""
    rows = []
    for own in objectives:
        pressure = {"beta": own.beta, "capacity": 0.0, "total_correlation": 1.0}[own.kind]
        gamma = own.gamma if own.kind == "capacity" else 0.0
        capacity = own.capacity * min(1.0, progress / own.capacity_ramp)
        excess = (own.beta - 1) * own.kl_weight(progress) if own.kind == "total_correlation" else 0.0
        rows.append([*(pressure * share for share in own.group_weights(progress, groups)), gamma, capacity, excess])
    table = torch.tensor(rows)
    return Coefficients(table[:, :groups], *table[:, groups:].unbind(1))


def elbo_loss(nll: OfModels, kl: OfGroups, charged: Coefficients, excess: OfModels | float) -> LossTerms:
    """nll + Σ weight · KL + γ |KL - C| + weight · total correlation (`excess`), from means in nats per image."""
    price = (charged.kl * kl).sum(-1) + charged.gamma * (kl.sum(-1) - charged.capacity).abs()
    return LossTerms(nll + price + charged.total_correlation * excess, nll, kl)


def balance_sizes(group_shapes: Sequence[tuple[int, int, int]]) -> Float[Tensor, " groups"]:
    """α: how much of the KL each group is meant to carry, the area of its maps over the number of groups with it."""
    areas = [height * width for _, height, width in group_shapes]
    sizes = torch.tensor([area / areas.count(area) for area in areas])
    return sizes / sizes.min()


def balance_weights(kl: Float[Tensor, "groups n"], sizes: Float[Tensor, " groups"]) -> Float[Tensor, " groups"]:
    """γ: weights of mean 1 that charge a group in proportion to its KL for its size, without gradient (NVAE, app. A).

    A group that carries little is charged little, so that it may come into use.
    """
    share = (kl.detach().abs().mean(1) + 0.01) / sizes
    return share / share.mean()


def total_correlation(mean: OfLatents, log_std: OfLatents, sample: OfLatents, dataset_size: int) -> OfModels:
    """Total correlation of q(z) in nats, estimated from a batch with stratified weights.

    Chen et al. (2018), eq. 2 and App. C.2: of a batch of B images out of N the image that made the sample weighs 1/N,
    and each other one (N - 1) / (N (B - 1)), so that every row sums to one and B = N is exact.
    """
    return _TotalCorrelation.apply(mean, log_std, sample, dataset_size)


class _TotalCorrelation(torch.autograd.Function):
    """log q(z) - Σ log q(z_j) over every pair of images in the batch, its gradient computed beside it.

    With s the distance of sample i from image j in standard deviations, log q_ij = -s²/2 - log std_j, whose derivative
    is the weight of j in the joint density less that in the marginal one. By autograd a step of the night's objectives,
    30 models of which 10 need it, takes 1.09 to 1.25 of the time (AMD EPYC, family 26, two threads; four runs).
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
