"""Photographs: CelebA with its attributes, and any folder of images."""

import hashlib
import os
from pathlib import Path

import numpy as np

from vaestudy.data.decode import Recipe, decoded, listing
from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.errors import InputError, first_line

SPLITS = ("train", "valid", "test")
CELEBA_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
CELEBA_CROP = (15, 40, 163, 188)
PARTITION, ATTRIBUTES = "list_eval_partition.txt", "list_attr_celeba.txt"


def celeba(image_size: int | None, split: str, data_dir: Path, download: bool, workers: int | None = None) -> ImageSet:
    """CelebA aligned and cropped: 162,770 faces to train on, 19,867 valid, 19,962 test, 40 binary attributes each.

    The files are expected as torchvision lays them out, in `data_dir/celeba`. The box (15, 40)-(163, 188) is resized
    to `image_size`, 64 by default, with the bilinear filter (Vahdat and Kautz 2020; their "test" is the valid split).
    All three splits share one decoded array.

    Raises:
        InputError: another split, a size that cannot be, missing files, or lists that disagree with the images.
    """
    side = _side(image_size, 64)
    _known_split(split)
    root = data_dir / "celeba"
    if missing := [name for name in ("img_align_celeba", PARTITION, ATTRIBUTES) if not (root / name).exists()]:
        advice = f"put img_align_celeba/ (unzipped), {PARTITION} and {ATTRIBUTES} from {CELEBA_PAGE} into {root}"
        if not download:
            raise InputError(f"celeba lacks {', '.join(missing)}: {advice}")
        _download(data_dir, advice)
    names, parts = _partition(root / PARTITION)
    files = listing(root / "img_align_celeba")
    _compare(names, [name for name, _ in files], root)
    attributes = _attributes(root / ATTRIBUTES, names)
    storage, details = decoded("celeba", root / "img_align_celeba", files, Recipe(side, CELEBA_CROP), data_dir, workers)
    images = ImageSet(
        name="celeba",
        shape=(3, side, side),
        storage=storage,
        factors_of_rows=attributes,
        checksum=details["checksum"],
    )
    return _split(images, parts == SPLITS.index(split), split, details)


def celeba_hq(image_size: int | None, split: str, data_dir: Path, workers: int | None = None) -> ImageSet:
    """CelebA-HQ from any images below `data_dir/celeba_hq`, 256x256 by default; splits as in `folder`."""
    root = data_dir / "celeba_hq"
    if not root.exists():
        raise InputError(f"put the images of CelebA-HQ (links at {CELEBA_PAGE}), 1024x1024 or smaller, into {root}")
    return _pictures("celeba_hq", _side(image_size, 256), split, root, data_dir, workers)


def folder(image_size: int | None, split: str, root: Path, cache_dir: Path, workers: int | None = None) -> ImageSet:
    """Every image below `root`, whatever its mode and size: its middle square in RGB, 64x64 by default.

    A file belongs to a split by the hash of its name relative to `root`: 80 % train, 10 % valid, 10 % test, whatever
    other files there are. Files that cannot be decoded are skipped and named in a warning.

    Raises:
        InputError: another split, a size that cannot be, or no image in the folder or in the split.
    """
    return _pictures("folder", _side(image_size, 64), split, root, cache_dir, workers)


def part_of(name: str) -> str:
    """The split that a file name belongs to."""
    tenth = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) % 10
    return {0: "test", 1: "valid"}.get(tenth, "train")


def _pictures(name: str, side: int, split: str, root: Path, cache_dir: Path, workers: int | None) -> ImageSet:
    _known_split(split)
    files = listing(root)
    storage, details = decoded(name, root, files, Recipe(side), cache_dir, workers)
    images = ImageSet(name=name, shape=(3, side, side), storage=storage, checksum=details["checksum"])
    return _split(images, np.array([part_of(file) == split for file, _ in files]), split, details)


def _split(images: ImageSet, members: np.ndarray, split: str, details: dict) -> ImageSet:
    members[details["unreadable"]] = False
    if not members.any():
        raise InputError(f"no image of {images.name} is in the split {split!r}")
    return images.select(members, split=split, crop=details["crop"] or "middle square")


def _side(image_size: int | None, default: int) -> int:
    side = default if image_size is None else image_size
    if side not in range(16, 1025, 8):
        raise InputError(f"image_size must be a multiple of 8 from 16 to 1024, not {image_size}")
    return side


def _known_split(split: str) -> None:
    if split not in SPLITS:
        raise InputError(f"the splits are {', '.join(SPLITS)}, not {split!r}")


def _download(data_dir: Path, advice: str) -> None:
    from torchvision.datasets import CelebA

    try:
        CelebA(data_dir, download=True)
    except Exception as error:  # gdown raises types of its own, and often: Drive has a daily quota
        raise InputError(f"the download of celeba failed ({first_line(error)}): {advice}") from error


def _partition(path: Path) -> tuple[list[str], np.ndarray]:
    words = " ".join(_lines(path)).split()
    names, parts = words[::2], words[1::2]
    if len(names) != len(parts) or set(parts) - {"0", "1", "2"}:
        raise InputError(f"{path} is damaged: each line must be a file name and 0, 1 or 2")
    return names, np.array(parts, dtype=np.uint8)


def _attributes(path: Path, names: list[str]) -> Factors:
    lines = _lines(path)
    labels = lines[1].split() if len(lines) > 1 else []
    rows = [line.partition(" ") for line in lines[2:]]
    if [name for name, _, _ in rows] != names:
        raise InputError(f"{path} and {PARTITION} do not list the same images: fetch both again from {CELEBA_PAGE}")
    marks = "".join(rest.replace("-1", "0").replace(" ", "") for _, _, rest in rows)
    if len(marks) != len(names) * len(labels) or set(marks) - {"0", "1"}:
        raise InputError(f"{path} is damaged: each line must be a file name and {len(labels)} times 1 or -1")
    table = (np.frombuffer(marks.encode(), dtype=np.uint8) - ord("0")).reshape(len(names), len(labels))
    return Factors(labels, [2] * len(labels), table)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({first_line(error)}): fetch it again from {CELEBA_PAGE}") from error


def _compare(listed: list[str], present: list[str], root: Path) -> None:
    for which, odd in (("absent", set(listed) - set(present)), ("not listed", set(present) - set(listed))):
        if odd:
            raise InputError(
                f"{root / PARTITION} disagrees with img_align_celeba: {len(odd):,} images are {which}, "
                f"such as {min(odd)}; unzip the published archive again"
            )
    if listed != present:
        raise InputError(f"{root / PARTITION} must list each image once, in the order of the names")
