"""What a code knows, wherever in the code it stands: the counterpart of scores that reward alignment."""

import numpy as np
from jaxtyping import Float, Integer
from sklearn.neighbors import NearestNeighbors

from vaestudy.errors import InputError
from vaestudy.metrics.information import binned, entropy, mutual_information
from vaestudy.metrics.table import Table


def readout(
    codes: Float[np.ndarray, "n d"],
    factors: Integer[np.ndarray, "n k"],
    *,
    seed: int,
    train: int = 10_000,
    test: int = 2_000,
    neighbours: int = 5,
) -> Float[np.ndarray, " k"]:
    """R² of each factor read from the nearest neighbours in the code: 0 for guessing its mean, 1 for always right.

    The mean value among the `neighbours` nearest of `train` rows is compared with the truth on `test` other rows;
    values count as numbers, and R² not below 0. A rotation of the code changes nothing. A smaller table is split 4 to
    1. Raises InputError for codes that are not finite, or fewer than 100 rows.
    """
    if not np.isfinite(codes).all() or len(codes) < 100:
        raise InputError(f"readout needs 100 rows or more of finite codes, not {len(codes)}")
    if train + test > len(codes):
        train, test = 4 * len(codes) // 5, len(codes) // 5
    rows = np.random.default_rng(seed).permutation(len(codes))[: train + test]
    learnt, asked = rows[:train], rows[train:]
    _, nearest = NearestNeighbors(n_neighbors=neighbours, n_jobs=1).fit(codes[learnt]).kneighbors(codes[asked])
    guess, truth = factors[learnt][nearest].mean(axis=1), factors[asked]
    spread = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    missed = ((truth - guess) ** 2).sum(axis=0)
    return np.where(spread > 0, np.clip(1 - missed / np.where(spread > 0, spread, 1), 0, 1), 0)


def information_shares(
    codes: Float[np.ndarray, "n d"],
    factors: Integer[np.ndarray, "n k"],
    *,
    seed: int,
    points: int = 10_000,
    bins: int = 20,
) -> Float[np.ndarray, "d k"]:
    """Mutual information of each latent, cut into `bins` of equal width, with each factor over the factor's entropy."""
    table = Table(codes, factors).rows(np.random.default_rng(seed), points)
    entropies = entropy(table.factors)
    return mutual_information(binned(table.codes, bins), table.factors) / np.where(entropies > 0, entropies, 1)


def correlation(codes: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"]:
    """Pearson correlations between latents; a constant latent correlates with none but itself."""
    centred = codes - codes.mean(axis=0, dtype=np.float64)
    length = np.sqrt((centred**2).sum(axis=0))
    matrix = centred.T @ centred / np.outer(*2 * [np.where(length > 1e-12, length, np.inf)])
    np.fill_diagonal(matrix, 1)
    return matrix
