"""Sets of images by name, with their factors where those are known."""

import os
from pathlib import Path

from vaestudy.data.images import Factors, ImageSet
from vaestudy.errors import InputError

__all__ = ["NAMES", "Factors", "ImageSet", "default_dir", "load"]

NAMES = ("dsprites", "faces", "mnist", "fashion_mnist", "cifar10", "celeba", "celeba_hq", "folder")


def load(
    name: str,
    *,
    image_size: int | None = None,
    split: str = "train",
    data_dir: str | Path | None = None,
    download: bool = False,
) -> ImageSet:
    """A set of images, rendered or read from files, ready to be moved to the device that trains.

    Args:
        name: one of `NAMES`.
        image_size: side of the square images in pixels; None for the data set's own.
        split: "train", "test" or "valid", as far as the data set has them.
        data_dir: where its files and caches are, `default_dir()` if None; for "folder" the images themselves.
        download: fetch missing files (never without being asked).

    Raises:
        InputError: an unknown name, split or size, or files that are missing or damaged.
    """
    folder = Path(data_dir) if data_dir is not None else default_dir()
    match name:
        case "dsprites":
            from vaestudy.data.dsprites import dsprites

            return dsprites(image_size, split, folder)
        case "faces":
            from vaestudy.data.faces import faces

            return faces(image_size, split, folder)
    raise InputError(f"unknown dataset {name!r}: choose from {', '.join(NAMES)}")


def default_dir() -> Path:
    """`$VAESTUDY_DATA`, or `data/` in the repository around the working directory, or in that directory."""
    if os.environ.get("VAESTUDY_DATA"):
        return Path(os.environ["VAESTUDY_DATA"])
    here = Path.cwd()
    roots = [folder for folder in (here, *here.parents) if (folder / "vaestudy" / "data").is_dir()]
    return (roots or [here])[0] / "data"
