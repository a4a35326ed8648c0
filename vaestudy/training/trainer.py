"""Training one model, or many. Progress is counted in images; the same call again resumes or returns."""

import hashlib
import itertools
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import torch

from vaestudy.errors import InputError
from vaestudy.files import remove_unfinished, write_json
from vaestudy.models.vae import VAE
from vaestudy.training import checkpoint, cost, distributed, memory
from vaestudy.training.config import Training
from vaestudy.training.loop import Diverged, Loop
from vaestudy.training.parallel import side_by_side
from vaestudy.training.progress import progress_bar
from vaestudy.training.run import Job, Run, describe, noise_from, owned
from vaestudy.training.steps import ModelStep, StackStep

Device = torch.device | str | None


def fit(model: torch.nn.Module, images, training: Training, run_dir: Path | str, *, device: Device = None) -> Run:
    """Train `model` on `images`, or go on with, or return, the run that `run_dir` already holds.

    Args:
        model: any module that answers `x -> Terms`.
        images: an ImageSet of the model's shape.
        training: sizes, optimiser and objective.
        run_dir: the run's folder (see `run.folder`).
        device: where to train; by default CUDA if there is one.

    Raises:
        InputError: the folder holds another run or cannot be written, the images do not fit, or the training diverges.
    """
    job, device = Job(model, images, training, run_dir), device_of(device)
    run = job.run
    check(job, distributed.world())
    with owned([run] if distributed.rank() == 0 and not run.finished else []):
        # Nobody else changes the folder from here on, so that all processes see the same.
        distributed.barrier()
        check(job, distributed.world())
        if not run.finished:
            part = f"{training.batch // training.micro_batches} images, a micro batch"
            with explained(f"{part}: raise micro_batches, or lower batch or image_size", device):
                step = ModelStep(model.to(device), images.to(device), training, device)
                Loop(step, [job], run.path).run()
        elif distributed.rank() == 0:
            checkpoint.remove(run.path)  # a kill has left them at the very end
    distributed.barrier()
    run.load()
    return run


def fit_many(jobs: Sequence[Job], *, device: Device = None, at_once: int | None = None) -> list[Run]:
    """`fit` for many: VAEs of one architecture as one program, other models side by side on the cores of a CPU.

    Every member of a sweep is the same run as its model trained alone, with the same first weights, order of images,
    noise, folder, files and numbers, and each way finds what the other has trained. Under torchrun each process trains
    its share of the VAEs (their folders must be the same for all machines) and waits for the others, so that every
    process returns all runs.

    Args:
        jobs: what to train; the answer is their finished runs in this order.
        device: where to train; by default CUDA if there is one.
        at_once: VAEs trained as one program; by default what fits into half of the free memory.

    Raises:
        InputError: as `fit` does, or two jobs share a folder.
    """
    if at_once is not None and at_once < 1:
        raise InputError(f"at_once must be 1 or more models, not {at_once}")
    if len({Path(job.run_dir) for job in jobs}) < len(jobs):
        raise InputError("two of the jobs are one and the same: give each of them once")
    for job in jobs:
        check(job)
    device, runs = device_of(device), [job.run for job in jobs]
    alone = partial(fit, device=device)
    stackable = [job for job in jobs if stacks(job)]
    for _, alike in itertools.groupby(sorted(stackable, key=kind), key=kind):
        own = [job for i, job in enumerate(alike) if i % distributed.world() == distributed.rank()]
        with owned([job.run for job in own if not job.run.finished]):
            for part, folder in _parts(own, device, at_once):
                _train_stack(part, folder, device)
        for job in own:  # alone a training has ways to come to an end that a stack has not
            if distributed.world() == 1 and not job.run.finished:
                alone(*job)
    while not all(job.run.finished for job in stackable):  # torchrun ends all processes if one is lost
        time.sleep(0.2)
    rest = [job for job in jobs if not (stacks(job) or job.run.finished)]
    if len(rest) > 1 and memory.usable_cores() > 1 and device.type == "cpu" and distributed.world() == 1:
        with _watched(rest):
            side_by_side(alone, rest)
    else:  # with CUDA, or under torchrun, they take turns
        for job in rest:
            alone(*job)
    for run in runs:
        run.model.to(device)
        run.load()
    return runs


def check(job: Job, processes: int = 1) -> None:
    """Raise InputError for what cannot be trained, before anything is written."""
    model, images, training, _ = job
    if (job.run.path / "config.json").exists() and job.run.config != describe(model, images, training):
        raise InputError(f"{job.run.path} holds a run with another configuration: choose another folder")
    if job.run.finished:
        return
    parts, batch, objective = training.micro_batches, min(training.batch, len(images)), training.objective
    least = 2 if objective.kind == "total_correlation" else 1
    if parts % processes:
        raise InputError(f"{processes} processes cannot share {parts} micro batches: set micro_batches to a multiple")
    if tuple(images.shape) != tuple(getattr(model, "shape", images.shape)):
        raise InputError(f"the images are {tuple(images.shape)}, the model wants {tuple(model.shape)}")
    if len(images) < 2:
        raise InputError(f"training needs 2 images or more, not {len(images)}")
    if batch < least * parts:
        raise InputError(f"a batch of {batch} has no {least} images for each of its {parts} parts: lower micro_batches")
    if training.samples > 1 and not isinstance(model, VAE):
        raise InputError(f"samples must be 1 for a {type(model).__name__}: only VAEs take several noise samples a step")
    if (objective.balance or objective.group_kl_anneal) and not hasattr(model, "group_shapes"):
        raise InputError("balance and group_kl_anneal need a model that names its groups by group_shapes")
    if training.sync_norm and getattr(getattr(model, "config", None), "checkpoint", None) == "norm_act":
        raise InputError("sync_norm recomputes whole cells or nothing: set checkpoint to cell or none")
    if hasattr(getattr(model, "likelihood", None), "check"):
        model.likelihood.check(images.batch(slice(0, 100)))


def device_of(device: Device) -> torch.device:
    """The device asked for, or CUDA if there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


@contextmanager
def explained(what: str, device: torch.device) -> Iterator[None]:
    """A training: `what` is named where memory runs out, and the global generators are left as they were."""
    if device.type == "cpu":
        memory.keep_freed()
    with memory.explain_oom(what), noise_from(0, device):
        yield


def stacks(job: Job) -> bool:
    """Whether a training can share one program with others of its kind."""
    own, pressed = job.training, job.training.objective
    more = own.ema or own.grad_skip_factor or own.micro_batches > 1 or pressed.balance or pressed.spectral
    return type(job.model) is VAE and not more


def kind(job: Job) -> str:
    """What stacked trainings have in common: all but the seed and the pressure."""
    unpressed = replace(job.training.objective, kind="beta", beta=1.0, capacity=0.0)
    shared = replace(job.training, seed=0, objective=unpressed)
    return json.dumps(describe(replace(job.model.config, seed=0), job.images, shared), sort_keys=True)


def _parts(jobs: Sequence[Job], device: torch.device, at_once: int | None) -> Iterator[tuple[list[Job], Path]]:
    """Unfinished jobs as they are trained together, and where their state is kept: first those that have one.

    A state that also names models that are not asked for now is of no use once the others were trained without them.
    """
    everyone = {job.run.path.name: job for job in jobs}
    unfinished = {name for name, job in everyone.items() if not job.run.finished}
    known = sorted(path for root in {job.run.path.parent for job in jobs} for path in root.glob("sweep-*/runs.json"))
    states, left = {path.parent: json.loads(path.read_text()) for path in known}, set(unfinished)
    for state, names in states.items():
        if everyone.keys() >= set(names) and left & set(names) and checkpoint.load(state) is not None:
            yield [everyone[name] for name in names], state
            left -= set(names)
    if left:
        some = everyone[min(left)]
        tc = any(everyone[name].training.objective.kind == "total_correlation" for name in left)
        at_once = at_once or cost.models_at_once(some.model, some.training, device, total_correlation=tc)
        for names in np.array_split(sorted(left), math.ceil(len(left) / at_once)):
            digest = hashlib.sha256(",".join(names).encode()).hexdigest()[:12]
            yield [everyone[name] for name in names], some.run.path.parent / f"sweep-{digest}"
    for state, names in states.items():
        if unfinished & set(names) or everyone.keys() >= set(names):
            _remove(state)


def _train_stack(jobs: Sequence[Job], folder: Path, device: torch.device) -> None:
    """Train some VAEs as one program; those that diverge are left without a record."""
    remove_unfinished(folder)
    write_json(folder / "runs.json", [job.run.path.name for job in jobs])
    models, trainings = [job.model for job in jobs], [job.training for job in jobs]
    less = "take a smaller image_size or network, or a lower at_once of fit_many"
    retried_alone = suppress(Diverged) if distributed.world() == 1 else nullcontext()
    with retried_alone, explained(f"{len(jobs)} models at once: {less}", device):
        step = StackStep(models, trainings, jobs[0].images.to(device), device)
        Loop(step, jobs, folder).run()
    _remove(folder)


def _remove(state: Path) -> None:
    """Take a stack's state away; what names its models goes last."""
    checkpoint.remove(state)
    shutil.rmtree(state, ignore_errors=True)


@contextmanager
def _watched(jobs: Sequence[Job]) -> Iterator[None]:
    """Show by their logs how far trainings in other processes are."""
    ended = Event()

    def watch() -> None:
        over = False
        while not over:
            over = ended.wait(1)
            bar.update(sum(job.run.images_seen for job in jobs) - bar.n)

    with progress_bar(jobs, sum(job.training.images for job in jobs), 0) as bar, ThreadPoolExecutor(1) as side:
        side.submit(watch)
        try:
            yield
        finally:
            ended.set()
