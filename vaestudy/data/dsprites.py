"""dSprites, all 737,280 images, drawn from the geometry of its sprites.

Matthey, Higgins, Hassabis and Lerchner, "dSprites: Disentanglement testing Sprites dataset", 2017. Every sprite
is one filled polygon; its vertices are rounded to 1/256 pixel after it is scaled, turned and placed, and a pixel is
white if its centre lies inside. These rules give 64,825 of 64,834 published images that were at hand exactly. The
other nine differ in one pixel each, where a vertex falls within 0.001/256 pixel of a rounding tie that the
original's single precision decided; `CORRECTIONS` puts them right. By that count about 100 images of the whole set
may still be off by one pixel. With the original archive in the data folder its images are used instead.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from vaestudy.data.cache import cache_path, cached_array
from vaestudy.data.grids import read_npz
from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.errors import InputError
from vaestudy.files import digest_of

NAMES = ("shape", "scale", "orientation", "x", "y")
SIZES = (3, 6, 40, 32, 32)
COUNT = 3 * 6 * 40 * 32 * 32
SYMMETRY = (4, 2, 1)  # a square, an ellipse and a heart look alike after such a part of a turn
SIDES = (64, 32, 16, 8)

ARCHIVE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
ARCHIVE_MD5 = "7da33b31b13a06f4b04a70402ce90c2e"
ARCHIVE_HOME = "https://github.com/google-deepmind/dsprites-dataset"

# sha256 of the packed bits before the corrections. Every vertex is at least 2.8e-7/256 pixel from a rounding tie, so
# the last digit of another machine's sine does not move a pixel.
DIGEST = "3a228f4037ef3d42a42588e0e01f1078aa2df13cfa17584e88c95ed9fb5672da"

# shape, scale, orientation, x, y; row, column; the published value of that pixel.
CORRECTIONS = (
    ((0, 2, 28, 28, 20), (29, 43), 0),
    ((0, 3, 4, 30, 20), (35, 36), 0),
    ((0, 3, 28, 10, 10), (17, 21), 0),
    ((0, 3, 35, 11, 1), (27, 28), 0),
    ((1, 0, 12, 10, 2), (12, 26), 1),
    ((1, 5, 5, 15, 29), (35, 37), 0),
    ((1, 5, 24, 12, 12), (28, 37), 1),
    ((2, 3, 34, 27, 23), (44, 44), 0),
    ((2, 5, 20, 28, 28), (54, 41), 0),
)

_CENTRES = 16 + 32 * np.arange(32) / 31  # of the sprite, in pixels from the left or top edge
_ROWS = 256.0 * np.arange(64) + 128  # centres of the pixel rows, in 1/256 pixel
_FROM_COLUMN = np.array([2 ** (64 - column) - 1 for column in range(65)], dtype=np.uint64)


def angle(factors: Int[np.ndarray, "n 5"]) -> Float[np.ndarray, " n"]:
    """The orientation of each image in radians, times the symmetry of its shape: equal for images that look alike."""
    return 2 * np.pi / (SIZES[2] - 1) * factors[:, 2] * np.array(SYMMETRY)[factors[:, 0]]


def dsprites(side: int, split: str, data_dir: Path, download: bool) -> ImageSet:
    """All of dSprites as a full grid of factors, one channel; below 64 pixels the means of square blocks.

    There is no official split: "train" is the whole grid. InputError for a damaged archive.
    """
    shape, block = (1, side, side), 64 // side
    stem, stored, pieces, source = "dsprites", (512,), drawn, f"rendered, {len(CORRECTIONS)} pixels corrected"
    if (archive := data_dir / ARCHIVE).exists():
        stem, pieces, source = "dsprites-original", partial(_read, archive), ARCHIVE
    if side < 64:
        stored, pieces, source = shape, partial(_pooled, data_dir, block), "pooled"
    path = cache_path(data_dir, f"{stem}-{side}.npy")
    storage, details = cached_array(path, (COUNT, *stored), pieces, source=source)
    known = Factors(NAMES, SIZES)
    return ImageSet("dsprites", shape, storage, block**2, side == 64, known, checksum=details["checksum"])


def outline(shape: int) -> Float[np.ndarray, "vertices 2"]:
    """The polygon of a shape at scale 1, upright: (x, y) in pixels about its centre, y down."""
    half = 9.6
    if shape == 0:
        return half * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    if shape == 1:
        turn = 2 * np.pi * np.arange(100) / 100
        return np.stack([1.33 * half * np.cos(turn), half / 1.33 * np.sin(turn)], axis=1)
    turn = 2 * np.pi * np.arange(150) / 150
    lobes = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    return np.stack([half * np.sin(turn) ** 3, -half * (0.15 + lobes / 14.5)], axis=1)


def sprite(shape: int, scale: int, orientation: int) -> Float[np.ndarray, "vertices 2"]:
    """The same polygon scaled to 0.5 to 1 and turned counter-clockwise; orientation 39 is a full turn."""
    x, y = outline(shape).T
    angle = 2 * np.pi * orientation / 39
    turned = [x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)]
    return (0.5 + 0.1 * scale) * np.stack(turned, axis=1)


def rasterized(polygon: Float[np.ndarray, "vertices 2"]) -> UInt8[np.ndarray, "1024 512"]:
    """The polygon filled at all 32x32 positions, y fastest, as packed bits.

    A scanline meets the outline at the same edges whatever x is, and the crossing columns follow exactly from
    integers below 2^53; a row is the exclusive or of "all pixels from this column on" over its crossings. A
    centre on a left or bottom edge is inside, on a right or top edge outside.
    """
    x, y = (np.rint(256 * (_CENTRES[:, None] + axis)) for axis in polygon.T)
    beyond = y[:, None, :] < _ROWS[:, None]
    y_place, row, edge = np.nonzero(beyond != np.roll(beyond, -1, axis=2))
    end = (edge + 1) % len(polygon)
    rise = (y[y_place, end] - y[y_place, edge])[:, None]
    run = x.T[end] - x.T[edge]
    along = (_ROWS[row] - y[y_place, edge])[:, None]
    # The quotient is exact or at least 2^-21 away from an integer, so rounding cannot change the ceiling.
    column = np.ceil(((x.T[edge] - 128) * rise + along * run) / (256 * rise)).astype(np.int64)
    line = 64 * y_place + row
    first = np.flatnonzero(np.diff(line, prepend=-1))
    filled = np.zeros((32, 32 * 64), dtype=">u8")
    filled[:, line[first]] = np.bitwise_xor.reduceat(_FROM_COLUMN[column], first, axis=0).T
    return filled.view(np.uint8).reshape(1024, 512)


def block_counts(bits: UInt8[np.ndarray, "n 512"], block: int) -> UInt8[np.ndarray, "n side side"]:
    """White pixels in each block of 2x2, 4x4 or 8x8 pixels."""
    shifts = np.arange(8 - block, -1, -block, dtype=np.uint8)
    cells = bits.reshape(-1, 64 // block, block, 8, 1) >> shifts & (2**block - 1)
    return np.bitwise_count(cells).sum(axis=2, dtype=np.uint8).reshape(len(bits), 64 // block, -1)


def _pooled(data_dir: Path, block: int, start: int) -> Iterator[UInt8[np.ndarray, "n 1 side side"]]:
    for part in dsprites(64, "train", data_dir, False).storage[start:].split(8192):
        yield block_counts(part.numpy(), block)[:, None]


def drawn(start: int) -> Iterator[UInt8[np.ndarray, "1024 512"]]:
    """All images from `start` on; those before are drawn, too, for the digest of the whole."""
    digest = hashlib.sha256()
    for number, sprite_values in enumerate(np.ndindex(SIZES[:3])):
        bits = rasterized(sprite(*sprite_values))
        digest.update(bits)
        for values, (row, column), _ in CORRECTIONS:
            if values[:3] == sprite_values:
                bits[32 * values[3] + values[4], 8 * row + column // 8] ^= 128 >> column % 8
        if 1024 * number >= start:
            yield bits
    if (found := digest.hexdigest()) != DIGEST:
        raise InputError(f"the sprites drawn here have a wrong digest ({found[:8]}): put {ARCHIVE} into data_dir")


def _read(archive: Path, start: int) -> Iterator[UInt8[np.ndarray, "n 512"]]:
    """The packed bits of the published archive's `imgs`, piece by piece: whole, it takes 3 GB."""
    if digest_of(archive, "md5") != ARCHIVE_MD5:
        advice = f"fetch it again from {ARCHIVE_HOME}, or remove it and the images are rendered"
        raise InputError(f"{archive} is damaged or not the published file: {advice}")
    for pixels in read_npz(archive, (COUNT,), start, "imgs"):
        yield np.packbits(pixels.reshape(-1, 4096), axis=1)
