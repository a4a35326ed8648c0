"""Any folder of images, with factors if a `labels.csv` stands beside them."""

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vaestudy.data.decode import Recipe, decode_all, list_images, size_and_change
from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.data.labels import FILE, read_labels
from vaestudy.data.paths import default_dir
from vaestudy.errors import InputError

Decode = Callable[[], tuple[Tensor, dict]]  # gives the decoded array and its details

PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
CELEBA_HQ_ADVICE = f"put the images, 1024x1024 or smaller, linked at {PAGE} into celeba_hq in data_dir"


class Album(NamedTuple):
    """What is known of the photographs in a folder before one of them is opened."""

    files: list[str]  # their names relative to the folder, sorted
    splits: np.ndarray  # the split of each
    factors: Factors | None  # those that `labels.csv` names
    note: dict  # what tells these factors from others


def look(root: Path) -> Album:
    """The album of a folder; its labels are read once, and again after a change in the folder.

    InputError for a folder without images, or labels that do not fit them.
    """
    return _album(root, tuple(list_images(root)), size_and_change(root / FILE))


@lru_cache(maxsize=1)
def _album(root: Path, files: tuple[str, ...], _labels: tuple[int, int]) -> Album:
    factors, note = read_labels(root, files) or (None, {})
    return Album(list(files), np.array([split_of(file) for file in files]), factors, note)


def folder(
    side: int, split: str, root: Path, download: bool, *, name: str = "folder", cache_dir: Path | None = None
) -> ImageSet:
    """Every image below `root`, whatever its mode and size: its middle square in RGB, with the factors of `labels.csv`.

    A file belongs to a split by the hash of its name relative to `root`: 80 % train, 10 % valid, 10 % test, whatever
    other files there are. Files that cannot be decoded are skipped and named in a warning. The decoded array is kept
    in `cache_dir`, by default `default_dir()`: never among the photographs. InputError for a folder or a split
    without images, or labels that do not fit them.
    """
    album = look(root)
    decode = partial(decode_all, name, root, album.files, Recipe(side), cache_dir or default_dir())
    return members(name, decode, album.factors, album.splits == split, split, album.note)


def celeba_hq(side: int, split: str, data_dir: Path, download: bool) -> ImageSet:
    """CelebA-HQ from any images below `data_dir/celeba_hq`; splits as in `folder`."""
    root = data_dir / "celeba_hq"
    if not root.exists():
        raise InputError(f"there is no {root}: {CELEBA_HQ_ADVICE}")
    return folder(side, split, root, download, name="celeba_hq", cache_dir=data_dir)


def split_of(name: str) -> str:
    """The split that a file name belongs to."""
    tenth = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) % 10
    return {0: "test", 1: "valid"}.get(tenth, "train")


def members(name: str, decode: Decode, factors: Factors | None, inside: np.ndarray, split: str, note: dict) -> ImageSet:
    """Of some photographs, which `decode` gives with their details, those in a split (`inside`, a mask) that are whole.

    InputError where there are none; before anything is decoded, if that is known by then.
    """
    if inside.any():
        storage, details = decode()
        inside = inside & ~np.isin(np.arange(len(inside)), details["unreadable"])
    if not inside.any():
        raise InputError(f"no image of {name} is in the split {split!r}")
    images = ImageSet(name, tuple(storage.shape[1:]), storage, factors_of_rows=factors, checksum=details["checksum"])
    return images.select(inside, **note, split=split, crop=details["crop"] or "middle square")
