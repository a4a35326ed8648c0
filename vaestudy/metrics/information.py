"""Metrics from counts: the mutual information of each latent, cut into bins, with each factor."""

import numpy as np
import scipy.stats
from jaxtyping import Float, Int
from sklearn.metrics import mutual_info_score

from vaestudy.errors import InputError
from vaestudy.metrics.table import Codes, Labels, Table


def mig(codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000, bins: int | None = 20) -> float:
    """Mutual information gap in [0, 1]: how far the best latent is ahead of the second, per nat of each factor.

    Chen et al. (2018), eq. 6, estimated from counts as in disentanglement_lib: `points` rows (None for all), each
    latent cut into `bins` of equal width over its range. Few bins cap the score: codes that are the 40 orientations
    of dSprites get at most ln 20 / ln 40 for them. `bins=None` takes discrete codes as they are, without a cap.
    Constant codes score 0. Raises InputError for fewer than two latents.
    """
    return mean_gap(information_shares(codes, factors, seed=seed, points=points, bins=bins))


def mig_sup(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    points: int | None = 10_000,
    bins: int | None = 20,
    active_variance: float = 0.01,
) -> float:
    """MIG seen from the latents, in [0, 1]: how far the best factor of each latent is ahead of its second.

    Li et al. (2020), sec. 4 ("MIG-sup"): the gap between the two largest I(latent; factor) / H(factor) of each active
    latent, averaged over these. Active is a latent whose variance exceeds `active_variance`; without any the score is
    0. MIG asks whether a factor stands in one latent, MIG-sup whether a latent holds one factor. `points` and `bins`
    are those of `mig`. Raises InputError for fewer than two factors.
    """
    table = Table.drawn(codes, factors, seed, points)
    return mean_gap(_shares(table, bins)[table.variance > active_variance].T)


def mean_gap(scores: Float[np.ndarray, "d k"]) -> float:
    """The largest minus the second largest value of each column, averaged over columns; 0 without columns."""
    if len(scores) < 2:
        raise InputError("a gap compares the two best: the metric needs two latents and, seen from them, two factors")
    second, first = np.sort(scores, axis=0)[-2:]
    return float((first - second).mean()) if scores.shape[1] else 0.0


def modularity(
    codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000, bins: int | None = 20
) -> float:
    """How much each latent tells of one factor alone, in [0, 1]: Ridgeway & Mozer (2018), sec. 2.

    The mean over all latents, so that a constant one, which counts 0, lowers it. `points` and `bins` are those of
    `mig`. Pure noise scores about 0.65, since the bias of its information estimates grows with the number of values of
    a factor: read the score against its floor.
    """
    table = Table.drawn(codes, factors, seed, points)
    return modularity_from_information(mutual_information(binned(table.codes, bins), table.factors))


def modularity_from_information(information: Float[np.ndarray, "d k"]) -> float:
    """Modularity from I(z_j; v_k): the mean over all latents, where one without any information counts 0."""
    if information.shape[1] < 2:
        raise InputError("modularity compares factors: it needs two factor columns or more")
    squares = information**2
    largest = squares.max(axis=1)
    rest = (squares.sum(axis=1) - largest) / (information.shape[1] - 1)
    return float(np.where(largest > 0, 1 - rest / np.where(largest > 0, largest, 1), 0).mean())


def information_shares(
    codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000, bins: int | None = 20
) -> Float[np.ndarray, "d k"]:
    """Mutual information of each latent with each factor over the factor's entropy; settings as for `mig`."""
    return _shares(Table.drawn(codes, factors, seed, points), bins)


def _shares(table: Table, bins: int | None) -> Float[np.ndarray, "d k"]:
    return mutual_information(binned(table.codes, bins), table.factors) / entropy(table.factors)


def binned(codes: Float[np.ndarray, "n d"], bins: int | None) -> Int[np.ndarray, "n d"]:
    """Each column as symbols: `bins` of equal width between its least and largest value, or its distinct values."""
    if bins is None:
        symbols = [np.unique(column, return_inverse=True)[1].astype(np.int64) for column in codes.T]
        if any(2 * (column.max() + 1) > len(codes) > 2 for column in symbols):
            raise InputError("bins=None is for discrete codes: here most rows have a value of their own")
        return np.stack(symbols, axis=1)
    if bins < 2:
        raise InputError(f"bins must be 2 or more, not {bins}")
    exact = codes.astype(np.float64)
    edges = np.linspace(exact.min(axis=0), exact.max(axis=0), bins + 1)[1:-1]
    return np.stack([np.searchsorted(e, x, side="right") for e, x in zip(edges.T, exact.T, strict=True)], axis=1)


def mutual_information(left: Int[np.ndarray, "n d"], right: Int[np.ndarray, "n k"]) -> Float[np.ndarray, "d k"]:
    """I(left_j; right_k) in nats of columns of symbols 0, 1, ..., from their counts; less than 1e-12 is rounding: 0."""
    information = np.empty((left.shape[1], right.shape[1]))
    for j, k in np.ndindex(information.shape):
        shape = left[:, j].max() + 1, right[:, k].max() + 1
        counts = np.bincount(left[:, j] * shape[1] + right[:, k], minlength=np.prod(shape)).reshape(shape)
        information[j, k] = mutual_info_score(None, None, contingency=counts)
    return np.where(information > 1e-12, information, 0)


def entropy(symbols: Int[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Entropy in nats of each column."""
    return np.array([scipy.stats.entropy(np.bincount(column)) for column in symbols.T])
