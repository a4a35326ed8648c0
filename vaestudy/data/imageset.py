"""Sets of images that live on the device that trains, with the factors that made them where known."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from vaestudy.errors import InputError

Index = Tensor | np.ndarray | Sequence[int] | slice


class Factors:
    """Integer factors of variation: a name, a number of values and one column each.

    Without a table (n, factors) they form a full grid in row-major order, the last one fastest: image i of the set
    has the factor values `unravel_index(i, sizes)`. InputError for names, sizes and table that do not fit each other,
    or values that are not 0 to size - 1.
    """

    def __init__(self, names: Sequence[str], sizes: Sequence[int], table: np.ndarray | None = None):
        self.names, self.sizes, self.table = tuple(names), tuple(map(int, sizes)), table
        if len(self.names) != len(self.sizes) or (table is not None and table.shape[1:] != (len(self.names),)):
            raise InputError(f"{len(self.names)} factor names do not fit the sizes or columns given")
        if table is not None and (table.dtype.kind not in "iu" or (table < 0).any() or (table >= self.sizes).any()):
            raise InputError("factor values must be whole numbers from 0 to below each factor's number of values")

    @property
    def is_grid(self) -> bool:
        return self.table is None

    def __len__(self) -> int:
        return math.prod(self.sizes) if self.table is None else len(self.table)

    def __repr__(self) -> str:
        return f"Factors({', '.join(f'{name}: {size}' for name, size in zip(self.names, self.sizes, strict=True))})"

    def values(self, index: Index) -> Int64[np.ndarray, "n factors"]:
        """Factor values of some images."""
        index = np.arange(len(self))[index] if isinstance(index, slice) else torch.as_tensor(index).long().cpu().numpy()
        values = np.stack(np.unravel_index(index, self.sizes), axis=1) if self.table is None else self.table[index]
        return values.astype(np.int64)

    def index(self, values: Int[np.ndarray, "n factors"]) -> Int64[np.ndarray, " n"]:
        """Where the images with these factor values stand in a full grid."""
        if self.table is not None:
            raise InputError("only a full factor grid can be looked up by factor values")
        return np.ravel_multi_index(tuple(np.asarray(values).T), self.sizes)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in bytes or in bits, made into float32 only batch by batch and on the device that holds them.

    InputError for storage that is not uint8 or does not fit `shape`, or factors of another number of images.
    """

    name: str  # for people and for a run's identity
    shape: tuple[int, int, int]  # (channels, height, width) of one image
    storage: Tensor  # uint8, (n, c, h, w) or, when `packed`, (n, c*h*w/8) bits with the first pixel highest
    levels: int = 255  # the byte that stands for 1.0 (255 for photographs, 1 for bits, 16 for 4x4 pooled bits)
    packed: bool = False
    factors_of_rows: Factors | None = None  # what is known of each row of `storage`; `factors` is the part for this set
    rows: Tensor | None = None  # those of `storage` that belong to this set (int64), None for all of them
    checksum: str = ""  # of the data, for a run's provenance
    bits: int = 8  # that each channel keeps, at most 8
    note: dict = field(default_factory=dict)  # what else tells this set from others of its name: split, crop, selection

    def __post_init__(self):
        row = (self.dims // 8,) if self.packed else tuple(self.shape)
        if self.storage.dtype != torch.uint8 or tuple(self.storage.shape[1:]) != row:
            found = f"{self.storage.dtype} {tuple(self.storage.shape)}"
            raise InputError(f"{self.name} must be stored as torch.uint8 (n, {', '.join(map(str, row))}), not {found}")
        if self.factors_of_rows is not None and len(self.factors_of_rows) != len(self.storage):
            raise InputError(f"{len(self.factors_of_rows)} rows of factors do not fit {len(self.storage)} images")

    @classmethod
    def from_array(cls, pixels: np.ndarray | Tensor, factors: Factors | None = None, name: str = "array") -> "ImageSet":
        """Anyone's own images: bytes (n, c, h, w) of one or three channels, or floats in [0, 1], rounded to bytes.

        InputError for channels that come last or not at all, floats beyond [0, 1], or factors of another length.
        """
        pixels = pixels if isinstance(pixels, Tensor) else torch.tensor(np.ascontiguousarray(pixels))
        if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
            last = pixels.ndim == 4 and pixels.shape[3] in (1, 3)
            advice = "channels come second: pixels.transpose(0, 3, 1, 2)" if last else "1 or 3 channels come second"
            raise InputError(f"pixels must be (n, c, h, w), not {tuple(pixels.shape)}; {advice}")
        if pixels.dtype == torch.bool or pixels.is_floating_point():
            if not ((pixels >= 0) & (pixels <= 1)).all():
                raise InputError("floating-point pixels must lie in [0, 1]: divide by their white, or pass bytes")
            pixels = (pixels * 255).round().to(torch.uint8)
        elif pixels.dtype != torch.uint8:
            raise InputError(f"pixels must be bytes (uint8) or floats in [0, 1], not {pixels.dtype}")
        checksum = hashlib.sha256(pixels.cpu().contiguous().numpy()).hexdigest()
        return cls(name, tuple(pixels.shape[1:]), pixels, factors_of_rows=factors, checksum=checksum)

    def __len__(self) -> int:
        return len(self.storage) if self.rows is None else len(self.rows)

    def __repr__(self) -> str:
        held = f"{len(self):,} images {tuple(self.shape)} on {self.storage.device}"
        return f"ImageSet({self.name}: {held}, {self.factors})"

    @property
    def dims(self) -> int:
        """Numbers in one image: N of β_norm = β·M/N."""
        return math.prod(self.shape)

    @property
    def factors(self) -> Factors | None:
        known = self.factors_of_rows
        if known is None or self.rows is None:
            return known
        return Factors(known.names, known.sizes, known.values(self.rows))

    def batch(self, index: Index) -> Float[Tensor, "n c h w"]:
        """The images at `index` as float32 in [0, 1], on the set's device."""
        raw = self.storage.index_select(0, self._rows(index))  # copies rows; an index by a tensor copies bytes
        white = self.levels
        if self.packed:
            raw = raw[..., None] >> torch.arange(7, -1, -1, dtype=torch.uint8, device=raw.device) & 1
        elif self.bits < 8:
            raw, white = raw >> (8 - self.bits), 2**self.bits - 1
        return raw.reshape(-1, *self.shape).float().div_(white)

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set with its bytes resident on `device`, its own rows alone if that is not the CPU."""
        kept = self if torch.device(device).type == "cpu" else self.compact()
        return replace(kept, storage=kept.storage.to(device), rows=None if kept.rows is None else kept.rows.to(device))

    def compact(self) -> "ImageSet":
        """The same set holding a copy of its own rows alone."""
        if self.rows is None:
            return self
        return replace(self, storage=self.storage[self.rows], rows=None, factors_of_rows=self.factors)

    def select(self, index: Index, **note) -> "ImageSet":
        """The subset at `index`; `note` says in a run's configuration how it was chosen."""
        return replace(self, rows=self._rows(index), note={**self.note, **note})

    def subsample(self, limit: int) -> "ImageSet":
        """The set itself, or of a full factor grid a copy of every other value of its largest factors, again a grid:
        so often that at most `limit` images are left."""
        known = self.factors_of_rows
        if known is None or not known.is_grid or self.rows is not None or len(self) <= max(limit, 1):
            return self
        rows, every = np.arange(len(self)).reshape(known.sizes), [1] * len(known.sizes)
        while rows.size > max(limit, 1):
            axis = int(np.argmax(rows.shape))
            rows, every[axis] = rows.take(range(0, rows.shape[axis], 2), axis), 2 * every[axis]
        grid = self.select(rows.ravel(), every=every).compact()
        return replace(grid, factors_of_rows=Factors(known.names, rows.shape))

    def train_test_split(self, held_out: int) -> "tuple[ImageSet, ImageSet]":
        """The set without `held_out` images, drawn once and for all, and those images in random order."""
        if not 0 < held_out < len(self):
            raise InputError(f"{held_out} images cannot be held out of {len(self)}")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        test, train = order[:held_out], order[held_out:].sort().values
        return self.select(train, without=held_out), self.select(test, held_out=held_out)

    def hold_out(self, **region: Iterable[int]) -> "tuple[ImageSet, ImageSet]":
        """The set without a region of factor values, and that region: `hold_out(shape=[2], x=range(16, 32))`.

        The region holds the combinations in which every factor named has one of the values given.
        """
        known = self.factors
        if known is None or not region or not set(region) <= set(known.names):
            asked, names = ", ".join(region), ", ".join(known.names) if known else "none"
            raise InputError(f"cannot hold out {asked or 'no factor'}: the factors of {self.name} are {names}")
        wanted = {name: [int(value) for value in values] for name, values in region.items()}
        columns = dict(zip(known.names, known.values(slice(None)).T, strict=True))
        inside = np.logical_and.reduce([np.isin(columns[name], values) for name, values in wanted.items()])
        return self.select(~inside, without_region=wanted), self.select(inside, region=wanted)

    def quantized(self, bits: int) -> "ImageSet":
        """The set with only the `bits` highest bits of each byte, still in [0, 1] (NVAE, sec. 4: 5 bits)."""
        if not 1 <= bits <= 8 or self.packed or self.levels != 255:
            raise InputError(f"bits must be 1 to 8 and the images bytes, not {bits} bits of {self.levels} levels")
        return replace(self, bits=bits)

    def describe(self) -> dict:
        """What identifies this set in a run's configuration."""
        about = {"name": self.name, "shape": list(self.shape), "count": len(self), "checksum": self.checksum}
        return {**about, "bits": self.bits, **self.note}

    def _rows(self, index: Index) -> Tensor:
        device = self.storage.device
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)), device=device)
        index = torch.as_tensor(index, device=device)
        if index.dtype == torch.bool:
            if len(index) != len(self):
                raise InputError(f"a mask of {len(index)} does not fit {len(self)} images")
            index = index.nonzero()[:, 0]
        index = index.long()
        return torch.where(index < 0, index + len(self), index) if self.rows is None else self.rows[index]
