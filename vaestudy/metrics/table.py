"""A table of codes beside the factors of the same images: all that a disentanglement metric sees."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer

from vaestudy.errors import InputError

Codes = Float[np.ndarray, "n d"]
Labels = Integer[np.ndarray, "n k"]


class Rows(NamedTuple):
    """Some rows of a table, with the factor values numbered as there."""

    codes: Float[np.ndarray, "n d"]
    factors: Int[np.ndarray, "n k"]


class Table:
    """Codes (n, d) and integer factors (n, k) of n images, checked once, with rows found by factor value.

    The published protocols render images whose factors they choose. From a table the same is done by index: rows
    that share a value of one factor are rows of that value, drawn with replacement, so that the shared value is
    distributed as in the data and the other factors as in the data given that value. On a full factor grid this
    is the generative protocol itself.

    Attributes:
        codes: float (n, d), finite; float32 stays float32.
        factors: int64 (n, k), the values of each factor renumbered from 0 in their order.
        sizes: int64 (k,), the number of values of each factor.

    Raises InputError for codes that are not finite, shapes that do not fit, and factors with a single value.
    """

    def __init__(self, codes: np.ndarray, factors: np.ndarray):
        codes, factors = np.asarray(codes), np.asarray(factors)
        if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or 0 in codes.shape + factors.shape:
            shapes = f"{codes.shape} and {factors.shape}"
            raise InputError(f"metrics need codes (n, d) and factors (n, k) of the same n images, not {shapes}")
        if not np.issubdtype(factors.dtype, np.integer):
            raise InputError(f"factors must be integers that number each factor's values, not {factors.dtype}")
        self.codes = codes if codes.dtype == np.float32 else codes.astype(np.float64)
        if not np.isfinite(self.codes).all():
            bad = int((~np.isfinite(self.codes)).any(axis=1).sum())
            raise InputError(f"codes hold NaN or inf in {bad} of {len(codes)} rows: encode again or drop those rows")
        self.factors = np.stack([_renumbered(column) for column in factors.T], axis=1)
        self.sizes = self.factors.max(axis=0) + 1
        if (constant := np.flatnonzero(self.sizes < 2)).size:
            raise InputError(f"factor column {constant[0]} has one value only: leave it out of the factors")
        self._groups: dict[int, _Group] = {}

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def variance(self) -> Float[np.ndarray, " d"]:
        """Variance of each code over the table, with one degree of freedom less than there are rows."""
        return self.codes.var(axis=0, ddof=1, dtype=np.float64)

    def columns(self, classes: Sequence[int] | None) -> list[int]:
        """The factor columns to use, all of them for None."""
        known = range(len(self.sizes))
        chosen = list(known) if classes is None else [int(k) for k in classes]
        if len(chosen) < 2 or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
            raise InputError(f"classes must name two or more different columns of 0 to {len(known) - 1}, not {chosen}")
        return chosen

    def rows(self, rng: np.random.Generator, points: int | None) -> "Table":
        """A table of `points` rows drawn without replacement, or this one when it has no more, or for None."""
        if points is None or points >= len(self):
            return self
        if points < 2:
            raise InputError(f"points must be 2 or more, not {points}")
        chosen = rng.choice(len(self), points, replace=False)
        return Table(self.codes[chosen], self.factors[chosen])

    def split(self, rng: np.random.Generator, train: int, test: int) -> tuple[Rows, Rows]:
        """`train` rows and `test` other rows, drawn without replacement."""
        if min(train, test) < 1 or train + test > len(self):
            raise InputError(f"{train} rows to train and {test} to test do not fit a table of {len(self)}")
        learnt, unseen = np.split(rng.choice(len(self), train + test, replace=False), [train])
        if not np.ptp(self.factors[learnt], axis=0).all():
            raise InputError(f"{train} training rows leave a factor with one value: use a larger train")
        return Rows(self.codes[learnt], self.factors[learnt]), Rows(self.codes[unseen], self.factors[unseen])

    def alike(self, rng: np.random.Generator, factor: int, rows: Int[np.ndarray, "*s"]) -> Int[np.ndarray, "*s"]:
        """For each row independently a row of the table, perhaps itself, with the same value of `factor`."""
        if factor not in self._groups:
            self._groups[factor] = _group(self.factors[:, factor])
        order, starts, counts = self._groups[factor]
        if counts.min() < 2:
            value = f"value number {counts.argmin()} of factor column {factor}"
            raise InputError(f"{value} occurs in one row only and makes no pair: use more rows or merge values")
        value = self.factors[rows, factor]
        return order[starts[value] + rng.integers(counts[value])]


class _Group(NamedTuple):
    """Rows ordered by the value of one factor; where each value starts in that order, and how often it occurs."""

    order: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


def _group(column: Int[np.ndarray, " n"]) -> _Group:
    small = column.astype(np.int16) if column.max() < 2**15 else column  # 16 bits are sorted by radix, in one pass
    counts = np.bincount(column)
    return _Group(np.argsort(small, kind="stable"), np.cumsum(counts) - counts, counts)


def _renumbered(column: Integer[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The column with its values replaced by their ranks 0, 1, ..."""
    span = int(column.max()) - int(column.min())
    if span > len(column) + 1000:  # too sparse to count
        return np.unique(column, return_inverse=True)[1].astype(np.int64)
    offset = column.astype(np.int64) - int(column.min())
    return (np.cumsum(np.bincount(offset) > 0) - 1)[offset]
