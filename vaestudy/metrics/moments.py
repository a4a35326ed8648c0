"""Metrics from means and covariances: the spread of a latent within a factor's values, the dependence of latents."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vaestudy.errors import InputError
from vaestudy.metrics.information import binned
from vaestudy.metrics.table import SMALLEST, Codes, Labels, Table, varies


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
    (`factor_bins=20`), which keeps even true factors below 1. Constant codes score 0. The largest deviation is that of
    one row, so that scores of noise vary by .04 between seeds.
    """
    if not 0 < quantile <= 1:
        raise InputError(f"quantile must lie in (0, 1], not {quantile}")
    table = Table.drawn(codes, factors, seed, points)
    if not table.varying.any():
        return 0.0
    values = table.factors if factor_bins is None else binned(table.factors.astype(float), factor_bins)
    z = table.live_codes.astype(np.float64)
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
    alignment: PCA scores 0. Of posterior means, not of samples, unless the codes are samples. inf where one latent is a
    copy or a sum of others.
    """
    return gaussian_total_correlation(_covariance(codes, factors, seed, points))


def _covariance(codes: Codes, factors: Labels, seed: int, points: int | None) -> Float[np.ndarray, "d d"]:
    return np.atleast_2d(np.cov(Table.drawn(codes, factors, seed, points).codes, rowvar=False, dtype=np.float64))


def gaussian_total_correlation(covariance: Float[np.ndarray, "d d"]) -> float:
    """1/2 (Σ ln Σ_jj - ln det Σ) over the latents with any variance.

    It is inf where some combination of the standardised latents has a standard deviation below a millionth, the
    smallest that counts as varying (see `varies`).
    """
    scale = np.sqrt(np.diag(covariance))
    live = scale > 0
    variances = np.linalg.eigvalsh(covariance[np.ix_(live, live)] / np.outer(scale[live], scale[live]))
    return max(0.0, float(-np.log(variances).sum() / 2)) if (variances > SMALLEST**2).all() else float("inf")


class Wasserstein(NamedTuple):
    """Squared 2-Wasserstein distance to independent latents of the same variances, also per total variance."""

    distance: float
    share: float


def wasserstein_dependence(codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000) -> Wasserstein:
    """The dependence of the latents as a distance between Gaussians; finite where total correlation is not."""
    return wasserstein_from_covariance(_covariance(codes, factors, seed, points))


def wasserstein_from_covariance(covariance: Float[np.ndarray, "d d"]) -> Wasserstein:
    """2 tr Σ - 2 tr (D^½ Σ D^½)^½ with D = diag Σ, by eigenvalues, which stay real; 0 for constant codes."""
    scale, trace = np.sqrt(np.diag(covariance)), float(np.trace(covariance))
    roots = np.sqrt(np.linalg.eigvalsh(covariance * np.outer(scale, scale)).clip(min=0))
    distance = max(0.0, 2 * trace - 2 * float(roots.sum()))
    return Wasserstein(distance, distance / trace if trace > 0 else 0.0)


def correlation(codes: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"]:
    """Pearson correlations between latents; a constant latent correlates with none but itself."""
    matrix, live = np.eye(codes.shape[1]), np.flatnonzero(varies(codes))
    if live.size > 1:
        matrix[np.ix_(live, live)] = np.corrcoef(codes[:, live], rowvar=False, dtype=np.float64)
    return matrix
