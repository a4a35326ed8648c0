"""Metrics from counts and moments: information (MIG, MIG-sup, modularity, InfoMEC), robustness (IRS), dependence."""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, mutual_info_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from vaestudy.errors import InputError
from vaestudy.metrics.table import SMALLEST, Codes, Labels, Table, check_columns

ACTIVE_VARIANCE = 0.01  # of a latent that MIG-sup looks at
QUANTILE = 0.99  # of the deviations of a latent that IRS calls its spread


def mig(codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000, bins: int | None = 20) -> float:
    """Mutual information gap in [0, 1]: how far the best latent is ahead of the second, per nat of each factor.

    Chen et al. (2018), eq. 6, from counts as in disentanglement_lib: `points` rows (None: all), each latent cut into
    `bins` of equal width. That caps the score: codes that are the 40 orientations of dSprites get at most ln 20 / ln 40
    for them. `bins=None` takes discrete codes as they are. Constant codes score 0; a single latent is ahead of one that
    says nothing.
    """
    shares = information_shares(codes, factors, seed=seed, points=points, bins=bins)
    return mean_gap(np.pad(shares, ((0, 1), (0, 0))))


def mig_sup(codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000, bins: int | None = 20) -> float:
    """MIG seen from the latents, in [0, 1]: how far the best factor of each latent is ahead of its second.

    Li et al. (2020), sec. 4: the gap between the two largest I(latent; factor) / H(factor), averaged over the latents
    whose variance exceeds .01; 0 without any. MIG asks whether a factor stands in one latent, MIG-sup whether a latent
    holds one factor. `points` and `bins` as for `mig`. Raises InputError for fewer than two factors.
    """
    table = Table.drawn(codes, factors, seed, points)
    shares = information_shares(table.codes, table.factors, seed=seed, points=None, bins=bins)
    return mean_gap(shares[table.codes.var(axis=0, ddof=1, dtype=np.float64) > ACTIVE_VARIANCE].T)


def mean_gap(scores: Float[np.ndarray, "d k"]) -> float:
    """The largest minus the second largest value of each column, averaged over columns; 0 without columns."""
    if len(scores) < 2:
        raise InputError("a gap compares the two best: the metric needs two latents and, seen from them, two factors")
    second, first = np.sort(scores, axis=0)[-2:]
    return float((first - second).mean()) if scores.shape[1] else 0.0


def information_shares(
    codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000, bins: int | None = 20
) -> Float[np.ndarray, "d k"]:
    """Mutual information of each latent with each factor, over the factor's entropy; settings as for `mig`."""
    table = Table.drawn(codes, factors, seed, points)
    return mutual_information(binned(table.codes, bins), table.factors) / entropy(table.factors)


def modularity(
    codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000, bins: int | None = 20
) -> float:
    """How much each latent tells of one factor alone, in [0, 1]: Ridgeway & Mozer (2018), sec. 2.

    A constant latent counts 0. `points` and `bins` as for `mig`. Noise scores about 0.65, since the bias of information
    grows with the number of values of a factor: read the score against its floor.
    """
    table = Table.drawn(codes, factors, seed, points)
    return modularity_from_information(mutual_information(binned(table.codes, bins), table.factors))


def modularity_from_information(information: Float[np.ndarray, "d k"]) -> float:
    """Modularity from I(z_j; v_k): the mean over all latents, where one without any information counts 0."""
    check_columns("factors", range(information.shape[1]), information.shape[1], least=2)
    squares, largest = information**2, information.max(axis=1) ** 2
    rest = (squares.sum(axis=1) - largest) / (information.shape[1] - 1)
    return float((1 - np.divide(rest, largest, out=np.ones_like(rest), where=largest > 0)).mean())


def binned(codes: Float[np.ndarray, "n d"], bins: int | None) -> Int[np.ndarray, "n d"]:
    """Each column as symbols: `bins` of equal width between its least and largest value, or its distinct values."""
    if bins is None:
        symbols = np.stack([pd.factorize(column, sort=True)[0] for column in codes.T], axis=1)
        if 2 * (symbols.max() + 1) > len(codes) > 2:
            raise InputError("bins=None is for discrete codes: here most rows have a value of their own")
        return symbols
    if bins < 2:
        raise InputError(f"bins must be 2 or more, not {bins}")
    exact = codes.astype(np.float64)
    edges = np.linspace(exact.min(axis=0), exact.max(axis=0), bins + 1)[1:-1]
    return np.stack([np.searchsorted(e, x, side="right") for e, x in zip(edges.T, exact.T, strict=True)], axis=1)


def mutual_information(left: Int[np.ndarray, "n d"], right: Int[np.ndarray, "n k"]) -> Float[np.ndarray, "d k"]:
    """I(left_j; right_k) in nats of columns of symbols 0, 1, ..., from counts; less than 1e-12 is rounding: 0."""
    information = np.empty((left.shape[1], right.shape[1]))
    for j, k in np.ndindex(information.shape):
        shape = left[:, j].max() + 1, right[:, k].max() + 1
        counts = np.bincount(left[:, j] * shape[1] + right[:, k], minlength=np.prod(shape)).reshape(shape)
        information[j, k] = mutual_info_score(None, None, contingency=counts)
    return np.where(information > 1e-12, information, 0)


def entropy(symbols: Int[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Entropy in nats of each column."""
    return np.array([scipy.stats.entropy(np.bincount(column)) for column in symbols.T])


class InfoMEC(NamedTuple):
    """Modularity (one factor a latent), compactness (one latent a factor) and explicitness, each in [0, 1]."""

    infom: float
    infoc: float
    infoe: float


def infomec(codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000) -> InfoMEC:
    """InfoM, InfoC and InfoE of Hsu et al. (2023), sec. 4, for continuous codes.

    InfoM and InfoC compare I(factor; latent) / H(factor), estimated from the nearest ten neighbours (Ross, 2014), over
    the latents whose range exceeds a twentieth of the largest. One far outlier lets a latent that is switched off in:
    leave such latents out beforehand (see `live`). InfoE is the share of each factor's entropy that a softmax
    regression without penalty explains on the rows that it is fitted to, after 100 steps of lbfgs, converged or not, as
    published. Noise has InfoM and InfoC of .6 to .8, and InfoE 0. By convention a latent (factor) without any
    information counts 0, and InfoC of fewer than two such latents is 0. Raises InputError for fewer than two factors.
    """
    check_columns("factors", range(factors.shape[1]), factors.shape[1], least=2)
    table = Table.drawn(codes, factors, seed, points)
    z = table.codes.astype(np.float64)
    ranges = np.ptp(z, axis=0)
    if not ranges.any():
        return InfoMEC(0.0, 0.0, 0.0)
    active = z[:, ranges > ranges.max() / 20]
    information = [mutual_info_classif(active, v, n_neighbors=10, random_state=seed) for v in table.factors.T]
    shares = np.transpose(information) / entropy(table.factors)
    return InfoMEC(concentration(shares), concentration(shares.T), _linear_information(table))


def concentration(shares: Float[np.ndarray, "a b"]) -> float:
    """How far each row >= 0 stands in one place, on average: 0 uniform, empty or of one column, 1 a single entry."""
    sums, uniform = shares.sum(axis=1), 1 / shares.shape[1]
    if uniform == 1:
        return 0.0
    largest = np.divide(shares.max(axis=1), sums, out=np.full_like(sums, uniform), where=sums > 0)
    return float((largest.mean() - uniform) / (1 - uniform))


def _linear_information(table: Table) -> float:
    """The mean share of each factor's entropy, its values weighted alike, that a softmax regression explains."""
    z, explained = StandardScaler().fit_transform(table.live_codes), []
    for size, v in zip(table.sizes, table.factors.T, strict=True):
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning), threadpool_limits(1):
            model = LogisticRegression(C=np.inf, class_weight="balanced").fit(z, v)
        left = log_loss(v, model.predict_proba(z), sample_weight=compute_sample_weight("balanced", v))
        explained.append(max(0.0, 1 - left / np.log(size)))
    return float(np.mean(explained))


def irs(codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000) -> float:
    """Interventional robustness in [0, 1]: how little a latent moves while the one factor it encodes is held.

    Suter et al. (2019), sec. 4, by disentanglement_lib's algorithm: for every latent and factor the .99 quantile of
    |z - E[z|v]|, averaged over the values v and divided by the latent's largest deviation; the best factor of each
    latent counts, weighted by that deviation. Constant codes score 0. Values of factors are not merged into 20 bins as
    there, which keeps even true factors below 1. One row decides the largest deviation: noise varies by .04.
    """
    table = Table.drawn(codes, factors, seed, points)
    if not table.varying.any():
        return 0.0
    z, spreads = table.live_codes.astype(np.float64), []
    for column in table.factors.T:
        groups = np.split(z[np.argsort(column, kind="stable")], np.bincount(column).cumsum()[:-1])
        quantiles = [np.quantile(np.abs(group - group.mean(axis=0)), QUANTILE, axis=0) for group in groups]
        spreads.append(np.mean(quantiles, axis=0))
    largest = np.abs(z - z.mean(axis=0)).max(axis=0)
    return float(np.average(1 - np.min(spreads, axis=0) / largest, weights=largest))


def total_correlation(codes: Codes, factors: Labels, *, seed: int, points: int | None = 10_000) -> float:
    """Total correlation in nats of the Gaussian with the covariance of the codes: 0 for uncorrelated latents.

    Locatello et al. (2019), sec. 5.2. It needs no factors (they are checked and not used), and says nothing of
    alignment: PCA scores 0. inf where one latent is a copy or a sum of others, so that some combination of the
    standardised latents moves by less than a millionth (see `varies`).
    """
    table = Table.drawn(codes, factors, seed, points)
    if not table.varying.any():
        return 0.0
    covariance = np.atleast_2d(np.cov(table.live_codes, rowvar=False, dtype=np.float64))
    scale = np.sqrt(np.diag(covariance))
    variances = np.linalg.eigvalsh(covariance / np.outer(scale, scale))
    return max(0.0, float(-np.log(variances).sum() / 2)) if variances.min() > SMALLEST**2 else np.inf
