"""Metrics from counts and moments: mutual information, the spread within a factor value, and covariances."""

from typing import NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Float, Int

from vaestudy.errors import InputError
from vaestudy.metrics.table import Codes, Labels, Table


def mig(codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000, bins: int | None = 20) -> float:
    """Mutual information gap in [0, 1]: how far the best latent is ahead of the second, per nat of each factor.

    Chen et al. (2018), eq. 6, estimated from counts as in disentanglement_lib: `points` rows (None for all), each
    latent cut into `bins` of equal width over its range. Few bins cap the score: codes that are the 40 orientations
    of dSprites get at most ln 20 / ln 40 for them. `bins=None` takes discrete codes as they are, without a cap.
    Constant codes score 0. Raises InputError for fewer than two latents.
    """
    table = Table(codes, factors).rows(np.random.default_rng(seed), points)
    return mig_from_information(mutual_information(binned(table.codes, bins), table.factors), entropy(table.factors))


def mig_from_information(information: Float[np.ndarray, "d k"], entropies: Float[np.ndarray, " k"]) -> float:
    """The gap from I(z_j; v_k) and H(v_k), both in nats."""
    if len(information) < 2:
        raise InputError("a gap compares the two best latents: codes need two columns or more")
    second, first = np.sort(information, axis=0)[-2:]
    return float(((first - second) / entropies).mean())


def modularity(
    codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000, bins: int | None = 20
) -> float:
    """How much each latent tells of one factor alone, in [0, 1]: Ridgeway & Mozer (2018), sec. 2.

    `points` and `bins` are those of `mig`. Pure noise scores about 0.65, since the bias of its information estimates
    grows with the number of values of a factor: read the score against its floor.
    """
    table = Table(codes, factors).rows(np.random.default_rng(seed), points)
    return modularity_from_information(mutual_information(binned(table.codes, bins), table.factors))


def modularity_from_information(information: Float[np.ndarray, "d k"]) -> float:
    """Modularity from I(z_j; v_k): the mean over all latents, where one without any information counts 0."""
    if information.shape[1] < 2:
        raise InputError("modularity compares factors: it needs two factor columns or more")
    squares = information**2
    largest = squares.max(axis=1)
    rest = (squares.sum(axis=1) - largest) / (information.shape[1] - 1)
    return float(np.where(largest > 0, 1 - rest / np.where(largest > 0, largest, 1), 0).mean())


def irs(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    points: int | None = 10_000,
    quantile: float = 0.99,
    factor_bins: int | None = None,
) -> float:
    """Interventional robustness in [0, 1]: how little a latent moves while the one factor it encodes is held.

    Suter et al. (2019), sec. 4, by disentanglement_lib's algorithm: for every latent and factor the `quantile` of
    |z - E[z|v]| is averaged over the values v and divided by the latent's largest deviation; the best factor of each
    latent counts, weighted by that deviation. disentanglement_lib also merges factor values into 20 bins
    (`factor_bins=20`), which keeps even true factors below 1. Constant codes score 0.
    """
    if not 0 < quantile <= 1:
        raise InputError(f"quantile must lie in (0, 1], not {quantile}")
    table = Table(codes, factors).rows(np.random.default_rng(seed), points)
    values = table.factors if factor_bins is None else binned(table.factors.astype(float), factor_bins)
    z = table.codes[:, np.ptp(table.codes, axis=0) > 0].astype(np.float64)
    if not z.shape[1]:
        return 0.0
    spread = np.stack([_spread(z, column, quantile) for column in values.T], axis=1)
    largest = np.abs(z - z.mean(axis=0)).max(axis=0)
    return float(np.average(1 - spread.min(axis=1) / largest, weights=largest))


def _spread(z: Float[np.ndarray, "n d"], column: Int[np.ndarray, " n"], quantile: float) -> Float[np.ndarray, " d"]:
    """Quantile of the deviation from the mean of a factor value, averaged over the values."""
    groups = np.split(z[np.argsort(column, kind="stable")], np.flatnonzero(np.diff(np.sort(column))) + 1)
    return np.mean([np.quantile(np.abs(g - g.mean(axis=0)), quantile, axis=0) for g in groups], axis=0)


def total_correlation(codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000) -> float:
    """Total correlation in nats of the Gaussian with the covariance of the codes: 0 for uncorrelated latents.

    Locatello et al. (2019), sec. 5.2. It needs no factors (they are checked and not used), and says nothing of
    alignment: PCA scores 0. Of posterior means, not of samples, unless the codes are samples.
    """
    return gaussian_total_correlation(_covariance(Table(codes, factors).rows(np.random.default_rng(seed), points)))


def _covariance(table: Table) -> Float[np.ndarray, "d d"]:
    return np.atleast_2d(np.cov(table.codes, rowvar=False, dtype=np.float64))


def gaussian_total_correlation(covariance: Float[np.ndarray, "d d"]) -> float:
    """1/2 (Σ ln Σ_jj - ln det Σ) over the latents with any variance, inf where one is a sum of others."""
    scale = np.sqrt(np.diag(covariance))
    live = scale > 0
    correlation = covariance[np.ix_(live, live)] / np.outer(scale[live], scale[live])
    sign, logdet = np.linalg.slogdet(correlation)
    return float(max(0.0, -logdet / 2)) if sign > 0 else float("inf")


class Wasserstein(NamedTuple):
    """Squared 2-Wasserstein distance to independent latents of the same variances, also per total variance."""

    distance: float
    share: float


def wasserstein_dependence(codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000) -> Wasserstein:
    """The dependence of the latents as a distance between Gaussians; finite where total correlation is not."""
    return wasserstein_from_covariance(_covariance(Table(codes, factors).rows(np.random.default_rng(seed), points)))


def wasserstein_from_covariance(covariance: Float[np.ndarray, "d d"]) -> Wasserstein:
    """2 tr Σ - 2 tr (D^½ Σ D^½)^½ with D = diag Σ, by eigenvalues, which stay real; 0 for constant codes."""
    scale, trace = np.sqrt(np.diag(covariance)), float(np.trace(covariance))
    roots = np.sqrt(np.linalg.eigvalsh(covariance * np.outer(scale, scale)).clip(min=0))
    distance = max(0.0, 2 * trace - 2 * float(roots.sum()))
    return Wasserstein(distance, distance / trace if trace > 0 else 0.0)


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
    """I(left_j; right_k) in nats of columns of symbols 0, 1, ..., from their counts."""
    information = np.empty((left.shape[1], right.shape[1]))
    for k, v in enumerate(right.T):
        size = int(v.max()) + 1
        for j, z in enumerate(left.T):
            counts = np.bincount(z * size + v, minlength=(z.max() + 1) * size)
            information[j, k] = _information(rearrange(counts, "(a b) -> a b", b=size) / len(v))
    return information


def _information(joint: Float[np.ndarray, "a b"]) -> float:
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return max(0.0, float((joint[seen] * np.log(joint[seen] / independent[seen])).sum()))


def entropy(symbols: Int[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Entropy in nats of each column."""
    shares = [np.bincount(column) / len(symbols) for column in symbols.T]
    return np.array([-(p[p > 0] * np.log(p[p > 0])).sum() for p in shares])
