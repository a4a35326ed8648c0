"""Any folder of images, with factors if a `labels.csv` stands beside them."""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from vaestudy.data.decode import Recipe, decode_all, list_images
from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.data.labels import read_labels
from vaestudy.data.paths import default_dir
from vaestudy.errors import InputError

Decode = Callable[[], tuple[Tensor, dict]]  # gives the decoded array and its details

CELEBA_HQ_ADVICE = (
    "put the images, 1024x1024 or smaller, linked at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html "
    "into celeba_hq in data_dir"
)


def folder(side: int, split: str, root: Path, download: bool = False) -> ImageSet:
    """Every image below `root`, whatever its mode and size: its middle square in RGB, with the factors of `labels.csv`.

    A file belongs to a split by the hash of its name relative to `root`: 80 % train, 10 % valid, 10 % test, whatever
    other files there are. Files that cannot be decoded are skipped and named in a warning. The decoded array is kept
    in `default_dir()`, never among the photographs.

    Raises:
        InputError: no image in the folder or in the split, or labels that do not fit the images.
    """
    return _pictures("folder", side, split, root, default_dir())


def celeba_hq(side: int, split: str, data_dir: Path, download: bool = False) -> ImageSet:
    """CelebA-HQ from any images below `data_dir/celeba_hq`; splits as in `folder`."""
    root = data_dir / "celeba_hq"
    if not root.exists():
        raise InputError(f"there is no {root}: {CELEBA_HQ_ADVICE}")
    return _pictures("celeba_hq", side, split, root, data_dir)


def split_of(name: str) -> str:
    """The split that a file name belongs to."""
    tenth = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) % 10
    return {0: "test", 1: "valid"}.get(tenth, "train")


def members(name: str, decode: Decode, factors: Factors | None, inside: np.ndarray, split: str, note: dict) -> ImageSet:
    """Of some photographs, which `decode` gives with their details, those in a split (`inside`, a mask) that are whole.

    Raises:
        InputError: there are none; before anything is decoded, if that is known by then.
    """
    empty = InputError(f"no image of {name} is in the split {split!r}")
    if not inside.any():
        raise empty
    storage, details = decode()
    inside = inside & ~np.isin(np.arange(len(inside)), details["unreadable"])
    if not inside.any():
        raise empty
    shape = tuple(storage.shape[1:])
    images = ImageSet(name, shape, storage, factors_of_rows=factors, checksum=details["checksum"], note=note)
    return images.select(inside, split=split, crop=details["crop"] or "middle square")


def _pictures(name: str, side: int, split: str, root: Path, cache_dir: Path) -> ImageSet:
    files = list_images(root)
    factors, note = read_labels(root, files) or (None, {})
    inside = np.array([split_of(file) == split for file in files])
    decode = partial(decode_all, name, root, files, Recipe(side), cache_dir)
    return members(name, decode, factors, inside, split, note)
