"""Small classic sets from the files that their authors publish, read by torchvision."""

import gzip
import hashlib
import pickle
import shutil
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.errors import InputError, first_line
from vaestudy.files import replacing

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IDX_SETS = {
    "mnist": ("MNIST", "http://yann.lecun.com/exdb/mnist/"),
    "fashion_mnist": ("FashionMNIST", "https://github.com/zalandoresearch/fashion-mnist"),
}
CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"

# What torchvision lets through when a file is missing, cut short or something else.
DAMAGE = (RuntimeError, OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AssertionError)
DAMAGE += (zlib.error, pickle.UnpicklingError)


def mnist(name: str, image_size: int | None, split: str, data_dir: Path, download: bool) -> ImageSet:
    """MNIST or Fashion-MNIST: 60,000 or 10,000 grey images with their class, 28x28 or zero-padded to 32x32.

    Padding by 2 is NVAE's choice (Vahdat and Kautz 2020, sec. 4). The four IDX files are looked for in
    `data_dir/MNIST/raw` or `data_dir/FashionMNIST/raw`, plain or as `.gz`.

    Raises:
        InputError: another split or size, or files that are missing or damaged.
    """
    from torchvision import datasets

    _check(name, split, image_size, (28, 32))
    kind, page = IDX_SETS[name]
    raw = data_dir / kind / "raw"
    advice = f"put the files (plain or .gz) from {page} into {raw}, or pass download=True"
    try:
        for file in IDX_FILES:
            _gunzip(raw / f"{file}.gz", raw / file)
        missing = [file for file in IDX_FILES if not (raw / file).exists()]
        if missing and not download:
            raise FileNotFoundError(f"no {', '.join(missing)}")
        found = getattr(datasets, kind)(data_dir, train=split == "train", download=download)
    except DAMAGE as error:
        raise InputError(f"cannot read {name} in {raw} ({first_line(error)}): {advice}") from error
    if found.data.shape[1:] != (28, 28) or len(found.data) != len(found.targets):
        raise InputError(f"{raw} holds images {tuple(found.data.shape)} and {len(found.targets)} labels: {advice}")
    margin = ((image_size or 28) - 28) // 2
    return _classes(name, split, pad(found.data[:, None], (margin,) * 4), found.targets)


def cifar10(image_size: int | None, split: str, data_dir: Path, download: bool) -> ImageSet:
    """CIFAR-10: 50,000 or 10,000 colour images of 32x32 with their class.

    The batches are looked for in `data_dir/cifar-10-batches-py`, or the archive that holds them in `data_dir`. They
    are pickles, so torchvision checks their digests before it opens them.

    Raises:
        InputError: another split or size, or files that are missing or damaged.
    """
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity, extract_archive

    _check("cifar10", split, image_size, (32,))
    archive = data_dir / CIFAR10.filename
    try:
        if not (data_dir / CIFAR10.base_folder).exists() and check_integrity(archive, CIFAR10.tgz_md5):
            extract_archive(archive, data_dir)
        found = CIFAR10(data_dir, train=split == "train", download=download)
    except DAMAGE as error:
        raise InputError(
            f"cannot read cifar10 in {data_dir / CIFAR10.base_folder} ({first_line(error)}): "
            f"put {CIFAR10.filename} from {CIFAR_PAGE} into {data_dir}, or pass download=True"
        ) from error
    pixels = np.ascontiguousarray(found.data.transpose(0, 3, 1, 2))
    return _classes("cifar10", split, torch.from_numpy(pixels), torch.tensor(found.targets))


def _check(name: str, split: str, image_size: int | None, sizes: tuple[int, ...]) -> None:
    if split not in ("train", "test"):
        raise InputError(f"{name} has the splits train and test, not {split!r}")
    if image_size is not None and image_size not in sizes:
        raise InputError(f"{name} has image_size {' or '.join(map(str, sizes))}, not {image_size}")


def _classes(name: str, split: str, pixels: Tensor, classes: Tensor) -> ImageSet:
    return ImageSet(
        name=name,
        shape=tuple(pixels.shape[1:]),
        storage=pixels,
        factors_of_rows=Factors(["class"], [10], classes.numpy()[:, None]),
        checksum=hashlib.sha256(pixels.numpy()).hexdigest(),
        note={"split": split},
    )


def _gunzip(packed: Path, plain: Path) -> None:
    if plain.exists() or not packed.exists():
        return
    with replacing(plain) as partial, gzip.open(packed) as source, open(partial, "wb") as target:
        shutil.copyfileobj(source, target)
