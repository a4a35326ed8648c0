"""A run's folder: configuration, log, weights, and the record of what came out. Written whole or not at all."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save

from vaestudy.errors import InputError
from vaestudy.files import canonical, locked, remove_unfinished, replacing, write_json, writing
from vaestudy.training.config import Training

LARGEST = 2**25  # numbers in a batch of images that is looked at: 128 MiB


def folder(root: Path | str, stage: str, *parts: Any) -> Path:
    """`<root>/<stage>-<hash>`, the same for the same parts: a model, an ImageSet, dataclasses or plain JSON."""
    digest = hashlib.sha256(json.dumps(describe(*parts), sort_keys=True).encode()).hexdigest()
    return Path(root) / f"{stage}-{digest[:12]}"


def describe(*parts: Any) -> list:
    """The configuration of each part of a run, as JSON; a model without one is known by its class and first weights."""
    known = []
    for part in parts:
        if hasattr(part, "config"):
            known.append({type(part).__name__: canonical(part.config)})
        elif hasattr(part, "describe"):
            known.append({type(part).__name__: canonical(part.describe())})
        elif isinstance(part, torch.nn.Module):
            known.append({type(part).__name__: _digest(part)})
        else:
            known.append(canonical(part))
    return known


def _digest(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class Run:
    """A run's folder, `path`, with its trained `model` in evaluation mode."""

    FILES = ("config.json", "metrics.jsonl", "model.safetensors", "record.json")

    def __init__(self, path: Path | str, model: torch.nn.Module):
        self.path, self.model = Path(path), model

    def __repr__(self) -> str:
        state = "finished" if self.finished else f"{self.images_seen:,} images seen"
        return f"Run({type(self.model).__name__} in {self.path}, {state})"

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def config(self) -> list:
        return json.loads((self.path / "config.json").read_text())

    @property
    def finished(self) -> bool:
        return (self.path / "record.json").exists()

    @property
    def record(self) -> dict:
        """What came out in the end: "config", "provenance", "training" (of the log's last line), and what was added."""
        return json.loads((self.path / "record.json").read_text()) if self.finished else {}

    def update_record(self, **values: Any) -> None:
        """Add entries to the record."""
        write_json(self.path / "record.json", self.record | canonical(values))

    @property
    def recipe(self) -> dict:
        """How the model was trained: the fields of its `Training`, as the record has them."""
        return self.record["config"][2]

    @property
    def provenance(self) -> dict:
        return self.record["provenance"]

    @property
    def log(self) -> list[dict]:
        """The whole lines of the log, one an interval of training; see `Loop.row` for what is in them."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @property
    def history(self) -> pd.DataFrame:
        """The log as a table."""
        return pd.DataFrame(self.log)

    @property
    def images_seen(self) -> int:
        """How far the training has come after its log, which another process may be writing."""
        return max((row["images_seen"] for row in self.log), default=0)

    def append(self, row: dict) -> None:
        """Add one line to the log."""
        path = self.path / "metrics.jsonl"
        with writing(path), path.open("a") as log:
            log.write(json.dumps(row) + "\n")

    def truncate_log(self, images_seen: int) -> None:
        """Drop the lines that a checkpoint at `images_seen` does not know of."""
        kept = [json.dumps(row) + "\n" for row in self.log if row["images_seen"] <= images_seen]
        with replacing(self.path / "metrics.jsonl") as temporary:
            temporary.write_text("".join(kept))

    def summary(self) -> dict[str, Any]:
        """One row of a table of provenance."""
        known, training = self.provenance, self.record["training"]
        commit = (known["commit"] or "unknown")[:10] + ("+" if known["modified"] else "")
        about = {"run": self.path.name, "commit": commit, "processor": known["cpu"]}
        about |= {name: known[name] for name in ("device", "precision", "seed", "seconds")}
        about |= {"peak memory, GiB": known["peak_memory_gib"]}
        troubles = {"steps left out": "steps_skipped", "times gone back": "rollbacks"}
        about |= {name: training[key] for name, key in troubles.items() if training.get(key)}
        versions = {name: known[name] for name in ("vaestudy", "python", "torch", "numpy")}
        return about | {"checksum": known["data_checksum"][:12], "versions": versions}

    def codes(
        self, images: Any, index: Any = None, *, draws: int = 0, batch: int = 1024
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Posterior means (n, d), or `draws` samples for each image (n · draws, d), beside the true factors (n, k)."""
        groups, factors = self.codes_by_group(images, index, draws=draws, batch=batch)
        return np.concatenate(groups, axis=1), factors

    def codes_by_group(
        self, images: Any, index: Any = None, *, draws: int = 0, pooled: bool = True, batch: int = 1024
    ) -> tuple[list[np.ndarray], np.ndarray | None]:
        """The same for each latent group apart, top first.

        Maps of latents are pooled to their mean over space, or flattened whole. Factors are None where none are known.
        """

        def encode(x: torch.Tensor) -> list[torch.Tensor]:
            latents = self.model.encode(x, draw=draws) if draws else self.model.encode(x)
            return [group.flatten(2).mean(2) if pooled and group.ndim > 2 else group.flatten(1) for group in latents]

        groups = [np.concatenate(group) for group in self.by_batch(encode, images, batch, index)]
        rows = slice(None) if index is None else index
        return groups, None if images.factors is None else images.factors.values(rows).repeat(max(draws, 1), axis=0)

    def kl_by_latent(self, images: Any, index: Any = None) -> list[np.ndarray]:
        """Mean KL in nats of each latent variable over some images, one array a group, top first.

        The KL of a lower group depends on what is drawn above it.
        """

        def sums(x: torch.Tensor) -> list[torch.Tensor]:
            return [group.double().sum(0) for group in self.model.kl_per_latent(x)]

        count = len(images) if index is None else len(index)
        return [sum(parts) / count for parts in self.by_batch(sums, images, 500, index)]

    def bound(self, images: Any, batch: int = 500) -> dict[str, float]:
        """The ELBO and its parts over a set of images: means in nats per image, and bits per dimension."""

        def sums(x: torch.Tensor) -> list[torch.Tensor]:
            return [part.double().sum() for part in self.model(x)[:2]]

        nll, kl = (float(sum(parts)) / len(images) for parts in self.by_batch(sums, images, batch))
        bits = (nll + kl) / math.log(2) / math.prod(images.shape)
        return {"elbo_nats": -nll - kl, "nll_nats": nll, "kl_nats": kl, "bits_per_dim": bits}

    def log_weights(self, images: Any, samples: int, batch: int = 25) -> np.ndarray:
        """log p(x, z) - log q(z|x) at `samples` draws of z for each image, nats (n, samples)."""

        def weights(x: torch.Tensor) -> list[torch.Tensor]:
            draws = [self.model.log_weights(x, min(100, samples - k)) for k in range(0, samples, 100)]
            return [torch.cat(draws, 1).double()]

        batch = min(batch, LARGEST // (min(100, samples) * math.prod(images.shape)))
        return np.concatenate(self.by_batch(weights, images, batch)[0])

    @torch.no_grad()
    def by_batch(self, function: Callable, images: Any, batch: int, index: Any = None) -> list[tuple[np.ndarray, ...]]:
        """The tensors that `function` lists for each batch of images: for each place in the list a tuple over batches.

        A batch has at most `LARGEST` numbers, 170 colour images of side 256. Each call draws the same noise.
        """

        def arrays(rows: np.ndarray) -> list[np.ndarray]:
            return [tensor.cpu().numpy() for tensor in function(images.batch(rows).to(self.device))]

        index = np.arange(len(images)) if index is None else np.asarray(index)
        batch = max(1, min(batch, LARGEST // math.prod(images.shape)))
        with noise_from(0, self.device):
            return list(zip(*map(arrays, np.split(index, range(batch, len(index), batch))), strict=True))

    def load(self) -> None:
        """Put the finished weights into the model."""
        try:
            weights = load_file(self.path / "model.safetensors")
        except Exception as error:
            raise InputError(f"{self.path / 'model.safetensors'} cannot be read: {error}") from error
        self.model.load_state_dict(weights)
        # As it was trained: a forward pass of an NVAE on a CPU takes half the time.
        self.model.eval().to(memory_format=torch.channels_last)

    def save_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Weights in safetensors form; every tensor is stored contiguous and on its own."""
        with replacing(self.path / "model.safetensors") as temporary:
            whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
            temporary.write_bytes(save(whole))  # `save_file` has an error of its own for a full disk


class Job(NamedTuple):
    """A model, what it is trained on and how, and the folder of the run (see `folder`)."""

    model: torch.nn.Module
    images: Any
    training: Training
    run_dir: Path | str

    @classmethod
    def below(cls, root: Path | str, stage: str, model: torch.nn.Module, images: Any, training: Training) -> "Job":
        """A training in the folder of its configuration."""
        return cls(model, images, training, folder(root, stage, model, images, training))

    @property
    def run(self) -> Run:
        return Run(self.run_dir, self.model)


@contextmanager
def noise_from(seed: int, device: torch.device) -> Iterator[None]:
    """Inside the block noise follows from the seed alone; the generators are then left as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def owned(runs: Sequence[Run]) -> Iterator[None]:
    """Own the folders of some runs: a second process waits, and says for which one. A lock dies with its owner.

    Raises:
        InputError: a folder that cannot be written or locked.
    """
    with ExitStack() as stack:
        for run in sorted(runs, key=lambda run: str(run.path)):
            with writing(run.path):
                run.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(run.path / ".lock", f"trains {run.path}"))
                remove_unfinished(run.path)
        yield
