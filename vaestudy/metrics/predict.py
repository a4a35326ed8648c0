"""Metrics that predict factors from codes: SAP, explicitness and the nearest neighbours' R²."""

from typing import Literal

import numpy as np
from jaxtyping import Float
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from vaestudy.errors import InputError
from vaestudy.metrics.classifiers import logistic
from vaestudy.metrics.information import mean_gap
from vaestudy.metrics.moments import correlation
from vaestudy.metrics.table import Codes, Labels, Rows, Table


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
    if method not in ("r2", "linear_svc"):
        raise InputError(f"method must be 'r2' or 'linear_svc', not {method!r}")
    learnt, unseen = Table.split(codes, factors, seed, train, test)
    return mean_gap(_squared_correlations(learnt) if method == "r2" else _svc_accuracies(learnt, unseen))


def _squared_correlations(rows: Rows) -> Float[np.ndarray, "d k"]:
    width = rows.codes.shape[1]
    return correlation(np.hstack([rows.codes, rows.factors]))[:width, width:] ** 2


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
    per value, averaged over values and then factors. Noise may fall just below 0.5. `rescale` maps 0.5 to 0, as in the
    paper.
    """
    learnt, unseen = Table.split(codes, factors, seed, train, test, live=True)
    if not np.ptp(unseen.factors, axis=0).all():
        raise InputError(f"{test} test rows leave a factor with one value: use a larger test")
    scaler = StandardScaler().fit(learnt.codes.astype(np.float64))
    x, z = (scaler.transform(rows.codes.astype(np.float64)) for rows in (learnt, unseen))
    areas = []
    for known, truth in zip(learnt.factors.T, unseen.factors.T, strict=True):
        model = logistic(x, known)
        judged = np.isin(model.classes_, truth)
        areas.append(roc_auc_score(truth[:, None] == model.classes_[judged], model.predict_proba(z)[:, judged]))
    area = float(np.mean(areas))
    return 2 * area - 1 if rescale else area


def knn_r2(
    codes: Codes, factors: Labels, *, seed: int, train: int = 10_000, test: int = 2_000, neighbours: int = 5
) -> Float[np.ndarray, " k"]:
    """R² of each factor read from the nearest neighbours in the code: 0 for guessing its mean, 1 for always right.

    What a code knows, wherever in it that stands: a rotation changes nothing. The mean value of the `neighbours`
    nearest of `train` rows is compared with the truth on `test` other rows; values count as numbers, and R² not below
    0. A smaller table is split 4 to 1. The latents keep their scale: leave out those that carry nothing (see `live`),
    or take draws of the posterior. Raises InputError for codes that are not finite, or fewer than 100 rows.
    """
    if not np.isfinite(codes).all() or len(codes) < 100:
        raise InputError(f"knn_r2 needs 100 rows or more of finite codes, not {len(codes)}")
    if train + test > len(codes):
        train, test = 4 * len(codes) // 5, len(codes) // 5
    learnt, unseen = np.split(np.random.default_rng(seed).permutation(len(codes))[: train + test], [train])
    model = KNeighborsRegressor(neighbours, n_jobs=1).fit(codes[learnt], factors[learnt])
    truth, guess = factors[unseen], model.predict(codes[unseen])
    scores = np.where(np.ptp(truth, axis=0) > 0, r2_score(truth, guess, multioutput="raw_values"), 0)
    return scores.clip(0, 1)
