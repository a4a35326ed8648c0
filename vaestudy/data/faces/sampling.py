"""The fixed sets of rendered faces: which combination of factors each face has.

Fourteen independent factors span 2.2e9 combinations; image i of a set has the one that a hash of i picks, uniform in
every factor (but mild faces seldom wear glasses). The proportions of a face and small shifts of its colours are its
identity: a nuisance that follows from i too, and no factor.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from vaestudy.data.cache import cached_array
from vaestudy.data.faces.render import NAMES, SIZES, VARIATIONS, VERSION, check, render, uniform
from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.data.paths import cache_path, default_dir
from vaestudy.errors import InputError

COUNTS = {"full": {"train": 40_000, "test": 4_000}, "mild": {"train": 20_000, "test": 2_000}}
MOST = 10_000_000  # faces of a split


def faces(
    side: int = 64,
    split: str = "train",
    data_dir: Path | None = None,
    download: bool = False,
    *,
    variation: str = "full",
    count: int | None = None,
) -> ImageSet:
    """A fixed set of rendered faces, three channels, drawn once and then opened from `data_dir`.

    Args:
        side: of the pictures, 16 to 256 pixels.
        split: "train" (40,000 faces, 20,000 mild ones) or "test" (a tenth as many others).
        data_dir: where the pictures are kept, `default_dir()` if None.
        download: without effect.
        variation: "full", or "mild" with muted walls, heads that fill the frame, larger features,
            narrower poses and fewer glasses.
        count: the first so many faces of the split, or more of them.

    Raises:
        InputError: a size, variation or count that does not exist, or a folder that cannot be written.
    """
    check(side, variation)
    count = COUNTS[variation][split] if count is None else count
    if not 0 < count <= MOST:
        raise InputError(f"count must be 1 to {MOST:,} faces, not {count}")
    index = np.arange(count) + (MOST if split == "test" else 0)
    values = sampled(index, variation)
    name = "faces" if variation == "full" else f"faces_{variation}"
    path = cache_path(data_dir or default_dir(), f"{name}-{VERSION}-{side}-{split}-{count}.npy")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    block = 2**24 // (3 * side**2)

    def pieces(start: int) -> Iterator[np.ndarray]:
        for first in range(start, count, block):
            rows = slice(first, first + block)
            yield render(values[rows], side, variation, identity=index[rows], device=device).cpu().numpy()

    storage, _ = cached_array(path, (count, 3, side, side), pieces, source=f"rendered on {device}")
    # Of what is drawn and not of the pixels, whose last bit may differ from one processor to the next.
    plan = hashlib.sha256(f"{name} {VERSION} {split}".encode() + values.tobytes()).hexdigest()
    return ImageSet(name, (3, side, side), storage, factors_of_rows=Factors(NAMES, SIZES, values), checksum=plan)


def sampled(index: Int[np.ndarray, " n"], variation: str = "full") -> Int[np.ndarray, "n k"]:
    """The factor values of the faces with these numbers: independent, and uniform but for the glasses."""
    drawn, wearing = uniform(index, 0, len(SIZES)), VARIATIONS[variation].glasses
    values, column = (drawn * SIZES).astype(np.int64), NAMES.index("glasses")
    values[:, column] = np.digitize(drawn[:, column], [1 - wearing, 1 - wearing / 2])
    return values
