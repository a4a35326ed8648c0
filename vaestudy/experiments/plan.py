"""What a stage would do, before it does any of it: for `python -m vaestudy train STAGE --dry-run`."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from types import ModuleType
from typing import Any

import pandas as pd
import torch

from vaestudy import data
from vaestudy.data import ImageSet, cache
from vaestudy.errors import InputError
from vaestudy.experiments import common
from vaestudy.settings import Settings
from vaestudy.training import Job, memory
from vaestudy.training.config import autocast
from vaestudy.training.cost import GPU, Cost, cost, measured, step_memory
from vaestudy.training.trainer import device_of, stacks

DOWNLOADS = ("mnist", "fashion_mnist", "cifar10", "celeba")
ASSUMED_IMAGES = 10_000  # of a set whose number of images only its files know


def plan(settings: Settings, experiment: ModuleType) -> dict[str, Any]:
    """Settings, data and trainings of a stage as JSON; nothing is drawn, read or trained for it that is not there."""
    found, about = _images(settings, experiment)
    with torch.device("meta"):
        named = experiment.jobs(settings, found)
    device = device_of(None)
    rows = [_row(name, jobs, device, about["found"]) for name, all_jobs in named.items() for jobs in _alike(all_jobs)]
    resolved = {"stage": settings.stage, **dataclasses.asdict(settings), "sizes": common.sizes(settings)}
    here = {"device": "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)}
    here |= {"free_gb": round(memory.free_bytes(device) / 1e9, 2)}
    totals = {f"{name}_seconds": round(sum(row[f"{name}_seconds"] for row in rows), 1) for name in ("here", "gpu")}
    return resolved | here | {"data": about, "trainings": rows, **totals}


def _images(settings: Settings, experiment: ModuleType) -> tuple[ImageSet, dict[str, Any]]:
    """The images to train on if they are at hand, or a set of their shape without data; and what is known of them."""
    try:
        with cache.only_found():
            found = experiment.train_images(settings)
        return found, {"name": found.name, "shape": found.shape, "images": len(found), "found": True}
    except InputError as error:
        found = _without_data(settings, experiment)
        about = {"name": found.name, "shape": found.shape, "images": len(found), "found": False, "missing": str(error)}
        return found, about | {"command": _command(found.name, found.shape[1], settings)}


def _without_data(settings: Settings, experiment: ModuleType) -> ImageSet:
    """As many images as the set to train on has, of their shape and without data."""
    name = getattr(experiment, "dataset", lambda own: own.dataset)(settings)
    side = getattr(experiment, "image_side", common.image_side)(settings)
    info = data.about(name, settings.data_dir or None)
    shape = (info.channels, *[info.check(side)] * 2)
    count = data.count(name, settings.data_dir or None)["train"] or ASSUMED_IMAGES
    return ImageSet(name, shape, torch.empty(count, *shape, dtype=torch.uint8, device="meta"))


def check_memory(settings: Settings, experiment: ModuleType) -> None:
    """Raise InputError for trainings that the free memory cannot hold, before any data are drawn or read for them.

    VAEs of one kind share a program, as many as fit; other models are trained side by side on the cores of a CPU.
    """
    device, images = device_of(None), _without_data(settings, experiment)
    with torch.device("meta"):
        jobs = [job for of in experiment.jobs(settings, images).values() for job in of]
    stacked, apart = [], []
    for alike in _alike(jobs):
        fixed, kept = step_memory(alike[0].model, alike[0].training, len(images))
        one = fixed + kept / (1 + autocast(alike[0].training, alike[0].model, device)._enabled)
        (stacked if stacks(alike[0]) else apart).extend([one] * len(alike))
    at_once = memory.usable_cores() if device.type == "cpu" else 1
    needed, free = max([*stacked, sum(sorted(apart)[-at_once:])]), memory.free_bytes(device)
    if needed <= free:
        return
    with suppress(InputError), cache.only_found():  # what is trained already needs no memory
        found = experiment.jobs(settings, experiment.train_images(settings))
        if all(job.run.finished for of in found.values() for job in of):
            return
    raise InputError(
        f"training on images of side {images.shape[1]} would take about {needed / 1e9:.1f} GB of memory, and "
        f"{free / 1e9:.1f} GB are free: choose a smaller image_size, network or profile"
    )


def _command(name: str, side: int, settings: Settings) -> str:
    """What draws or fetches a data set, or says where its files belong."""
    info = data.about(name)
    if not (info.how_to_get.startswith("drawn here") or name in DOWNLOADS):
        return info.how_to_get
    more = ", download=True" if name in DOWNLOADS else ""
    more += f", data_dir={settings.data_dir!r}" if settings.data_dir else ""
    return f'python -c "from vaestudy import data; data.load({name!r}, image_size={side}{more})"'


def _alike(jobs: list[Job]) -> Iterator[list[Job]]:
    """Trainings that cost the same, together: they differ in seed and pressure alone."""

    def kind(job: Job) -> str:
        objective = replace(job.training.objective, kind="beta", beta=1.0, capacity=0.0)
        return repr((replace(job.model.config, seed=0), replace(job.training, seed=0, objective=objective)))

    for _, alike in itertools.groupby(sorted(jobs, key=kind), key=kind):
        yield list(alike)


def _row(name: str, jobs: list[Job], device: torch.device, known: bool) -> dict[str, Any]:
    first, together = jobs[0], stacks(jobs[0])
    counted = cost(first.model, first.training, len(first.images), models=len(jobs) if together else 1)
    halved = autocast(first.training, first.model, device)._enabled
    half_on_gpu = first.training.precision != "fp32"
    programs = 1 if together else len(jobs)
    return {
        "training": name,
        "models": len(jobs),
        "as_one_program": together and len(jobs) > 1,
        "images": first.training.images,
        "batch": min(first.training.batch, len(first.images)),
        "steps": counted.steps,
        "parameters": counted.parameters,
        "multiply_adds_per_step": counted.flops / 2,
        "gb_per_step": round(counted.bytes(halved) / 1e9, 4),
        "memory_gb": round(counted.memory_bytes(halved) / 1e9, 4),
        "here_seconds": round(programs * _seconds(counted, _rates(device, halved), halved), 1),
        "gpu_seconds": round(programs * _seconds(counted, GPU, half_on_gpu), 1),
        "folders": [str(job.run_dir) for job in jobs] if known else [],
    }


def _seconds(counted: Cost, rates: Any, halved: bool) -> float:
    return counted.steps * counted.step_seconds(rates, halved)


_rates = functools.cache(measured)


def text(planned: dict[str, Any]) -> str:
    """The plan for a person."""
    about, names = planned["data"], common.STAGES[planned["stage"]].__dataclass_fields__
    lines = [f"{planned['stage']}, profile {planned['profile']}: nothing is trained", "", "settings"]
    lines += [f"  {name:<14} {planned[name]!r}" for name in names]
    shape = "x".join(map(str, about["shape"]))
    lines += ["", "data", f"  {about['name']}, {about['images']:,} images of {shape}"]
    if not about["found"]:
        lines += [f"  missing: {about['missing']}", f"  to get them: {about['command']}"]
    lines += ["", "trainings", *_table(planned["trainings"])]
    here, gpu = (_time(planned[f"{name}_seconds"]) for name in ("here", "gpu"))
    lines += ["", f"about {here} on {planned['device']} ({planned['free_gb']:g} GB free), {gpu} on an {GPU.name}"]
    folders = [folder for row in planned["trainings"] for folder in row["folders"]]
    lines += ["", "run folders", *(f"  {folder}" for folder in folders or ["known once the data are there"])]
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    cells = [
        {
            "training": row["training"],
            "models": f"{row['models']}{' at once' if row['as_one_program'] else ''}",
            "images": f"{row['images']:,}",
            "batch": row["batch"],
            "parameters": f"{row['parameters'] / 1e6:.2f} M",
            "multiply-adds": f"{row['multiply_adds_per_step'] / 1e9:,.1f} G/step",
            "memory": f"{row['memory_gb']:.2f} GB",
            "time here": _time(row["here_seconds"]),
            "on a GPU": _time(row["gpu_seconds"]),
        }
        for row in rows
    ]
    return ["  " + line for line in pd.DataFrame(cells).to_string(index=False).splitlines()]


def _time(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
