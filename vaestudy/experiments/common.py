"""What the stages share: where their images and runs are, and the sizes of their profile."""

from pathlib import Path
from typing import Any

from vaestudy import data, profiles
from vaestudy.data import ImageSet
from vaestudy.files import project_root
from vaestudy.settings import STAGES, Settings
from vaestudy.training import Run
from vaestudy.training.listing import settings_of


def sizes(settings: Settings) -> dict[str, Any]:
    """The profile's row of the table."""
    return profiles.sizes(settings.stage, settings.profile)


def image_side(settings: Settings) -> int | None:
    """The side asked for, the profile's for the stage's own data set, or None for the set's own."""
    own = STAGES[settings.stage].__dataclass_fields__["dataset"].default
    return settings.image_size or (sizes(settings)["image_size"] if settings.dataset == own else None)


def images(settings: Settings, side: int | None = None) -> ImageSet:
    """All images of the data set, or those of its training split."""
    return data.load(settings.dataset, image_size=side or image_side(settings), data_dir=settings.data_dir or None)


def train_and_test(settings: Settings, dataset: str = "", side: int | None = None) -> tuple[ImageSet, ImageSet]:
    """Images to train on, and those that are held out."""
    where = {"image_size": side or image_side(settings), "data_dir": settings.data_dir or None}
    return data.train_and_test(dataset or settings.dataset, sizes(settings)["test_images"], **where)


def runs_root(settings: Settings) -> Path:
    """The folder of the runs."""
    return project_root() / Path(settings.runs_dir).expanduser()


def provenance(runs: list[Run]) -> list[dict]:
    """Rows of the table of what made the numbers: each run with its settings, cost and folder."""
    return [run.summary() | settings_of(run.config) for run in runs]
