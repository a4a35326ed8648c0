"""Many trainings: VAEs of one architecture as one program, everything else side by side on the cores.

Every member of a sweep is the same run as its model trained alone: the same first weights, order of images and noise,
the same folder, files and numbers. So a sweep finds members that were trained alone, and the trainer finds a sweep's.
"""

import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from vaestudy.errors import InputError
from vaestudy.files import remove_unfinished, write_json
from vaestudy.models.stack import Stack
from vaestudy.models.vae import VAE
from vaestudy.stopping import Terminated, stop_requests
from vaestudy.training import checkpoint, distributed, memory
from vaestudy.training.config import Training
from vaestudy.training.loop import Diverged, Loop
from vaestudy.training.objective import Objective, beta_norm
from vaestudy.training.progress import progress_bar
from vaestudy.training.run import Run, describe, folder, owned
from vaestudy.training.steps import StackStep
from vaestudy.training.trainer import Job, check, device_of, fit, unchanged_noise


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

        Args:
            images: an ImageSet.
            training: for all of them; kind, beta, capacity and seed come from the member.
            runs_dir: root of the members' folders.
            network: other settings of VAE: network, width, likelihood, ...
        """
        jobs = []
        for kind, latents in itertools.product(self.objectives, self.latent_dims):
            for pressure, seed in itertools.product(self.pressures(kind), self.seeds):
                pressed = {name: getattr(pressure, name) for name in ("kind", "beta", "capacity")}
                own = replace(training, seed=int(seed), objective=replace(training.objective, **pressed))
                model = VAE(images.shape, latent_dim=int(latents), seed=int(seed), **network)
                jobs.append(Job(model, images, own, folder(runs_dir, "beta_vae", model, images, own)))
        return jobs


def fit_many(
    jobs: Sequence[Job],
    *,
    device: torch.device | str | None = None,
    at_once: int | None = None,
    checkpoint_seconds: float | int | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[Run]:
    """`fit` for many: VAEs of one architecture as one program, other models side by side on the cores of a CPU.

    Under torchrun each process trains its share of the VAEs (their folders must be the same for all machines) and waits
    for the others, so that every process returns all runs.

    Args:
        jobs: what to train; two jobs may not share a folder.
        device: where to train; by default CUDA if there is one.
        at_once: VAEs trained as one program; by default what fits into half of the free memory.
        checkpoint_seconds: time between two checkpoints; by default 30 s on a CPU, 5 minutes on CUDA.
        on_step: called after each step of stacked VAEs with the number of steps done.

    Returns:
        One finished run for each job, in their order.

    Raises:
        InputError: as `fit` does.
    """
    if at_once is not None and at_once < 1:
        raise InputError(f"at_once must be 1 or more models, not {at_once}")
    if len({Path(job.run_dir) for job in jobs}) < len(jobs):
        raise InputError("two of the jobs are one and the same: give each of them once")
    for job in jobs:
        check(job)
    device, runs = device_of(device), [Run(job.run_dir, job.model) for job in jobs]
    stackable = [job for job in jobs if stacks(job)]
    for _, alike in itertools.groupby(sorted(stackable, key=_kind), key=_kind):
        own = [job for i, job in enumerate(alike) if i % distributed.world() == distributed.rank()]
        with owned([run for run in map(_run, own) if not run.finished]):
            for part, path in _parts(own, device, at_once):
                _train_stack(part, path, device, checkpoint_seconds, on_step)
        for job in own:  # alone a training has ways to come to an end that a stack has not
            if distributed.world() == 1 and not _run(job).finished:
                fit(*job, device=device, checkpoint_seconds=checkpoint_seconds)
    _wait_for([Run(job.run_dir, job.model) for job in stackable])
    _fit_side_by_side([job for job in jobs if not stacks(job)], device, checkpoint_seconds)
    for run in runs:
        run.model.to(device)
        run.load()
    return runs


def _run(job: Job) -> Run:
    return Run(job.run_dir, job.model)


def stacks(job: Job) -> bool:
    """Whether a training can share one program with others of its kind."""
    own = job.training
    plain = not (own.ema or own.grad_skip_factor or own.micro_batches > 1)
    return type(job.model) is VAE and plain and not (own.objective.balance or own.objective.spectral)


def _kind(job: Job) -> str:
    """What stacked trainings have in common: all but the seed and the pressure."""
    unpressed = replace(job.training.objective, kind="beta", beta=1.0, capacity=0.0)
    shared = replace(job.training, seed=0, objective=unpressed)
    return json.dumps(describe(replace(job.model.config, seed=0), job.images, shared), sort_keys=True)


def _parts(jobs: Sequence[Job], device: torch.device, at_once: int | None) -> Iterator[tuple[list[Job], Path]]:
    """Unfinished jobs as they are trained together, and where their state is kept: first those that have one."""
    left = {Path(job.run_dir).name: job for job in jobs if not _run(job).finished}
    for state in sorted({path.parent for job in jobs for path in Path(job.run_dir).parent.glob("sweep-*/runs.json")}):
        names = json.loads((state / "runs.json").read_text())
        everyone = {Path(job.run_dir).name: job for job in jobs}
        if set(names) <= set(everyone) and not set(names) & set(left):  # a kill has left it at the very end
            _remove(state)
        elif set(names) <= set(everyone) and checkpoint.load(state) is not None:
            yield [everyone[name] for name in names], state
            left = {name: job for name, job in left.items() if name not in names}
    if not left:
        return
    some = next(iter(left.values()))
    tc = any(job.training.objective.kind == "total_correlation" for job in left.values())
    at_once = at_once or models_at_once(some.model, some.training, device, total_correlation=tc)
    for names in np.array_split(sorted(left), math.ceil(len(left) / at_once)):
        digest = hashlib.sha256(",".join(names).encode()).hexdigest()[:12]
        yield [left[name] for name in names], Path(some.run_dir).parent / f"sweep-{digest}"


def _train_stack(jobs: Sequence[Job], path: Path, device: torch.device, seconds: float | int | None, on_step) -> None:
    """Bring some VAEs to their end at once, from the start or from where an interruption has left them."""
    runs = [_run(job) for job in jobs]
    for job, run in zip(jobs, runs, strict=True):
        write_json(run.path / "config.json", check(job))
    remove_unfinished(path)
    write_json(path / "runs.json", [run.path.name for run in runs])
    with memory.explain_oom(f"{len(jobs)} models at once: set at_once below it"), unchanged_noise(device):
        images, trainings = jobs[0].images.to(device), [job.training for job in jobs]
        step = StackStep([job.model for job in jobs], trainings, images, device)
        try:
            Loop(step, runs, trainings, images, device, path, seconds, on_step).run()
        except Diverged:  # of some models, and the others are recorded
            if distributed.world() > 1:
                raise
    _remove(path)


def _remove(state: Path) -> None:
    """Take a stack's state away; what names its models goes last."""
    checkpoint.remove(state)
    shutil.rmtree(state, ignore_errors=True)


def models_at_once(model: VAE, training: Training, device: torch.device, *, total_correlation: bool = False) -> int:
    """How many models of this size are trained at once within half of the free memory, at least one."""
    weights = sum(p.numel() for p in model.parameters())
    # The tensors kept for the backward pass, as much again for their gradients, and images of their own.
    images = (
        training.batch * training.samples * (2 * memory.needed(model, training).per_image + 8 * math.prod(model.shape))
    )
    pairs = 6 * 4 * training.batch**2 * model.config.latent_dim if total_correlation else 0
    # Weight, gradient, two moments and half-precision copies.
    return max(1, memory.free_bytes(device) // 2 // (weights * 20 + images + pairs))


def _wait_for(runs: Sequence[Run]) -> None:
    """Until the other processes have finished their share: torchrun ends all of them if one is lost."""
    while not all(run.finished for run in runs):
        time.sleep(0.2)


def _fit_side_by_side(jobs: Sequence[Job], device: torch.device, seconds: float | int | None) -> None:
    """One thread each: measured on a small convolutional network, two cores took 49 ms a step together and 62 alone, so
    two trainings on a core each end long before two that take turns. With CUDA, or under torchrun, they take turns."""
    waiting = [job for job in jobs if not _run(job).finished]
    cores = min(len(waiting), memory.usable_cores())
    if cores < 2 or device.type != "cpu" or distributed.world() > 1:
        for job in waiting:
            fit(*job, device=device, checkpoint_seconds=seconds)
        return
    with TemporaryDirectory() as folder, stop_requests() as requested:
        stop = Path(folder) / "stop"
        try:
            with _watched(waiting, requested, stop):
                Parallel(cores, backend="loky")(delayed(_fit_alone)(job, seconds, os.getpid(), stop) for job in waiting)
        finally:
            if requested:
                raise requested[0](f"stopped {len(waiting)} models: the same command goes on there")


def _fit_alone(job: Job, seconds: float | None, parent: int, stop: Path) -> None:
    """A training that stops, as at SIGTERM, once the file `stop` is there or the process `parent` is not."""

    def on_step(_: int) -> None:
        if stop.exists() or os.getppid() != parent:
            signal.raise_signal(signal.SIGTERM)

    torch.set_num_threads(1)
    with suppress(Terminated, KeyboardInterrupt):
        fit(*job, device="cpu", checkpoint_seconds=seconds, on_step=on_step)


@contextmanager
def _watched(jobs: Sequence[Job], requested: list, stop: Path) -> Iterator[None]:
    """Show by their logs how far trainings in other processes are, and pass on to them that they are to stop."""
    runs, ended = [_run(job) for job in jobs], threading.Event()

    def watch(bar) -> None:
        over = False
        while not over:
            over = ended.wait(1)
            if requested:
                stop.touch()
            bar.update(sum(run.images_seen for run in runs) - bar.n)

    with progress_bar(f"{len(jobs)} models", sum(job.training.images for job in jobs), 0) as bar:
        thread = threading.Thread(target=watch, args=(bar,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@torch.no_grad()
def codes(runs: Sequence[Run], images, index=None, batch: int = 512) -> list[np.ndarray]:
    """Posterior means (n, d) of every run of a sweep, those of one latent size computed at once."""
    index, found = np.arange(len(images)) if index is None else np.asarray(index), {}
    sizes = [run.model.config.latent_dim for run in runs]
    for size in set(sizes):
        members = [i for i, own in enumerate(sizes) if own == size]
        stack = Stack([runs[i].model for i in members]).to(runs[0].device)
        means = np.empty((len(members), len(index), size), dtype=np.float32)
        for start in range(0, len(index), batch):
            x = images.batch(index[start : start + batch]).to(runs[0].device)
            means[:, start : start + batch] = stack.posterior(x.expand(len(members), *x.shape))[0].cpu().numpy()
        found |= dict(zip(members, means, strict=True))
    return [found[i] for i in range(len(runs))]


def table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row a run of VAEs: what distinguishes it, and what its training ended at, in nats per image."""
    rows = []
    for run in runs:
        record, model = run.record, run.model.config
        training = record["config"][2]
        row = {name: training["objective"][name] for name in ("kind", "beta", "capacity")}
        row |= {"latent_dim": model.latent_dim, "seed": training["seed"]}
        row["beta_norm"] = beta_norm(row["beta"], model.latent_dim, math.prod(model.shape))
        rows.append(row | record["training"])
    return pd.DataFrame(rows)
