"""Sets of images by name, with their factors where those are known."""

import os
from pathlib import Path

from vaestudy import project_root
from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.errors import InputError

__all__ = ["NAMES", "Factors", "ImageSet", "default_dir", "load", "train_and_test"]

NAMES = ("dsprites", "faces", "faces_mild", "mnist", "fashion_mnist", "cifar10", "celeba", "celeba_hq", "folder")


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
    if image_size is not None and type(image_size) is not int:
        raise InputError(f"image_size must be a whole number, not {image_size!r}")
    folder = Path(data_dir) if data_dir is not None else default_dir()
    match name:
        case "dsprites":
            from vaestudy.data.dsprites import dsprites

            return dsprites(image_size, split, folder)
        case "faces" | "faces_mild":
            from vaestudy.data.faces.sets import faces

            return faces(image_size, split, folder, "mild" if name == "faces_mild" else "full")
        case "mnist" | "fashion_mnist":
            from vaestudy.data.torchvision_sets import mnist

            return mnist(name, image_size, split, folder, download)
        case "cifar10":
            from vaestudy.data.torchvision_sets import cifar10

            return cifar10(image_size, split, folder, download)
        case "celeba":
            from vaestudy.data.photos import celeba

            return celeba(image_size, split, folder, download)
        case "celeba_hq":
            from vaestudy.data.photos import celeba_hq

            return celeba_hq(image_size, split, folder)
        case "folder":
            from vaestudy.data.photos import folder as pictures

            if data_dir is None:
                raise InputError("dataset 'folder' needs data_dir: the directory that holds your images")
            return pictures(image_size, split, folder, default_dir())
    raise InputError(f"unknown dataset {name!r}: choose from {', '.join(NAMES)}")


def train_and_test(name: str, held_out: int, **where) -> tuple[ImageSet, ImageSet]:
    """Images to train on and `held_out` others: of the official test split, or drawn from a set that has none."""
    images = load(name, **where)
    if images.factors is not None and images.factors.is_grid:
        return images.divided(held_out)
    return images, load(name, split="test", **where).select(slice(0, held_out), held_out=held_out)


def default_dir() -> Path:
    """`$VAESTUDY_DATA`, or `data/` in the project's root."""
    return Path(os.environ.get("VAESTUDY_DATA") or project_root() / "data")
