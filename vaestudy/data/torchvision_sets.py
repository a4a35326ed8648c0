"""Small classic sets from the files that their authors publish, fetched by torchvision if asked for."""

import gzip
import tarfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import pad

from vaestudy.data.fetch import fetch
from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.errors import reading
from vaestudy.files import digest_of

LARGEST = 16 + 60_000 * 28 * 28  # bytes of an IDX file; a .gz may promise any number
IDX_SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
ADVICE = {
    "mnist": "put the files (plain or .gz) from http://yann.lecun.com/exdb/mnist/ into MNIST/raw",
    "fashion_mnist": "put the files (plain or .gz) from https://github.com/zalandoresearch/fashion-mnist "
    "into FashionMNIST/raw",
    "cifar10": "put cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html there",
}
ADVICE = {name: f"{text} in data_dir, or pass download=True" for name, text in ADVICE.items()}


def mnist(side: int, split: str, data_dir: Path, download: bool, *, name: str = "mnist") -> ImageSet:
    """MNIST or Fashion-MNIST: 60,000 or 10,000 grey images with their class, 28x28 or zero-padded to 32x32.

    Padding by 2 is NVAE's choice (Vahdat and Kautz 2020, sec. 4). The four IDX files are looked for in
    `data_dir/MNIST/raw` or `data_dir/FashionMNIST/raw`, plain or as `.gz`. InputError where one is missing or damaged.
    """
    raw = data_dir / IDX_SETS[name] / "raw"
    with reading(f"cannot read {name} in {raw}", ADVICE[name]):
        if download:
            from torchvision import datasets

            source = getattr(datasets, IDX_SETS[name])
            for file, md5 in source.resources:
                if not (raw / file).with_suffix("").exists():
                    fetch([mirror + file for mirror in source.mirrors], md5, raw / file)
        part = "train" if split == "train" else "t10k"
        pixels, classes = (read_idx(raw / f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        if pixels.shape != (len(classes), 28, 28):
            raise ValueError(f"{pixels.shape} pixels and {len(classes)} labels")
    return _classes(name, split, pad(torch.from_numpy(pixels)[:, None], ((side - 28) // 2,) * 4), classes)


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """The bytes of an IDX file, plain or as .gz: two zeros, 8 for bytes, the number of axes, their lengths."""
    packed = path.with_name(f"{path.name}.gz")
    if not path.exists() and not packed.exists():
        raise FileNotFoundError(f"no {path.name}")
    with path.open("rb") if path.exists() else gzip.open(packed) as file:
        content = file.read(LARGEST + 1)
    if content.startswith(b"\0\0\x08"):
        with suppress(ValueError, IndexError):
            shape = np.frombuffer(content, ">u4", content[3], offset=4)
            return np.frombuffer(content, np.uint8, offset=4 + shape.nbytes).reshape(shape.tolist()).copy()
    raise ValueError(f"{path.name} is no whole IDX file")


def cifar10(side: int, split: str, data_dir: Path, download: bool) -> ImageSet:
    """CIFAR-10: 50,000 or 10,000 colour images of 32x32 with their class.

    The batches are looked for in `data_dir/cifar-10-batches-py`, or in the archive that holds them in `data_dir`. They
    are pickles, opened by torchvision only if their digests are the published ones. InputError where any is missing or
    damaged.
    """
    from torchvision.datasets import CIFAR10

    folder, archive = data_dir / CIFAR10.base_folder, data_dir / CIFAR10.filename
    with reading(f"cannot read cifar10 in {folder}", ADVICE["cifar10"]), TemporaryDirectory() as unpacked:
        if not folder.exists():
            if download:
                fetch([CIFAR10.url], CIFAR10.tgz_md5, archive)
            if digest_of(archive, "md5") != CIFAR10.tgz_md5:
                raise ValueError(f"{archive.name} is not the published file")
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
        found = CIFAR10(data_dir if folder.exists() else unpacked, train=split == "train")
    return _classes("cifar10", split, found.data.transpose(0, 3, 1, 2), np.array(found.targets))


def _classes(name: str, split: str, pixels: Tensor | np.ndarray, classes: np.ndarray) -> ImageSet:
    images = ImageSet.from_array(pixels, Factors(["class"], [10], classes[:, None]), name)
    return replace(images, note={"split": split})
