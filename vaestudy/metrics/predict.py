"""Metrics that predict factors from codes: DCI, SAP and explicitness."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LassoCV
from sklearn.svm import LinearSVC

from vaestudy.errors import InputError
from vaestudy.metrics.classifiers import logistic
from vaestudy.metrics.information import mig_from_information
from vaestudy.metrics.table import Codes, Labels, Rows, Table

Importance = Literal["forest", "boosted_trees", "lasso"]


class DCI(NamedTuple):
    """Disentanglement (one factor per latent), completeness (one latent per factor), informativeness (accuracy)."""

    disentanglement: float
    completeness: float
    informativeness: float


def dci(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    method: Importance = "forest",
    train: int = 10_000,
    test: int = 5_000,
) -> DCI:
    """Disentanglement, completeness and informativeness, each in [0, 1], from what predicts each factor.

    Eastwood & Williams (2018), sec. 2. `method` decides the importances, and scores of different methods do not
    compare: "boosted_trees" is disentanglement_lib's protocol (gradient boosting of each factor as a class; minutes
    on dSprites), "forest" the same with 10 random trees of depth 8 (seconds), "lasso" the paper's linear regression,
    which takes factors as ordered and may keep a stray weight where it predicts nothing. Informativeness is the mean
    test accuracy, for "lasso" the mean test R² (not below 0).
    """
    if method not in (known := get_args(Importance)):
        raise InputError(f"method must be one of {', '.join(known)}, not {method!r}")
    learnt, unseen = Table(codes, factors).split(np.random.default_rng(seed), train, test)
    fits = [_importance(learnt, unseen, k, method, seed) for k in range(factors.shape[1])]
    disentanglement, completeness = dci_from_importance(np.stack([weights for weights, _ in fits], axis=1))
    return DCI(disentanglement, completeness, float(np.mean([quality for _, quality in fits])))


def _importance(
    learnt: Rows, unseen: Rows, factor: int, method: Importance, seed: int
) -> tuple[Float[np.ndarray, " d"], float]:
    """Importance of each latent for one factor, and how well the factor is predicted."""
    scale = np.ones(learnt.codes.shape[1])
    if method == "boosted_trees":
        model = GradientBoostingClassifier(random_state=seed)
    elif method == "forest":
        model = RandomForestClassifier(10, max_depth=8, max_features=None, random_state=seed)
    else:
        model, scale = LassoCV(cv=5), np.maximum(learnt.codes.std(axis=0, dtype=np.float64), 1e-12)
    model.fit(learnt.codes / scale, learnt.factors[:, factor])
    weights = np.abs(model.coef_) if method == "lasso" else model.feature_importances_
    return weights, max(0.0, float(model.score(unseen.codes / scale, unseen.factors[:, factor])))


def dci_from_importance(importance: Float[np.ndarray, "d k"]) -> tuple[float, float]:
    """Disentanglement and completeness of a matrix of importances >= 0; 0 and 0 where all are 0.

    Each is one minus the normalised entropy of a row (column), weighted by the mass of the row (column).
    """
    if min(importance.shape) < 2:
        raise InputError("dci needs two latents and two factors or more")
    mass = importance.sum()
    if mass == 0:
        return 0.0, 0.0
    return tuple(float((_purity(m) * m.sum(axis=1)).sum() / mass) for m in (importance, importance.T))


def _purity(weights: Float[np.ndarray, "a b"]) -> Float[np.ndarray, " a"]:
    """One minus the entropy of each row in units of a uniform row's; 0 for an empty row."""
    total = weights.sum(axis=1, keepdims=True)
    shares = weights / np.where(total > 0, total, 1)
    information = np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0).sum(axis=1)
    return np.where(total[:, 0] > 0, 1 + information / np.log(weights.shape[1]), 0)


def sap(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    method: Literal["r2", "linear_svc"] = "r2",
    train: int = 10_000,
    test: int = 5_000,
) -> float:
    """Separated attribute predictability in [0, 1]: the gap between the two latents that predict a factor best.

    Kumar et al. (2018), sec. 3. "r2" takes factors as ordered and predicts by a line (test rows unused); "linear_svc"
    takes them as classes, disentanglement_lib's default for dSprites, and caps even true factors at about 0.25, since
    a linear classifier of one number cannot carve 40 classes. The two do not compare. Constant codes score 0.
    """
    learnt, unseen = Table(codes, factors).split(np.random.default_rng(seed), train, test)
    if method == "r2":
        scores = _squared_correlations(learnt)
    elif method == "linear_svc":
        scores = _svc_accuracies(learnt, unseen)
    else:
        raise InputError(f"method must be 'r2' or 'linear_svc', not {method!r}")
    return sap_from_scores(scores)


def sap_from_scores(scores: Float[np.ndarray, "d k"]) -> float:
    """The mean gap between the best and the second score of each factor."""
    return mig_from_information(scores, np.ones(scores.shape[1]))


def _squared_correlations(rows: Rows) -> Float[np.ndarray, "d k"]:
    z, v = (x - x.mean(axis=0) for x in (rows.codes.astype(np.float64), rows.factors.astype(np.float64)))
    alive = (z**2).mean(axis=0) > 1e-12
    covariance, variances = z.T @ v, np.outer((z**2).sum(axis=0), (v**2).sum(axis=0))
    return np.where(alive[:, None], covariance**2 / np.where(alive[:, None], variances, 1), 0)


def _svc_accuracies(learnt: Rows, unseen: Rows) -> Float[np.ndarray, "d k"]:
    scores = np.empty((learnt.codes.shape[1], learnt.factors.shape[1]))
    for j, k in np.ndindex(scores.shape):
        model = LinearSVC(C=0.01, class_weight="balanced", dual=False)
        model.fit(learnt.codes[:, j : j + 1], learnt.factors[:, k])
        scores[j, k] = model.score(unseen.codes[:, j : j + 1], unseen.factors[:, k])
    return scores


def explicitness(
    codes: Codes, factors: Labels, *, seed: int, train: int = 10_000, test: int = 5_000, rescale: bool = False
) -> float:
    """How well all latents together tell each value of a factor linearly: area under the ROC curve, 0.5 to 1.

    Ridgeway & Mozer (2018), sec. 2, as in disentanglement_lib: a softmax regression on standardised codes, one curve
    per value, averaged over values and then factors. `rescale` maps chance to 0, as in the paper.
    """
    learnt, unseen = Table(codes, factors).split(np.random.default_rng(seed), train, test)
    if not np.ptp(unseen.factors, axis=0).all():
        raise InputError(f"{test} test rows leave a factor with one value: use a larger test")
    mean, scale = learnt.codes.mean(axis=0), learnt.codes.std(axis=0)
    scale = np.where(scale > 0, scale, 1)
    areas = []
    for k in range(factors.shape[1]):
        model = logistic((learnt.codes - mean) / scale, learnt.factors[:, k])
        odds = model.predict_proba((unseen.codes - mean) / scale)
        truth = unseen.factors[:, k]
        judged = [(truth == value, p) for value, p in zip(model.classes_, odds.T, strict=True) if value in truth]
        areas.append(np.mean([roc_area(p[hits], p[~hits]) for hits, p in judged]))
    area = float(np.mean(areas))
    return 2 * area - 1 if rescale else area


def roc_area(positives: Float[np.ndarray, " p"], negatives: Float[np.ndarray, " q"]) -> float:
    """Area under the ROC curve: how often a positive outscores a negative, a tie counting half."""
    ordered = np.sort(negatives)
    beaten = np.searchsorted(ordered, positives, "left") + np.searchsorted(ordered, positives, "right")
    return float(beaten.mean() / 2 / len(ordered))
