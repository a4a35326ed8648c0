"""What the stages share: where their images and runs are, and the sizes of their profile."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int
from scipy import stats

from vaestudy import data, profiles
from vaestudy.data import ImageSet
from vaestudy.errors import InputError
from vaestudy.files import project_root
from vaestudy.settings import MOST_SEED, Settings
from vaestudy.training import Run, Training
from vaestudy.training.listing import settings_of

logger = logging.getLogger(__name__)

LEAST_SCORED = 100  # images that scores of a code can rest on


def sizes(settings: Settings) -> dict[str, Any]:
    """The profile's row of the table."""
    return profiles.sizes(settings.stage, settings.profile)


def dataset(settings: Settings) -> str:
    """The data set asked for, or the profile's."""
    return settings.dataset or sizes(settings)["dataset"]


def image_side(settings: Settings) -> int:
    """The side asked for, or the profile's; the set's own where that is smaller, or the set has not the profile's."""
    if settings.image_size:
        return settings.image_size
    info, side = data.about(settings.dataset), sizes(settings)["image_size"]
    return side if side in info.image_sizes and side < info.default_image_size else info.default_image_size


def checked(settings: Settings, side: int | None, **least: int) -> tuple[int, int, int]:
    """The shape of the images of a stage, which needs so many of some splits; none is rendered or read.

    Raises:
        InputError: an unknown set, a side that it has not, a folder of images that is not named or has too few of them.
    """
    runs_root(settings)  # raises for a folder that no run can be in
    info = data.about(dataset(settings), settings.data_dir or None)
    info.folder(settings.data_dir)
    side, found = info.check(side), info.splits
    for split, needed in least.items():
        if found.get(split) is not None and found[split] < needed:
            raise InputError(
                f"{info.name} has {sum(found.values())} images, and by the hash of their names {found[split]} are in "
                f"the split {split!r}: {needed} are the least there, so add images"
            )
    if info.labels == "factors" and (found.get("train") or LEAST_SCORED) < LEAST_SCORED:
        logger.warning(
            "%s has %d labelled images in the split 'train': scores of codes need %d and are left out",
            *(info.name, found["train"], LEAST_SCORED),
        )
    return info.channels, side, side


def unscorable(names: Sequence[str], values: Int[np.ndarray, "n k"]) -> dict[str, str]:
    """The factors that codes cannot be scored by, and what each has in place of two values of three images or more."""
    counts = {name: np.unique(column, return_counts=True)[1] for name, column in zip(names, values.T, strict=True)}
    lacking = {name: f"a value that {count.min()} images have, and 3 are the least" for name, count in counts.items()}
    lacking |= {name: "one value only" for name, count in counts.items() if len(count) < 2}
    return {name: lacking[name] for name, count in counts.items() if len(count) < 2 or count.min() < 3}


def scorable(seen: ImageSet) -> list[int]:
    """The factors of some images that can be scored, if any; those that cannot are named in a warning."""
    if seen.factors is None or len(seen) < LEAST_SCORED:
        return []
    if left_out := unscorable(seen.factors.names, seen.factors.values(slice(None))):
        logger.warning(
            "%s: not scored: %s (one value only, or one of fewer than 3 images)", seen.name, ", ".join(left_out)
        )
    return [k for k, name in enumerate(seen.factors.names) if name not in left_out]


def some_rows(images: ImageSet, count: int, numbers: int = 2**62, seed: int = 0) -> Int[np.ndarray, " m"]:
    """Rows of at most `count` of some images, drawn at random: fewer, a hundred at least, of images so large that they
    would hold more than so many numbers."""
    count = min(count, max(LEAST_SCORED, numbers // images.dims))
    return np.random.default_rng(seed).permutation(len(images))[:count]


def trained(run: Run) -> dict[str, Any]:
    """How a model was trained, and on what: what records say of all kinds of model."""
    images, recipe = run.record["config"][1]["ImageSet"], run.recipe
    row = {"seed": recipe["seed"], "data": images["name"], "image_size": images["shape"][1]}
    return row | {"images": recipe["images"], "batch_size": recipe["batch"]}


def mean_of(values: pd.Series, unit: str) -> dict[str, float]:
    """A mean with its 95 % Student t interval, as tables name them; of one value the interval is no number."""
    mean, reach = values.mean(), stats.t.ppf(0.975, len(values) - 1) * values.sem()
    return {unit: mean, "from": mean - reach, "to": mean + reach}


def pressed(recipe: Training, seed: int, **objective: Any) -> Training:
    """A training at another seed, with changes to its objective."""
    return replace(recipe, seed=seed, objective=replace(recipe.objective, **objective))


def images(settings: Settings) -> ImageSet:
    """All images of the data set, or those of its training split."""
    return data.load(settings.dataset, image_size=image_side(settings), data_dir=settings.data_dir or None)


def train_and_test(settings: Settings) -> tuple[ImageSet, ImageSet]:
    """Images to train on, and those that are held out."""
    where = {"image_size": image_side(settings), "data_dir": settings.data_dir or None}
    return data.train_and_test(settings.dataset, sizes(settings)["test_images"], **where)


def seeds_from(first: int, count: int) -> tuple[int, ...]:
    """So many seeds from a first one on; after the greatest comes 0."""
    return tuple((first + number) % (MOST_SEED + 1) for number in range(count))


def runs_root(settings: Settings) -> Path:
    """The folder of the runs.

    Raises:
        InputError: the home of somebody who is not known here.
    """
    try:
        return project_root() / Path(settings.runs_dir).expanduser()
    except RuntimeError as error:
        raise InputError(f"runs_dir cannot be {settings.runs_dir!r}: {error}") from error


def headline_row(quantity: str, ours: Any, published: Any = None, source: str | None = None, **more: Any) -> dict:
    """A number for the report's first page, as `figures.headline` takes it."""
    return {"quantity": quantity, "ours": ours, "published": published, "source": source, **more}


def provenance(runs: Sequence[Run]) -> list[dict]:
    """Rows of the table of what made the numbers: each run with its settings, cost and folder."""
    return [run.summary() | settings_of(run.config) for run in runs]
