"""Many β-VAEs trained as one program: a grid over the objective, its pressure, the latent size and the seed.

Every member is the same run as its model trained alone: the same first weights, order of images and noise, the same
folder, files and numbers. So a sweep finds members that were trained alone, and the trainer finds a sweep's.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vaestudy import metrics
from vaestudy.errors import InputError
from vaestudy.models.stack import Stack
from vaestudy.models.vae import VAE
from vaestudy.training import distributed as workers
from vaestudy.training import run as runs
from vaestudy.training import stacked
from vaestudy.training.config import Training
from vaestudy.training.objective import Objective, beta_norm


@dataclass(frozen=True)
class Member:
    """One model of a grid: what distinguishes it from the others."""

    kind: str
    latent_dim: int
    beta: float
    capacity: float
    seed: int

    def model(self, shape: tuple[int, int, int], **network) -> VAE:
        """The member's model, as it is before training."""
        return VAE(shape, latent_dim=self.latent_dim, seed=self.seed, **network)

    def training(self, shared: Training) -> Training:
        """The shared training with the member's own seed and objective."""
        own = replace(shared.objective, kind=self.kind, beta=self.beta, capacity=self.capacity)
        return replace(shared, seed=self.seed, objective=own)


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
        for name in ("betas", "latent_dims", "seeds", "objectives", "capacities"):
            values = tuple(getattr(self, name))
            if len(set(values)) < len(values):
                raise InputError(f"{name} of the grid has a value twice: {values}")
            object.__setattr__(self, name, values)
        for kind in self.objectives:
            pressures = "capacities" if kind == "capacity" else "betas"
            for name in (pressures, "latent_dims", "seeds"):
                if not getattr(self, name):
                    raise InputError(f"the grid is empty: give {name} at least one value")
        if not self.members:
            raise InputError("the grid is empty: give objectives at least one value")
        for member in self.members:
            Objective(member.kind, member.beta, capacity=member.capacity)
            if member.latent_dim < 1:
                raise InputError(f"latent_dims must be 1 or more, not {member.latent_dim}")

    @property
    def members(self) -> tuple[Member, ...]:
        """All members: by objective, then latent size, then pressure, then seed."""
        plain, found = Objective(), []
        for kind, latents in itertools.product(self.objectives, self.latent_dims):
            if kind == "capacity":
                pressures = [(plain.beta, float(capacity)) for capacity in self.capacities]
            else:
                pressures = [(float(beta), plain.capacity) for beta in self.betas]
            for (beta, capacity), seed in itertools.product(pressures, self.seeds):
                found.append(Member(kind, int(latents), beta, capacity, int(seed)))
        return tuple(found)


def fit(
    images,
    grid: Grid | Sequence[Grid],
    training: Training,
    runs_dir: Path | str,
    *,
    chunk: int | None = None,
    device: torch.device | str | None = None,
    on_step: Callable[[int], None] | None = None,
    **network,
) -> list[runs.Run]:
    """Train every member of a grid that is not trained yet, as many at once as memory holds.

    Under torchrun each process trains its share of the members (`runs_dir` must be one folder for all machines) and
    waits for the others, so that every process returns the whole grid.

    Args:
        images: an ImageSet.
        grid: the members; those of several grids are trained side by side as well.
        training: for all of them; kind, beta, capacity and seed come from the member.
        runs_dir: root of the members' folders (see `member_folder`).
        chunk: models trained at once; by default what fits into half of the free memory.
        device: where to train; by default CUDA if there is one (of LOCAL_RANK under torchrun).
        on_step: called after each step with the number of steps done by the models then in training.
        network: other settings of VAE: network, width, likelihood, ...

    Returns:
        One finished run for each member, in the order of `grid.members`, one grid after another.

    Raises:
        InputError: settings that a sweep does not offer or that cannot be, a member that diverged, or too little
            memory.
    """
    objective = training.objective
    if training.ema or training.skip_above or training.shards > 1 or objective.balance or objective.spectral:
        raise InputError("a sweep trains without ema, skip_above, shards, balance and spectral: leave them out")
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk must be 1 or more models, not {chunk}")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    grids = [grid] if isinstance(grid, Grid) else list(grid)
    members = [member for one in grids for member in one.members]
    if len(set(members)) < len(members):
        raise InputError("a member stands in several of the grids: give each of them once")
    models = [member.model(images.shape, **network) for member in members]
    found = [
        runs.Run(member_folder(runs_dir, member, model, images, training), model)
        for member, model in zip(members, models, strict=True)
    ]
    share = range(workers.rank(), len(members), workers.world())
    if not all(found[i].finished for i in share):
        # Neighbours see the same images, and among those with the same noise.
        share = sorted(share, key=lambda i: (members[i].seed, members[i].latent_dim))
        largest = max(models, key=lambda model: model.config.latent_dim)
        chunk = chunk or stacked.models_at_once(largest, training, {member.kind for member in members}, device)
        for part in np.array_split(share, math.ceil(len(share) / chunk)):
            own = [(found[i], members[i].training(training)) for i in part]
            stacked.train(own, images.to(device), device, on_step)
    _wait_for(found)
    for run in found:
        run.model.to(device)
        run.load()
    return found


def member_folder(runs_dir: Path | str, member: Member, model: VAE, images, training: Training) -> Path:
    """Where a member's run is, trained in a sweep or alone."""
    return runs.folder(runs_dir, "beta_vae", model, images, member.training(training))


@torch.no_grad()
def codes(found: Sequence[runs.Run], images, index=None, batch: int = 512) -> list[np.ndarray]:
    """Posterior means (n, d) of every run of a sweep, all computed at once."""
    stack = Stack([run.model for run in found])
    device = stack.weights[0].device
    index = np.arange(len(images)) if index is None else np.asarray(index)
    latents = max(run.model.config.latent_dim for run in found)
    means = np.empty((len(stack), len(index), latents), dtype=np.float32)
    for start in range(0, len(index), batch):
        x = images.batch(index[start : start + batch]).to(device)
        means[:, start : start + batch] = stack.posterior(x[None])[0].cpu().numpy()
    return [own[:, : run.model.config.latent_dim] for own, run in zip(means, found, strict=True)]


def rows(found: Sequence[runs.Run]) -> list[dict]:
    """One row a run: what distinguishes it, and what its training ended at, in nats per image."""
    table = []
    for run in found:
        model, training = run.model.config, run.config[2]
        objective = training["objective"]
        row = {name: objective[name] for name in ("kind", "beta", "capacity")}
        row |= {"latent_dim": model.latent_dim, "seed": training["seed"]}
        row["beta_norm"] = beta_norm(row["beta"], model.latent_dim, math.prod(model.shape))
        table.append(row | run.result["train"])
    return table


def agreement(found: Sequence[runs.Run], images, seed: int) -> float:
    """How far models that differ by their seed have found the same latents: the median of their UDR scores."""
    with torch.no_grad():
        x = images.batch(slice(0, 2000))
        kls = [run.model.kl_per_latent(x.to(run.device))[0].mean(0).cpu().numpy() for run in found]
    return float(np.median(metrics.udr(codes(found, images), kls, seed=seed).scores))


def _wait_for(found: Sequence[runs.Run]) -> None:
    """Until the other processes have finished their share: torchrun ends all of them if one is lost."""
    while not all(run.finished for run in found):
        time.sleep(0.2)
