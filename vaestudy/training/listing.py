"""The runs that are there: a table of their folders, and each of them opened again without the code that trained it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from vaestudy.errors import InputError
from vaestudy.files import project_root
from vaestudy.models import NVAE, VAE, NVAEConfig
from vaestudy.training.run import Run
from vaestudy.words import fixed, label

COLUMNS = ("stage", "model", "β", "seed", "data", "images", "seen", "state", "ELBO, nats", "seconds", "folder")
SETTINGS = ("latent_dim", "network", "channels", "blocks")


def settings_of(config: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run's configuration says in a few words: model, β, seed, data and images to train on."""
    (kind, model), (_, images) = (next(iter(part.items())) for part in config[:2])
    known, recipe = model if isinstance(model, dict) else {}, config[2]
    sizes = ", ".join(f"{name.replace('_dim', 's')} {known[name]}" for name in SETTINGS if name in known)
    data = f"{images['name']} {'x'.join(map(str, images['shape'][1:]))}" if isinstance(images, dict) else "own images"
    about = {"model": f"{kind} ({sizes})" if sizes else kind, "β": float(recipe["objective"]["beta"])}
    return about | {"seed": recipe["seed"], "data": data.strip(), "images": recipe["images"]}


def runs(root: Path | str | None = None) -> pd.DataFrame:
    """A row a run below a folder, the project's `runs` unless another is named; the newest first."""
    folders = sorted(Path(root or project_root() / "runs").rglob("config.json"), key=lambda path: -path.stat().st_mtime)
    rows = []
    for path in folders:
        try:
            rows.append(_row(Run(path.parent, nn.Module())))
        except (OSError, ValueError, LookupError, TypeError, StopIteration, AttributeError):
            rows.append({"state": "damaged", "folder": str(path.parent)})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(run: Run) -> dict[str, Any]:
    row = {"stage": run.path.name.rpartition("-")[0], **settings_of(run.config), "seen": run.images_seen}
    row |= {"state": "finished" if run.finished else "unfinished", "folder": str(run.path)}
    training, provenance = (run.record.get(part, {}) for part in ("training", "provenance"))
    return row | {"ELBO, nats": training.get("elbo_nats"), "seconds": provenance.get("seconds")}


def scores(folder: Path | str) -> dict[str, str]:
    """What was measured of a finished run beside its training: the bound on held-out images and the score card."""
    record = Run(folder, nn.Module()).record
    found = {f"held-out {label(name)}": fixed(value, 3) for name, value in record.get("test", {}).items()}
    for row in record.get("score_card", []):
        known = {name: row[name] for name in ("value", "floor", "ceiling") if isinstance(row[name], float)}
        found[label(row["metric"])] = ", ".join(f"{name} {fixed(value, 3)}" for name, value in known.items())
    return found


def open_run(run: Run | Path | str) -> Run:
    """A run by itself, by its folder, or by the folder's name below `runs`, with its finished weights.

    Raises:
        InputError: there is no such run, it is not finished, or its model is none of this library's.
    """
    if isinstance(run, Run):
        return run
    folder = Path(run) if Path(run).is_dir() else project_root() / "runs" / str(run)
    if not (folder / "record.json").exists():
        raise InputError(f"{run} is no finished run: `python -m vaestudy runs` lists those that are there")
    ((kind, config),) = Run(folder, nn.Module()).config[0].items()
    if kind not in ("VAE", "NVAE"):
        raise InputError(f"{folder} holds a {kind}, which this library cannot build: call fit again and pass its run")
    model = VAE(tuple(config.pop("shape")), **config) if kind == "VAE" else NVAE(NVAEConfig(**config))
    opened = Run(folder, model)
    opened.load()
    return opened
