"""Sweeps: every combination of pressures, latent sizes and seeds as trainings, and what their runs know together."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from vaestudy.errors import InputError
from vaestudy.models.stack import Stack
from vaestudy.models.vae import VAE, gaussian_kl
from vaestudy.training.config import Training
from vaestudy.training.objective import Objective
from vaestudy.training.run import Job, Run

LARGEST_STACK = 2**26  # pixels that many models compute at a time: 256 MiB


@dataclass(frozen=True)
class Grid:
    """Every combination of some values.

    Attributes:
        betas: β of the members with the objective beta or total_correlation.
        latent_dims: numbers of latents M.
        seeds: of the weights, the order of the images and the noise.
        objectives: kinds of Objective.
        capacities: C in nats of the members with the objective capacity (whose β plays no part).

    Raises:
        InputError: if nothing is in the grid, a value comes twice or is out of range.
    """

    betas: Sequence[float | int] = ()
    latent_dims: Sequence[int] = (10,)
    seeds: Sequence[int] = (0,)
    objectives: Sequence[str] = ("beta",)
    capacities: Sequence[float | int] = ()

    def __post_init__(self):
        for field in fields(self):
            values = tuple(getattr(self, field.name))
            if len(set(values)) < len(values):
                raise InputError(f"{field.name} of the grid has a value twice: {values}")
            object.__setattr__(self, field.name, values)
        if not self.objectives or any(not list(self.pressures(kind)) for kind in self.objectives):
            raise InputError("the grid is empty: give betas (or capacities) and objectives at least one value")
        if not self.latent_dims or not self.seeds or min(self.latent_dims) < 1:
            raise InputError("the grid is empty: give latent_dims (1 or more) and seeds at least one value")

    def pressures(self, kind: str) -> Iterator[Objective]:
        """The objectives of one kind, in order."""
        if kind == "capacity":
            return (Objective(kind, capacity=float(capacity)) for capacity in self.capacities)
        return (Objective(kind, beta=float(beta)) for beta in self.betas)

    def jobs(self, images, training: Training, runs_dir: Path | str, **network) -> list[Job]:
        """A training for each member: by objective, then latent size, then pressure, then seed.

        Kind, beta, capacity and seed come from the member, all else from `training` and, for its VAE, from `network`
        (network, width, likelihood ...). `runs_dir` is the root of the members' folders.
        """
        jobs = []
        for kind, latents in itertools.product(self.objectives, self.latent_dims):
            for pressure, seed in itertools.product(self.pressures(kind), self.seeds):
                pressed = {name: getattr(pressure, name) for name in ("kind", "beta", "capacity")}
                own = replace(training, seed=int(seed), objective=replace(training.objective, **pressed))
                model = VAE(images.shape, latent_dim=int(latents), seed=int(seed), **network)
                jobs.append(Job.below(runs_dir, "beta_vae", model, images, own))
        return jobs


def codes(runs: Sequence[Run], images, index=None, *, draws: int = 0, batch: int = 1024) -> list[np.ndarray]:
    """Posterior means (n, d), or `draws` samples for each image (n · draws, d), of every run of a sweep at once."""

    def encode(stack: Stack, x: torch.Tensor) -> torch.Tensor:
        mean, log_std = stack.posterior(x)
        return _drawn(*(part.repeat_interleave(draws, 1) for part in (mean, log_std))) if draws else mean

    return [np.concatenate(parts) for parts in by_stack(runs, encode, images, batch, index)]


def bounds(runs: Sequence[Run], images, batch: int = 500) -> list[dict]:
    """Of every run of a sweep at once what `Run.bound` says in nats, and what `Run.kl_by_latent` does."""

    def sums(stack: Stack, x: torch.Tensor) -> torch.Tensor:
        posterior = stack.posterior(x)
        nll = -stack.log_prob(stack.decoder(_drawn(*posterior)), x)
        return torch.cat([nll[..., None], gaussian_kl(*posterior)], 2).double().sum(1)

    found = []
    for nll, *kl in (np.sum(parts, axis=0) / len(images) for parts in by_stack(runs, sums, images, batch)):
        found.append({"elbo_nats": -nll - sum(kl), "nll_nats": nll, "kl_nats": sum(kl), "kl_by_latent": kl})
    return found


def _drawn(mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """A draw for each posterior; the noise is that of each run by itself."""
    return mean + log_std.exp() * torch.randn(mean.shape[1:], device=mean.device)


def by_stack(
    runs: Sequence[Run], function: Callable[[Stack, torch.Tensor], torch.Tensor], images, batch: int, index=None
) -> list[tuple[np.ndarray, ...]]:
    """What a function of many models and their images (k, n, c, h, w) gives for each model, batch by batch.

    Models of one latent size are computed at once, as many as keep a batch within `LARGEST_STACK` numbers.
    """
    found, sizes = {}, np.array([run.model.config.latent_dim for run in runs])
    at_once = max(1, LARGEST_STACK // (images.dims * batch))
    for size in set(sizes):
        (alike,) = np.nonzero(sizes == size)
        for members in np.split(alike, range(at_once, len(alike), at_once)):
            stack = Stack([runs[i].model for i in members]).to(runs[0].device)

            def of_each(x: torch.Tensor, stack: Stack = stack) -> torch.Tensor:
                return function(stack, x.expand(len(stack), *x.shape))

            found |= zip(members, runs[0].by_batch(of_each, images, batch, index), strict=True)
    return [found[i] for i in range(len(runs))]
