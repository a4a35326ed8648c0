"""A run's folder: configuration, log, weights, results and provenance. Written whole or not at all."""

import hashlib
import json
import math
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import vaestudy
from vaestudy.errors import InputError
from vaestudy.files import canonical, replacing, write_json


def folder(root: Path | str, stage: str, *parts: Any) -> Path:
    """`<root>/<stage>-<hash of the parts>`: the same configuration always finds the same folder.

    A part is anything with `.config` (a model), `.describe()` (images), a dataclass or plain JSON.
    """
    digest = hashlib.sha256(json.dumps(describe(*parts), sort_keys=True).encode()).hexdigest()
    return Path(root) / f"{stage}-{digest[:12]}"


def describe(*parts: Any) -> list:
    """What identifies a run: the configuration of each of its parts, as JSON."""
    known = []
    for part in parts:
        if hasattr(part, "config"):
            known.append({type(part).__name__: canonical(part.config)})
        elif hasattr(part, "describe"):
            known.append({type(part).__name__: canonical(part.describe())})
        else:
            known.append(canonical(part))
    return known


def provenance(**more: Any) -> dict:
    """Commit, versions and machine of what runs now."""
    source = Path(vaestudy.__file__).parent
    git = ["git", "-C", str(source)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() or None,
        "modified": bool(dirty.stdout.strip()),
        "vaestudy": vaestudy.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **more,
    }


class Run:
    """A run's folder with its model, ready to be looked at.

    Attributes:
        path: the folder.
        model: the trained model in evaluation mode.
    """

    def __init__(self, path: Path, model: nn.Module):
        self.path = Path(path)
        self.model = model

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
    def provenance(self) -> dict:
        return json.loads((self.path / "provenance.json").read_text())

    @property
    def result(self) -> dict:
        return json.loads((self.path / "result.json").read_text())

    @property
    def finished(self) -> bool:
        return (self.path / "result.json").exists()

    @property
    def history(self) -> dict[str, np.ndarray]:
        """The log as one array for each quantity, in the order of training."""
        lines = (self.path / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}

    def append(self, row: dict) -> None:
        """Add one line to the log."""
        with (self.path / "metrics.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")

    @property
    def images_seen(self) -> int:
        """How far the training has come after its log, which another process may be writing."""
        lines = self._whole_lines()
        return json.loads(lines[-1])["images_seen"] if lines else 0

    def keep_log_until(self, images_seen: int) -> None:
        """Drop the lines that a checkpoint at `images_seen` does not know of."""
        kept = [line for line in self._whole_lines() if json.loads(line)["images_seen"] <= images_seen]
        with replacing(self.path / "metrics.jsonl") as temporary:
            temporary.write_text("".join(kept))

    def _whole_lines(self) -> list[str]:
        path = self.path / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [line for line in lines if line.endswith("\n")]

    def summary(self) -> dict[str, Any]:
        """One row of a table of provenance."""
        known = self.provenance
        versions = {name: known[name] for name in ("vaestudy", "python", "torch", "numpy")}
        commit = (known["commit"] or "unknown")[:10] + ("+" if known["modified"] else "")
        about = {"run": self.path.name, "commit": commit, "device": known["device"], "seed": known["seed"]}
        about |= {"seconds": known["seconds"], "peak memory, GiB": known["peak_memory_gib"]}
        return about | {"data": known["data_checksum"][:12], "versions": versions}

    def record(self, **values: Any) -> dict:
        """Add numbers to result.json, and return all of it."""
        result = {**(self.result if self.finished else {}), **canonical(values)}
        write_json(self.path / "result.json", result)
        return result

    def codes(self, images: Any, index: Any = None, batch: int = 1024) -> tuple[np.ndarray, np.ndarray | None]:
        """Posterior means (n, d) beside the true factors (n, k), or None where no factors are known."""
        groups, factors = self.codes_by_group(images, index, batch)
        return np.concatenate(groups, axis=1), factors

    @torch.no_grad()
    def codes_by_group(
        self, images: Any, index: Any = None, batch: int = 1024
    ) -> tuple[list[np.ndarray], np.ndarray | None]:
        """The same for each latent group apart, top first; maps of latents are pooled to their mean over space."""
        index = np.arange(len(images)) if index is None else np.asarray(index)
        parts = []
        for start in range(0, len(index), batch):
            means = self.model.encode(images.batch(index[start : start + batch]).to(self.device))
            parts.append([(m.flatten(2).mean(2) if m.ndim > 2 else m).cpu().numpy() for m in means])
        groups = [np.concatenate(group) for group in zip(*parts, strict=True)]
        return groups, None if images.factors is None else images.factors.values(index)

    @torch.no_grad()
    def bound(self, images: Any, batch: int = 500, seed: int = 0) -> dict[str, float]:
        """The ELBO and its parts over a set of images: means in nats per image, and bits per dimension."""
        device, totals = self.device, torch.zeros(2, dtype=torch.float64)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for start in range(0, len(images), batch):
                terms = self.model(images.batch(slice(start, start + batch)).to(device))
                totals += torch.stack([terms.nll.double().sum(), terms.kl.double().sum()]).cpu()
        nll, kl = (totals / len(images)).tolist()
        bits = (nll + kl) / math.log(2) / math.prod(self.model.shape)
        return {"elbo_nats": -nll - kl, "nll_nats": nll, "kl_nats": kl, "bits_per_dim": bits}

    @torch.no_grad()
    def log_weights(self, images: Any, samples: int, batch: int = 25, seed: int = 0) -> np.ndarray:
        """log p(x, z) - log q(z|x) at `samples` draws of z for each image, nats (n, samples)."""
        device, parts = self.device, []
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for start in range(0, len(images), batch):
                x = images.batch(slice(start, start + batch)).to(device)
                draws = [self.model.log_weights(x, min(100, samples - k)) for k in range(0, samples, 100)]
                parts.append(torch.cat(draws, 1).cpu())
        return torch.cat(parts).double().numpy()

    def load(self) -> None:
        """Put the finished weights into the model."""
        try:
            weights = load_file(self.path / "model.safetensors")
        except Exception as error:
            raise InputError(f"{self.path / 'model.safetensors'} cannot be read: {error}") from error
        self.model.load_state_dict(weights)
        self.model.eval()


def save_weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Weights in safetensors form; every tensor is stored contiguous and on its own."""
    with replacing(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, temporary)
