"""The trainer: one loop for every model. Progress is counted in images; the same call again resumes or returns."""

import math
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vaestudy.errors import InputError
from vaestudy.files import write_json
from vaestudy.models.layers import NormAct
from vaestudy.models.spectral import SpectralPenalty
from vaestudy.training import distributed as workers
from vaestudy.training import memory
from vaestudy.training import run as runs
from vaestudy.training.config import Order, Training, autocast, compiled, make_optimizer, mix, seed_noise
from vaestudy.training.loop import Loop, conclude, log_row
from vaestudy.training.objective import Parts, balance_sizes, bound
from vaestudy.training.progress import progress_bar


def fit(
    model: nn.Module,
    images,
    training: Training,
    run_dir: Path | str,
    *,
    device: torch.device | str | None = None,
    on_step: Callable[[int, Parts], None] | None = None,
) -> runs.Run:
    """Train `model` on `images`, or go on with, or return, the run that `run_dir` already holds.

    Args:
        model: any model that answers `x -> Terms`.
        images: an ImageSet of the model's shape.
        training: sizes, optimiser and objective.
        run_dir: the run's folder (see `runs.folder`).
        device: where to train; by default CUDA if there is one.
        on_step: called after each step with the step's number and its parts.

    Raises:
        InputError: if the folder holds another run, cannot be written, or the images do not fit the model.
    """
    run = runs.Run(Path(run_dir), model)
    config = runs.describe(model, images, training)
    if (run.path / "config.json").exists() and run.config != config:
        raise InputError(f"{run.path} holds a run with another configuration: choose another folder")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if run.finished:
        run.load()
        return run
    if training.shards % workers.world():
        raise InputError(f"{workers.world()} processes cannot share {training.shards} shards: set shards to a multiple")
    if tuple(images.shape) != tuple(model.shape):
        raise InputError(f"the images are {tuple(images.shape)}, the model wants {tuple(model.shape)}")
    if training.sync_norm and getattr(getattr(model, "config", None), "checkpoint", None) == "norm_act":
        raise InputError("sync_norm recomputes whole cells or nothing: set checkpoint to cell or none")
    if hasattr(getattr(model, "likelihood", None), "check"):
        model.likelihood.check(images.batch(slice(0, 100)))
    if workers.rank() == 0:
        write_json(run.path / "config.json", config)
    workers.barrier()
    model.to(device)
    if device.type == "cpu":
        memory.keep_freed()
    parts = f"a batch of {training.batch} in {training.shards} parts of {training.batch // training.shards}"
    untouched = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with untouched, memory.enough_for(f"{parts}: raise shards, or lower batch or image_size"):
        _Loop(run, images.to(device), training, device, on_step).run_to_end()
    workers.barrier()
    run.load()
    return run


Job = tuple[nn.Module, Any, Training, Path | str]


def fit_together(jobs: Sequence[Job]) -> list[runs.Run]:
    """`fit` for several (model, images, training, run_dir), side by side on the cores of a CPU.

    One thread each: measured on a small convolutional network, two cores took 49 ms a step together and 62 alone, so
    two trainings on a core each end long before two that take turns. With CUDA, or under torchrun, they take turns.
    """
    waiting = [job for job in jobs if not runs.Run(job[3], job[0]).finished]
    lanes = min(len(waiting), os.cpu_count() or 1)
    if lanes > 1 and not torch.cuda.is_available() and workers.world() == 1:
        # Fresh processes: a fork of one whose thread pools have started may never wake up.
        with ProcessPoolExecutor(lanes, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            _watch([pool.submit(_fit_alone, job) for job in waiting], waiting)
    return [fit(*job) for job in jobs]


def _one_thread() -> None:
    torch.set_num_threads(1)


def _fit_alone(job: Job) -> None:
    model, images, training, run_dir = job
    fit(model, images, training, run_dir, device="cpu")


def _watch(running: Collection[Future], jobs: Sequence[Job]) -> None:
    """Show by their logs how far trainings in other processes are, until all have ended; raise what one raised."""
    logs = [runs.Run(path, model) for model, _, _, path in jobs]
    images = sum(training.steps * training.batch for _, _, training, _ in jobs)
    with progress_bar(f"{len(jobs)} models", images, 0) as bar:
        while running:
            ended, running = wait(running, timeout=1, return_when=FIRST_COMPLETED)
            for future in ended:
                future.result()
            bar.update(sum(run.images_seen for run in logs) - bar.n)


class _Loop(Loop):
    """The state of one training, and the steps that change it."""

    def __init__(self, run, images, training, device, on_step):
        super().__init__(training, run.path.name)
        self.run, self.model, self.images = run, run.model.train(), images
        self.device, self.on_step = device, on_step
        self.channels_last = any(p.ndim == 4 for p in self.model.parameters())
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(training, self.parameters)
        average = get_ema_multi_avg_fn(training.ema)
        self.ema = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True) if training.ema else None
        self.order = Order(len(images), training.batch, training.seed, device)
        self.cast = autocast(training, self.model, device)
        objective = training.objective
        self.penalty = SpectralPenalty(self.model) if objective.spectral else None
        self.sizes = balance_sizes(self.model.group_shapes) if objective.balance else None
        self.shards = range(workers.rank(), training.shards, workers.world())
        for norm in (module for module in self.model.modules() if isinstance(module, NormAct)):
            norm.gather = workers.gather if training.sync_norm and workers.world() > 1 else None
        self.net = self.model
        if workers.world() > 1:
            self.net = DistributedDataParallel(self.model, [device] if device.type == "cuda" else None)
        # What a CPU trains is small enough to be compiled whole, which pays more there.
        if training.compile and device.type != "cpu" and hasattr(self.model, "compile_parts"):
            self.model.compile_parts()
        elif training.compile:
            self.net = compiled(self.net, device)
        self.skipped, self.norm = 0, None
        self.sums: list[Tensor] = []
        self.resume()

    def advance(self) -> None:
        """One step; all of its randomness is a function of (seed, step, shard)."""
        training = self.training
        self.set_learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        shares = self.order(self.step).tensor_split(training.shards)
        total = torch.zeros((), device=self.device)
        for shard in self.shards:
            seed_noise(mix(training.seed, self.step, 1 + shard))
            # Gradients meet once, after this process's last part.
            alone = workers.world() > 1 and shard != self.shards[-1]
            with self.net.no_sync() if alone else nullcontext():
                parts = self.cost(shares[shard])
                (parts.loss / len(self.shards)).backward()
            total = total + torch.cat([parts.loss[None], parts.nll[None], parts.kl]).detach() / len(self.shards)
        if self.keeps_step():
            self.optimizer.step()
            if self.ema is not None:
                self.ema.update_parameters(self.model)
        self.step += 1
        self.sums.append(total)
        if self.on_step is not None:
            self.on_step(self.step, parts)

    def cost(self, index: Tensor) -> Parts:
        """What the images at `index` cost."""
        x = self.images.batch(index)
        if self.training.flip:
            mirrored = torch.rand(len(x), 1, 1, 1, device=self.device) < 0.5
            x = torch.where(mirrored, x.flip(3), x)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with self.cast:
            terms = self.net(x)
        objective, progress = self.training.objective, self.step / self.training.steps
        parts = bound(terms, objective, progress, len(self.images), self.sizes)
        if self.penalty is None:
            return parts
        return parts._replace(loss=parts.loss + objective.penalty(progress) * self.penalty())

    def keeps_step(self) -> bool:
        """Adaptive gradient skipping: leave out a step that is not finite or far above the running norm."""
        limit = self.training.skip_above
        if not limit:
            return True
        norm = float(nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None]))
        keeps = math.isfinite(norm) and (self.norm is None or norm < limit * self.norm)
        if math.isfinite(norm):
            # A refused norm still moves the mean, so that a lasting change of scale is followed.
            self.norm = norm if self.norm is None else 0.98 * self.norm + 0.02 * min(norm, 10 * self.norm)
        self.skipped += not keeps
        return keeps

    def log(self) -> None:
        loss, nll, *kl = workers.mean(torch.stack(self.sums).mean(0)).tolist()
        self.sums.clear()
        row = log_row(self.training, self.step, loss, nll, kl, self.seconds, self.skipped)
        if not math.isfinite(loss) and not self.training.skip_above:
            seen = row["images_seen"]
            raise InputError(f"training diverged after {seen} images: lower learning_rate or set skip_above")
        if workers.rank() == 0:
            self.run.append(row)

    def save(self) -> None:
        """A checkpoint; every process could write it, and one does."""
        if workers.rank() > 0:
            return
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "norm": self.norm,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "penalty": None if self.penalty is None else self.penalty.state_dict(),
            "sums": list(self.sums),
        }
        self.checkpoint(self.run.path / "state.pt", state)

    def resume(self) -> None:
        path = self.run.path / "state.pt"
        if path.exists():
            self.restore(torch.load(path, map_location=self.device, weights_only=True))
        if workers.rank() == 0:
            self.run.keep_log_until(self.step * self.training.batch)

    def restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.penalty is not None:
            self.penalty.load_state_dict(state["penalty"])
        self.step, self.seconds, self.skipped = state["step"], state["seconds"], state["skipped"]
        self.norm, self.sums = state["norm"], list(state["sums"])

    def finish(self) -> None:
        if workers.rank() > 0:
            return
        best = self.model if self.ema is None else self.ema.module
        runs.save_weights(self.run.path / "model.safetensors", best.state_dict())
        conclude(self.run, self.training, self.images, self.device, self.cast, self.seconds, workers.world())
