"""InfoMEC: modularity, compactness and explicitness of a code in units of information."""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from vaestudy.errors import InputError
from vaestudy.metrics.information import binned, entropy, mutual_information
from vaestudy.metrics.table import Codes, Labels, Table


class InfoMEC(NamedTuple):
    """Modularity (one factor a latent), compactness (one latent a factor) and explicitness, each in [0, 1]."""

    infom: float
    infoc: float
    infoe: float


def infomec(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    points: int | None = 10_000,
    discrete: bool = False,
    neighbours: int = 10,
    steps: int = 100,
) -> InfoMEC:
    """InfoM, InfoC and InfoE of Hsu et al. (2023), sec. 4.

    InfoM and InfoC compare I(factor; latent) / H(factor), estimated from the nearest `neighbours` (Ross, 2014), or
    from counts where the codes are `discrete`, over the active latents: those whose range exceeds a twentieth of the
    largest range (`discrete`: those that vary). One far outlier makes a latent that is switched off active: leave such
    latents out beforehand (see `live`). InfoE is the share of each factor's entropy that a softmax regression without
    penalty explains on the rows that it is fitted to, after `steps` steps of lbfgs, converged or not, as published.
    Noise has InfoM and InfoC of .6 to .8, and InfoE 0: read them beside their floor. Conventions for what is undefined:
    a latent (factor) without any estimated information counts 0; with fewer than two active latents InfoC is 0.
    Raises InputError for fewer than two factors.
    """
    if factors.shape[1] < 2:
        raise InputError("infomec compares factors: it needs two factor columns or more")
    table = Table.drawn(codes, factors, seed, points)
    ranges = np.where(table.varying, np.ptp(table.codes.astype(np.float64), axis=0), 0)
    active = table.codes[:, ranges > (0 if discrete else ranges.max() / 20)].astype(np.float64)
    if not active.shape[1]:
        return InfoMEC(0.0, 0.0, 0.0)
    if discrete:
        information = mutual_information(binned(active, None), table.factors)
    else:
        how = {"discrete_features": False, "n_neighbors": neighbours, "random_state": seed}
        information = np.stack([mutual_info_classif(active, v, **how) for v in table.factors.T], axis=1)
    shares = information / entropy(table.factors)
    with threadpool_limits(1):
        return InfoMEC(concentration(shares), concentration(shares.T), _linear_information(table, steps))


def concentration(shares: Float[np.ndarray, "a b"]) -> float:
    """How far each row >= 0 stands in one place: largest over sum, 0 for a uniform row and 1 for a single entry.

    Averaged over rows; an empty row counts 0, and so does everything if there is one column.
    """
    width, sums = shares.shape[1], shares.sum(axis=1)
    if width < 2:
        return 0.0
    largest = np.where(sums > 0, shares.max(axis=1) / np.where(sums > 0, sums, 1), 1 / width)
    return float((largest.mean() - 1 / width) / (1 - 1 / width))


def _linear_information(table: Table, steps: int) -> float:
    """The mean share of each factor's entropy, its values weighted alike, that a softmax regression explains."""
    z, explained = StandardScaler().fit_transform(table.live_codes), []
    for size, v in zip(table.sizes, table.factors.T, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=steps).fit(z, v)
        left = log_loss(v, model.predict_proba(z), sample_weight=compute_sample_weight("balanced", v))
        explained.append(max(0.0, 1 - left / np.log(size)))
    return float(np.mean(explained))
