"""What every training has in common: steps, a log and checkpoints between them, and what is recorded at the end."""

import platform
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaestudy.files import replacing, write_json
from vaestudy.training import memory
from vaestudy.training import run as runs
from vaestudy.training.config import Training, learning_rate
from vaestudy.training.progress import progress_bar


class Loop(ABC):
    """Steps until all images are seen. Heirs say what a step is, and what is logged and saved."""

    optimizer: torch.optim.Optimizer

    def __init__(self, training: Training, name: str, models: int = 1):
        self.training, self.name, self.models = training, name, models
        self.step, self.seconds = 0, 0.0
        self.writer = ThreadPoolExecutor(1)
        self.writing: Future | None = None

    def run_to_end(self) -> None:
        """Train, then write what training gave. An interruption leaves whole checkpoints behind."""
        try:
            self.train()
            self.save()
            self.written()
            self.finish()
        finally:
            self.writer.shutdown()

    def train(self) -> None:
        """Step until all images are seen."""
        training, images = self.training, self.training.batch * self.models
        log_steps = max(1, training.log_every // training.batch)
        save_steps = max(1, training.save_every // training.batch)
        with progress_bar(self.name, training.steps * images, self.step * images) as bar:
            since = time.perf_counter()
            while self.step < training.steps:
                self.advance()
                bar.update(images)
                last = self.step == training.steps
                if self.step % log_steps == 0 or last:
                    since, before = time.perf_counter(), since
                    self.seconds += since - before
                    self.log()
                if self.step % save_steps == 0 and not last:
                    self.save()

    def set_learning_rate(self) -> None:
        """The optimiser's rate for the step to come."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, self.step / self.training.steps)

    def checkpoint(self, path: Path, state: dict[str, Any]) -> None:
        """Write a state beside the steps that follow; a whole file takes the place of the one before."""
        self.written()
        self.writing = self.writer.submit(_write, path, on_host(state))

    def written(self) -> None:
        """Wait for the checkpoint that is being written, and raise what went wrong with it."""
        if self.writing is not None:
            self.writing.result()
            self.writing = None

    @abstractmethod
    def advance(self) -> None:
        """One step."""

    @abstractmethod
    def log(self) -> None:
        """A line on the steps since the one before."""

    @abstractmethod
    def save(self) -> None:
        """A `checkpoint` to go on from."""

    @abstractmethod
    def finish(self) -> None:
        """The trained weights, and the result that makes a run a finished one."""


def on_host(state: Any) -> Any:
    """A copy of a state in the memory of the CPU, which training no longer changes."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {name: on_host(value) for name, value in state.items()}
    return type(state)(map(on_host, state)) if isinstance(state, list | tuple) else state


def _write(path: Path, state: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        torch.save(state, temporary)


def log_row(
    training: Training, step: int, loss: float, nll: float, kl: list[float], seconds: float, skipped: int = 0
) -> dict:
    """One line of a run's log: means in nats per image since the line before, and where the training stands."""
    row = {"images_seen": step * training.batch, "loss": loss, "nll_nats": nll}
    row |= {"kl_nats": sum(kl), "elbo_nats": -nll - sum(kl), "kl_nats_by_group": kl}
    row |= {"learning_rate": learning_rate(training, (step - 1) / training.steps)}
    return row | {"seconds": round(seconds, 3), "steps_skipped": skipped}


def conclude(
    run: runs.Run,
    training: Training,
    images,
    device: torch.device,
    cast: torch.autocast,
    seconds: float,
    processes: int = 1,
    **about,
) -> None:
    """Write the provenance and, last of all, the result that makes a run a finished one."""
    about = {"device": device_name(device), "seed": training.seed, "seconds": round(seconds, 1), **about}
    about |= {"data_checksum": images.checksum, "precision": "bf16" if cast._enabled else "fp32"}
    about |= {"processes": processes, "peak_memory_gib": round(memory.peak(device) / 2**30, 2)}
    write_json(run.path / "provenance.json", runs.provenance(**about))
    history = run.history
    last = {name: float(history[name][-1]) for name in ("nll_nats", "kl_nats", "elbo_nats")}
    seen = training.steps * training.batch
    speed = seen / max(seconds, 1e-9)
    speeds = {"images_per_second": round(speed, 1), "images_per_second_per_process": round(speed / processes, 1)}
    run.record(train=last, images_seen=seen, **speeds)


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
