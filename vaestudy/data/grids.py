"""3D Shapes and MPI3D: published arrays of all combinations of their factors, read piece by piece and kept small."""

import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vaestudy.data.cache import cache_path, cached_array
from vaestudy.data.decode import content_digest
from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.errors import InputError, reading

SHAPES3D = {"floor_hue": 10, "wall_hue": 10, "object_hue": 10, "scale": 8, "shape": 4, "orientation": 15}
MPI3D = {"object_color": 6, "object_shape": 6, "object_size": 2, "camera_height": 3, "background_color": 3}
MPI3D |= {"horizontal_axis": 40, "vertical_axis": 40}
SIDES = (64, 32, 16, 8)
PIECE = 2048  # images read at a time: 25 MB of colour


def grid_of_images(
    side: int, split: str, data_dir: Path, download: bool, *, name: str, file: str, factors: dict[str, int], advice: str
) -> ImageSet:
    """Images (n, 64, 64, 3) of `data_dir/file` (.h5 or .npz), row-major over `factors`, the last one fastest.

    Below 64 pixels each is the rounded mean of a square block. The file, up to 12 GB, never stands in memory whole.
    InputError for one that is missing, damaged or holds other images.
    """
    path, sizes = data_dir / file, tuple(factors.values())
    if not path.exists():
        raise InputError(f"there is no {path}: {advice}")
    target = cache_path(data_dir, f"{name}-{side}-{content_digest(data_dir, [file], data_dir)[:16]}.npy")

    def pieces(start: int) -> Iterator[np.ndarray]:
        read = read_h5 if path.suffix == ".h5" else read_npz
        with reading(f"{path} is damaged", advice):
            for piece in read(path, sizes, start):
                yield block_means(piece, side)

    known = Factors(list(factors), sizes)
    storage, details = cached_array(target, (len(known), 3, side, side), pieces, source=file)
    return ImageSet(name, (3, side, side), storage, factors_of_rows=known, checksum=details["checksum"])


def block_means(pixels: UInt8[np.ndarray, "n 64 64 c"], side: int) -> UInt8[np.ndarray, "n c {side} {side}"]:
    """The images channels first, each pixel the rounded mean of a square block."""
    block = 64 // side
    means = pixels.reshape(len(pixels), side, block, side, block, -1).mean(axis=(2, 4), dtype=np.float32)
    return np.rint(means).astype(np.uint8).transpose(0, 3, 1, 2)


def read_h5(path: Path, sizes: tuple[int, ...], start: int) -> Iterator[np.ndarray]:
    """The pieces of `images`, after `labels` (n, factors) has been found to count through the factors row by row."""
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path.name} is an HDF5 file: pip install 'vaestudy[hdf5]' reads it") from error
    with h5py.File(path) as file:
        images, labels = file["images"], file["labels"][:]
        _expect(path, images.shape, images.dtype, sizes)
        ranks = [np.unique(column, return_inverse=True)[1] for column in labels.T]
        if len(ranks) != len(sizes) or not np.array_equal(ranks, np.indices(sizes).reshape(len(sizes), -1)):
            raise InputError(f"the labels of {path} are not in the published order")
        for row in range(start, len(images), PIECE):
            yield images[row : row + PIECE]


def read_npz(path: Path, sizes: tuple[int, ...], start: int, member: str = "images") -> Iterator[np.ndarray]:
    """The pieces of one array of an archive; no other member is opened, and no pickle ever."""
    with zipfile.ZipFile(path) as members, members.open(f"{member}.npy") as file:
        np.lib.format.read_magic(file)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)  # later versions are for long names of fields
        _expect(path, shape, dtype, sizes)
        if fortran:
            raise InputError(f"{path} holds its images in another order of the axes")
        size = math.prod(shape[1:])
        file.seek(start * size, os.SEEK_CUR)
        for row in range(start, shape[0], PIECE):
            count = min(PIECE, shape[0] - row)
            yield np.frombuffer(file.read(count * size), dtype=np.uint8).reshape(count, *shape[1:])


def _expect(path: Path, shape: tuple[int, ...], dtype: np.dtype, sizes: tuple[int, ...]) -> None:
    count = math.prod(sizes)
    if shape[0] != count or shape[1:3] != (64, 64) or dtype != np.uint8:
        raise InputError(f"{path} holds images {shape} of {dtype}, not {(count, 64, 64)} of uint8")
