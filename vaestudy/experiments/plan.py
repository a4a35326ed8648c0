"""What a stage would do, before it does any of it: for `python -m vaestudy train STAGE --dry-run`."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pandas as pd
import torch

from vaestudy import data
from vaestudy.data import ImageSet, cache
from vaestudy.errors import InputError
from vaestudy.experiments import common, evidence
from vaestudy.settings import STAGES, Settings
from vaestudy.training import Job, memory
from vaestudy.training.config import autocast
from vaestudy.training.cost import GPU, GPU_MEMORY, cost, measured, step_memory
from vaestudy.training.trainer import device_of, kind, stacks

Trainings = tuple[dict[str, Any], dict[str, list[Job]]]  # what is known of their images, and the trainings by title
ASSUMED_IMAGES = 10_000  # of a set whose number of images only its files know


def plan(settings: Settings, experiment: ModuleType) -> dict[str, Any]:
    """Settings, data and trainings of a stage as JSON, those of the parts of its evidence among them; nothing is drawn,
    read or trained for it that is not there."""
    sizes, device = common.sizes(settings), device_of(None)
    about, page = _page(settings, experiment, look=True)
    rows, known = [], set()
    for there, named in ((about, page), *(_part(settings, name, look=True) for name in sizes["parts"])):
        for title, jobs in named.items():
            # A part finds the models trained that the page or another part has.
            new = [job for job in jobs if job.run_dir not in known]
            known |= {job.run_dir for job in new}
            alike = itertools.groupby(sorted(new, key=kind), key=kind)
            rows += [_row(title, list(own), device, there["found"]) for _, own in alike]
    given = {name: value or sizes.get(name, value) for name, value in dataclasses.asdict(settings).items()}
    resolved = {"stage": settings.stage, **given, "sizes": sizes}
    here = {"device": "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)}
    here |= {"free_gb": round(memory.free_bytes(device) / 1e9, 2)}
    left = sum(row["here_seconds"] * (1 - row["trained"] / row["models"]) for row in rows)
    seconds = {"here_seconds": round(left, 1), "gpu_seconds": round(sum(row["gpu_seconds"] for row in rows), 1)}
    return resolved | here | {"data": about, "trainings": rows, **seconds}


def check_memory(settings: Settings, experiment: ModuleType) -> None:
    """Raise InputError for trainings that the free memory cannot hold, before any data are drawn or read for them.

    VAEs of one kind share a program, as many as fit; other models are trained side by side on the cores of a CPU.
    """
    device, sizes = device_of(None), common.sizes(settings)
    free = memory.free_bytes(device)
    # The records of a profile that is run in pieces are made before.
    parts = () if sizes["pieces"] else sizes["parts"]
    page = functools.partial(_page, settings, experiment)
    for trainings in (page, *(functools.partial(_part, settings, name) for name in parts)):
        size = _bytes(_together(trainings(look=False)), device)
        jobs = _together(trainings(look=True)) if size > free else []
        if not all(job.run.finished for job in jobs):  # what is trained already needs no memory
            raise InputError(
                f"training on images of side {jobs[0].images.shape[1]} would take about {size / 1e9:.1f} GB of memory, "
                f"and {free / 1e9:.1f} GB are free: choose a smaller image_size, network or profile"
            )


def _page(settings: Settings, experiment: ModuleType, look: bool) -> Trainings:
    """The trainings of a page."""
    side = getattr(experiment, "image_side", common.image_side)(settings)
    load = getattr(experiment, "train_images", lambda own: experiment.train_and_test(own)[0])
    where = common.dataset(settings), side, settings.data_dir
    images, about = _images(functools.partial(load, settings), look, *where)
    with torch.device("meta"):
        return about, experiment.jobs(settings, images)


def _part(settings: Settings, name: str, look: bool) -> Trainings:
    """The trainings of a part of the evidence."""
    part, context = evidence.PARTS[name], evidence.context_of_page(settings, name)
    note = {"part": name} if part.images is not evidence.Context.images else {}
    load = functools.partial(part.images, context)
    images, about = _images(load, look, *context.source, context.data_dir or "", **note)
    with torch.device("meta"):
        return about, {f"part {name}": part.jobs(context, images)}


def _together(trainings: Trainings) -> list[Job]:
    return [job for alike in trainings[1].values() for job in alike]


def _images(
    load: Callable[[], ImageSet], look: bool, name: str, side: int | None, data_dir: str, **note
) -> tuple[ImageSet, dict[str, Any]]:
    """The images to train on if they are at hand, or a set of their shape without data; and what is known of them.

    Without a `look` at what is at hand they are the latter.
    """
    if not look:
        return _without_data(name, side, data_dir, **note), {}
    missing = {}
    try:
        with cache.only_found():
            images = load()
    except InputError as error:
        images = _without_data(name, side, data_dir, **note)
        missing = {"missing": str(error), "command": _command(name, images.shape[1], data_dir)}
    # A part may have no images, where nothing can be held out.
    about = {"name": name, "shape": images.shape if images else None, "images": len(images or ())}
    return images, about | {"found": not missing} | missing


def _without_data(name: str, side: int | None, data_dir: str, **note) -> ImageSet:
    """As many images as the set to train on has, of their shape and without data."""
    info = data.about(name, data_dir or None)
    shape = (info.channels, *[info.check(side)] * 2)
    count = info.splits["train"] or ASSUMED_IMAGES
    return ImageSet(name, shape, torch.empty(count, *shape, dtype=torch.uint8, device="meta"), note=note)


def _bytes(jobs: list[Job], device: torch.device) -> float:
    """Memory for the steps of some trainings that are made together, by the models of most weights among them."""
    by_size = sorted(jobs, key=lambda job: sum(weights.numel() for weights in job.model.parameters()))
    at_once = memory.usable_cores() if device.type == "cpu" else 1
    largest = [job for job in by_size if stacks(job)][-1:], [job for job in by_size if not stacks(job)][-at_once:]
    return max(
        sum(_step_bytes(list(alike), device) for _, alike in itertools.groupby(together, key=kind))
        for together in largest
    )


def _step_bytes(alike: list[Job], device: torch.device) -> float:
    """Memory for a step of each of some trainings that cost the same."""
    first = alike[0]
    fixed, kept = step_memory(first.model, first.training, len(first.images))
    return len(alike) * (fixed + kept / (1 + autocast(first.training, first.model, device)._enabled))


def _command(name: str, side: int, data_dir: str) -> str:
    """What draws or fetches a data set, or says where its files belong."""
    info = data.about(name)
    if info.made_by == "files":
        return info.how_to_get
    more = ", download=True" if info.made_by == "download" else ""
    more += f", data_dir={data_dir!r}" if data_dir else ""
    return f'python -c "from vaestudy import data; data.load({name!r}, image_size={side}{more})"'


def _row(name: str, jobs: list[Job], device: torch.device, known: bool) -> dict[str, Any]:
    """Trainings that cost the same: they differ in seed and pressure alone."""
    first, together = jobs[0], stacks(jobs[0])
    counted = cost(first.model, first.training, len(first.images), models=len(jobs) if together else 1)
    halved = autocast(first.training, first.model, device)._enabled
    parts = first.training.micro_batches
    # Processes that share the parts out hold the gradients once more, in the buffers of their messages.
    messages = 4 * counted.parameters * (parts > 1)
    half_on_gpu, steps = first.training.precision != "fp32", counted.steps * (1 if together else len(jobs))
    return {
        "training": name,
        "models": len(jobs),
        "trained": sum(job.run.finished for job in jobs) if known else 0,
        "as_one_program": together and len(jobs) > 1,
        "images": first.training.images,
        "batch": min(first.training.batch, len(first.images)),
        "micro_batches": parts,
        "steps": counted.steps,
        "parameters": counted.parameters,
        "multiply_adds_per_step": counted.flops / 2,
        "gb_per_step": round(counted.bytes(halved) / 1e9, 4),
        "memory_gb": round(counted.memory_bytes(halved) / 1e9, 4),
        "gpu_memory_gb": round((counted.memory_bytes(half_on_gpu) + messages) / 1e9, 4),
        "here_seconds": round(steps * counted.step_seconds(measured(device, halved), halved), 1),
        "gpu_seconds": round(steps * counted.step_seconds(GPU, half_on_gpu), 1),
        "folders": [str(job.run_dir) for job in jobs] if known else [],
    }


def text(planned: dict[str, Any]) -> str:
    """The plan for a person."""
    about, names = planned["data"], STAGES[planned["stage"]].__dataclass_fields__
    lines = [f"{planned['stage']}, profile {planned['profile']}: what would be trained", "", "settings"]
    lines += [f"  {name:<12} {planned[name]!s:<16} {field.metadata['help']}" for name, field in names.items()]
    shape = " × ".join(map(str, about["shape"]))
    lines += ["", "data", f"  {about['name']}, {about['images']:,} images of {shape}"]
    if not about["found"]:
        lines += [f"  missing: {about['missing']}", f"  to get them: {about['command']}"]
    lines += ["", "trainings", *_table(planned["trainings"])]
    here, gpu = (_time(planned[f"{name}_seconds"]) for name in ("here", "gpu"))
    place = f"{planned['device']} ({planned['free_gb']:.1f} GB free)"
    lines += ["", f"what is not trained yet: about {here} on {place}; all of it: {gpu} on an {GPU.name}"]
    lines += [_gpu_memory(planned["trainings"])]
    folders = [folder for row in planned["trainings"] for folder in row["folders"]]
    lines += ["", "run folders", *(f"  {folder}" for folder in folders or ["known once the data are there"])]
    return "\n".join(lines)


def _gpu_memory(rows: list[dict[str, Any]]) -> str:
    """Whether the largest step fits one GPU, and how many may share it out."""
    most = max(rows, key=lambda row: row["gpu_memory_gb"])
    size, limit, parts = most["gpu_memory_gb"], GPU_MEMORY / 1e9, most["micro_batches"]
    text = f"there the largest step takes {size:.1f} GB and {'fits' if size < limit else 'does not fit'} one GPU"
    shared = f"; torchrun shares its {parts} micro batches out to as many GPUs, each with the same need"
    return f"{text} of {limit:.0f} GB{shared if parts > 1 else ''}"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    cells = [
        {
            "training": row["training"],
            "models": f"{row['models']}{' at once' if row['as_one_program'] else ''}",
            "trained": row["trained"],
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
