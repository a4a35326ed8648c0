"""A table of codes beside the factors of the same images: all that a disentanglement metric sees."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Integer

from vaestudy.errors import InputError

Codes = Float[np.ndarray, "n d"]
Labels = Integer[np.ndarray, "n k"]
Models = Sequence[Float[np.ndarray, "n _"]]  # codes of the same images by several models

CHUNK = 2**20  # numbers gathered at a time: few enough to stay in a core's cache
SMALLEST = 1e-6  # of a latent's largest magnitude, or of 1, the prior's standard deviation: less is rounding


def varies(codes: Codes) -> Bool[np.ndarray, " d"]:
    """Which latents vary: the one rule by which every metric calls a latent constant.

    A latent is constant if its range is at most a millionth of its largest absolute value, or of 1 where that is larger
    (for half precision, four steps of rounding), so that constants which rounding has blurred are found. A latent that
    is switched off but still moves by hundredths varies: the KL finds it (see `live`).
    """
    smallest = max(SMALLEST, 4 * np.finfo(codes.dtype).eps)
    columns = np.ascontiguousarray(codes.T)  # numpy takes a row's minimum ten times faster than a column's
    low, high = columns.min(axis=1).astype(np.float64), columns.max(axis=1).astype(np.float64)
    return high - low > smallest * np.maximum(1, np.maximum(np.abs(low), np.abs(high)))


def live(kl: Float[np.ndarray, " d"], threshold: float = 0.05) -> Bool[np.ndarray, " d"]:
    """Which latents carry something: those whose mean KL to the prior is at least `threshold` nats an image.

    A latent that is switched off still moves a little with the image, and whatever standardises columns (whitening,
    explicitness) makes much of it: score `codes[:, live(kl)]`, or draws of the posterior. Raises InputError for KLs
    that are not finite.
    """
    if not np.isfinite(kl).all():
        raise InputError("live needs the finite mean KL in nats of each latent")
    return kl >= threshold


class Table:
    """Codes (n, d) and integer factors (n, k) of n images, checked, with rows found by factor value.

    The published protocols render images whose factors they choose. From a table the same is done by index: rows that
    share a value of one factor are drawn from the rows of that value, with replacement. On a full factor grid this is
    the generative protocol itself.

    Attributes:
        codes: float (n, d), finite; float32 stays float32, all else becomes float64; constant latents are exactly 0.
        varying: bool (d,), the latents that are not constant, see `varies`.
        factors: int64 (n, k), the values of each factor renumbered from 0 in their order.
        sizes: int64 (k,), the number of values of each factor.

    Raises InputError for codes that are not finite, shapes that do not fit, and factors with a single value.
    """

    def __init__(self, codes: np.ndarray, factors: np.ndarray):
        _check_shapes(codes, factors)
        self.codes = codes if codes.dtype == np.float32 else codes.astype(np.float64)
        if bad := np.count_nonzero(~np.isfinite(self.codes).all(axis=1)):
            raise InputError(f"codes hold NaN or inf in {bad} of {len(codes)} rows: encode again or drop those rows")
        self.varying = varies(codes)
        if not self.varying.all():
            self.codes = np.where(self.varying, self.codes, 0)
        self.factors = np.stack([pd.factorize(column, sort=True)[0] for column in factors.T], axis=1)
        self.sizes = self.factors.max(axis=0) + 1
        if (constant := np.flatnonzero(self.sizes < 2)).size:
            raise InputError(f"factor column {constant[0]} has one value only: leave it out of the factors")
        self._groups: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    @classmethod
    def drawn(cls, codes: np.ndarray, factors: np.ndarray, seed: int, points: int | None) -> "Table":
        """A table of `points` rows, drawn without replacement and alone checked, or of all (for None, or no more)."""
        _check_shapes(codes, factors)
        if points is None or points >= len(codes):
            return cls(codes, factors)
        if points < 2:
            raise InputError(f"points must be 2 or more, not {points}")
        chosen = np.random.default_rng(seed).choice(len(codes), points, replace=False)
        return cls(codes[chosen], factors[chosen])

    @classmethod
    def split(
        cls, codes: np.ndarray, factors: np.ndarray, seed: int, train: int, test: int, *, live: bool = False
    ) -> list[np.ndarray]:
        """Codes of `train` and of `test` other rows, drawn without replacement, then the factors of both.

        Only these rows are checked. A smaller table is split 2 to 1, or as many to train as asked for. `live` leaves
        constant latents out.
        """
        _check_shapes(codes, factors)
        if train + test > len(codes):
            train = min(train, 2 * len(codes) // 3)
            test = min(test, len(codes) - train)
        if min(train, test) < 1:
            raise InputError(f"a table of {len(codes)} rows gives {train} to train and {test} to test: both need some")
        chosen = np.random.default_rng(seed).choice(len(codes), train + test, replace=False)
        table = cls(codes[chosen], factors[chosen])
        if not np.ptp(table.factors[:train], axis=0).all():
            raise InputError(f"{train} training rows leave a factor with one value: use a larger train")
        return [*np.split(table.live_codes if live else table.codes, [train]), *np.split(table.factors, [train])]

    @property
    def live_codes(self) -> Float[np.ndarray, "n _"]:
        """The latents that vary, or one column of zeros where none does."""
        return self.codes if self.varying.all() else self.codes[:, self.varying if self.varying.any() else [0]]

    def alike(self, rng: np.random.Generator, factor: int, rows: Int[np.ndarray, "*s"]) -> Int[np.ndarray, "*s"]:
        """For each row independently a row of the table, perhaps itself, with the same value of `factor`."""
        column = self.factors[:, factor]
        if factor not in self._groups:  # rows in the order of their value; where each value starts, how often it occurs
            small = column.astype(np.min_scalar_type(column.max()))  # few bits are sorted in one pass
            counts = np.bincount(column)
            self._groups[factor] = np.argsort(small, kind="stable"), np.cumsum(counts) - counts, counts
        order, starts, counts = self._groups[factor]
        if counts.min() < 2:
            value = f"value number {counts.argmin()} of factor column {factor}"
            raise InputError(f"{value} occurs in one row only and makes no pair: use more rows or merge values")
        return order[starts[column[rows]] + rng.integers(counts[column[rows]])]


def whitened(codes: Codes) -> Float[np.ndarray, "n _"]:
    """The principal components of the codes that vary, in float64 with variance 1 over the rows, the largest first.

    Those of less than a millionth of the largest one's standard deviation are left out. The latent that weighs most in
    a component does so positively: otherwise the last bits of a machine would decide.
    """
    z = codes[:, varies(codes)].astype(np.float64)
    if not z.size:
        return np.zeros((len(codes), 1))
    z -= z.mean(axis=0)
    variances, axes = np.linalg.eigh(z.T @ z / len(z))
    kept = np.flatnonzero(variances > SMALLEST**2 * variances[-1])[::-1]
    axes = axes[:, kept] / np.sqrt(variances[kept])
    return z @ (axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(len(kept))]))


def correlation(codes: Codes) -> Float[np.ndarray, "d d"]:
    """Pearson correlations between latents; a constant latent correlates with none but itself."""
    matrix, live = np.eye(codes.shape[1]), np.flatnonzero(varies(codes))
    if live.size > 1:
        matrix[np.ix_(live, live)] = np.corrcoef(codes[:, live], rowvar=False, dtype=np.float64)
    return matrix


def mean_correlation(matrix: Float[np.ndarray, "d d"]) -> float:
    """The mean absolute correlation between different latents; 0 of a single one."""
    others = np.abs(matrix[~np.eye(len(matrix), dtype=bool)])
    return float(others.mean()) if others.size else 0.0


def check_columns(name: str, chosen: Sequence[int], width: int, least: int = 0) -> list[int]:
    """The columns that a setting names. Raises InputError unless they are `least` or more different ones of `width`."""
    if len(set(chosen)) < max(least, len(chosen)) or not set(chosen) <= set(range(width)):
        raise InputError(f"{name} must name {least} or more different columns of 0 to {width - 1}, not {list(chosen)}")
    return list(chosen)


def _check_shapes(codes: np.ndarray, factors: np.ndarray) -> None:
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or 0 in codes.shape + factors.shape:
        shapes = f"{codes.shape} and {factors.shape}"
        raise InputError(f"metrics need codes (n, d) and factors (n, k) of the same n images, not {shapes}")
    if not np.issubdtype(factors.dtype, np.integer):
        raise InputError(f"factors must be integers that number each factor's values, not {factors.dtype}")
