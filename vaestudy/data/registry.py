"""Every data set: one entry says what is known of it before anything is rendered or read, and how it is loaded."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from vaestudy.data import celeba, dsprites, grids, photos, torchvision_sets
from vaestudy.data.faces.render import COUNTS, FACTORS, SIDES, faces
from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.data.paths import default_dir, resolve
from vaestudy.errors import InputError

PHOTO_SIZES = range(16, 1025, 8)
Folder = str | Path | None
UNKNOWN = dict.fromkeys(("train", "valid", "test"))


@dataclass(frozen=True)
class DataSetInfo:
    """What is known of a data set before anything is rendered or read."""

    name: str  # what `load` calls it
    loader: Callable[[int, str, Path, bool], ImageSet]  # of side, split, folder of the files, whether it may download
    image_sizes: Sequence[int]  # the sides in pixels that it comes in
    default_image_size: int  # the side if none is asked for
    channels: int  # 1 or 3
    splits: Mapping[str, int | None]  # each with its number of images, None where that depends on the files
    # "grid": each combination of the factors once; "factors": combinations drawn at random; "attributes": binary;
    # "labels.csv": what such a file beside the images says, if there is one.
    labels: Literal["grid", "factors", "class", "attributes", "none", "labels.csv"]
    factors: Mapping[str, int] = field(default_factory=dict)  # each with its number of values, as far as known by now
    how_to_get: str = ""  # where it comes from and where its files belong
    made_by: Literal["drawing", "download", "files"] = "files"  # what `load` itself can do to get it
    needs_data_dir: bool = False  # whether `data_dir` has no default
    known: Factors | None = None  # what `labels.csv` says of the images to train on, where `about` has found it

    def check(self, image_size: int | None, split: str = "train") -> int:
        """The side that `load` would give; InputError for a size or a split that the set does not have."""
        side = self.default_image_size if image_size is None else image_size
        if type(side) is not int or side not in self.image_sizes:
            raise InputError(f"{self.name} has image_size {_listed(self.image_sizes)}, not {side!r}")
        if split not in self.splits:
            offered = f"split{'s' * (len(self.splits) > 1)} {', '.join(self.splits)}"
            raise InputError(f"{self.name} has the {offered}, not {split!r}")
        return side

    def folder(self, data_dir: Folder) -> Path:
        """Where its files are; InputError for None if the set has no default, or a folder that no set can be in."""
        if self.needs_data_dir and not data_dir:
            raise InputError(f"dataset {self.name!r} needs data_dir: the directory that holds your images")
        return resolve(data_dir) if data_dir else default_dir()


def _listed(sizes: Sequence[int]) -> str:
    if isinstance(sizes, range):
        return f"{sizes[0]} to {sizes[-1]}" + (f" in steps of {sizes.step}" if sizes.step > 1 else "")
    return " or ".join(map(str, sizes))


def _grid(name: str, file: str, factors: dict[str, int], home: str) -> DataSetInfo:
    advice = f"put {file} from {home} into data_dir"
    loader = partial(grids.grid_of_images, name=name, file=file, factors=factors, advice=advice)
    count = {"train": math.prod(factors.values())}
    return DataSetInfo(name, loader, grids.SIDES, 64, 3, count, "grid", factors, advice)


MPI3D_HOME = "https://github.com/rr-learning/disentanglement_dataset"
CLASSES = {"class": 10}
DSPRITES = dict(zip(dsprites.NAMES, dsprites.SIZES, strict=True))
ENTRIES = (
    DataSetInfo("dsprites", dsprites.dsprites, dsprites.SIDES, 64, 1, {"train": dsprites.COUNT}, "grid", DSPRITES,
                how_to_get=f"drawn here, or read from {dsprites.ARCHIVE} in data_dir", made_by="drawing"),
    *(DataSetInfo(name, partial(faces, variation=variation), SIDES, 64, 3, COUNTS[variation], "factors", FACTORS,
                  how_to_get="drawn here", made_by="drawing")
      for name, variation in (("faces", "full"), ("faces_mild", "mild"))),
    *(DataSetInfo(name, partial(torchvision_sets.mnist, name=name), (28, 32), 28, 1,
                  {"train": 60_000, "test": 10_000}, "class", CLASSES, torchvision_sets.ADVICE[name], "download")
      for name in ("mnist", "fashion_mnist")),
    DataSetInfo("cifar10", torchvision_sets.cifar10, (32,), 32, 3, {"train": 50_000, "test": 10_000}, "class", CLASSES,
                torchvision_sets.ADVICE["cifar10"], "download"),
    _grid("shapes3d", "3dshapes.h5", grids.SHAPES3D, "https://github.com/google-deepmind/3d-shapes"),
    *(_grid(name, f"{name}.npz", grids.MPI3D, MPI3D_HOME) for name in ("mpi3d_toy", "mpi3d_realistic", "mpi3d_real")),
    DataSetInfo("celeba", celeba.celeba, PHOTO_SIZES, 64, 3, {"train": 162_770, "valid": 19_867, "test": 19_962},
                "attributes", dict.fromkeys(celeba.NAMES, 2), celeba.ADVICE, "download"),
    DataSetInfo("celeba_hq", photos.celeba_hq, PHOTO_SIZES, 256, 3, UNKNOWN, "labels.csv",
                how_to_get=photos.CELEBA_HQ_ADVICE),
    DataSetInfo("folder", photos.folder, PHOTO_SIZES, 64, 3, UNKNOWN, "labels.csv", needs_data_dir=True,
                how_to_get="any folder of images: name it in data_dir, with a labels.csv in it if factors are known"),
)  # fmt: skip
REGISTRY: dict[str, DataSetInfo] = {entry.name: entry for entry in ENTRIES}


def about(name: str, data_dir: Folder = None) -> DataSetInfo:
    """What is known of a data set, without rendering it or reading an image.

    Of a folder of images that is there the files are counted and its `labels.csv` is read: "labels" becomes "factors"
    or "none". InputError for an unknown name, a `data_dir` that cannot be read, a folder without images, or a
    `labels.csv` that does not fit them.
    """
    if name not in REGISTRY:
        raise InputError(f"unknown dataset {name!r}: choose from {', '.join(REGISTRY)}")
    info, folder = REGISTRY[name], resolve(data_dir) if data_dir else None  # raises for what no set can be in
    if info.labels != "labels.csv" or (info.needs_data_dir and folder is None):
        return info
    root = folder if info.needs_data_dir else (folder or default_dir()) / info.name
    if not info.needs_data_dir and not root.is_dir():
        return info
    album = photos.look(root)
    info = replace(info, splits={split: int((album.splits == split).sum()) for split in info.splits})
    if (own := album.factors) is None:
        return replace(info, labels="none")
    sizes, values = dict(zip(own.names, own.sizes, strict=True)), own.values(np.flatnonzero(album.splits == "train"))
    return replace(info, labels="factors", factors=sizes, known=Factors(own.names, own.sizes, values))


def load(
    name: str, *, image_size: int | None = None, split: str = "train", data_dir: Folder = None, download: bool = False
) -> ImageSet:
    """A set of images, rendered or read from files, ready to be moved to the device that trains.

    Args:
        name: a name in `REGISTRY`.
        image_size: side of the square images in pixels; None for the data set's own.
        split: "train", "test" or "valid", as far as the data set has them.
        data_dir: where its files and caches are, `default_dir()` if None; for "folder" the images themselves.
        download: fetch missing files (never without being asked) of MNIST, Fashion-MNIST, CIFAR-10 and CelebA.

    Raises:
        InputError: an unknown name, split or size, or files that are missing or damaged.
    """
    info = about(name)
    return info.loader(info.check(image_size, split), split, info.folder(data_dir), download)


def train_and_test(name: str, held_out: int, **where) -> tuple[ImageSet, ImageSet]:
    """Images to train on and `held_out` others, drawn at random: of the official test split, or of a set that has none.

    They are in random order too, since a split's own may be that of its classes.
    """
    if "test" not in about(name).splits:
        return load(name, **where).train_test_split(held_out)
    held = load(name, split="test", **where)  # first: files may have no images of that split
    rows = np.random.default_rng(0).permutation(len(held))[:held_out]
    return load(name, **where), held.select(rows, held_out=held_out)
