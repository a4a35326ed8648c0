"""Training one model. Progress is counted in images; the same call again resumes or returns."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from vaestudy.errors import InputError
from vaestudy.files import write_json
from vaestudy.models.vae import VAE
from vaestudy.training import checkpoint, distributed, memory
from vaestudy.training.config import Training
from vaestudy.training.loop import Loop
from vaestudy.training.run import Run, describe, owned
from vaestudy.training.steps import ModelStep


class Job(NamedTuple):
    """A model, what it is trained on and how, and the folder of the run (see `run.folder`)."""

    model: nn.Module
    images: Any
    training: Training
    run_dir: Path | str


def fit(
    model: nn.Module,
    images,
    training: Training,
    run_dir: Path | str,
    *,
    device: torch.device | str | None = None,
    checkpoint_seconds: float | int | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Run:
    """Train `model` on `images`, or go on with, or return, the run that `run_dir` already holds.

    Args:
        model: any module that answers `x -> Terms`.
        images: an ImageSet of the model's shape.
        training: sizes, optimiser and objective.
        run_dir: the run's folder (see `run.folder`).
        device: where to train; by default CUDA if there is one.
        checkpoint_seconds: time between two checkpoints; by default 30 s on a CPU, 5 minutes on CUDA.
        on_step: called after each step with the number of steps done.

    Raises:
        InputError: if the folder holds another run or cannot be written, the images do not fit the model, or the
            training diverges.
    """
    job, run = Job(model, images, training, run_dir), Run(run_dir, model)
    device, config = device_of(device), check(job, distributed.world())
    with owned([run] if distributed.rank() == 0 and not run.finished else []):
        # Nobody else changes the folder from here on, so that all processes see the same.
        distributed.barrier()
        check(job, distributed.world())
        if not run.finished:
            _train(run, config, images, training, device, checkpoint_seconds, on_step)
        elif distributed.rank() == 0:
            checkpoint.remove(run.path)  # a kill has left them at the very end
    distributed.barrier()
    run.load()
    return run


def _train(run: Run, config: list, images, training: Training, device: torch.device, seconds, on_step) -> None:
    if distributed.rank() == 0:
        write_json(run.path / "config.json", config)
    distributed.barrier()
    run.model.to(device)
    part = f"{training.batch // training.micro_batches} images, a micro batch"
    with memory.explain_oom(f"{part}: raise micro_batches, or lower batch or image_size"), unchanged_noise(device):
        images = images.to(device)
        step = ModelStep(run.model, images, training, device)
        Loop(step, [run], [training], images, device, run.path, seconds, on_step).run()


def check(job: Job, processes: int = 1) -> list:
    """The configuration of a run; raises InputError for what cannot be trained, before anything is written."""
    run, config = Run(job.run_dir, job.model), describe(job.model, job.images, job.training)
    if (run.path / "config.json").exists() and run.config != config:
        raise InputError(f"{run.path} holds a run with another configuration: choose another folder")
    if not run.finished:
        _check(job.model, job.images, job.training, processes)
    return config


def _check(model: nn.Module, images, training: Training, processes: int) -> None:
    parts, batch = training.micro_batches, min(training.batch, len(images))
    least = 2 if training.objective.kind == "total_correlation" else 1
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
    if training.sync_norm and getattr(getattr(model, "config", None), "checkpoint", None) == "norm_act":
        raise InputError("sync_norm recomputes whole cells or nothing: set checkpoint to cell or none")
    if hasattr(getattr(model, "likelihood", None), "check"):
        model.likelihood.check(images.batch(slice(0, 100)))


def device_of(device: torch.device | str | None) -> torch.device:
    """The device asked for, or CUDA if there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


@contextmanager
def unchanged_noise(device: torch.device) -> Iterator[None]:
    """Training draws from the global generators, and leaves them as they were."""
    if device.type == "cpu":
        memory.keep_freed()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
